"""Errors as data: the problems of a pipeline, the failure of a node, a cancelled run."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fopru_graph.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One mistake in a pipeline: a stable code, where it is, one sentence and, if possible, a hint what to do.

    ``node`` is ``inputs`` for a pipeline input and ``outputs`` for a pipeline output; ``line`` counts from 1.
    """

    code: str
    message: str
    severity: Severity = "error"
    node: str | None = None
    input: str | None = None
    line: int | None = None
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The problem as a JSON object with the keys code, severity, node, input, line, message and hint."""
        fields = asdict(self)
        return {key: fields[key] for key in ("code", "severity", "node", "input", "line", "message", "hint")}

    def text(self, file: str | None = None) -> str:
        """One printable line, ``file:line: node.input: message (hint)``, without the parts that are unknown."""
        subject = ".".join(part for part in (self.node, self.input) if part)
        parts = []
        if file or self.line:
            parts.append(":".join(str(part) for part in (file or "line", self.line) if part))
        if subject and not self.message.startswith(subject):
            parts.append(subject)
        parts.append(self.message)
        if self.severity == "warning":
            parts.insert(-1, "warning")
        return ": ".join(parts) + (f" ({self.hint})" if self.hint else "")


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """The problems in the order of their lines; those without a line come last."""
    return sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    """Only the problems that stop a run."""
    return [problem for problem in problems if problem.severity == "error"]


class PipelineError(ValueError):
    """A pipeline that cannot run; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem], file: str | None = None) -> None:
        self.problems = list(problems)
        self.file = file
        super().__init__("\n".join(problem.text(file) for problem in self.problems))


class UnknownAttribute(PipelineError, AttributeError):
    """A `PipelineError` for attribute access, so that ``hasattr`` keeps its meaning."""


class NodeError(Exception):
    """A node failed while it ran.

    ``cause`` is the exception that the node raised, ``location`` is ``file:line`` of the node in the pipeline file.
    ``inputs`` describes the node's inputs (shapes, never tensors), ``done`` lists the nodes that had finished, and
    ``record`` is the `RunRecord` of the failed run. ``raised_at`` is ``file:line`` of the code of a node of the user's
    own, the file ``source``, that failed unexpectedly; else None.
    """

    def __init__(
        self,
        node: str,
        type_name: str,
        location: str | None,
        cause: BaseException,
        inputs: Mapping[str, str],
        done: Sequence[str],
        source: str | None = None,
    ) -> None:
        self.node = node
        self.type = type_name
        self.location = location
        self.cause = cause
        self.inputs = dict(inputs)
        self.done = list(done)
        self.hint: str | None = (cause.hint or None) if isinstance(cause, UserError) else None
        self.raised_at = None if source is None or isinstance(cause, UserError) else _last_line_in(source, cause)
        self.record: Any = None
        super().__init__(self._text())

    def _text(self) -> str:
        where = ", ".join(part for part in (self.type, self.location) if part)
        head = f"{self.node} ({where})"
        if isinstance(self.cause, UserError):
            return f"{head}: {self.cause}" + (f" ({self.hint})" if self.hint else "")
        lines = [f"{head} failed: {type(self.cause).__name__}: {self.cause}"]
        if self.raised_at:
            lines.append(f"  raised at {self.raised_at}")
        if self.inputs:
            lines.append("  inputs: " + ", ".join(f"{name} = {text}" for name, text in self.inputs.items()))
        if self.done:
            lines.append("  finished before: " + ", ".join(self.done))
        return "\n".join(lines)


def _last_line_in(source: str, error: BaseException) -> str | None:
    """``file:line`` of the last call that an exception came through in a file, or in those beside it."""
    folder = os.path.dirname(source)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if os.path.dirname(frame.filename) == folder]
    if not inside:
        return None
    path = os.path.relpath(inside[-1].filename)
    return f"{inside[-1].filename if path.startswith(os.pardir) else path}:{inside[-1].lineno}"


class Cancelled(Exception):
    """The run was stopped on request; ``record`` is the `RunRecord` of the nodes that had finished."""

    def __init__(self, message: str = "the run was cancelled") -> None:
        self.record: Any = None
        super().__init__(message)


def did_you_mean(name: str, choices: Iterable[str]) -> str | None:
    """A hint with the closest choice, or None when nothing is close."""
    names = list(choices)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:  # difflib takes a wrong case for a larger difference than a reader does
        close = [choice for choice in names if choice.lower() == name.lower()][:1]
    return f"did you mean {close[0]!r}?" if close else None


def hint_choices(name: str, choices: Iterable[str]) -> str | None:
    """The closest choice if there is one, otherwise the list of choices, or None when there are none."""
    names = list(choices)
    if guess := did_you_mean(name, names):
        return guess
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"there is: {shown}" if names else None
