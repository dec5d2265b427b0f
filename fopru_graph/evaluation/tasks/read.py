"""Reading a task's file: YAML to a checked `TaskFile`, with the line of everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import TypeAdapter, ValidationError

from fopru_graph.evaluation.scorers import SCORERS, get_scorer
from fopru_graph.evaluation.tasks.schema import Column, Named, TaskFile
from fopru_graph.evaluation.tasks.shared import lettered
from fopru_graph.graph.errors import PipelineError, Problem, hint_choices, sort_problems
from fopru_graph.graph.yaml.read import read_bytes
from fopru_graph.graph.yaml.tree import Located, compose, to_value
from fopru_graph.graph.yaml.tree import Mapping as LocatedMapping
from fopru_graph.graph.yaml.tree import Sequence as LocatedSequence

FOLDER = Path(__file__).parent
_SPELT = {"text": str, "texts": Sequence[str], "option": str, "word": str, "whole": int, "box": Sequence[float]}
_KEYS = (*TaskFile.model_fields, "extends")
Where = tuple[str | int, ...]


def environment() -> jinja2.Environment:
    """Jinja as prompts are written in it: no access to anything but the record, and a filter ``lettered``."""
    made = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    made.filters["lettered"] = lettered
    return made


def shipped() -> list[str]:
    """The names of the tasks whose files lie here."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read_task(path: Path) -> TaskFile:
    """A task's file, checked.

    Raises:
        PipelineError: it cannot be read or used; with every problem and its line.
    """
    root, problems = compose(read_bytes(path, regular=True), str(path))
    if not isinstance(root, LocatedMapping):
        message = "a task is a mapping with the keys " + ", ".join(_KEYS)
        raise PipelineError([*problems, Problem("bad-structure", message, line=root.line if root else 1)], str(path))
    if problems:
        raise PipelineError(problems, str(path))
    reader = _Reader(root, path)
    task = reader.read()
    if task is None or reader.problems:
        raise PipelineError(sort_problems(reader.problems), str(path))
    return task


