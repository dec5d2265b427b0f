"""Load a model from a folder or a hub name: safetensors only, no remote code; what fails ends in one clear sentence."""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

import accelerate
import torch
import transformers

from fopru_graph.errors import Caution, UserError, first_line
from fopru_graph.identity import source_of
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.registry import served_family
from fopru_graph.lvlm.families.towers import check_tower
from fopru_graph.lvlm.loading.adapters import refuse_adapter_weights
from fopru_graph.lvlm.loading.checkpoint import DEMO, open_checkpoint
from fopru_graph.lvlm.loading.compat import missing_capabilities
from fopru_graph.lvlm.loading.device import check_memory, choose_device, computes_bfloat16
from fopru_graph.lvlm.loading.generation import check_generation_file
from fopru_graph.lvlm.loading.packed import pack, worth_packing
from fopru_graph.lvlm.loading.presets import PREFIX, find_preset, preset_config, preset_processor, random_model
from fopru_graph.lvlm.loading.processor import open_processor
from fopru_graph.lvlm.loading.quiet import quiet
from fopru_graph.lvlm.progress import Progress, WeightsCounted
from fopru_graph.values import ModelHandle

Quantization = Literal["4bit", "8bit"]
Packed = Literal["auto", "never"]
READERS = 4  # weights that transformers reads at the same time, in threads
_LEFTOVER = re.compile(r"\.(position_ids|inv_freq|original_inv_freq|masked_bias|num_batches_tracked)$")  # computed anew


@quiet()
def load_model(
    name: str,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str = "sdpa",
    device_map: str | None = None,
    revision: str | None = None,
    quantization: Quantization | None = None,
    packed: Packed = "auto",
    progress: Progress | None = None,
) -> ModelHandle:
    """Load a checkpoint and its processor.

    Args:
        name: ``demo`` for the bundled model, a folder in Hugging Face layout, a hub name such as
            ``llava-hf/llava-1.5-7b-hf``, or ``random:NAME`` for a model of that size with random weights (`presets`).
        device: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: of the weights; ``auto`` is the checkpoint's on a GPU. On a CPU it is bfloat16 for a checkpoint in half
            precision if the CPU computes that natively, else float32.
        attention: kernel of every layer: sdpa, eager or flash_attention_2.
        device_map: ``auto``, ``balanced`` or ``sequential`` spreads the layers over all devices (accelerate) and
            replaces ``device``; without a GPU that is the CPU.
        revision: branch, tag or commit on the hub.
        quantization: ``4bit`` or ``8bit`` weights through bitsandbytes; a quantised checkpoint needs no option.
        packed: ``auto`` keeps the weights of linear layers as oneDNN wants them, on a CPU where that is faster
            (`packed.worth_packing`), the results differ by rounding; ``never`` leaves them as torch has them.
        progress: called with the number of weights that are loaded and that of all, from 0 on; an exception from it
            ends the loading.

    Raises:
        UserError: the checkpoint is missing, incomplete, without safetensors, of an unsupported architecture or vision
            tower, or needs remote code; the device does not exist; or the weights are larger than its free memory,
            which is checked before anything is loaded.
    """
    if missing := missing_capabilities():
        raise UserError(f"transformers {transformers.__version__} lacks {missing[0]}", "install a newer transformers")
    target = choose_device(device if device_map is None else "auto")
    if name.startswith(PREFIX):
        return _random(name, target, dtype, attention, packed, progress)
    source, config, commit = open_checkpoint(name, revision)
    family = served_family(config.get("model_type"), name)
    weight_type = _weight_type(dtype, target, _stored_type(source, config, quantization))
    # The commit, so that no file comes from a branch that moves meanwhile.
    options: dict[str, Any] = {"revision": commit} if commit else {}
    counting = WeightsCounted(progress)
    try:
        parsed = transformers.AutoConfig.from_pretrained(source, **options)
        check_tower(family, parsed, name)
        if device_map is None and quantization is None and "quantization_config" not in config:
            sizes = _weight_sizes(parsed, family, weight_type)
            check_memory(name, sum(sizes), target)
            if target.type != "cpu":
                check_memory(name, READERS * max(sizes), torch.device("cpu"), "weights on their way to the device")
        check_generation_file(name, source, options)
        processor = open_processor(source, options)
        with counting:
            model, loading_info = getattr(transformers, family.auto_class).from_pretrained(
                source,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=weight_type,
                attn_implementation=attention,
                device_map=_placement(device_map, target),
                **_quantised(quantization),
                **options,
            )
    except UserError:
        raise
    except Exception as error:  # transformers raises many kinds here; each must end as one sentence
        if error is counting.stopped:
            raise
        raise UserError(
            f"{name}: the checkpoint does not load: {first_line(error)}", _load_hint(error, attention)
        ) from error
    _check_weights(name, model, loading_info)
    model.eval().requires_grad_(False)
    if _packs(packed, target, config, weight_type, device_map, quantization):
        pack(model)
    return ModelHandle(name, family(model, processor))


def model_identity(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "sdpa",
    device_map: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    packed: str = "auto",
) -> dict[str, Any]:
    """What `load_model` would load with the same arguments, as JSON: content, the family, and what ``auto`` means here.

    Raises:
        UserError: there is no such checkpoint or device.
    """
    target = choose_device(device if device_map is None else "auto")
    if name.startswith(PREFIX):
        config, weights = preset_config(find_preset(name)).to_dict(), name
        weight_type = _random_type(dtype, target)
    else:
        checkpoint = open_checkpoint(name, revision)
        config, weights = checkpoint.config, checkpoint.digest()
        weight_type = _weight_type(dtype, target, _stored_type(checkpoint.source, config, quantization))
        if weight_type == "auto":
            weight_type = str(config.get("dtype") or config.get("torch_dtype") or "auto")
    return {
        "weights": weights,
        "device": target.type if not target.index else str(target),
        "dtype": weight_type,
        "attention": attention,
        "device_map": device_map,
        "quantization": quantization,
        "packed": _packs(packed, target, config, weight_type, device_map, quantization),
        "family": source_of(served_family(config.get("model_type"), name)).digest,
    }


