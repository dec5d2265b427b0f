"""Pictures of a finished cell: the tokens kept (FoPru Fig. 4), and where the vision encoder looks (FoPru Fig. 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.evaluation.task import Record, RecordError
from fopru_graph.graph import Cancelled
from fopru_graph.graph.files import write_atomically
from fopru_graph.pictures.of_run import PictureValues, picture_values

if TYPE_CHECKING:
    import PIL.Image

    from fopru_graph.evaluation.runner import CellRun
    from fopru_graph.lvlm.families.attention_profile import AttentionProfile

PICTURES = 2  # samples that are drawn, each about another picture
ATTENTION = "attention.json"
MASS = 0.8  # share of the attention; the paper says how few tokens hold it
_SEARCHED = 50  # samples among which different pictures are sought


def draw_gallery(run: CellRun, folder: Path) -> str | None:
    """Draw the pictures of a cell that are not there yet, and write the encoder's attention if nothing is pruned.

    Returns why something could not be drawn, or None: the figures of a cell are complete without its pictures.
    """
    missing = [n for n in range(PICTURES) if not (folder / "pictures" / f"{n}.json").exists()]
    attention = None if run.configuration.prunes or (folder / ATTENTION).exists() else folder / ATTENTION
    if not missing and attention is None:
        return None
    try:
        (folder / "pictures").mkdir(exist_ok=True)
        samples = [sample for _, sample in zip(range(PICTURES), _samples_of_different_pictures(run), strict=False)]
        for number, (index, record) in enumerate(samples):
            _draw_sample(run, folder, number, index, record)
        if attention is not None and samples:
            shown = [(run.records.key(index), run.records.images(index, record)[0][1]) for index, record in samples]
            write_attention(run.model.handle, shown, attention)
    except Cancelled:
        raise
    except Exception as error:  # as in `CellRun.sample`: a row may hold anything
        return str(error) or type(error).__name__
    return None


def _samples_of_different_pictures(run: CellRun) -> Iterator[tuple[int, Record]]:
    """Index and record of the first sample about each picture."""
    seen = set()
    for index in range(min(_SEARCHED, len(run.records))):
        try:
            record = run.records.read(index)
            pictures = run.records.images(index, record)
        except RecordError:
            continue
        if pictures and pictures[0][0] not in seen:
            seen.add(pictures[0][0])
            yield index, record


def _draw_sample(run: CellRun, folder: Path, number: int, index: int, record: Record) -> None:
    question = run.asked.prompt(record)
    answered = run.model.answer(question, run.records.images(index, record), run.asked.max_new_tokens)
    if (drawn := picture_values(run.model.last_run())) is not None:
        label = run.configuration.label
        write_picture(folder, number, drawn, run.records.key(index), question, answered.text, label)


def write_picture(
    folder: Path, number: int, drawn: PictureValues, source: str, question: str, answer: str, pipeline: str = ""
) -> None:
    """Write the tokens kept for one answer as ``pictures/NUMBER.png`` in a cell's folder, and its facts as JSON beside.

    ``pipeline`` is the name in the picture's title.

    Raises:
        UserError: the picture cannot be written.
        OSError: the facts cannot be.
    """
    from fopru_graph.pictures.kept import save_png

    picture = drawn.drawn(":  ".join(filter(None, (pipeline, f"{question}  →  {answer}"))))
    path = folder / "pictures" / f"{number}.png"
    save_png(picture, path, {"source": source})
    generation = drawn.generation
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
    """Write how concentrated the attention of the model's vision encoder is on ``pictures``, each with its source.

    The JSON file holds ``model``, the number of ``layers``, ``read_layer`` (the layer whose attention scores tokens,
    counted from 0) and ``pictures``, each with its ``source`` and ``grid`` (h, w). For every layer of a picture
    ``curves`` has the share of the attention received by the top 0, 5, …, 100 % of the tokens, and ``tokens_for_80``
    the share of the tokens that holds 80 % of it; null for a layer that sees windows only. ``maps`` [h][w] are of the
    first, the middle, the read and the last layer.

    Raises:
        UserError: a picture cannot be encoded.
        ValueError: there is no picture.
        OSError: the file cannot be written.
    """
    from fopru_graph.lvlm.families.attention_profile import attention_profile

    profiles = [attention_profile(model.family, values.Image(picture, source)) for source, picture in pictures]
    if not profiles:
        raise ValueError("attention is drawn for at least one picture")
    data = {
        "model": model.name,
        "layers": len(profiles[0].received),
        "read_layer": profiles[0].read_layer,
        "pictures": [_concentration(source, profile) for (source, _), profile in zip(pictures, profiles, strict=True)],
    }
    _write_json(path, data)


def _concentration(source: str, profile: AttentionProfile) -> dict[str, Any]:
    from fopru_graph.pruning.cumulative import mass_curve, tokens_for

    received = profile.received
    return {
        "source": source,
        "grid": list(profile.grid),
        "curves": [None if scores is None else _rounded(mass_curve(scores)) for scores in received],
        "tokens_for_80": [None if scores is None else round(tokens_for(scores, MASS), 5) for scores in received],
        "maps": {
            str(layer): [_rounded(row) for row in scores.view(*profile.grid).tolist()]
            for layer in _mapped_layers(profile)
            if (scores := received[layer]) is not None
        },
    }


def _mapped_layers(profile: AttentionProfile) -> list[int]:
    """The layers whose maps are kept; only layers that see the whole picture count."""
    whole = [layer for layer, scores in enumerate(profile.received) if scores is not None]
    return sorted({whole[0], whole[len(whole) // 2], profile.read_layer, whole[-1]})


def _rounded(numbers: Sequence[float]) -> list[float]:
    """The numbers with five significant digits."""
    return [float(f"{number:.5g}") for number in numbers]


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(data, ensure_ascii=False) + "\n")
