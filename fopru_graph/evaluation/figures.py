"""Pictures of an evaluation: the tokens that were kept (FoPru Fig. 4) and where the encoder looks (Fig. 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.graph import Ref, RunResult
from fopru_graph.graph.files import write_atomically

if TYPE_CHECKING:
    import PIL.Image

    from fopru_graph.lvlm.families.attention_profile import AttentionProfile

MASS = 0.8  # of the attention, the share of which the paper says how many tokens hold it


@dataclass(frozen=True, eq=False)
class Shown:
    """What the picture of one answer is drawn from.

    ``features`` are those that were projected, ``selection`` the tokens of them that entered the language model, and
    ``significance`` their last scores, None where nothing scored them.
    """

    features: values.VisionFeatures
    selection: values.Selection
    generation: values.Generation
    significance: values.Significance | None


def shown_in(result: RunResult) -> Shown | None:
    """What to draw of a run, found by the types of its values, whatever the pipeline; all of them must be there.

    The kept tokens are read from the rows that the language model got, not from a selection: there is none in a
    pipeline that prunes inside the language model only, and packing may drop more than was selected. None where no
    node projects features or none generates from visual tokens, as with the stock model.
    """
    features = tokens = generation = significance = None
    for name, step in result.plan.steps.items():
        given, made = list(_given(step.inputs, result.by_node)), result.by_node.get(name, {}).values()
        if _of(values.VisualTokens, made) is not None:
            features = _of(values.VisionFeatures, given) or features
        if (answer := _of(values.Generation, made)) is not None:
            generation, tokens = answer, _of(values.VisualTokens, given)
        significance = _of(values.Significance, made) or significance
    if features is None or tokens is None or generation is None:
        return None
    if significance is not None and tuple(map(len, significance.scores)) != features.counts:
        significance = None  # scores of tokens that were pooled to others since
    return Shown(features, _entered(features, tokens), generation, significance)


def _given(inputs: Mapping[str, Any], by_node: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    """The values that come to a node from others."""
    for value in inputs.values():
        if isinstance(value, Ref) and value.node in by_node and value.output in by_node[value.node]:
            yield by_node[value.node][value.output]


def _of(kind: type[Any], among: Any) -> Any:
    """The first value of a type; None if there is none."""
    return next((value for value in among if isinstance(value, kind)), None)


def _entered(features: values.VisionFeatures, tokens: values.VisualTokens) -> values.Selection:
    """The tokens of every tile that have a row."""
    import torch

    rows = torch.cat([origin.cpu() for origin in tokens.origin])  # (K, 2): tile, index
    indices = tuple(rows[rows[:, 0] == tile, 1] for tile in range(len(features.tiles)))
    return values.Selection(indices, features.counts)


def write_picture(folder: Path, number: int, shown: Shown, source: str, question: str, answer: str) -> None:
    """Write ``pictures/NUMBER.png`` in a cell's folder, what was kept for one answer, and the facts about it beside it.

    Raises:
        UserError: the picture cannot be written.
        OSError: the facts cannot be.
    """
    from fopru_graph.pictures.kept import kept_picture, save_png

    title = f"{question}  →  {answer}"
    picture = kept_picture(shown.features, shown.selection, shown.generation, shown.significance, title)
    path = folder / "pictures" / f"{number}.png"
    save_png(picture, path, {"source": source})
    generation = shown.generation
    facts = {
        "source": source,
        "question": question,
        "answer": answer,
        "encoded": generation.encoded,
        "kept": generation.projected,
        "final": generation.visual_per_layer[-1],
    }
    _write_json(path.with_suffix(".json"), facts)


def write_attention(model: values.ModelHandle, pictures: Sequence[tuple[str, PIL.Image.Image]], path: Path) -> None:
    """Write how concentrated the attention of the model's vision encoder is on pictures, each with its source.

    The file holds ``model``, the number of ``layers``, the ``read_layer`` whose attention scores tokens (numbered from
    0), and of each of the ``pictures`` its ``source``, ``grid`` (h, w), the ``curves`` (share of the attention received
    by the top 0, 5, …, 100 % of the tokens) and ``tokens_for_80`` (share of the tokens that holds 80 %) of every layer,
    null for one that sees windows only, and the ``maps`` [h][w] of the first, the middle, the read and the last layer.

    Raises:
        UserError: a picture cannot be encoded.
        ValueError: there is no picture.
        OSError: the file cannot be written.
    """
    from fopru_graph.lvlm.families.attention_profile import attention_profile

    profiles = [attention_profile(model.family, values.Image(picture, source)) for source, picture in pictures]
    if not profiles:
        raise ValueError("attention is drawn for at least one picture")
    found = [_described(source, profile) for (source, _), profile in zip(pictures, profiles, strict=True)]
    head = {"model": model.name, "layers": len(profiles[0].received), "read_layer": profiles[0].read_layer}
    _write_json(path, head | {"pictures": found})


def _described(source: str, profile: AttentionProfile) -> dict[str, Any]:
    from fopru_graph.pruning.cumulative import mass_curve, tokens_for

    received = profile.received
    return {
        "source": source,
        "grid": list(profile.grid),
        "curves": [None if one is None else _rounded(mass_curve(one)) for one in received],
        "tokens_for_80": [None if one is None else round(tokens_for(one, MASS), 5) for one in received],
        "maps": {
            str(layer): [_rounded(row) for row in scores.view(*profile.grid).tolist()]
            for layer in _drawn(profile)
            if (scores := received[layer]) is not None
        },
    }


def _drawn(profile: AttentionProfile) -> list[int]:
    """The layers whose maps are kept, as far as they see the whole picture."""
    whole = [layer for layer, scores in enumerate(profile.received) if scores is not None]
    return sorted({whole[0], whole[len(whole) // 2], profile.read_layer, whole[-1]})


def _rounded(numbers: Sequence[float]) -> list[float]:
    """Numbers of five significant digits."""
    return [float(f"{number:.5g}") for number in numbers]


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(data, ensure_ascii=False) + "\n").encode())
