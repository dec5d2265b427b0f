"""A pipeline as a function of columns, for the engines that work through large tables batch by batch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError, first_line
from fopru_graph.graph import MISSING, Graph, NodeError, PipelineError, Registry
from fopru_graph.graph.errors import errors_of, hint_choices
from fopru_graph.paths import absolute_path
from fopru_graph.results.schema import encodable

if TYPE_CHECKING:
    from fopru_graph import values
    from fopru_graph.answer import Answer
    from fopru_graph.graph import Plan
    from fopru_graph.pipeline_model import PipelineModel

    _Row = tuple[str, list[values.Image]]

_PATH = (str, os.PathLike)
ERROR = "error"  # the column that says why a row has no answer; None where it has one
READ = ("image", "prompt")
WRITE = {
    "text": "string",
    "visual_tokens": "tokens",
    "new_tokens": "int",
    "kv_bytes": "int",
    "ttft_ms": "float",
    "prefill_ms": "float",
    "tpot_ms": "float",
    "positions": "string",
}  # what can be written, and the kind of its values; ``tokens`` are the counts of `TOKENS`
TOKENS = {"encoded": "int", "kept": "int", "final": "int", "layer_average": "float"}


class PipelineMap:
    """A pipeline as a function from a batch of columns to a batch of columns. Its model is loaded with the first batch.

    A row that fails has None in the columns of ``write`` and the reason in the column ``error``. Nothing is carried
    over from batch to batch. An object can be pickled, without its model: every process loads its own.

    Args:
        file: a pipeline's YAML file, or the name of one that ships.
        read: the columns that the rows' values are in: ``image``, and ``prompt`` unless all rows are asked the
            pipeline's question. A picture is anything that `to_picture` takes (a path, ``demo:NAME``, the bytes of a
            file, an array …), or a mapping with ``bytes`` or ``path``, as Hugging Face datasets have it. A list of
            pictures is one question about all of them.
        write: the columns to make, of `WRITE`. ``visual_tokens`` are the counts of `TOKENS` as a mapping. Times that a
            row shared with others of its batch are None.
        sets: values of pipeline inputs and of ``node.input``, for all rows.
        nodes: folders or files with node types of your own.
        folder: what relative paths of pictures begin at; the current folder without it.
        keep: which of a batch's columns come out again; None for all.

    Raises:
        UserError: the pipeline has problems, or something is asked of it that it does not have.

    Examples:
        >>> from fopru_graph import PipelineMap
        >>> ask = PipelineMap("fopru_rank", {"image": "path", "prompt": "question"}, ["text"])
        >>> made = ask({"path": ["demo:street-sign", "nowhere.png"], "question": ["what does the text say ?"] * 2})
        >>> made["text"]
        ['stop', None]
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        read: Mapping[str, str],
        write: Sequence[str] = ("text",),
        sets: Mapping[str, Any] | None = None,
        *,
        nodes: Sequence[str | os.PathLike[str]] = (),
        folder: str | os.PathLike[str] | None = None,
        keep: Sequence[str] | None = None,
    ) -> None:
        path = absolute_path(os.fspath(file))
        self.file = path if os.path.exists(path) else os.fspath(file)
        self.read, self.write, self.sets = dict(read), list(write), dict(sets or {})
        self.nodes = [absolute_path(os.fspath(path)) for path in nodes]
        self.folder = absolute_path(os.fspath(folder or "."))
        self.keep = None if keep is None else list(keep)
        self._model: PipelineModel | None = None
        self._question: str | None = None
        self._check()

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes an equal object, as JSON: ``PipelineMap(**arguments)``."""
        names = ("file", "read", "write", "sets", "nodes", "folder", "keep")
        return {name: getattr(self, name) for name in names}

    def graph(self) -> Graph:
        """The pipeline, read anew, with all ``sets``.

        Raises:
            UserError: it has problems.
        """
        registry = Registry.default()
        try:
            for folder in self.nodes:
                registry.load_folder(Path(folder))
            graph = Graph.load(self.file, registry)
            for name in {*self.read} & {*graph.inputs}:
                if graph.inputs[name].default is MISSING:
                    graph.set(name, "")  # every row has its own
            for target, value in self.sets.items():
                graph.set(target, value)
        except PipelineError as error:
            raise _as_sentence(error) from error
        if errors := errors_of(graph.problems()):
            where = f"{self.file}:{errors[0].line}" if errors[0].line else self.file
            raise UserError(f"{where}: {errors[0].message}", errors[0].hint)
        return graph

    def plan(self) -> tuple[Plan, str]:
        """The plan by which rows are answered, and its generating node. Loads torch, but no model.

        Raises:
            UserError: the pipeline has problems, or its question is no text and is not read from a column.
        """
        from fopru_graph.answering import answering_plan

        try:
            plan, target = answering_plan(self.graph())
        except PipelineError as error:
            raise _as_sentence(error) from error
        if "prompt" not in self.read and not isinstance(plan.steps[target].inputs.get("prompt"), str):
            raise UserError(
                f"{self.file}: the question of {target} is no text in the file", "read it from a column (prompt=COLUMN)"
            )
        return plan, target

    def load(self) -> PipelineModel:
        """The pipeline with its model, loaded at the first call.

        Raises:
            UserError: the pipeline has problems.
            NodeError: the model cannot be loaded.
        """
        if self._model is None:
            from fopru_graph.pipeline_model import PipelineModel

            plan, target = self.plan()
            self._question = plan.steps[target].inputs.get("prompt")
            self._model = PipelineModel(self.graph())
        return self._model

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Answer the rows of a batch, together if the pipeline takes batches.

        Args:
            batch: columns of equal length by name: lists, arrays, or series with ``to_pylist``.

        Returns:
            The columns of ``keep``, those of ``write``, and ``error``, as lists in the order of the rows.

        Raises:
            UserError: a column of ``read`` or ``keep`` is not there, or one that is kept has the name of a new one.
            NodeError: the model cannot be loaded, or its device can compute nothing any more: a row is not to blame.
        """
        kept = list(batch) if self.keep is None else self.keep
        if missing := {*self.read.values(), *kept} - set(batch):
            raise UserError(f"the batch has no column {_listing(missing)}", f"it has {_listing(batch)}")
        if taken := set(kept) & {*self.write, ERROR}:
            raise UserError(f"the batch has a column {_listing(taken)} already", "rename it first, or leave it out")
        model = self.load()
        columns = {name: _values(batch[name]) for name in {*self.read.values(), *kept}}
        images = columns[self.read["image"]]
        prompts = columns[self.read["prompt"]] if "prompt" in self.read else [self._question] * len(images)
        answered = _answered(model, [self._row(*row) for row in zip(prompts, images, strict=True)])
        made = [_failed(row) if isinstance(row, Exception) else _figures(row) for row in answered]
        return {name: columns[name] for name in kept} | {
            name: [row.get(name) for row in made] for name in (*self.write, ERROR)
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_model": None}

    def _check(self) -> None:
        for name in self.read:
            if name not in READ:
                raise UserError(f"'{name}' cannot be read from a column", f"{hint_choices(name, READ)}; set it for all")
        if "image" not in self.read:
            raise UserError("no column is read as the picture", "say which: image=COLUMN")
        for name in self.write:
            if name not in WRITE:
                raise UserError(f"there is no '{name}' to write", hint_choices(name, WRITE))
        if len(set(self.write)) < len(self.write) or not self.write:
            raise UserError("what is to be written is named twice or not at all", f"choose of {_listing(WRITE)}")
        self.graph()

    def _row(self, prompt: Any, image: Any) -> _Row | Exception:
        """The question and the pictures of a row, or what is wrong with them."""
        try:
            if not isinstance(prompt, str):
                column = self.read.get("prompt", "prompt")
                raise UserError(f"column '{column}' holds {_shown(prompt)}, not text")
            images = image if isinstance(image, list | tuple) else [image]
            if not images:
                raise UserError(f"column '{self.read['image']}' holds no picture")
            return prompt, [self._picture(each) for each in images]
        except Exception as error:  # a decoder raises whatever a damaged file leads it to
            return error

    def _picture(self, value: Any) -> values.Image:
        from fopru_graph.lvlm.inputs.pictures import to_picture

        if isinstance(value, Mapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if value is None or (isinstance(value, str) and not value):
            raise UserError(f"column '{self.read['image']}' holds no picture")
        return to_picture(absolute_path(os.fspath(value), Path(self.folder)) if isinstance(value, _PATH) else value)


def _as_sentence(error: PipelineError) -> UserError:
    return UserError(str(error).splitlines()[0], error.problems[0].hint if error.problems else None)


def _answered(model: PipelineModel, rows: Sequence[_Row | Exception]) -> list[Answer | Exception]:
    """For each row its answer, or why there is none; rows with a picture of about equal work are answered together."""
    from fopru_graph.batches import answered, equal_batches, work_of

    outcomes: dict[int, Answer | Exception] = {
        at: row if isinstance(row, Exception) else _answer(model, *row)
        for at, row in enumerate(rows)
        if isinstance(row, Exception) or len(row[1]) > 1
    }
    single = [(at, row[0], row[1][0]) for at, row in enumerate(rows) if at not in outcomes and isinstance(row, tuple)]
    work = [work_of(model.handle.family, prompt, picture.shape) for _, prompt, picture in single]
    for batch in equal_batches(work, len(single)):
        questions = [single[number][1:] for number in batch]
        outcomes |= zip((single[number][0] for number in batch), answered(model, questions), strict=True)
    for outcome in outcomes.values():
        if isinstance(outcome, Exception) and _device_is_lost(outcome):
            raise outcome
    return [outcomes[at] for at in range(len(rows))]


def _answer(model: PipelineModel, prompt: str, pictures: list[values.Image]) -> Answer | Exception:
    try:
        return model.answer(prompt, pictures)
    except Exception as error:  # whatever it is, it costs this row only
        return error


def _device_is_lost(error: Exception) -> bool:
    """Whether every later computation in this process would fail as well, as after an assertion in a CUDA kernel."""
    import torch

    cause = error.cause if isinstance(error, NodeError) else error
    return isinstance(cause, torch.AcceleratorError) and not isinstance(cause, torch.OutOfMemoryError)


def _figures(answer: Answer) -> dict[str, Any]:
    tokens = answer.report["visual_tokens"]
    figures = answer.report | {"text": encodable(answer.text), "ttft_ms": answer.ttft_ms}
    if figures.get("samples", 1) > 1:
        figures["prefill_ms"] = None  # that of all rows which were answered together
    return figures | {"visual_tokens": {name: tokens.get(name) for name in TOKENS}}


def _failed(error: Exception) -> dict[str, Any]:
    if isinstance(error, NodeError):
        return {ERROR: encodable(f"{error.node}: {first_line(error.cause)}")}
    plain = isinstance(error, UserError)
    return {ERROR: encodable(first_line(error) if plain else f"{type(error).__name__}: {first_line(error)}")}


def _values(column: Any) -> list[Any]:
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
