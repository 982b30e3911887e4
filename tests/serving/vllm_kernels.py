"""Stand-ins for vLLM kernels that do not exist on a CPU.

Only kernel *selection* is touched, never loading: vLLM's own emulation kernels are registered for the CPU where it has
some, else a reference in torch is given, else a stub that lets a checkpoint load and refuses to run it.
"""

import importlib
import sys

import torch

STUBS = []  # what was stubbed: loading is real, running is refused
EMULATED = []  # what runs by an emulation or a reference

MOE_SELECTORS = (
    ("nvfp4", "select_nvfp4_moe_backend"),
    ("fp8", "select_fp8_moe_backend"),
    ("mxfp8", "select_mxfp8_moe_backend"),
    ("mxfp4", "select_mxfp4_moe_backend"),
    ("int_wna16", "select_wna16_moe_backend"),
    ("int8", "select_int8_moe_backend"),
)
LINEAR_INITIALISERS = (
    "init_fp8_linear_kernel",
    "init_mxfp8_linear_kernel",
    "init_mxfp4_linear_kernel",
    "init_nvfp4_linear_kernel",
    "init_wfp8_a16_linear_kernel",
    "init_int8_linear_kernel",
)


def note(ledger, what):
    """Adds `what` to a ledger once."""
    if what not in ledger:
        ledger.append(what)


def install():
    """Patches vLLM in this process. Call before any model is built."""
    import vllm.model_executor.kernels.linear as kernels

    register_emulation(kernels)
    replace_fp8_quantizer()
    install_weight_only_nvfp4(kernels)
    for name in LINEAR_INITIALISERS:
        guard_initialiser(kernels, name)
    guard_mixed_precision(kernels)
    for module, selector in MOE_SELECTORS:
        guard_moe_selector(module, selector)
    import_quantization_methods()
    keep_activation_quantization_in_the_linear()


def register_emulation(kernels):
    """Offers vLLM's emulation kernels, written for old GPUs, to the CPU."""
    from vllm.platforms.interface import PlatformEnum

    for table_name, kernel_name in (
        ("_POSSIBLE_NVFP4_KERNELS", "EmulationNvFp4LinearKernel"),
        ("_POSSIBLE_MXFP8_KERNELS", "EmulationMxfp8LinearKernel"),
        ("_POSSIBLE_MXFP4_KERNELS", "EmulationMxfp4LinearKernel"),
    ):
        table, kernel = getattr(kernels, table_name, None), getattr(kernels, kernel_name, None)
        if table is None or kernel is None or kernel in table.setdefault(PlatformEnum.CPU, []):
            continue
        table[PlatformEnum.CPU].append(kernel)
        original = kernel.is_supported.__func__

        def is_supported(cls, capability=None, original=original, kernel_name=kernel_name):
            note(EMULATED, kernel_name)
            try:
                answer = original(cls, capability)
            except TypeError:
                answer = original(cls)
            return answer if answer[0] else (True, None)

        kernel.is_supported = classmethod(is_supported)


def replace_fp8_quantizer():
    """The static per-tensor FP8 op is not built for the CPU; vLLM needs it to requantize fused shards."""
    import vllm._custom_ops as ops

    original = ops.scaled_fp8_quant

    def scaled_fp8_quant(input, scale=None, num_token_padding=None, scale_ub=None,
                         use_per_token_if_dynamic=False, output=None, group_shape=None, **rest):
        if input.device.type != "cpu":
            return original(input, scale, num_token_padding, scale_ub, use_per_token_if_dynamic, output,
                            group_shape, **rest)
        values = input.float()
        if scale is None:
            magnitude = values.abs()
            amax = magnitude.amax(-1, keepdim=True) if use_per_token_if_dynamic else magnitude.amax().reshape(1)
            scale = (amax / 448.0).clamp_min(1e-12)
        codes = (values / scale.float()).clamp(-448.0, 448.0).to(torch.float8_e4m3fn)
        if output is None:
            return codes, scale
        output.copy_(codes)
        return output, scale

    ops.scaled_fp8_quant = scaled_fp8_quant


