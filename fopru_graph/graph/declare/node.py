"""Declaring node types: a class with a typed ``run``, from whose signature everything else is derived."""

from __future__ import annotations

import asyncio
import inspect
import operator
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform, get_args, get_origin

from pydantic.fields import FieldInfo

from fopru_graph.graph.context import Context
from fopru_graph.graph.errors import Cancelled, PipelineError, Problem, hint_choices
from fopru_graph.graph.sockets import BadLiteral, InputPath, Socket
from fopru_graph.graph.values import MISSING, plain, unwrapped

CachePolicy = Literal["memory", "disk", "never"]
CACHE_POLICIES = get_args(CachePolicy)
_RESERVED = {"self", "id"}
NodeClass = TypeVar("NodeClass", bound="type[Node]")


class Lazy:
    """``Annotated[T, Lazy()]`` marks an input that is evaluated only when the node's ``needs`` asks for it.

    ``run`` gets the default, or None, for an input that was not asked for, even if its value happens to be known.
    """


class Advanced:
    """``Annotated[T, Advanced()]`` marks an input that is rarely changed: a canvas shows it on demand."""


class OutputFile:
    """``Annotated[str, OutputFile()]`` marks the name of a file in the output folder; no two nodes may write one."""


@dataclass(frozen=True)
class Takes:
    """``Annotated[str, Takes(is_picture)]`` marks an input that in Python also takes the objects that the test accepts.

    ``run`` and the optional methods get the object itself. A pipeline with one cannot be saved as a file, and the
    node's ``fingerprint`` should tell its content: else the object stands for itself in cache keys.
    """

    test: Callable[[object], bool]


@dataclass_transform(frozen_default=True)
class Outputs:
    """Base class for several outputs: every field of a subclass is one output. Subclasses become frozen dataclasses."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(frozen=True, eq=False)(cls)


class Node:
    """Base class of all node types; see `node`.

    Optional methods, each called with the inputs that it names as parameters:

    * ``fingerprint(literals)`` returns, as JSON, all that matters about the inputs that it takes, e.g. the content of a
      file. It stands in the cache key in their place, so that the same content at another path is the same.
    * ``check(literals)`` returns messages about wrong literals.
    * ``needs(inputs)`` returns the names of the lazy inputs that are wanted now. It is called again with those, until
      it asks for no more. If all that it takes are literals, the branch is known before the run.
    * ``done(literals, earlier outputs, ctx)`` of a node that runs for its effect says whether the effect of an earlier
      run with the same inputs is still there. Without it such a node runs every time.
    """

    spec: ClassVar[NodeSpec]
    run: Callable[..., Any]

    def __call__(self, **inputs: Any) -> Any:
        """Run the node now, e.g. ``RankPrune()(significance=scores, ratio=0.5)``.

        Literals are validated as in a pipeline and defaults are filled in. Raises `PipelineError` for unknown, missing
        and bad inputs.
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
        """Call ``run`` with complete inputs, and the context if it asks for it; a coroutine is run to its end."""
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
        return value  # an object such as a tensor, which is no literal
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
    inputs: Mapping[str, Socket]
    outputs: Mapping[str, Socket]
    context_names: tuple[str, ...] = ()
    result: _AnyOutputs | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.attrgetter("spec"), (self.cls,)  # copies and pickles are the spec of the class

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.doc.partition("\n")[0]

    @property
    def source(self) -> str:
        """The file that defines the class, or the name of its module."""
        return str(getattr(inspect.getmodule(self.cls), "__file__", None) or self.cls.__module__)

    def lazy_inputs(self) -> list[str]:
        """The names of the inputs that are evaluated on demand."""
        return [name for name, socket in self.inputs.items() if socket.lazy]

    def unknown_inputs(self, names: Iterable[str]) -> list[Problem]:
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
        """What ``run`` returned, by output name; raises TypeError if it is not what ``run`` declares."""
        if self.result is None:
            return {"output": value}
        if not isinstance(value, self.result):
            raise TypeError(f"run must return {self.result.__name__}, but returned {type(value).__name__}")
        return {name: getattr(value, name) for name in self.outputs}


def node(
    *, category: str, version: str = "1", cache: CachePolicy = "memory", output: bool = False
) -> Callable[[NodeClass], NodeClass]:
    """Make a `Node` subclass a node type named like the class; its ``spec`` is derived from ``run``.

    ``cache`` says where the outputs may be kept; ``output=True`` marks a node that runs for its effect, e.g. to write
    a file. Raises TypeError for a class whose ``run`` does not declare everything.
    """

    def declare(cls: NodeClass) -> NodeClass:
        name = cls.__name__
        if not issubclass(cls, Node):
            raise TypeError(f"{name} must inherit from Node")
        if cache not in CACHE_POLICIES:
            raise TypeError(f"{name}: cache must be one of {CACHE_POLICIES}")
        inputs, returned, context_names = _signature(cls)
        several = isinstance(returned, type) and issubclass(returned, Outputs)
        outputs = _fields(name, returned) if several else {"output": Socket("output", returned)}
        doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
        cls.spec = NodeSpec(
            name, cls, category, doc, version, cache, output, MappingProxyType(inputs), MappingProxyType(outputs),
            context_names, returned if several else None,
        )  # fmt: skip
        return cls

    return declare


def _signature(cls: type[Node]) -> tuple[dict[str, Socket], Any, tuple[str, ...]]:
    """The inputs, the return annotation and the names of the parameters for the context."""
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
    lazy, file, advanced = (
        any(isinstance(extra, kind) or extra is kind for extra in extras) for kind in (Lazy, OutputFile, Advanced)
    )
    doc = next((extra.description for extra in extras if isinstance(extra, FieldInfo) and extra.description), "")
    path = next((extra for extra in extras if isinstance(extra, InputPath)), None)
    takes = next((extra.test for extra in extras if isinstance(extra, Takes)), None)
    required = default is inspect.Parameter.empty
    try:
        plain(None if required else default)
    except ValueError as error:
        raise TypeError(f"{owner}.run: the default of {name!r} must be a plain value: {error}") from None
    default = MISSING if required else default
    return Socket(name, annotation, default, lazy, doc, file, path, takes, advanced)


def _fields(owner: str, outputs: type[Any]) -> dict[str, Socket]:
    hints = _hints(owner, outputs)
    return {field.name: Socket(field.name, hints[field.name]) for field in fields(outputs)}


def snake_case(name: str) -> str:
    """``LLMGenerate`` as ``llm_generate``: the default name of a node."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


# -- calling a node's methods -----------------------------------------------------------------------------------------


def settle(value: Any) -> Any:
    """The value itself, or the result of an awaitable."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        try:
            return await value
        except asyncio.CancelledError as error:  # a BaseException, which no handler of the run would catch
            raise Cancelled from error

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # A notebook already runs an event loop in this thread, and a second one cannot be started there.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def accepts(hook: Callable[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The inputs that the hook has parameters for (all of them with ``**``); None if a required one is missing."""
    inputs = {name: unwrapped(value) for name, value in inputs.items()}
    chosen: dict[str, Any] = {}
    for name, parameter in inspect.signature(hook).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return inputs
        if name in inputs:
            chosen[name] = inputs[name]
        elif parameter.default is parameter.empty:
            return None
    return chosen
