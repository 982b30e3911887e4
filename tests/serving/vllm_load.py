"""Loads a checkpoint with vLLM's own loader and reports what vLLM itself would not notice.

vLLM picks the quantization, builds the real model class and calls the real `load_weights`. Each parameter's weight
loader is wrapped, so that every checkpoint tensor's destination, dtype and element count is known. vLLM alone does not
see a missing shard of a fused layer, a dtype converted by value, or fused shards with different scales.
"""

import collections
import math
import tempfile
import traceback

import torch

from vllm_kernels import EMULATED, STUBS

FLOATS = {torch.float32, torch.bfloat16, torch.float16}
OPTIONAL = ("k_scale", "v_scale", "q_scale", "prob_scale", "k_zero_point", "v_zero_point", "q_zero_point")
PER_TENSOR_SCALES = ("weight_global_scale", "weight_scale_2", "input_global_scale", "input_scale")
POSITIVE_SCALES = ("global_scale", "scale_2", "input_scale", "k_scale", "v_scale")


class Findings:
    """Errors and warnings of one checkpoint."""

    def __init__(self):
        self.errors, self.warnings = [], []

    def error(self, text):
        self.errors.append(text)

    def warn(self, text):
        self.warnings.append(text)


class Ledger:
    """Which parameter took which tensor."""

    def __init__(self, findings):
        self.findings = findings
        self.taken = collections.defaultdict(list)  # parameter -> [(tensor, elements, dtype)]
        self.used = set()
        self.tensors = {}  # name -> tensor, kept alive so that storage addresses stay unique
        self.by_storage = {}
        self.current = None

    def watch(self, tensors):
        """Passes the checkpoint's tensors through, remembering each."""
        for name, tensor in tensors:
            self.current = name
            self.tensors[name] = tensor
            self.by_storage[storage_key(tensor)] = name
            yield name, tensor

    def wrap(self, parameter_name, loader):
        """A weight loader that keeps the books."""

        # Names are vLLM's: experts' loaders are called with keywords.
        def load(param, loaded_weight, *args, **kwargs):
            source = self.by_storage.get(storage_key(loaded_weight), self.current)
            try:
                answer = loader(param, loaded_weight, *args, **kwargs)
            except Exception as error:  # Any refusal is a finding.
                self.findings.error(
                    f"loader refused {source} {tuple(loaded_weight.shape)} {loaded_weight.dtype} -> {parameter_name} "
                    f"{tuple(param.shape)} {param.dtype}: {type(error).__name__} {str(error)[:120]}")
                self.record(parameter_name, source, param.numel(), loaded_weight.dtype)
                return True
            if answer is not False:
                self.record(parameter_name, source, loaded_weight.numel(), loaded_weight.dtype)
            return answer

        if hasattr(loader, "supports_moe_loading"):
            load.supports_moe_loading = loader.supports_moe_loading
        return load

    def record(self, parameter_name, source, elements, dtype):
        self.used.add(source)
        self.taken[parameter_name].append((source, elements, dtype))


def storage_key(tensor):
    try:
        return tensor.untyped_storage().data_ptr()
    except Exception:
        return id(tensor)


def build_config(checkpoint, max_len, dtype):
    """The engine configuration vLLM itself derives from the checkpoint."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(model=checkpoint, enforce_eager=True, max_model_len=max_len, disable_log_stats=True,
                      skip_tokenizer_init=True, dtype=dtype, max_num_seqs=4).create_engine_config()


def initialise_distributed():
    """One rank; made anew for each checkpoint because the expert group exists only for MoE models."""
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment

    if torch.distributed.is_initialized():
        from vllm.distributed import destroy_model_parallel

        destroy_model_parallel()
    else:
        init_distributed_environment(1, 0, "file://" + tempfile.mktemp(), 0, "gloo")
    ensure_model_parallel_initialized(1, 1)


def check_load(checkpoint, max_len, dtype, verbose=False):
    """Loads `checkpoint`; prints findings and a verdict line; returns whether it passed."""
    from vllm.config import set_current_vllm_config

    config = build_config(checkpoint, max_len, dtype)
    findings = Findings()
    with set_current_vllm_config(config):
        initialise_distributed()
        model, ledger, shapes = load(config, findings, verbose)
        if shapes is not None:
            check_books(config, model, ledger, shapes, findings)
        after = finish(config, model, findings, verbose)
    methods = collections.Counter(
        type(getattr(module, "scheme", None) or module.quant_method).__name__
        for _, module in model.named_modules() if getattr(module, "quant_method", None) is not None)
    print(f"  quantization: {config.model_config.quantization}, kv cache {config.cache_config.cache_dtype}")
    print(f"  methods: {dict(methods)}, after loading: {after}, stubs: {STUBS}, emulated: {EMULATED}")
    for text in findings.warnings[:20]:
        print("  WARN", text)
    for text in findings.errors[:40]:
        print("  ERROR", text)
    passed = not findings.errors
    print(f"VERDICT vllm-load {'PASS' if passed else 'FAIL'} {checkpoint} quant={config.model_config.quantization} "
          f"tensors={len(ledger.tensors)} errors={len(findings.errors)} warnings={len(findings.warnings)}")
    return passed


def load(config, findings, verbose):
    """Builds the model and loads it; the third answer is None when vLLM stopped half way."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.model_executor.model_loader.weight_utils import default_weight_loader
    from vllm.utils.torch_utils import set_default_torch_dtype

    with set_default_torch_dtype(config.model_config.dtype), torch.device("cpu"):
        model = initialize_model(config)
    ledger = Ledger(findings)
    shapes = {}
    # Experts of W4A16_NVFP4 have input scales that vLLM overwrites with ones.
    weight_only = tuple(name for name, module in model.named_modules()
                        if getattr(getattr(module, "quant_method", None), "use_a16", False))
    for name, parameter in model.named_parameters():
        # Linears of W4A16_NVFP4 register a NaN input_scale only to drop it again.
        droppable = name.endswith("input_scale") and (
            name.startswith(weight_only) or parameter.is_floating_point()
            and bool(torch.isnan(parameter.detach().float()).all()))
        shapes[name] = (tuple(parameter.shape), parameter.dtype, droppable)
        wrapped = ledger.wrap(name, getattr(parameter, "weight_loader", None) or default_weight_loader)
        try:
            parameter.weight_loader = wrapped
        except AttributeError:
            parameter._weight_loader = wrapped
    loader = DefaultModelLoader(config.load_config)
    try:
        model.load_weights(ledger.watch(loader.get_all_weights(config.model_config, model)))
    except Exception as error:
        findings.error(f"model.load_weights raised {type(error).__name__}: {str(error)[:300]}")
        if verbose:
            traceback.print_exc()
        return model, ledger, None
    return model, ledger, shapes