def install_weight_only_nvfp4(kernels):
    """NVFP4 W4A16 has no emulation in vLLM: dequantize with vLLM's own function, then multiply."""
    import vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils as emulation

    class ReferenceWeightOnlyNvFp4(kernels.NvFp4LinearKernel):
        def __init__(self, config=None):
            self.config = config

        @classmethod
        def is_supported(cls, compute_capability=None):
            return True, None

        @classmethod
        def can_implement(cls, config):
            return True, None

        def process_weights_after_loading(self, layer):
            handle = emulation.kE2M1ToFloat_handle
            handle.val = handle.val.to(layer.weight.device)

        def apply_weights(self, layer, x, bias=None):
            weight = emulation.dequantize_to_dtype(
                layer.weight.data.view(torch.uint8), layer.weight_scale.data, layer.weight_global_scale,
                x.dtype, 16, swizzle=False)
            product = torch.matmul(x, weight.t())
            return product if bias is None else product + bias

    original = kernels.init_nvfp4_linear_kernel

    def init_nvfp4_linear_kernel(use_a16=False):
        if not use_a16:
            return original(use_a16=False)
        note(EMULATED, "ReferenceWeightOnlyNvFp4")
        return ReferenceWeightOnlyNvFp4()

    kernels.init_nvfp4_linear_kernel = init_nvfp4_linear_kernel


class Stub:
    """A kernel that can be chosen and loaded into, but not run."""

    def __init__(self, what):
        self.what = what
        note(STUBS, what)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("process_weights_after_loading", "input_quant_key"):
            return lambda *args, **kwargs: None
        if name == "layer_param_names":
            return ("weight", "weight_scale", "input_scale", "input_scale_ub")

        def refuse(*args, **kwargs):
            raise RuntimeError(f"stub kernel {self.what} cannot run ({name})")

        return refuse


def first_line(error):
    """The first line of an error, short enough for a verdict line."""
    return (str(error).splitlines() or [""])[0][:110]


def guard_initialiser(kernels, name):
    """Falls back to a stub where vLLM finds no CPU kernel."""
    original = getattr(kernels, name, None)
    if original is None:
        return

    def initialise(*args, **kwargs):
        try:
            return original(*args, **kwargs)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            return Stub(f"{name}: {first_line(error)}")

    setattr(kernels, name, initialise)


def guard_mixed_precision(kernels):
    """The weight-only integer kernels are chosen as classes, so the stub must be one."""
    original = kernels.choose_mp_linear_kernel

    def choose(config, *args, **kwargs):
        try:
            return original(config, *args, **kwargs)
        except Exception as error:  # vLLM raises several kinds here.
            what = f"choose_mp_linear_kernel: {first_line(error)}"
            note(STUBS, what)

            class MixedPrecisionStub(Stub):
                def __init__(self, *args, **kwargs):
                    self.what = what

            return MixedPrecisionStub

    kernels.choose_mp_linear_kernel = choose


def guard_moe_selector(module_name, selector_name):
    """No quantized MoE kernel exists for the CPU: load with whichever backend keeps the checkpoint's layout."""
    try:
        module = importlib.import_module(f"vllm.model_executor.layers.fused_moe.oracle.{module_name}")
    except ImportError:
        return
    original = getattr(module, selector_name, None)
    if original is None:
        return

    def select(*args, **kwargs):
        try:
            backend, experts = original(*args, **kwargs)
            if getattr(backend, "name", "") != "NONE":
                return backend, experts
            raise ValueError("no backend for a CPU")
        except Exception as error:  # vLLM raises several kinds here.
            note(STUBS, f"{selector_name}: {first_line(error)}")
            kinds = [value for key, value in vars(module).items() if key.lower().endswith("moebackend")]
            members = list(kinds[0]) if kinds else [None]
            wanted = ("EMULATION", "TRITON", "MARLIN")
            return next((m for m in members if getattr(m, "name", "") in wanted), members[0]), None

    setattr(module, selector_name, select)


def import_quantization_methods():
    """Loads the modules that copied kernel functions by name, so that the replacement below finds them all."""
    base = "vllm.model_executor.layers.quantization"
    for name in ("modelopt", "compressed_tensors.compressed_tensors", "fp8", "auto_gptq"):
        importlib.import_module(f"{base}.{name}")


def keep_activation_quantization_in_the_linear():
    """The fused "activation emits a quantized tensor" op is not built for the CPU."""
    import vllm.model_executor.layers.fusion.quant_activation as fusion

    old = fusion.expose_input_quant_key
    for module in list(sys.modules.values()):
        if not str(getattr(module, "__name__", "")).startswith("vllm"):
            continue
        for key, value in list(vars(module).items()):
            if value is old:
                setattr(module, key, lambda layer, kernel: None)
