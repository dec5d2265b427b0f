"""Loads node packs and runs prompts: the order, the checks, the cache, the messages and the history of ComfyUI."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.comfy.standin import checks
from tests.comfy.standin.model_management import Management
from tests.comfy.standin.node_api import HiddenValues, NodeOutput

Prompt = dict[str, dict[str, Any]]


@dataclass
class Job:
    """A prompt that ran: ``status`` is success, error, interrupted, or refused with the ``errors`` of each node."""

    status: str = ""
    errors: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    messages: list[tuple[str, Any]] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, list[list[Any]]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def told(self, kind: str) -> list[Any]:
        """The data of all messages of a kind."""
        return [data for name, data in self.messages if name == kind]


class ComfyUI:
    """One program: its node types, its cache and the job that runs now."""

    def __init__(self, interruption: type[BaseException]) -> None:
        self.nodes: dict[str, Any] = {}
        self.interrupted = False
        self.management = Management()
        self.on_text: Callable[[str, str], None] = lambda node, text: None
        self._interruption = interruption
        self._cache: dict[str, NodeOutput] = {}
        self._job = Job()

    # -- services that nodes ask ------------------------------------------------------------------------------------

    def interrupt(self, value: bool = True) -> None:
        self.interrupted = value

    def progress(self, node_id: str, value: float, max_value: float) -> None:
        self._job.messages.append(("progress_state", (node_id, value, max_value)))

    def text(self, text: str, node_id: str) -> None:
        self._job.messages.append(("text", (node_id, text)))
        self.on_text(node_id, text)

    # -- loading ----------------------------------------------------------------------------------------------------

    def load(self, pack: Any) -> None:
        """Load a pack: a module, or any object, with ``comfy_entrypoint``."""

        async def listed() -> list[Any]:
            extension = await pack.comfy_entrypoint()
            await extension.on_load()
            return list(await extension.get_node_list())

        self.add(*asyncio.run(listed()))

    def add(self, *classes: Any) -> None:
        """Add node classes."""
        self.nodes |= {cls.GET_SCHEMA().node_id: cls for cls in classes}

    def object_info(self) -> dict[str, Any]:
        """What the browser is told of all nodes; schemas are made anew, so that lists of files are those of now."""
        return json.loads(json.dumps({name: cls.define_schema().info() for name, cls in self.nodes.items()}))

    # -- jobs -------------------------------------------------------------------------------------------------------

    def run(self, prompt: Prompt, extra: dict[str, Any] | None = None) -> Job:
        """Check a prompt and run it on a worker thread, beside an event loop and without gradients."""
        self._job = job = Job()
        job.errors = asyncio.run(checks.check(self.nodes, prompt))
        if job.errors:
            job.status = "refused"
            return job

        async def work() -> None:
            with torch.inference_mode():
                _Run(self, self._interruption, job, prompt, extra, self._cache).run()

        self.interrupted = False
        thread = threading.Thread(target=lambda: asyncio.run(work()))
        thread.start()
        thread.join()
        return job

    def forget(self) -> None:
        """*Free memory*: unload the models and drop all cached outputs."""
        self.management.unload_all_models()
        self._cache.clear()


class _Run:
    def __init__(
        self,
        comfy: ComfyUI,
        interruption: type[BaseException],
        job: Job,
        prompt: Prompt,
        extra: dict[str, Any] | None,
        cache: dict[str, NodeOutput],
    ) -> None:
        self.comfy, self.job, self.prompt, self.extra, self.cache = comfy, job, prompt, extra, cache
        self.interruption, self.keys, self.done = interruption, dict[str, str](), dict[str, NodeOutput]()

    def run(self) -> None:
        """Run what the nodes with an effect need; the last message tells how it ended."""
        self.job.messages.append(("execution_start", None))
        for node in self.prompt:
            self._key(node)
        kept = {key: self.cache[key] for key in self.keys.values() if key in self.cache}
        self.cache.clear()  # results of other prompts go when memory is short, which it practically always is
        self.cache.update(kept)
        cached = [node for node in self.prompt if self.keys[node] in kept]
        self.job.messages.append(("execution_cached", cached))
        try:
            for node in self.prompt:
                if self._schema(node).is_output_node:
                    self._pull(node)
        except self.interruption:
            self.job.status = "interrupted"
            self.job.messages.append(("execution_interrupted", None))
            return
        except _Failed:
            self.job.status = "error"
            return
        for node in self.prompt:
            if self._schema(node).has_intermediate_output and node not in self.done and self.keys[node] in self.cache:
                self._show(node, self.cache[self.keys[node]])
        self.job.status = "success"
        self.job.messages.append(("execution_success", None))

    def _key(self, node: str) -> str:
        """Equal for nodes with equal inputs, those above included."""
        if node not in self.keys:
            step = self.prompt[node]
            cls = self.comfy.nodes[step["class_type"]]
            literals = {name: None if _is_link(value) else value for name, value in step["inputs"].items()}
            print_of = getattr(cls, "fingerprint_inputs", None)
            state = print_of(**_nested(cls, literals)) if print_of else None
            links = {
                name: [self._key(value[0]), value[1]] if _is_link(value) else value
                for name, value in step["inputs"].items()
            }
            self.keys[node] = json.dumps([step["class_type"], state, links], sort_keys=True)
        return self.keys[node]

    def _pull(self, node: str) -> NodeOutput:
        """A node's outputs, from the cache or after those that it needs have run."""
        if node in self.done:
            return self.done[node]
        step = self.prompt[node]
        cls = self.comfy.nodes[step["class_type"]]
        if (cached := self.cache.get(self.keys[node])) is None:
            lazy = {each.id for each in cls.SCHEMA.inputs if each.lazy}
            given = {name: self._value(value) for name, value in step["inputs"].items() if name not in lazy}
            while wanted := self._asked(cls, node, given, lazy):
                given |= {name: self._value(step["inputs"][name]) for name in wanted}
            cached = self._execute(cls, node, given | {name: [None] for name in lazy if name not in given})
        self.done[node] = self.cache[self.keys[node]] = cached
        self.job.values[node] = list(cached.args)
        self._show(node, cached)
        return cached

    def _schema(self, node: str) -> Any:
        return self.comfy.nodes[self.prompt[node]["class_type"]].SCHEMA

    def _show(self, node: str, output: NodeOutput) -> None:
        """Tell what a node shows; of others than these two kinds nothing is told, nor kept in the history."""
        schema = self._schema(node)
        if output.ui is not None and (schema.is_output_node or schema.has_intermediate_output):
            self.job.outputs[node] = output.ui
            self.job.messages.append(("executed", {"node": node, "output": output.ui}))

    def _value(self, value: Any) -> list[Any]:
        return self._pull(value[0]).args[value[1]] if _is_link(value) else [value]

    def _asked(self, cls: Any, node: str, given: dict[str, list[Any]], lazy: set[str]) -> list[str]:
        missing = [name for name in lazy if name not in given]
        if not missing:
            return []
        now = _nested(cls, {name: values[0] for name, values in given.items()} | dict.fromkeys(missing))
        return [name for name in self._bound(cls, node).check_lazy_status(**now) if name in missing]

    def _bound(self, cls: Any, node: str) -> Any:
        """A copy of the class that knows the job, as each call has one."""
        return type(cls.__name__, (cls,), {"hidden": HiddenValues(node, self.prompt, self.extra)})

    def _execute(self, cls: Any, node: str, given: dict[str, list[Any]]) -> NodeOutput:
        """Call the node, once for each element of lists; the outputs of all calls are lists of values."""
        self.job.messages.append(("executing", node))
        self.job.ran.append(node)
        count = max(map(len, given.values()), default=1)
        calls = [{name: each[min(i, len(each) - 1)] for name, each in given.items()} for i in range(count)]
        results = []
        try:
            for call in calls:
                if self.comfy.interrupted:
                    raise self.interruption
                results.append(self._bound(cls, node).execute(**_nested(cls, call)))
        except Exception as error:
            self.job.messages.append(("execution_error", self._error(error, node, given)))
            raise _Failed from error
        ui: dict[str, Any] = {}
        for result in results:
            for name, shown in (result.ui or {}).items():
                ui[name] = [*ui.get(name, []), *shown]
        columns = zip(*(result.args for result in results), strict=True)
        listed = [each.is_output_list for each in cls.SCHEMA.outputs]
        return NodeOutput(*map(_flattened, columns, listed), ui=ui or None)

    def _error(self, error: Exception, node: str, given: dict[str, list[Any]]) -> dict[str, Any]:
        return {
            "node_id": node,
            "node_type": self.prompt[node]["class_type"],
            "exception_message": str(error),
            "exception_type": f"{type(error).__module__}.{type(error).__qualname__}",
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_formatted(value) for value in each] for name, each in given.items()},
            "executed": list(self.done),
        }


class _Failed(Exception):
    pass


def _is_link(value: Any) -> bool:
    return isinstance(value, list)  # any list counts as a link there


def _flattened(values: tuple[Any, ...], listed: bool) -> list[Any]:
    return [each for value in values for each in value] if listed else list(values)


def _formatted(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _nested(cls: Any, flat: dict[str, Any]) -> dict[str, Any]:
    """``pruners.pruner0`` as ``{"pruners": {"pruner0": …}}``, with an empty dict for a growing input without links."""
    found: dict[str, Any] = {each.id: {} for each in cls.SCHEMA.inputs if hasattr(each, "template")}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if dot and isinstance(found.get(outer), dict):
            found[outer][inner] = value
        else:
            found[name] = value
    return found
