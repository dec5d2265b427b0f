"""The façade of the engine: a pipeline that is built in Python or read from YAML, checked, run and saved."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Self

from fopru_graph.graph.cache import DiskCache
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.check.targets import sockets_of
from fopru_graph.graph.check.validate import validate
from fopru_graph.graph.context import CancelToken
from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, UnknownAttribute, errors_of, hint_choices
from fopru_graph.graph.events import Event
from fopru_graph.graph.files import write_atomically
from fopru_graph.graph.memory import MemoryCache
from fopru_graph.graph.model import (
    PATH,
    GraphNode,
    Model,
    PipelineInput,
    PipelineOutput,
    bad_name,
    is_block,
    plain_input,
)
from fopru_graph.graph.run.executor import Executor
from fopru_graph.graph.run.record import RunRecord, RunResult
from fopru_graph.graph.shipped import find_pipeline
from fopru_graph.graph.sockets import InputPath
from fopru_graph.graph.values import INPUTS, MISSING, NAME, Link, Ref, Value, describe, given_in
from fopru_graph.graph.yaml.read import read_bytes, read_file, read_text
from fopru_graph.graph.yaml.write import dump

JSON_READER = "fopru_graph.comfy.reading"  # which is above the engine


class Handle(Link):
    """Stands for the single output of a node in Python; ``split.low`` or ``split["low"]`` is one of several outputs."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = graph
        self._name = name

    def _as_ref(self) -> Ref:
        return Ref(self._name)

    def __getitem__(self, output: str) -> Ref:
        spec = self._graph.registry.find(self._graph.node(self._name).type)
        if spec is not None and output not in spec.outputs:
            message = f"{self._name} ({spec.type}) has no output {output!r}"
            hint = hint_choices(output, spec.outputs)
            raise UnknownAttribute([Problem("unknown-output", message, node=self._name, hint=hint)])
        return Ref(self._name, output)

    def __getattr__(self, output: str) -> Ref:
        if output.startswith("_"):
            raise AttributeError(output)
        return self[output]

    def __dir__(self) -> Iterable[str]:
        spec = self._graph.registry.find(self._graph.node(self._name).type)
        return [*super().__dir__(), *(spec.outputs if spec is not None else ())]

    def __str__(self) -> str:
        return f"${self._name}"

    def __repr__(self) -> str:
        return f"Handle({self})"


