"""What a finished cell shows besides figures: tokens kept in its first pictures, and where the encoder looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fopru_graph.errors import UserError
from fopru_graph.evaluation.figures import shown_in, write_attention, write_picture
from fopru_graph.evaluation.task import RecordError
from fopru_graph.graph import NodeError

if TYPE_CHECKING:
    import PIL.Image

    from fopru_graph.evaluation.runner import CellRun

PICTURES = 2  # different ones that are drawn
_LOOKED_AT = 50  # samples among which they are sought
ATTENTION = "attention.json"


def draw_gallery(run: CellRun, folder: Path) -> str | None:
    """Draw what is not drawn yet; returns why something could not be: a cell without pictures is one all the same.

    Of a pipeline that drops nothing the encoder's attention is written too.
    """
    missing = [n for n in range(PICTURES) if not (folder / "pictures" / f"{n}.json").exists()]
    attention = None if run.variant.prunes or (folder / ATTENTION).exists() else folder / ATTENTION
    if not missing and attention is None:
        return None
    try:
        (folder / "pictures").mkdir(exist_ok=True)
        samples = [index for _, index in zip(range(PICTURES), _different(run), strict=False)]
        for number, index in enumerate(samples):
            _draw(run, folder, number, index)
        if attention is not None and samples:
            pictures = [(run.records.key(index), _first_picture(run, index)) for index in samples]
            write_attention(run.model.handle, pictures, attention)
    except (UserError, NodeError, OSError) as error:
        return str(error)
    return None


def _different(run: CellRun) -> Iterator[int]:
    """The first sample about each picture."""
    seen = set()
    for index in range(min(_LOOKED_AT, len(run.records))):
        try:
            pictures = run.records.images(index, run.records.read(index))
        except RecordError:
            continue
        if pictures and pictures[0][0] not in seen:
            seen.add(pictures[0][0])
            yield index


def _first_picture(run: CellRun, index: int) -> PIL.Image.Image:
    return run.records.images(index, run.records.read(index))[0][1]


def _draw(run: CellRun, folder: Path, number: int, index: int) -> None:
    record = run.records.read(index)
    question = run.task.prompt(record)
    answered = run.model.answer(question, run.records.images(index, record), run.task.max_new_tokens)
    if (shown := shown_in(run.model.last_run())) is not None:
        write_picture(folder, number, shown, run.records.key(index), question, answered.text)
