"""The paper's tables with ours beside them as files: Markdown for documentation, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.text import Text

from fopru_graph.report.bench.files import write_files
from fopru_graph.report.bench.paper import (
    CAPTIONS,
    DECODING_COLUMNS,
    NOTES,
    TTFT_COLUMNS,
    Block,
    below,
    blocks,
    cells,
    paper_json,
)
from fopru_graph.results.bench import BenchResult


def write_paper(results: Sequence[BenchResult], unmeasured: Mapping[str, str], folder: Path) -> list[Path]:
    """Write ``paper.md`` and ``paper.json``, which say what `paper.show_paper` prints; returns their paths.

    Raises:
        UserError: the files cannot be written there.
    """
    data = {"tables": paper_json(results), "unmeasured": dict(unmeasured)}
    contents = {
        "paper.md": "\n".join(_lines(results, unmeasured)),
        "paper.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n",
    }
    return write_files(contents, folder)


def _lines(results: Sequence[BenchResult], unmeasured: Mapping[str, str]) -> Iterator[str]:
    caption = None
    for block in blocks(results):
        if caption != CAPTIONS[block.table]:
            caption = CAPTIONS[block.table]
            yield f"## {caption}\n"
        yield f"### {block.model}\n"
        yield from _table(block)
        yield ""
        yield from (
            f"{Text.from_markup(line).plain.replace('*', chr(92) + '*')}  " for line in below(block, unmeasured)
        )
        yield ""
    yield from (f"{note}\n" for note in NOTES)


def _table(block: Block) -> Iterator[str]:
    columns = [column.strip(">").replace("\n", " ") for column in (*TTFT_COLUMNS, *DECODING_COLUMNS)]
    yield f"| method | kept | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * (len(columns) + 1)
    for row in block.rows:
        yield f"| {' | '.join(map(_escaped, [row.method, row.kept, *map(str, cells(block, row))]))} |"


def _escaped(text: str) -> str:
    """Text whose marks of a footnote are no emphasis."""
    return text.replace("*", r"\*")