def _weight_type(dtype: str, device: torch.device, stored: str | None) -> str:
    """What ``auto`` stands for: on a CPU see `load_model`, elsewhere ``auto``, which transformers understands."""
    if dtype != "auto" or device.type != "cpu":
        return dtype
    return "bfloat16" if stored in ("bfloat16", "float16") and computes_bfloat16() else "float32"


def _stored_type(source: str, config: dict[str, Any], quantization: str | None) -> str | None:
    """The type that config.json names; None for what a CPU computes in float32 however it is stored.

    That is the bundled model, whose figures are of float32, and what a quantised model does not quantise.
    """
    if source == str(DEMO) or quantization is not None or "quantization_config" in config:
        return None
    return config.get("dtype") or config.get("torch_dtype")


def _random_type(dtype: str, device: torch.device) -> str:
    """Random models stand for checkpoints in bfloat16."""
    resolved = _weight_type(dtype, device, "bfloat16")
    return "bfloat16" if resolved == "auto" else resolved


def _packs(packed: str, device: torch.device, config: dict[str, Any], weight_type: str, *elsewhere: str | None) -> bool:
    """Whether weights are packed; not if accelerate moves them or others hold them, which ``elsewhere`` says."""
    plain = device.type == "cpu" and not any(elsewhere) and "quantization_config" not in config
    return packed == "auto" and plain and worth_packing(config, weight_type)


def _placement(device_map: str | None, device: torch.device) -> Any:
    """The device map for transformers: all on one device puts each weight there as it is read, and adds no hooks."""
    return device_map if device_map is not None or device.type == "cpu" else {"": device}


def _quantised(quantization: Quantization | None) -> dict[str, Any]:
    """The arguments of transformers' quantisation."""
    if quantization is None:
        return {}
    return {"quantization_config": transformers.BitsAndBytesConfig(**{f"load_in_{quantization}": True})}


def _random(
    name: str, device: torch.device, dtype: str, attention: str, packed: Packed, progress: Progress | None
) -> ModelHandle:
    """A model with random weights, in the type in which a checkpoint in half precision would be loaded."""
    preset = find_preset(name)
    config = preset_config(preset)
    family = served_family(config.model_type, name)
    weight_type = _random_type(dtype, device)
    check_memory(name, sum(_weight_sizes(config, family, weight_type)), device)
    model = random_model(config, family.auto_class, device, getattr(torch, weight_type), attention, progress)
    model.generation_config.eos_token_id = None  # a stop token of random weights would mean nothing
    if _packs(packed, device, config.to_dict(), weight_type):
        pack(model)
    return ModelHandle(name, family(model.eval(), preset_processor(preset)))


def _weight_sizes(config: Any, family: type[Family], dtype: str) -> list[int]:
    """Bytes of each weight that a model of this configuration has, before it is made."""
    with accelerate.init_empty_weights():
        model = getattr(transformers, family.auto_class)._from_config(config)
    model.tie_weights()  # else an output head that is the embeddings would count twice
    checkpoint_type = config.dtype or torch.float32
    size = (checkpoint_type if dtype == "auto" else getattr(torch, dtype)).itemsize
    return [weight.numel() * size for weight in model.parameters()]


def _check_weights(name: str, model: Any, loading_info: dict[str, Any]) -> None:
    """Refuse weights that are not those of ``model``, by what transformers says of loading them.

    Warns of weights of parts that the model does not have.

    Raises:
        UserError: weights are missing or of a wrong shape, or a part of the model has more of them than it takes.
    """
    extra = sorted(key for key in loading_info["unexpected_keys"] if not _LEFTOVER.search(key))
    refuse_adapter_weights(name, extra)
    if bad_weights := sorted([*loading_info["missing_keys"], *map(str, loading_info["mismatched_keys"])]):
        raise UserError(
            f"{name}: {len(bad_weights)} weights are missing or of a wrong shape, e.g. {bad_weights[0]}",
            "the files are incomplete or of another model; download them again",
        )
    parts = {part for part, _ in model.named_modules()}
    quantised = getattr(model, "quantization_method", None) is not None  # then its parts have scales and the like
    if unused := [key for key in extra if _part_of(key) in parts and not quantised]:
        raise UserError(
            f"{name}: {len(unused)} weights have no place in the model that config.json describes, e.g. {unused[0]}",
            "config.json belongs to other weights, or lacks a setting, e.g. the quantization or the number of layers",
        )
    if extra:
        lacking = f"{len(extra)} weights of parts that the model does not have are not used, e.g. {extra[0]}"
        warnings.warn(f"{name}: {lacking}", Caution, stacklevel=3)


def _part_of(weight: str) -> str:
    """The module that a weight belongs to, or the list of layers that its layer belongs to."""
    module = weight.rpartition(".")[0]
    numbered = re.match(r"(.*?layers?|.*?blocks)\.\d+\.", weight)
    return numbered[1] if numbered else module


def _load_hint(error: BaseException, attention: str) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "use a smaller dtype or device_map: auto"
    if isinstance(error, ImportError):
        return "install what the message names" + (", or choose attention: sdpa" if attention != "sdpa" else "")
    if "does not support Flash Attention" in str(error):
        return "choose attention: sdpa"
    return "the files may be damaged or of another model; download them again"
