"""Stands for ``comfy_api.latest``: declarations of nodes, and how ``object_info`` shows them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

NAMES = {"display_mode": "display", "force_input": "forceInput", "dynamic_prompts": "dynamicPrompts"}


class UploadType(enum.StrEnum):
    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"


class Hidden(enum.StrEnum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


@dataclass
class Input:
    id: str
    optional: bool = field(default=False, kw_only=True)
    display_name: str | None = field(default=None, kw_only=True)
    tooltip: str | None = field(default=None, kw_only=True)
    lazy: bool | None = field(default=None, kw_only=True)
    advanced: bool | None = field(default=None, kw_only=True)
    io_type: ClassVar[str] = "*"

    def info(self) -> list[Any]:
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("id", "optional")}
        return [self.io_type, {NAMES.get(name, name): value for name, value in given.items() if value is not None}]


@dataclass
class Widget(Input):
    default: Any = field(default=None, kw_only=True)
    socketless: bool | None = field(default=None, kw_only=True)
    force_input: bool | None = field(default=None, kw_only=True)


@dataclass
class Number(Widget):
    min: float | None = field(default=None, kw_only=True)
    max: float | None = field(default=None, kw_only=True)
    step: float | None = field(default=None, kw_only=True)
    display_mode: str | None = field(default=None, kw_only=True)


@dataclass
class Whole(Number):
    control_after_generate: bool | None = field(default=None, kw_only=True)


@dataclass
class Fraction(Number):
    round: float | None = field(default=None, kw_only=True)


@dataclass
class Text(Widget):
    multiline: bool = field(default=False, kw_only=True)
    placeholder: str | None = field(default=None, kw_only=True)


@dataclass
class Choice(Widget):
    options: list[str] | None = field(default=None, kw_only=True)
    upload: UploadType | None = field(default=None, kw_only=True)
    multiselect: bool = field(default=False, kw_only=True)

    def info(self) -> list[Any]:
        kind, shown = super().info()
        upload = shown.pop("upload", None)
        return [kind, shown | ({upload.value: True} if upload else {})]


@dataclass
class Output:
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False
    io_type: ClassVar[str] = "*"


def of_type(io_type: str, shape: type[Input] = Input) -> Any:
    """A type of links with its sockets: ``of_type("INT").Input``."""
    return type(io_type, (), {base.__name__: type(base.__name__, (base,), {"io_type": io_type}) for base in (Output,)}
                | {"Input": type("Input", (shape,), {"io_type": io_type}), "io_type": io_type})  # fmt: skip


Custom = of_type
Int, Float, Boolean = of_type("INT", Whole), of_type("FLOAT", Fraction), of_type("BOOLEAN", Widget)
String, Combo = of_type("STRING", Text), of_type("COMBO", Choice)
Image, AnyType = of_type("IMAGE"), of_type("*")


class Autogrow:
    """Inputs that grow by a socket with each link."""

    @dataclass
    class TemplatePrefix:
        input: Input
        prefix: str
        min: int = 1
        max: int = 10

    @dataclass
    class Input(Input):
        template: Any = None
        io_type: ClassVar[str] = "COMFY_AUTOGROW_V3"

        def info(self) -> list[Any]:
            kind, shown = super().info()
            template = shown["template"]
            listed = described([template.input])
            return [kind, shown | {"template": {"input": listed} | {
                name: getattr(template, name) for name in ("prefix", "min", "max")
            }}]  # fmt: skip


def described(inputs: list[Input]) -> dict[str, dict[str, Any]]:
    """Inputs as ``object_info`` lists them; ``required`` is there even if it is empty."""
    found: dict[str, dict[str, Any]] = {"required": {}}
    for each in inputs:
        found.setdefault("optional" if each.optional else "required", {})[each.id] = each.info()
    return found


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_output_node: bool = False
    has_intermediate_output: bool = False

    def info(self) -> dict[str, Any]:
        """The node in ``object_info``, without the module that declares it."""
        listed = described(self.inputs)
        if self.hidden:
            listed["hidden"] = {name.name: [name.value] for name in self.hidden}
        return {
            "input": listed,
            "input_order": {kind: list(names) for kind, names in listed.items()},
            "is_input_list": False,
            "output": [each.io_type for each in self.outputs],
            "output_is_list": [each.is_output_list for each in self.outputs],
            "output_name": [each.display_name or each.id or each.io_type for each in self.outputs],
            "output_tooltips": [each.tooltip for each in self.outputs],
            "output_matchtypes": None,
            "name": self.node_id,
            "display_name": self.display_name,
            "description": self.description,
            "category": self.category,
            "output_node": self.is_output_node,
            "has_intermediate_output": self.has_intermediate_output,
            "search_aliases": self.search_aliases or None,
            "deprecated": False,
            "experimental": False,
            "dev_only": False,
            "api_node": False,
            "price_badge": None,
            "essentials_category": None,
        }


@dataclass
class HiddenValues:
    unique_id: str | None = None
    prompt: Any = None
    extra_pnginfo: Any = None


class ComfyNode:
    hidden = HiddenValues()
    SCHEMA: ClassVar[Schema]

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802  # ComfyUI's name
        cls.SCHEMA = cls.define_schema()
        ids = [each.id for each in cls.SCHEMA.inputs]
        assert len(set(ids)) == len(ids), f"inputs of one name: {ids}"
        return cls.SCHEMA


class NodeOutput:
    def __init__(self, *args: Any, ui: dict[str, Any] | None = None) -> None:
        self.args, self.ui = args, ui


class ComfyExtension:
    async def on_load(self) -> None:
        """Called before the list of nodes is asked for."""
