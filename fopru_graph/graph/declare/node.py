"""Declaring node types: a class with a typed ``run`` is all there is to write."""

from __future__ import annotations

import hashlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform, get_args, get_origin

from pydantic.fields import FieldInfo

from fopru_graph.graph.context import Context
from fopru_graph.graph.declare.hooks import settle
from fopru_graph.graph.errors import PipelineError, Problem, hint_choices
from fopru_graph.graph.sockets import MISSING, BadLiteral, Socket
from fopru_graph.graph.values import plain

CachePolicy = Literal["memory", "disk", "never"]
Device = Literal["cpu", "model"]
CACHE_POLICIES = ("memory", "disk", "never")
_RESERVED = {"self", "id"}
NodeClass = TypeVar("NodeClass", bound="type[Node]")


class Lazy:
    """``Annotated[T, Lazy()]`` marks an input that is evaluated only when the node's ``needs`` asks for it."""


@dataclass_transform(frozen_default=True)
class Outputs:
    """Base of a node's several outputs: every field of a subclass is one; subclasses become frozen dataclasses."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(frozen=True, eq=False)(cls)


class Node:
    """Base of all node types; see `node`.

    Optional methods: ``fingerprint`` (JSON-able extra state for the cache key), ``needs`` (names of the lazy inputs
    that are wanted now), ``check`` (messages about wrong literals) and, for nodes that run for their effect, ``done``
    (whether the effect of an earlier run with the same inputs is still there; without it they run every time). Each is
    called with the inputs that it names: literals for ``fingerprint`` and ``check``, what is ready for ``needs``,
    literals, the earlier outputs and ``ctx`` for ``done``.
    """

    spec: ClassVar[NodeSpec]
    run: Callable[..., Any]

    def __call__(self, **inputs: Any) -> Any:
        """Run the node at once on these inputs; literals are validated as in a pipeline, defaults are filled in.

        Raises `PipelineError` for unknown, missing and bad inputs.
        """
        spec = type(self).spec
        problems = spec.unknown_inputs(inputs)
        bound: dict[str, Any] = {}
        for name, socket in spec.inputs.items():
            try:
                bound[name] = _bind(socket, inputs.get(name, MISSING))
            except BadLiteral as error:
                message = f"{spec.type}.{name} {error.message}"
                problems.append(Problem(error.code, message, node=spec.type, input=name, hint=error.hint))
        if problems:
            raise PipelineError(problems)
        return self.call(bound, Context(spec.type))

    def call(self, inputs: Mapping[str, Any], context: Context) -> Any:
        """Call ``run`` with complete inputs and the context where it asks for one; a coroutine is run to its end."""
        injected = {name: context for name in type(self).spec.context_names}
        return settle(self.run(**inputs, **injected))


def _bind(socket: Socket, value: Any) -> Any:
    if value is MISSING:
        if socket.required:
            raise BadLiteral("missing-input", "is missing")
        return socket.default_value()
    try:
        literal = plain(value)
    except ValueError:
        return value  # an object such as a tensor: there is no literal to validate
    return socket.read(literal)


_AnyNode: TypeAlias = type[Node]
_AnyOutputs: TypeAlias = type[Outputs]


@dataclass(frozen=True, eq=False)
class NodeSpec:
    """Everything the engine knows of a node type, derived from its class."""

    type: str
    cls: _AnyNode
    category: str
    doc: str
    version: str
    cache: CachePolicy
    output: bool
    device: Device
    inputs: Mapping[str, Socket]
    outputs: Mapping[str, Socket]
    context_names: tuple[str, ...] = ()
    result: _AnyOutputs | None = None

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.doc.partition("\n")[0]

    @property
    def source(self) -> str:
        """Where the class is defined: its module's file, or the module's name."""
        return str(getattr(inspect.getmodule(self.cls), "__file__", None) or self.cls.__module__)

    @cached_property
    def source_hash(self) -> str:
        """SHA-256 of the class's source text, or of its byte code where there is no source (an interactive session)."""
        try:
            text = inspect.getsource(self.cls).encode()
        except (OSError, TypeError):
            text = b"".join(_bytecode(member) for member in vars(self.cls).values())
        return hashlib.sha256(text).hexdigest()

    def lazy_inputs(self) -> list[str]:
        """Names of the inputs that are evaluated on demand."""
        return [name for name, socket in self.inputs.items() if socket.lazy]

    def unknown_inputs(self, names: Mapping[str, Any]) -> list[Problem]:
        """A problem for every name that is no input of this type."""
        return [
            Problem(
                "unknown-input", f"{self.type} has no input {name!r}", node=self.type, input=name,
                hint=hint_choices(name, self.inputs),
            )
            for name in names
            if name not in self.inputs
        ]  # fmt: skip

    def pack(self, value: Any) -> dict[str, Any]:
        """What ``run`` returned, as a mapping of output names to values; raises TypeError when it is something else."""
        if self.result is None:
            return {"output": value}
        if not isinstance(value, self.result):
            raise TypeError(f"run must return {self.result.__name__}, but returned {type(value).__name__}")
        return {name: getattr(value, name) for name in self.outputs}