@dataclass
class _Reader:
    root: LocatedMapping
    path: Path
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> TaskFile | None:
        values: dict[str, Any] = {"name": self.path.stem, **to_value(self.root)}
        base = values.pop("extends", None)
        if base is not None:
            values = self._extended(base, values)
        try:
            task = TaskFile.model_validate(values)
        except ValidationError as error:
            for entry in error.errors(include_url=False):
                self._refused(entry)
            return None
        self._check(task)
        return task

    def _add(self, where: Where, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem("bad-task", message, line=_line(self.root, where), hint=hint))

    def _extended(self, base: Any, values: dict[str, Any]) -> dict[str, Any]:
        """The values over those of a shipped task: ``data`` and ``columns`` key by key, all else as a whole."""
        if base not in shipped():
            self._add(("extends",), f"there is no task {base!r} to extend", hint_choices(str(base), shipped()))
            return values
        below = read_task(FOLDER / f"{base}.yaml").model_dump(exclude={"format", "title"}, exclude_unset=True)
        if values.keys() & {"prompt", "scorer"}:
            below.pop("models", None)
        if isinstance(values.get("data"), dict) and "file" in values["data"]:
            below["data"] = {key: below["data"][key] for key in ("where", "each") if key in below["data"]}
        for key in ("data", "columns"):
            if isinstance(values.get(key), dict):
                values[key] = below[key] | values[key]
        return below | values

    def _refused(self, entry: Mapping[str, Any]) -> None:
        where: Where = tuple(entry["loc"])
        name = ".".join(map(str, where))
        match entry["type"]:
            case "missing":
                self._add(where, f"the key '{name}' is missing")
            case "extra_forbidden":
                known = _keys(where[:-1]) if len(where) > 1 else _KEYS
                self._add(where, f"there is no key '{name}'", hint_choices(str(where[-1]), known))
            case _:
                message = entry["msg"]
                self._add(where, f"{name}: {message[:1].lower()}{message[1:]}")

    def _check(self, task: TaskFile) -> None:
        if self.path.parent != FOLDER and task.name in (*shipped(), "scenes", "mmmu"):
            self._add(
                ("name",), f"'{task.name}' is the name of a task that is there already", "write name: and another"
            )
        for name, column in task.columns.items():
            self._check_column(task, name, column)
        for where, prompt in _found(task, "prompt"):
            self._check_prompt(task, where, prompt)
        for where, scorer in _found(task, "scorer"):
            self._check_scorer(task, where, scorer)
        for model in task.models:
            if model not in _model_types():
                hint = hint_choices(model, _model_types())
                self._add(("models", model), f"models: there is no model type '{model}'", hint)

    def _check_column(self, task: TaskFile, name: str, column: Column) -> None:
        where: Where = ("columns", name)
        if not name.isidentifier():
            self._add(
                where,
                f"'{name}' is no name for a column",
                "write letters, digits and _; column: has its name in the data",
            )
        if name in ("shown", *task.pictures):
            self._add(
                where,
                f"columns: '{name}' is the name of pictures",
                "choose another name, and write column: for its own",
            )
        if (column.type in ("option", "word")) != (column.of is not None):
            needs = {"option": "of: and the column of the options", "word": "of: and a list of the words"}
            message = f"columns.{name}: " + (f"type {column.type} takes no 'of'" if column.of else "'of' is missing")
            self._add(where, message, f"write {needs[column.type]}" if column.type in needs else None)
        elif column.type == "option" and (
            column.of not in task.columns or task.columns[str(column.of)].type != "texts"
        ):
            message = f"columns.{name}: '{column.of}' is no column of type texts"
            self._add((*where, "of"), message, hint_choices(str(column.of), task.columns))
        elif column.type == "word" and not isinstance(column.of, list):
            self._add((*where, "of"), f"columns.{name}: 'of' must be a list of words")
        if column.default is not None and column.type != "text":
            self._add((*where, "default"), f"columns.{name}: only a column of type text may have a default")
        if len(column.column) > 1 and column.type != "texts":
            self._add((*where, "column"), f"columns.{name}: several columns make one of type texts")

    def _check_prompt(self, task: TaskFile, where: Where, prompt: str) -> None:
        try:
            unknown = jinja2.meta.find_undeclared_variables(environment().parse(prompt)) - task.columns.keys()
            environment().from_string(prompt)
        except jinja2.TemplateSyntaxError as error:
            self._add(where, f"line {error.lineno} of the prompt: {error.message}", "a value is written {{ name }}")
            return
        for name in sorted(unknown):
            self._add(where, f"the prompt names '{name}', which is no column", hint_choices(name, task.columns))

    def _check_scorer(self, task: TaskFile, where: Where, named: Named) -> None:
        if named.name not in SCORERS:
            self._add(where, f"there is no scorer '{named.name}'", hint_choices(named.name, SCORERS))
            return
        scorer = get_scorer(named.name)
        for option, value in named.options.items():
            if option not in scorer.options:
                hint = hint_choices(option, scorer.options) or "it has none"
                self._add((*where, option), f"the scorer '{named.name}' has no option '{option}'", hint)
                continue
            try:
                TypeAdapter(scorer.options[option][0]).validate_python(value)
            except ValidationError as error:
                message = error.errors()[0]["msg"]
                self._add((*where, option), f"scorer.{option}: {message[:1].lower()}{message[1:]}")
        for name, wanted in scorer.columns.items():
            types = [spelt for spelt, made in _SPELT.items() if made == wanted]
            if name not in task.columns:
                message = f"the scorer '{named.name}' needs a column '{name}' of type {' or '.join(types)}"
                self._add(where, message, f"write under columns: {name}: {types[0]}")
            elif task.columns[name].type not in types:
                message = f"columns.{name}: the scorer '{named.name}' needs type {' or '.join(types)}"
                self._add(("columns", name), f"{message}, not {task.columns[name].type}")


@cache
def _model_types() -> list[str]:
    from fopru_graph.lvlm.families.registry import served_families

    return [card.family for card in served_families()]


def _found(task: TaskFile, key: str) -> Iterator[tuple[Where, Any]]:
    """The task's own value of a key, and those of its variants."""
    yield (key,), getattr(task, key)
    for model, variant in task.models.items():
        if (value := getattr(variant, key)) is not None:
            yield ("models", model, key), value


def _line(root: Located, where: Where) -> int:
    """The line of the innermost part of ``where`` that the file has."""
    line, located = root.line, root
    for part in where:
        if isinstance(located, LocatedMapping) and part in located.items:
            key, located = located.items[str(part)]
            line = key.line
        elif isinstance(located, LocatedSequence) and isinstance(part, int) and part < len(located.items):
            located = located.items[part]
            line = located.line
        else:
            break
    return line


def _keys(where: Where) -> list[str]:
    """The keys that a mapping at a place of the file may have."""
    model: Any = TaskFile
    for part in where:
        fields = getattr(model, "model_fields", None)
        model = _model_in(fields[str(part)].annotation if fields else get_args(model)[-1])
    return list(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The model in an optional or annotated type; the annotation of a dictionary as it is."""
    if isinstance(annotation, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