def check_books(config, model, ledger, shapes, findings):
    """Every tensor used, every parameter filled, no dtype converted by value, no scale unusable or unshared."""
    tied = getattr(config.model_config.hf_config, "tie_word_embeddings", False)
    check_unused(config, ledger, tied, findings)
    for name, (shape, dtype, droppable) in shapes.items():
        check_parameter(name, shape, dtype, ledger.taken.get(name, []), droppable, tied, findings)
    for name, tensor in ledger.tensors.items():
        if "scale" in name.rsplit(".", 1)[-1] and tensor.dtype not in (torch.uint8, torch.int32):
            values = tensor.float()
            if not torch.isfinite(values).all():
                findings.error(f"non-finite values in {name}")
            elif name.endswith(POSITIVE_SCALES) and (values <= 0).any():
                findings.error(f"non-positive values in {name}")
    for name, parameter in model.named_parameters():
        if not shapes[name][2]:
            check_shared_scale(name, parameter.detach(), findings)


def check_unused(config, ledger, tied, findings):
    for name in ledger.tensors:
        if name in ledger.used:
            continue
        if tied and name.endswith("lm_head.weight"):
            findings.warn(f"unused (tied): {name}")
        elif name.endswith("rotary_emb.inv_freq"):
            findings.warn(f"unused: {name}")
        elif name.endswith("g_idx"):
            # vLLM 0.32 has no g_idx parameter: only the trivial order is harmless.
            order = ledger.tensors[name].long()
            group = getattr(config.quant_config, "group_size", 128)
            trivial = torch.arange(order.numel()) // (group if group > 0 else order.numel())
            (findings.warn if torch.equal(order, trivial) else findings.error)(f"g_idx ignored by vLLM: {name}")
        elif name.endswith(("k_scale", "v_scale", "q_scale")):
            findings.warn(f"unused KV scale: {name}")
        else:
            findings.error(f"UNEXPECTED tensor, no parameter took it: {name}")


def check_parameter(name, shape, dtype, entries, droppable, tied, findings):
    elements = math.prod(shape)
    last = name.rsplit(".", 1)[-1]
    if elements == 0 or last == "weight_shape":
        return
    if not entries:
        if not (last in OPTIONAL or droppable or (tied and name.startswith("lm_head"))):
            findings.error(f"MISSING: parameter {name} {shape} {dtype} got nothing")
        return
    got = sum(count for _, count, _ in entries)
    if got < elements:
        findings.error(f"PARTIAL: parameter {name} {shape} got {got} elements from {[s for s, _, _ in entries]}")
    for source, _, found in entries:
        if found == dtype or (found in FLOATS and dtype in FLOATS):
            continue
        if (found, dtype) == (torch.int64, torch.int32):
            findings.warn(f"dtype {source}: {found} -> {name} {dtype}")
        else:
            findings.error(f"DTYPE: {source} is {found}, parameter {name} is {dtype}: vLLM converts it by value, silently")


def check_shared_scale(name, values, findings):
    """vLLM takes one global scale per fused layer and does not requantize the other shards."""
    last = name.rsplit(".", 1)[-1]
    if last in PER_TENSOR_SCALES and values.dim() == 1 and torch.unique(values).numel() > 1:
        findings.error(f"SHARED SCALE differs inside {name}: {values.tolist()[:4]}")
    # Gate and up of one expert: vLLM takes column 0 and drops the other.
    if last in ("w13_weight_scale_2", "w13_weight_global_scale") and values.dim() == 2 and values.shape[1] == 2:
        differing = int((values[:, 0] != values[:, 1]).sum())
        if differing:
            findings.error(f"SHARED SCALE: gate and up differ for {differing} of {values.shape[0]} experts in {name}")


def finish(config, model, findings, verbose):
    """vLLM's repacking after loading, where no kernel is a stub."""
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    if STUBS or findings.errors:
        return "skipped"
    try:
        process_weights_after_loading(model, config.model_config, torch.device("cpu"))
        return "ok"
    except Exception as error:
        if verbose:
            traceback.print_exc()
        text = f"{type(error).__name__}: {str(error)[:160]}"
        if "cpu" not in text.lower() and "not supported" not in text.lower():
            findings.error(f"process_weights_after_loading: {text}")
        return text