def _bytecode(member: Any) -> bytes:
    code = getattr(getattr(member, "__func__", member), "__code__", None)
    return code.co_code + repr(code.co_names).encode() + repr(code.co_consts).encode() if code else b""


def node(
    *,
    category: str,
    version: str = "1",
    cache: CachePolicy = "memory",
    output: bool = False,
    device: Device = "cpu",
) -> Callable[[NodeClass], NodeClass]:
    """Make a `Node` subclass a node type named like the class; its ``spec`` is derived from ``run``.

    ``output=True`` marks a node that runs for its effect, ``cache`` says where its outputs may be kept and ``device``
    whether it uses the model's device. Raises TypeError for a class whose ``run`` does not declare everything.
    """

    def declare(cls: NodeClass) -> NodeClass:
        name = cls.__name__
        if not issubclass(cls, Node):
            raise TypeError(f"{name} must inherit from Node")
        if cache not in CACHE_POLICIES or device not in ("cpu", "model"):
            raise TypeError(f"{name}: cache must be one of {CACHE_POLICIES}, device 'cpu' or 'model'")
        inputs, returned, context_names = _signature(cls)
        several = isinstance(returned, type) and issubclass(returned, Outputs)
        outputs = _fields(name, returned) if several else {"output": Socket("output", returned)}
        doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
        cls.spec = NodeSpec(
            name, cls, category, doc, version, cache, output, device,
            MappingProxyType(inputs), MappingProxyType(outputs), context_names,
            returned if several else None,
        )  # fmt: skip
        return cls

    return declare


def _signature(cls: type[Node]) -> tuple[dict[str, Socket], Any, tuple[str, ...]]:
    """The inputs, the return annotation and the names of injected contexts."""
    run = getattr(cls, "run", None)
    if run is None:
        raise TypeError(f"{cls.__name__} has no run method")
    hints = _hints(cls.__name__, run)
    inputs: dict[str, Socket] = {}
    context_names = []
    for name, parameter in list(inspect.signature(run).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{cls.__name__}.run: {parameter} is not allowed, every input needs a name of its own")
        if name not in hints:
            raise TypeError(f"{cls.__name__}.run: parameter {name!r} has no annotation")
        if name in _RESERVED or name.startswith("_"):
            raise TypeError(f"{cls.__name__}.run: an input cannot be named {name!r}")
        if hints[name] is Context:
            context_names.append(name)
        else:
            inputs[name] = _input(cls.__name__, name, hints[name], parameter.default)
    if any(socket.lazy for socket in inputs.values()) and not hasattr(cls, "needs"):
        raise TypeError(f"{cls.__name__} has lazy inputs and so must define needs()")
    if "return" not in hints:
        raise TypeError(f"{cls.__name__}.run has no return annotation")
    return inputs, hints["return"], tuple(context_names)


def _hints(owner: str, function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        message = f"{owner}: an annotation names {error.name!r}, which must be imported outside `if TYPE_CHECKING`"
        raise TypeError(message) from error


def _input(owner: str, name: str, annotation: Any, default: Any) -> Socket:
    extras = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    lazy = any(isinstance(extra, Lazy) or extra is Lazy for extra in extras)
    doc = next((extra.description for extra in extras if isinstance(extra, FieldInfo) and extra.description), "")
    if default is inspect.Parameter.empty:
        return Socket(name, annotation, MISSING, lazy, doc)
    try:
        plain(default)
    except ValueError as error:
        raise TypeError(f"{owner}.run: the default of {name!r} must be a plain value: {error}") from None
    return Socket(name, annotation, default, lazy, doc)


def _fields(owner: str, outputs: type[Any]) -> dict[str, Socket]:
    hints = _hints(owner, outputs)
    return {field.name: Socket(field.name, hints[field.name]) for field in fields(outputs)}


def snake_case(name: str) -> str:
    """``LLMGenerate`` as ``llm_generate``: the default name of a node."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