class Graph(Model):
    """A pipeline. For example::

    graph = Graph("toy")
    image = graph.LoadImage(path="cat.jpg")        # or graph.add("LoadImage", path="cat.jpg")
    graph.output("picture", image)
    graph.run()["picture"]
    """

    def __init__(self, name: str = "", description: str = "", registry: Registry | None = None) -> None:
        super().__init__(name, description, registry)
        self._cache: MemoryCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None}  # copies and pickles remember no outputs

    # -- reading and writing ------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, registry: Registry | None = None) -> Self:
        """Read a YAML file, or the pipeline that ships under this name.

        A ``.json`` file is the record of a run, or a prompt or a workflow of ComfyUI. Raises `PipelineError` if there
        is none or it is no pipeline; `problems` reports everything else.
        """
        graph = cls(registry=registry)
        found = find_pipeline(path)
        if found.suffix.lower() == ".json":
            reader = importlib.import_module(JSON_READER)
            read = reader.read_json(read_bytes(found, most=reader.LARGEST), str(found), registry)
            vars(graph).update(vars(read))
        else:
            read_file(graph, found)
        return graph

    @classmethod
    def loads(cls, text: str | bytes, registry: Registry | None = None, file: str | None = None) -> Self:
        """Read YAML text, as `load` does; ``file`` names it in messages."""
        graph = cls(registry=registry)
        read_text(graph, text, file)
        return graph

    @classmethod
    def from_record(cls, record: RunRecord, registry: Registry | None = None) -> Self:
        """The pipeline of an earlier run, with its set values: running it again gives the same keys and outputs.

        If a file, a node's code or a version has changed since, the result's ``warnings`` say so.
        """
        graph = cls.loads(record.pipeline, registry)
        graph.blocks, graph.recorded = dict(record.blocks), record.to_json()
        graph.folder = Path(record.folder) if record.folder else None
        return graph

    def dumps(self) -> str:
        """The pipeline as YAML, byte-stable.

        Raises `PipelineError` for a graph that was loaded with problems, or that holds an object given in Python.
        """
        if broken := [*errors_of(self.document_problems), *self._objects()]:
            raise PipelineError(broken, self.file)
        return dump(self)

    def _objects(self) -> Iterator[Problem]:
        """A problem for each value that no file can hold."""
        values = [(INPUTS, key, entry.default) for key, entry in self.inputs.items()]
        values += [(name, key, value) for name, entry in self.nodes.items() for key, value in entry.inputs.items()]
        for node, key, value in values:
            if given_in(value):
                message = f"{node}.{key} is {describe(value)}, which no file can hold"
                yield Problem("bad-value", message, node=node, input=key, hint="set it to the path of a file first")

    def save(self, path: str | Path) -> None:
        """Write the pipeline as a YAML file; a reader never sees half of it."""
        write_atomically(Path(path), self.dumps())

    # -- building -----------------------------------------------------------------------------------------------------

    def input(self, name: str, type: str = "str", default: Value = MISSING) -> Ref:
        """Declare a pipeline input and return the reference to it; raises `PipelineError` for a bad or used name."""
        _check_name(name, INPUTS, self.inputs)
        self.inputs[name] = PipelineInput(type, default if default is MISSING else plain_input(default, INPUTS, name))
        return Ref(INPUTS, name)

    def add(self, type_name: str, name: str | None = None, /, *, id: str | None = None, **inputs: Any) -> Handle:
        """Add a node. The default name is the type in snake case or the file's name, with ``_2`` … if that is taken.

        Raises `PipelineError` for an unknown type or input, or a bad or used name.
        """
        is_file = is_block(type_name)  # its inputs are in the file, which validation reads
        spec = None if is_file else self.registry.get(type_name)
        stem = re.sub(r"^(?![A-Za-z_])|[^A-Za-z0-9_-]", "_", PurePosixPath(type_name).stem)
        chosen = name or id or self._free_name(stem if is_file else snake_case(type_name))
        _check_name(chosen, None, self.nodes)
        if spec is not None and (unknown := spec.unknown_inputs(inputs)):
            raise PipelineError([replace(problem, node=chosen) for problem in unknown])
        sockets = spec.inputs if spec is not None else {}
        taken = {key: plain_input(value, chosen, key, sockets.get(key)) for key, value in inputs.items()}
        self.put(GraphNode(chosen, type_name, taken))
        return Handle(self, chosen)

    def __getattr__(self, type_name: str) -> Callable[..., Handle]:
        if type_name.startswith("_"):
            raise AttributeError(type_name)
        if self.registry.find(type_name) is None:
            raise UnknownAttribute([self.registry.unknown(type_name)])
        return lambda *args, **inputs: self.add(type_name, *args, **inputs)

    def set(self, target: str, value: Any) -> None:
        """Set a node's input or a pipeline input's default, see `Model.set`.

        A relative path is relative to the working directory, while those in a file are relative to that file.
        """
        if isinstance(value, str | PurePath) and self.folder not in (None, Path.cwd()):
            declared = self.inputs.get(target)
            paths = [InputPath()] if declared is not None and declared.type == PATH else []
            paths += [socket.path for socket in sockets_of(self, target) if socket.path is not None]
            value = paths[0].place(str(value), None) if paths else value
        super().set(target, value)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.registry.types()]

    def output(self, name: str, ref: Link) -> None:
        """Declare a pipeline output; raises `PipelineError` for a bad or used name."""
        _check_name(name, "outputs", self.outputs)
        if not isinstance(ref, Link):
            message = f"output {name!r} must be an output of a node"
            raise PipelineError([Problem("bad-reference", message, node="outputs")])
        self.outputs[name] = PipelineOutput(ref._as_ref())

    def remove(self, name: str) -> None:
        """Remove a node; `problems` reports the references to it that are left. Raises `PipelineError`."""
        if name not in self.nodes:
            hint = hint_choices(name, self.nodes)
            raise PipelineError([Problem("unknown-node", f"there is no node {name!r} to remove", hint=hint)])
        del self.nodes[name]

    def _free_name(self, base: str) -> str:
        names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in self.nodes and name != INPUTS)

    def flat(self) -> Self:
        """The pipeline without sub-graphs: their nodes are named ``outer/inner``. Raises `PipelineError`."""
        flat, problems = expand(self)
        if errors := errors_of(problems):
            raise PipelineError(errors, self.file)
        return flat

    def of_type(self, type_name: str) -> list[str]:
        """The nodes of a type, those in sub-graphs too, as `set` takes them, e.g. ``block/model``."""
        return [name for name, entry in expand(self)[0].nodes.items() if entry.type == type_name]

    # -- checking and running -----------------------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the pipeline, in the order of lines."""
        return validate(self)

    def run(
        self,
        *,
        targets: Iterable[str] | None = None,
        to: str | None = None,
        sets: Mapping[str, Any] | None = None,
        cache: MemoryCache | None = None,
        disk: DiskCache | None = None,
        on_event: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
        out: str | Path | None = None,
    ) -> RunResult:
        """Run the pipeline; see `Executor.run`.

        The graph keeps the outputs of its nodes in memory, so that a second run only runs what changed. ``cache``
        replaces that memory; ``MemoryCache(0)`` keeps nothing.
        """
        if cache is None:
            cache = self._cache = MemoryCache() if self._cache is None else self._cache
        executor = Executor(self.registry, cache=cache, disk=disk)
        folder = None if out is None else Path(out)
        return executor.run(self, targets, to=to, sets=sets, on_event=on_event, cancel=cancel, out=folder)


def _check_name(name: str, kind: str | None, taken: Container[str]) -> None:
    """Raise `PipelineError` for a name that no reference can hold or that is taken; ``kind`` is None for a node."""
    what = f"{kind[:-1]} " if kind else "node "
    if not NAME.fullmatch(name) or (kind is None and name == INPUTS):
        raise PipelineError([bad_name(f"{what}name", name, kind)])
    if name in taken:
        raise PipelineError([Problem("duplicate-id", f"there already is a pipeline {what}{name!r}", node=kind or name)])
