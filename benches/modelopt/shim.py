"""NVFP4 and MX simulation for ModelOpt 0.47 without a GPU: torch code in place of the kernels that only CUDA has.

Import it before `mtq.quantize`. Every function has the name, the arguments and the result of the one it stands in for
(`modelopt.torch.kernels.quantization.gemm`, `tensor_quant.dynamic_block_quantize_op`).
"""

import modelopt.torch.kernels.quantization.gemm as kernels
import modelopt.torch.quantization.tensor_quant as tensor_quant
import torch
from modelopt.torch.kernels.quantization.gemm._fp8_scale_candidates import fp8_scale_candidates
from modelopt.torch.quantization.utils import reduce_amax

E4M3_MAX, E2M1_MAX = 448.0, 6.0
LARGEST = {"E4M3": 448.0, "E5M2": 57344.0, "INT8": 127.0, "E2M1": 6.0, "E3M2": 28.0, "E2M3": 7.5}
# Bits of the fraction and smallest exponent of the types that torch lacks.
MINIFLOATS = {"E3M2": (2, -2), "E2M3": (3, 0)}


def round_e2m1(magnitudes):
    """Magnitudes to the grid 0, .5, 1, 1.5, 2, 3, 4, 6; ties to even."""
    step = torch.where(magnitudes < 2.0, 0.5, torch.where(magnitudes < 4.0, 1.0, 2.0))
    return (torch.round(magnitudes / step) * step).clamp_(max=E2M1_MAX)


def with_sign_of(values, magnitudes):
    return torch.where(values >= 0, magnitudes, -magnitudes)


def in_blocks(x, size):
    """The rows of `x` in f32 as [rows, blocks, size], padded with zeros, and the length of a row."""
    length = x.shape[-1]
    rows = x.reshape(-1, length).float()
    if length % size:
        rows = torch.nn.functional.pad(rows, (0, -length % size))
    return rows.reshape(rows.shape[0], -1, size), length


def out_of_blocks(blocks, length, like):
    return blocks.reshape(blocks.shape[0], -1)[:, :length].to(like.dtype).reshape(like.shape)


def fp4_fake_quant_block(x, global_amax, block_size=16, **_):
    tensor_scale = global_amax.float() / (E2M1_MAX * E4M3_MAX)
    tensor_scale = torch.where(tensor_scale > 0, tensor_scale, torch.full_like(tensor_scale, 1e-12))
    blocks, length = in_blocks(x, block_size)
    magnitudes = blocks.abs()
    scale = magnitudes.amax(-1, keepdim=True) / (E2M1_MAX * tensor_scale)
    scale = scale.clamp(max=E4M3_MAX).to(torch.float8_e4m3fn).float() * tensor_scale
    scale = torch.where(scale >= 1e-5, scale, torch.ones_like(scale))
    return out_of_blocks(with_sign_of(blocks, round_e2m1(magnitudes / scale) * scale), length, x)


def compute_fp4_scales(amax, global_amax=None, quantize_block_scales=True, fp8_max_for_normalization=E4M3_MAX):
    amax = amax.float()
    if not quantize_block_scales:
        return amax / E2M1_MAX
    if global_amax is None:
        global_amax = reduce_amax(amax, axis=None, keepdims=False, squeeze_scalar=True)
    reach = global_amax.float() * (E4M3_MAX / fp8_max_for_normalization) / E2M1_MAX
    return tensor_quant.scaled_e4m3_impl(amax / E2M1_MAX, reach)


def static_blockwise_fp4_fake_quant(x, amax, global_amax=None, quantize_block_scales=True,
                                    fp8_max_for_normalization=E4M3_MAX, out_dtype=None):
    scale = compute_fp4_scales(amax, global_amax, quantize_block_scales, fp8_max_for_normalization).reshape(-1, 1)
    blocks = x.reshape(amax.numel(), -1).float()
    empty = scale == 0.0
    divisor = torch.where(empty | ~torch.isfinite(scale), torch.ones_like(scale), scale)
    rounded = with_sign_of(blocks, round_e2m1(blocks.abs() / divisor) * divisor)
    rounded = torch.where(empty, torch.zeros_like(rounded), rounded)
    return rounded.to(out_dtype or x.dtype).reshape(x.shape)


def static_blockwise_fp4_cast(x, out_dtype=None):
    values = x.float()
    return with_sign_of(values, round_e2m1(values.abs())).to(out_dtype or x.dtype)


def round_minifloat(magnitudes, name):
    bits, smallest = MINIFLOATS[name]
    exponent = (torch.frexp(magnitudes)[1] - 1).float().clamp(min=smallest)
    step = torch.exp2(exponent - bits)
    return (torch.round(magnitudes / step) * step).clamp(max=LARGEST[name])


def round_element(magnitudes, name):
    if name == "E4M3":
        return magnitudes.clamp(max=LARGEST[name]).to(torch.float8_e4m3fn).float()
    if name == "E5M2":
        return magnitudes.clamp(max=LARGEST[name]).to(torch.float8_e5m2).float()
    if name == "INT8":
        return torch.round(magnitudes).clamp(max=LARGEST[name])
    return round_e2m1(magnitudes) if name == "E2M1" else round_minifloat(magnitudes, name)


def mx_fake_quant(x, block_size, name):
    """OCP MX: the block's scale is the power of two at or above amax / largest element."""
    blocks, length = in_blocks(x, block_size)
    magnitudes = blocks.abs()
    amax = magnitudes.amax(-1, keepdim=True)
    mantissa, exponent = torch.frexp(amax / LARGEST[name])
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(-127, 127)
    exponent = torch.where((amax == 0) | ~torch.isfinite(amax), torch.zeros_like(exponent), exponent).double()
    rounded = round_element(magnitudes * torch.exp2(-exponent).float(), name) * torch.exp2(exponent).float()
    return out_of_blocks(torch.where(blocks < 0, -rounded, rounded), length, x)


def dynamic_block_quantize(inputs, block_size, amax, num_bits, exponent_bits, scale_num_bits, scale_exponent_bits):
    scale = (scale_exponent_bits, scale_num_bits - scale_exponent_bits - 1)
    element = (exponent_bits, num_bits - exponent_bits - 1) if exponent_bits else num_bits
    if scale == (8, 0):
        return mx_fake_quant(inputs, block_size, tensor_quant.mx_format_map[element])
    if element == (2, 1) and scale == (4, 3):
        # ModelOpt's kernel takes blocks of 16 whatever the size asked for.
        return fp4_fake_quant_block(inputs, amax.amax(), 16)
    raise NotImplementedError((element, scale))


for replacement in (fp4_fake_quant_block, compute_fp4_scales, static_blockwise_fp4_fake_quant,
                    static_blockwise_fp4_cast, fp8_scale_candidates):
    setattr(kernels, replacement.__name__, replacement)
kernels.IS_AVAILABLE = True
tensor_quant.dynamic_block_quantize_op = dynamic_block_quantize
