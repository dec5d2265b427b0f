"""From a task's file to a `Task`: rows become records, a template the prompt, a scorer's name the score."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fopru_graph.evaluation.records import Hub, Join, Layout, Row, open_records
from fopru_graph.evaluation.records.columns import (
    ColumnError,
    at_path,
    index,
    numbers,
    one_of,
    text,
    text_or,
    texts,
    whole,
)
from fopru_graph.evaluation.records.table import TableRecords
from fopru_graph.evaluation.scorers import get_scorer
from fopru_graph.evaluation.scorers.matching import letter
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.read import environment
from fopru_graph.evaluation.tasks.schema import Column, Named, TaskFile, Variant
from fopru_graph.evaluation.tasks.shared import MARKER, plain

_MISSING = (None, "", "nan")  # "nan": how pandas writes a text that was missing
_PLACE = "\ue000image\ue000"  # a marker of the template while the data's are taken out


def table_task(declared: TaskFile, path: Path | None = None) -> Task:
    """The task of a file that was read; ``path`` is that of an own task."""
    scorers = [declared.scorer, *(variant.scorer for variant in declared.models.values() if variant.scorer)]
    parts = declared.model_dump(mode="json", include={"columns", "pictures", "prompt", "scorer", "models"})
    chosen = {"where": declared.data.where, "each": declared.data.each}
    return Task(
        name=declared.name,
        title=declared.title or declared.name,
        open=partial(_open, declared, path),
        prompt=_prompt_of(declared.prompt),
        max_new_tokens=declared.max_new_tokens,
        **_scored_by(declared.scorer),
        file=None if path is None else str(path),
        definition={"definition": parts | chosen},
        code=tuple(get_scorer(named.name).rule for named in scorers),
        variants={model: _changed(variant) for model, variant in declared.models.items()},
    )


def _changed(variant: Variant) -> dict[str, Any]:
    """The fields of `Task` that a variant changes."""
    return {
        **({"prompt": _prompt_of(variant.prompt)} if variant.prompt is not None else {}),
        **({"max_new_tokens": variant.max_new_tokens} if variant.max_new_tokens is not None else {}),
        **(_scored_by(variant.scorer) if variant.scorer is not None else {}),
    }


def _prompt_of(template: str) -> Callable[[Record], str]:
    """The prompt of a record. Markers of pictures are those of the template; in the data they stay text."""
    compiled = environment().from_string(template.replace(MARKER, _PLACE))

    def prompt(record: Record) -> str:
        return plain(compiled.render(record)).replace(_PLACE, MARKER)

    return prompt


def _scored_by(named: Named) -> dict[str, Any]:
    """The fields of `Task` that a scorer gives."""
    scorer, options = get_scorer(named.name), dict(named.options)
    names = (*scorer.columns, *scorer.given)

    def score(answer: str, record: Record) -> Score:
        result = scorer.rule(answer, **{name: record[name] for name in names}, **options)
        return result if isinstance(result, Score) else Score(float(result))

    metrics = {"metrics": scorer.metrics} if scorer.metrics else {}
    return {"score": score, "scorer": scorer.label, **metrics}


def _open(declared: TaskFile, path: Path | None, given: str | None, limit: int | None) -> TableRecords:
    if given is None and path is not None and declared.data.file is not None:
        given = str(path.parent / declared.data.file)
    return open_records(_layout(declared), given, limit)


def _layout(declared: TaskFile) -> Layout:
    data, pictures = declared.data, tuple(declared.pictures)
    join = None if data.pictures is None else Join(data.pictures.key, data.pictures.config, data.pictures.split)
    roots = {name: [path.partition(".")[0] for path in _paths(name, c)] for name, c in declared.columns.items()}
    required = [roots[name][0] for name, column in declared.columns.items() if column.default is None]
    every = [root for several in roots.values() for root in several]
    chosen = [*data.where, *([data.each] if data.each else [])]
    return Layout(
        task=declared.name,
        hub=Hub(tuple(data.hub), data.split, data.config) if data.hub else None,
        required=(
            *((name,) for name in dict.fromkeys([*required, *chosen])),
            *((name, join.key) if join else (name,) for name in pictures),
        ),
        optional=tuple(every),
        prepare=partial(_prepare, declared.columns),
        pictures=lambda _record: pictures,
        picture_columns=pictures,
        join=join,
        file_names=tuple(data.names),
        where=data.where,
        each=data.each,
    )


def _paths(name: str, column: Column) -> list[str]:
    return column.column or [name]


def _prepare(columns: dict[str, Column], row: Row) -> dict[str, Any]:
    lists = {name: _texts(row, name, column) for name, column in columns.items() if column.type == "texts"}
    others = {name: _value(row, name, c, lists) for name, c in columns.items() if c.type != "texts"}
    return lists | others


def _value(row: Row, name: str, column: Column, lists: dict[str, list[str]]) -> Any:
    (path,) = _paths(name, column)
    if "." in path:
        row = {path: at_path(row, path)}
    match column.type, column.of:
        case "text", _:
            return text(row, path) if column.default is None else text_or(row, path, column.default)
        case "option", str(options):
            return letter(index(row, path, len(lists[options])))
        case "word", list(words):
            return one_of(row, path, words)
        case "whole", _:
            return whole(row, path)
    left, top, right, bottom = numbers(row, path, 4)
    return [left, top, left + right, top + bottom] if column.form == "size" else [left, top, right, bottom]


def _texts(row: Row, name: str, column: Column) -> list[str]:
    """A list of texts; a text alone makes a list of one, several columns one of all that they hold."""
    paths = _paths(name, column)
    values = [at_path(row, path) for path in paths]
    if len(paths) == 1:
        if paths[0] in row or "." in paths[0]:
            row = {paths[0]: [values[0]] if isinstance(values[0], str) else values[0]}
        return texts(row, paths[0], column.empty)
    while values and values[-1] in _MISSING:
        values.pop()
    if not values:
        raise ColumnError(f"columns {', '.join(paths)} are all empty")
    return [text(row, path) for path in paths[: len(values)]]
