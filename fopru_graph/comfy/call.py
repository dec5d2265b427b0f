"""One call of a node inside ComfyUI: what it gets, what it shows meanwhile, what it gives, and how it fails."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.comfy import files, host, models, pictures, requirements
from fopru_graph.comfy.arguments import arguments, literals
from fopru_graph.comfy.plan import IMAGE, NodePlan
from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Context, Event, NodeProgress, NodeSpec, NodeText
from fopru_graph.graph.steps import fingerprint

if TYPE_CHECKING:
    import PIL.Image

MOST_TEXT = 700  # characters of an error's message
OFTEN = 0.1  # seconds between two texts of an answer that grows
_satisfied = False  # whether the required packages were found; looking takes some 40 ms


class NodeFailure(Exception):
    """What ComfyUI shows of a node that failed: one sentence with its hint."""


@dataclass(frozen=True)
class Asked:
    """Who asks: the node's id, and what a picture may carry, the prompt and the workflow."""

    node: str
    prompt: Any = None
    extra: Mapping[str, Any] | None = None


@dataclass
class Answered:
    """The outputs in the plan's order, and what ComfyUI shows on the node and keeps in its history."""

    results: list[Any]
    ui: dict[str, Any] = field(default_factory=dict)


def call(plan: NodePlan, given: Mapping[str, Any], asked: Asked) -> Answered:
    """Run a node.

    Raises:
        NodeFailure: it failed; the message is one sentence. Its traceback is short, as it is sent to the browser.
        BaseException: ComfyUI's own exceptions, for an interrupted run and for a full memory.
    """
    try:
        _check_requirements()
        return _run(plan, arguments(plan, given), asked)
    except (Cancelled, host.interruption()):
        ended: BaseException = host.interruption()()
    except UserError as error:
        ended = NodeFailure(_told(str(error), error.hint))
    except Exception as error:
        ended = error.with_traceback(None) if host.is_out_of_memory(error) else _unexpected(plan, error)
    raise ended


def _unexpected(plan: NodePlan, error: Exception) -> NodeFailure:
    host.log.error("%s failed", plan.title, exc_info=error)
    return NodeFailure(_told(f"{type(error).__name__}: {error}"))


def state(plan: NodePlan, given: Mapping[str, Any]) -> str:
    """What the node's ``fingerprint`` says, as JSON: it runs again when that changes. Nothing for refused values."""
    try:
        known = literals(plan, given)
    except UserError:
        return ""  # the run says why
    return json.dumps(fingerprint(plan.spec, known)[0], sort_keys=True)


def wanted(plan: NodePlan, given: Mapping[str, Any]) -> list[str]:
    """The lazy inputs that the node asks for, given those that are there. Raises `NodeFailure`."""
    from fopru_graph.graph.declare.node import accepts, settle

    lazy = plan.spec.lazy_inputs()
    given = {name: _without_key(value) for name, value in given.items()}
    try:
        there = arguments(plan, given)
    except UserError as error:
        raise NodeFailure(_told(str(error), error.hint)) from None
    there = {name: value for name, value in there.items() if name not in lazy or given.get(name) is not None}
    hook = plan.spec.cls().needs  # type: ignore[attr-defined]  # every node with lazy inputs has it
    asked = accepts(hook, there)
    return [name for name in settle(hook(**asked)) if name in lazy] if asked is not None else lazy


def _without_key(value: Any) -> Any:
    """A growing input without the names of its links, which stand beside the values only in this question."""
    value = value[0] if isinstance(value, tuple) else value
    return {name: _without_key(link) for name, link in value.items()} if isinstance(value, dict) else value


# -- running ----------------------------------------------------------------------------------------------------------


def _check_requirements() -> None:
    """Raise `UserError` if a package is missing or old. If none is, that is so until ComfyUI starts anew."""
    global _satisfied
    if not _satisfied and (lacking := requirements.missing()):
        raise UserError(lacking)
    _satisfied = True


