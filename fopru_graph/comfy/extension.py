"""What ComfyUI loads: one class of its node API, third version, for each of our node types.

The classes need neither torch nor transformers, so that workflows open without them and a run says what is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from fopru_graph.comfy import files, host
from fopru_graph.comfy.call import Asked, call, state, wanted
from fopru_graph.comfy.object_info import UPLOADS, widget_options
from fopru_graph.comfy.plan import ALIASES, ANY, IMAGE, MOST, PICTURES, NodePlan, Out, Slot, plan_of
from fopru_graph.errors import UserError, first_line
from fopru_graph.graph import NodeSpec, Registry

_WIDGETS = {"int": "Int", "float": "Float", "bool": "Boolean", "choice": "Combo", "file": "Combo"}
_TYPES = {IMAGE: "Image", ANY: "AnyType", "STRING": "String", "INT": "Int", "FLOAT": "Float", "BOOLEAN": "Boolean"}


async def comfy_entrypoint() -> Any:
    """The extension, which ComfyUI asks for the classes of its nodes."""
    registry = Registry.default()
    for failure in registry.failures:
        host.log.warning("%s failed to load: %s", failure.where, failure.error.rstrip())
    return extension(registry.types().values())


def extension(specs: Iterable[NodeSpec]) -> Any:
    """An extension with a class for each node type and for `PICTURES`.

    A node that this ComfyUI cannot show is left out, and logged.
    """
    api = host.api()
    classes = [made for spec in (PICTURES.spec, *specs) if (made := _class_or_none(spec, api.io)) is not None]

    async def get_node_list(_self: Any) -> list[type]:
        return classes

    return type("FopruExtension", (api.ComfyExtension,), {"get_node_list": get_node_list})()


def _class_or_none(spec: NodeSpec, io: Any) -> Any:
    try:
        if spec is not PICTURES.spec and spec.type == PICTURES.spec.type:
            raise UserError(f"the canvas has a node {spec.type} of its own already")
        made = node_class(plan_of(spec), io)
        made.GET_SCHEMA()
    except Exception as error:  # whatever another version of the API raises, or a type that no canvas can show
        host.log.warning("%s is left out: it cannot be shown: %s", spec.type, first_line(error))
        return None
    return made


def node_class(plan: NodePlan, io: Any) -> Any:
    """The class of a node type."""

    def define_schema(_cls: Any) -> Any:
        return schema(plan, io)

    def execute(cls: Any, /, **given: Any) -> Any:
        hidden = cls.hidden
        answered = call(plan, given, Asked(str(hidden.unique_id), hidden.prompt, hidden.extra_pnginfo))
        return io.NodeOutput(*answered.results, ui=answered.ui or None)

    body: dict[str, Any] = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    if (slot := told_here(plan)) is not None:
        body["validate_inputs"] = classmethod(_validator(slot))
    if hasattr(plan.spec.cls, "fingerprint"):
        body["fingerprint_inputs"] = classmethod(lambda _cls, **given: state(plan, given))
    if plan.spec.lazy_inputs():
        body["check_lazy_status"] = classmethod(lambda _cls, **given: wanted(plan, given))
    return type(plan.type, (io.ComfyNode,), body)


def schema(plan: NodePlan, io: Any) -> Any:
    """How the node looks; what this version of the API does not know is left out."""
    return host.known(
        io.Schema,
        node_id=plan.type,
        display_name=plan.title,
        category=plan.category,
        description=plan.spec.doc,
        inputs=[_input(slot, io) for slot in plan.slots],
        outputs=[_output(out, io) for out in plan.outputs],
        hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        is_output_node=plan.spec.output,
        has_intermediate_output=plan.answers,
        search_aliases=list(ALIASES),
    )


# -- checks -----------------------------------------------------------------------------------------------------------


def told_here(plan: NodePlan) -> Slot | None:
    """The input whose rule we tell before a run.

    ComfyUI writes the answer of ``validate_inputs`` on each input that the method names, and leaves out its own checks
    of these. So a single one is named; the rules of others are told by their widgets' bounds, or when the node runs.
    """
    checked = [slot for slot in plan.widgets if slot.checked or slot.kind == "file"]
    order = ("file", "json", "text", "float", "int", "choice", "bool")
    return min(checked, key=lambda slot: (order.index(slot.kind), slot.advanced), default=None)


def _validator(slot: Slot) -> Any:
    """``validate_inputs``, which names the one input."""

    def validate_inputs(_cls: Any, **given: Any) -> bool | str:
        value = given.get(slot.name)
        return value is None or problem(slot, value) or True  # None: linked, so it is known when the node runs

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("cls", slot.name)]
    parameters[1] = parameters[1].replace(default=None)
    validate_inputs.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return validate_inputs


def problem(slot: Slot, value: Any) -> str | None:
    """One sentence on what is wrong with a widget's value, or None."""
    if slot.socket.path is None:
        return slot.problem(value)
    try:
        files.confined(slot.socket.path, value)
    except UserError as error:
        return f"{error} ({error.hint})"
    return None


# -- sockets ----------------------------------------------------------------------------------------------------------


def _output(out: Out, io: Any) -> Any:
    return host.known(_type(out.type, io).Output, out.name, display_name=out.name)


def _type(name: str, io: Any) -> Any:
    return getattr(io, _TYPES[name]) if name in _TYPES else io.Custom(name)


def _input(slot: Slot, io: Any) -> Any:
    options = _common(slot)
    if slot.growing:
        return _growing(slot, io, options)
    if slot.kind == "link":
        return host.known(_type(",".join(slot.types), io).Input, slot.name, optional=slot.optional, **options)
    make = getattr(io, _WIDGETS.get(slot.kind, "String")).Input
    return host.known(make, slot.name, **options, **_widget(slot, io))


def _common(slot: Slot) -> dict[str, Any]:
    options = {"tooltip": slot.tooltip or None, "lazy": slot.socket.lazy or None, "advanced": slot.advanced or None}
    return {name: value for name, value in options.items() if value is not None}


def _growing(slot: Slot, io: Any, options: Mapping[str, Any]) -> Any:
    """A socket more after each link; in a version without such inputs a single one."""
    kind = _type(",".join(slot.types), io)
    if not hasattr(io, "Autogrow"):
        return host.known(kind.Input, slot.name, optional=slot.optional, **options)
    template = io.Autogrow.TemplatePrefix(
        host.known(kind.Input, slot.member, optional=slot.optional, **options),
        prefix=slot.member,
        min=int(not slot.optional),
        max=MOST,
    )
    return host.known(io.Autogrow.Input, slot.name, template=template, optional=slot.optional, **options)


def _widget(slot: Slot, io: Any) -> dict[str, Any]:
    """The widget's options; here a button that uploads a file has a type of its own."""
    options = widget_options(slot, _choices)
    for kind in UPLOADS:
        if options.pop(f"{kind}_upload", False) and hasattr(io, "UploadType"):
            options["upload"] = getattr(io.UploadType, kind)
    return options


def _choices(slot: Slot) -> list[str]:
    """The files that there are now."""
    assert slot.socket.path is not None
    return files.choices(slot.socket.path)
