"""Pruning for people who keep their own code: the stock ``generate`` of a plain transformers model, inside a block."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation.configuration_utils import GenerationMode

from fopru_graph.errors import UserError, first_line
from fopru_graph.given import GenerationInputs, GivenPipeline
from fopru_graph.graph import Graph
from fopru_graph.lvlm.decoding.finite import NotFinite
from fopru_graph.lvlm.decoding.generate import held, kept_origins
from fopru_graph.lvlm.decoding.stand_in import StandIn
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.registry import served_family
from fopru_graph.lvlm.families.towers import check_tower
from fopru_graph.lvlm.inputs.prompt import prompt_of_ids, repeated
from fopru_graph.lvlm.loading.processor import open_processor
from fopru_graph.values import ModelHandle
from fopru_graph.values.generation import visual_counts

# What a processor gives besides ids and mask. The stock model never sees it: the pictures are encoded before.
_OF_PICTURES = (
    "pixel_values",
    "image_sizes",
    "image_grid_thw",
    "batch_num_images",
    "pixel_attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
)
_REFUSED = {
    "inputs_embeds": "give input_ids and pixel_values: what is embedded already cannot be pruned",
    "mm_encoder_outputs": "give pixel_values: the attention of the vision tower is needed to choose tokens",
    "pixel_values_videos": "give pictures; videos are pruned by the pipelines of pipelines/video",
    "position_ids": "leave them out: they follow from the tokens that are kept",
    "vision_feature_layer": "write it into the model's config",
    "vision_feature_select_strategy": "write it into the model's config",
    "negative_prompt_ids": "leave it out: it runs the model on a second prompt",
}
_MODES = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)


@dataclass
class Seen:
    """The figures of the last ``generate`` inside a `pruned` block, read from tensors.

    ``visual_tokens`` are sums over the batch, whatever the number of beams: ``encoded`` by the vision tower, ``kept``
    that enter the language model, ``final`` that its last layer sees, and their ``layer_average``; None before the
    first call and after one without pictures. ``visual_per_layer`` pass through each layer. ``kv_lengths`` is each
    layer's cache length at the end, ``kv_bytes`` what the caches take. ``kept`` holds, for each picture, the origin
    (K, 2) of the tokens that the last layer saw: its tile among those of all pictures, and its index in it.
    """

    visual_tokens: dict[str, Any] | None = None
    visual_per_layer: tuple[int, ...] = ()
    kv_lengths: tuple[int, ...] = ()
    kv_bytes: int = 0
    kept: tuple[torch.Tensor, ...] = field(default=(), repr=False)


@contextlib.contextmanager
def pruned(
    model: Any,
    processor: Any = None,
    pipeline: str | Path | Graph = "fopru_rank",
    ratio: float | None = None,
    **sets: Any,
) -> Iterator[Seen]:
    """Prune visual tokens in every ``model.generate`` inside the block.

    >>> with pruned(model, processor, "fopru_rank", ratio=0.25) as seen:
    ...     ids = model.generate(**processor(images=picture, text=prompt, return_tensors="pt"), max_new_tokens=20)

    What ``generate`` takes and returns stays as it is: ids of the whole prompt and the answer, streamers, logits
    processors, sampling. A call without pictures is the stock one. Other threads that generate with the model meanwhile
    wait and are pruned, too; a forward of theirs that is no ``generate`` must not run inside the block.

    Args:
        model: a transformers model of a family that is served, e.g. ``LlavaForConditionalGeneration``. It is not
            changed but for its attribute ``generate``, which the end of the block takes away, also after an exception.
        processor: the model's processor; None to open that of the folder or hub name that the model came from.
        pipeline: a file, the name of a shipped pipeline, or a `Graph`. What it says of model, picture and prompt and of
            how the answer is chosen is not used: that comes from the call.
        ratio: share of visual tokens that the last layer sees, in (0, 1]; None for what the pipeline says.
        sets: further inputs of the pipeline or its nodes, as in ``**{"prune.over": "image"}``.

    Raises:
        UserError: the model is not served or has such a block already, the pipeline reads more than the visual tokens,
            or has no such ratio. Inside the block ``generate`` raises it for calls that cannot be pruned.
        PipelineError: the pipeline is not valid, or has no input of this name.
        NodeError: inside the block, a node failed.
    """
    family = _family_of(model, processor)
    call = _Pruning(family, GivenPipeline(pipeline, ModelHandle(family.model_type, family), ratio, sets))
    stock = model.generate

    @functools.wraps(stock)
    def generate(*args: Any, **options: Any) -> Any:
        with family.lock:
            return call(stock, args, options)

    before = vars(model).get("generate")
    model.generate = generate
    _BLOCKS.add(id(model))
    try:
        yield call.seen
    finally:
        _BLOCKS.discard(id(model))
        del model.generate
        if before is not None:
            model.generate = before


_BLOCKS: set[int] = set()  # the models that are inside a block


def _family_of(model: Any, processor: Any) -> Family:
    """The family of a plain transformers model.

    Raises:
        UserError: it is not served, is wrapped, has a block already, or there is no processor.
    """
    name = str(getattr(model, "name_or_path", "") or "the model")
    family = served_family(getattr(getattr(model, "config", None), "model_type", None), name)
    if not isinstance(model, getattr(transformers, family.auto_class)):
        raise UserError(
            f"{name} is a {type(model).__name__}, not a {family.auto_class}",
            "give the transformers model itself, without what is wrapped around it (PEFT: model.get_base_model())",
        )
    if id(model) in _BLOCKS:
        raise UserError(f"{name} is pruned already", "end that block first; a pipeline may hold several pruning nodes")
    check_tower(family, model.config, name)
    if processor is None:
        try:
            processor = open_processor(name, {})
        except Exception as error:  # transformers raises many kinds here
            raise UserError(
                f"the processor of {name} does not load: {first_line(error)}", "give it: pruned(model, processor)"
            ) from error
    return family(model, processor)


class _Pruning:
    """Calls of ``generate``, each pruned by the pipeline."""

    def __init__(self, family: Family, pipeline: GivenPipeline) -> None:
        self.seen = Seen()
        self._family, self._pipeline = family, pipeline

    def __call__(self, stock: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """``stock(*args, **options)``, its visual tokens pruned; as it is if there are no pictures."""
        self._show(Seen())
        arguments = inspect.signature(stock).bind(*args, **options).arguments
        arguments |= arguments.pop("kwargs", {})
        for name, hint in _REFUSED.items():
            if arguments.get(name) is not None:
                raise UserError(f"{name} cannot be given to a pruned generate", hint)
        if arguments.get("pixel_values") is None:
            return stock(**arguments)
        copies = answers_of(self._family.model, arguments)
        inputs = {name: value for name in _OF_PICTURES if (value := arguments.pop(name, None)) is not None}
        given = arguments["input_ids"] = _ids(arguments)
        ids = _unpadded(given, arguments.get("attention_mask"))
        with torch.no_grad():
            chosen = self._pipeline.run(inputs, ids)
            prompt = prompt_of_ids(self._family, ids, chosen.tokens, chosen.positions)
            stand_in = StandIn(self._family, repeated(prompt, copies), chosen.pruners, given.shape[1])
        with stand_in.installed():
            output = stock(**arguments)
        if chosen.tokens.scores_finite is not None and not chosen.tokens.scores_finite:
            raise NotFinite("the scores that visual tokens were to be chosen by")
        self._show(_figures(self._family, chosen, stand_in, copies))
        return output

    def _show(self, figures: Seen) -> None:
        vars(self.seen).update(vars(figures))


def answers_of(model: Any, arguments: Mapping[str, Any]) -> int:
    """How many answers the stock ``generate`` makes of each prompt at the same time: beams, or those that it returns.

    Args:
        model: the stock model.
        arguments: those of ``generate``, which the checkpoint's generation_config completes.

    Raises:
        UserError: it would generate otherwise than by one prefill and then token by token.
    """
    modes = ("generation_config", "assistant_model", "custom_generate")
    config, _ = model._prepare_generation_config(
        arguments.get("generation_config"), **{name: arguments[name] for name in arguments if name not in modes}
    )
    mode = config.get_generation_mode(arguments.get("assistant_model"))
    refused = {
        f"generation mode {mode.value}": mode not in _MODES,
        "custom_generate": arguments.get("custom_generate") is not None,
        f"guidance_scale={config.guidance_scale}": config.guidance_scale not in (None, 1),
        "use_cache=False": config.use_cache is False,
        "prefill_chunk_size": config.prefill_chunk_size is not None,
    }
    for what, is_so in refused.items():
        if is_so:
            raise UserError(
                f"{what} cannot be pruned: tokens are chosen in one prefill of each prompt, which the answer follows",
                "use greedy search, sampling or beams, with the cache",
            )
    return max(config.num_beams or 1, config.num_return_sequences or 1)


def _ids(arguments: dict[str, Any]) -> torch.Tensor:
    """The ids (B, U) that ``generate`` was given, by position or name."""
    ids = arguments.pop("inputs", None)
    ids = arguments.get("input_ids") if ids is None else ids
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
        raise UserError("pictures came without input_ids", "give all that the processor gives: **processor(…)")
    return ids


def _unpadded(ids: torch.Tensor, mask: torch.Tensor | None) -> list[list[int]]:
    """Each prompt's ids without padding, which must be at the left."""
    if mask is None:
        if len(ids) > 1:
            raise UserError("a batch came without its attention_mask", "give all that the processor gives")
        mask = torch.ones_like(ids)
    if mask.shape != ids.shape or not mask[:, -1].all():
        raise UserError(
            "the prompts are padded at the right, or the attention_mask is not theirs",
            "set processor.tokenizer.padding_side = 'left'",
        )
    return [prompt[real].tolist() for prompt, real in zip(ids.cpu(), mask.cpu().bool(), strict=True)]


def _figures(family: Family, chosen: GenerationInputs, stand_in: StandIn, copies: int) -> Seen:
    """Read from the tensors of a finished call, in which every prompt stands ``copies`` times."""
    prompt = stand_in.prompt
    visual = [stand_in.cuts.visual_in_layer(layer) for layer in range(len(family.layers))]
    per_layer = tuple(int(seen.sum()) // copies for seen in visual)
    return Seen(
        visual_counts(sum(chosen.tokens.encoded), int(prompt.visual.sum()) // copies, per_layer),
        per_layer,
        kept=kept_origins(prompt, chosen.tokens, visual[-1].cpu()),
        **held(stand_in.filled()),
    )