def _run(plan: NodePlan, inputs: Mapping[str, Any], asked: Asked) -> Answered:
    screen = _Screen(asked.node)
    context = _CanvasContext(plan, asked.node, screen)
    outputs = plan.spec.pack(_outputs(plan.spec, inputs, context))
    screen.show()
    answered = Answered([outputs[out.output] for out in plan.outputs])
    for index, out in enumerate(plan.outputs):
        value = answered.results[index]
        if out.type == IMAGE:
            answered.results[index] = pictures.to_batch(value)
            answered.ui["images"] = [_shown(value, asked)]
        elif context.written and plan.spec.output:
            answered.results[index], answered.ui = _saved(context.written)
        elif plan.answers and out.type == "STRING":
            answered.ui["text"] = value if isinstance(value, list) else [str(value)]
    return answered


def _outputs(spec: NodeSpec, inputs: Mapping[str, Any], context: Context) -> Any:
    """What the node's ``run`` returns. A model is loaded once for all workflows, and is on its device when used."""

    def make() -> Any:
        return spec.cls().call(inputs, context)

    models.ready(inputs.values())
    if [socket.annotation for socket in spec.outputs.values()] != [values.ModelHandle]:
        return make()
    told, covered = fingerprint(spec, inputs)
    others = {name: value for name, value in inputs.items() if name not in covered}
    try:
        key = json.dumps([spec.type, told, others], sort_keys=True)
    except TypeError:  # made of another node's value, which has no name
        return make()
    return models.load_shared(key, make)


def _shown(picture: PIL.Image.Image, asked: Asked) -> dict[str, str]:
    """A picture of a node, as ComfyUI is told of it."""
    path = pictures.save_temporary(picture, asked.prompt, asked.extra)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def _saved(path: Path) -> tuple[str, dict[str, Any]]:
    """The name of a file that a node wrote, as an input that reads it takes it, and what is shown."""
    file = {"filename": path.name, "subfolder": "", "type": "output"}
    return f"{path.name} [output]", {"text": [f"saved as {path.name} in the output folder"], "files": [file]}


class _Screen:
    """Shows progress and the answer as it grows. Each goes to the browser whole, so not for every token."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._said: list[str] = []
        self._fresh = False  # whether something was said that is not shown yet
        self._next = dict.fromkeys(("progress", "text"), 0.0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeProgress):
            if self._is_time("progress") or event.i >= event.n:
                host.report_progress(self.node, event.i, event.n)
        elif isinstance(event, NodeText):
            self._said.append(event.chunk)
            self._fresh = True
            if self._is_time("text"):
                self.show()

    def show(self) -> None:
        """Show all that was said, unless it stands there."""
        if self._fresh:
            host.report_text(self.node, "".join(self._said))
            self._fresh = False

    def _is_time(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._next[kind]:
            return False
        self._next[kind] = now + OFTEN
        return True


class _Stop(CancelToken):
    def is_cancelled(self) -> bool:
        return host.interrupted()


class _CanvasContext(Context):
    """A node's context: files get a number, so that a run overwrites nothing; pictures are given, not written."""

    def __init__(self, plan: NodePlan, node: str, screen: _Screen) -> None:
        shows = any(out.type == IMAGE for out in plan.outputs)
        out = None if shows else host.folder("output")
        super().__init__(node, out=out, emit=screen, cancel=_Stop(), warn=_warn)
        self.written: Path | None = None

    def output_path(self, file: str) -> Path:
        folder = host.folder("output")
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(file)
        pattern = re.compile(rf"{re.escape(name.stem)}_(\d+){re.escape(name.suffix)}")
        taken = [int(match[1]) for match in map(pattern.fullmatch, os.listdir(folder)) if match]
        self.written = folder / f"{name.stem}_{max(taken, default=0) + 1:05}{name.suffix}"
        return self.written


def _warn(node: str, message: str) -> None:
    host.log.warning("%s: %s", node, message)


# -- failures ---------------------------------------------------------------------------------------------------------


def _told(message: str, hint: str | None = None) -> str:
    """A message for the browser: short, and without folders of the user's machine."""
    text = message + (f" ({hint})" if hint else "")
    for place in _places():
        text = text.replace(os.path.join(place, ""), "")
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def _places() -> list[str]:
    """Folders that a message may name, the deepest first."""
    folders = [host.folder("input"), host.folder("output"), host.folder("temp"), Path.home()]
    folders += host.model_folders(files.MODELS)
    written = {form for folder in folders for form in (str(folder), os.path.realpath(folder))}
    return sorted((place for place in written if place.strip(os.sep)), key=len, reverse=True)
