"""Reading YAML into a `Model`. The structure of the document is checked here, its meaning in `check`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from fopru_graph.graph.errors import PipelineError, Problem, hint_choices
from fopru_graph.graph.model import ENABLED, GraphNode, Model, PipelineInput, PipelineOutput, bad_name
from fopru_graph.graph.values import INPUTS, INVALID, MISSING, NAME, Ref, Value, parse_reference
from fopru_graph.graph.yaml.tree import MAX_BYTES, Located, Mapping, Scalar, Sequence, compose, to_value

FORMAT = 1
TOP_KEYS = ("format", "name", "description", "inputs", "nodes", "outputs", "ui")
NODE_KEYS = ("type", ENABLED, "inputs", "cache", "comment")
INPUT_KEYS = ("type", "default")


def read_bytes(path: Path, regular: bool = False, most: int = MAX_BYTES) -> bytes:
    """The content of a pipeline file, cut one byte after the limit; raises `PipelineError` if it cannot be read.

    With ``regular`` a pipe or a device is refused: opening one may wait for ever.
    """
    if regular and path.exists() and not path.is_file():
        raise PipelineError([Problem("no-file", f"cannot read {path}: it is no regular file")])
    try:
        with path.open("rb") as stream:
            return stream.read(most + 1)
    except OSError as error:
        hint = "paths are relative to the current folder" if isinstance(error, FileNotFoundError) else None
        raise PipelineError([Problem("no-file", f"cannot read {path}: {error.strerror}", hint=hint)]) from None


def read_file(model: Model, path: Path) -> None:
    """Fill a new model from a YAML file, as `read_text` does; its sub-graphs are looked up in the file's folder."""
    read_text(model, read_bytes(path), str(path))
    model.folder = path.resolve().parent


def read_text(model: Model, text: str | bytes, file: str | None = None) -> None:
    """Fill a new model from YAML text; ``file`` names the text in messages.

    The problems of the document's structure go to ``model.document_problems``. Raises `PipelineError` if the text is no
    YAML mapping, so that there is nothing to read.
    """
    root, problems = compose(text, file)
    if not isinstance(root, Mapping):
        line = root.line if root else 1
        message = "a pipeline is a mapping with the keys " + ", ".join(TOP_KEYS)
        raise PipelineError([*problems, Problem("bad-structure", message, line=line)], file)
    model.file, model.document_problems = file, problems
    _Reader(model).read(root)


def value_of(located: Located, problems: list[Problem], node: str | None = None, key: str | None = None) -> Value:
    """The tree as a value: strings that begin with one dollar become references, and ``$$`` becomes one dollar."""
    if isinstance(located, Sequence):
        return [value_of(item, problems, node, key) for item in located.items]
    if isinstance(located, Mapping):
        return {name: value_of(item, problems, node, key) for name, (_, item) in located.items.items()}
    text = located.value
    if not isinstance(text, str) or not text.startswith("$"):
        return text
    if text.startswith("$$"):
        return text[1:]
    ref = parse_reference(text)
    if ref is None or "/" in ref.node:
        hint = f"a reference is $node, $node.output or $inputs.name; write ${text} for the text itself"
        message = f"{text[:60]!r} is no reference"
        problems.append(Problem("bad-reference", message, node=node, input=key, line=located.line, hint=hint))
        return INVALID
    return ref


def parse_value(text: str) -> Any:
    """A value written as YAML, e.g. ``0.5`` or ``[1, 2]`` after ``--set``; raises `PipelineError` if it is wrong."""
    root, problems = compose(text)
    value = value_of(root, problems) if root and not problems else None
    if problems:
        raise PipelineError(problems)
    return value


class _Reader:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.problems = model.document_problems

    def read(self, root: Mapping) -> None:
        self._known_keys(root, TOP_KEYS, "the pipeline")
        self._format(root)
        self.model.name = self._text(root, "name") or ""
        self.model.description = self._text(root, "description") or ""
        for name, key, entry in self._entries(root, "inputs"):
            self._check_name("pipeline input", name, INPUTS, key.line)
            self._input(name, key, entry)
        for name, key, entry in self._entries(root, "nodes"):
            self._check_name("node", name, name, key.line)
            self._node(name, key, entry)
        for name, key, entry in self._entries(root, "outputs"):
            self._check_name("pipeline output", name, "outputs", key.line)
            self._output(name, key, entry)
        if "ui" in root.items:
            self.model.ui = to_value(root.items["ui"][1])

    def _add(self, code: str, message: str, line: int, node: str | None = None, **more: str | None) -> None:
        self.problems.append(Problem(code, message, line=line, node=node, **more))  # type: ignore[arg-type]

    def _known_keys(self, mapping: Mapping, known: Collection[str], where: str, node: str | None = None) -> None:
        for name, (key, _) in mapping.items.items():
            if name not in known:
                message = f"{where} has no key {name!r}"
                self._add("unknown-key", message, key.line, node, hint=hint_choices(name, known))

    def _format(self, root: Mapping) -> None:
        if "format" not in root.items:
            self._add("bad-format", "the key format is missing", root.line, hint=f"write format: {FORMAT}")
            return
        value = root.items["format"][1]
        if not isinstance(value, Scalar) or type(value.value) is not int or value.value != FORMAT:
            shown = value.text if isinstance(value, Scalar) else "a collection"
            message = f"format is {shown[:40]}, but this version reads format {FORMAT}"
            self._add("bad-format", message, value.line)

    def _text(self, mapping: Mapping, name: str, node: str | None = None) -> str | None:
        if name not in mapping.items:
            return None
        value = mapping.items[name][1]
        if isinstance(value, Scalar) and isinstance(value.value, str):
            return value.value
        if not (isinstance(value, Scalar) and value.value is INVALID):
            self._add("bad-structure", f"{name} must be a text", value.line, node, hint="put it in quotes")
        return None

    def _entries(self, root: Mapping, name: str) -> list[tuple[str, Scalar, Located]]:
        if name not in root.items:
            return []
        section = root.items[name][1]
        if isinstance(section, Mapping):
            return [(key, *pair) for key, pair in section.items.items()]
        if not (isinstance(section, Scalar) and section.value is None):
            self._add("bad-structure", f"{name} must be a mapping of names", section.line)
        return []

    def _check_name(self, what: str, name: str, node: str, line: int) -> None:
        if not NAME.fullmatch(name) or (node == name == INPUTS):
            self.problems.append(bad_name(f"{what} name", name, node, line))

    def _input(self, name: str, key: Scalar, entry: Located) -> None:
        declared = PipelineInput("json", MISSING, key.line)
        self.model.inputs[name] = declared
        if not isinstance(entry, Mapping):
            message = f"the pipeline input {name!r} must be a mapping such as {{type: str, default: text}}"
            self._add("bad-structure", message, entry.line, INPUTS, input=name)
            return
        self._known_keys(entry, INPUT_KEYS, f"the pipeline input {name!r}", INPUTS)
        if (kind := self._text(entry, "type", INPUTS)) is not None:
            declared.type = kind
        elif "type" not in entry.items:
            message, hint = f"the pipeline input {name!r} has no type", f"write {name}: {{type: str}}"
            self._add("bad-structure", message, key.line, INPUTS, input=name, hint=hint)
        if "default" in entry.items:
            declared.default = value_of(entry.items["default"][1], self.problems, INPUTS, name)

    def _node(self, name: str, key: Scalar, entry: Located) -> None:
        node = GraphNode(name, "", line=key.line)
        if isinstance(entry, Mapping):
            self._known_keys(entry, NODE_KEYS, f"node {name!r}", name)
            node.type = self._text(entry, "type", name) or ""
            if "type" not in entry.items:
                hint = "write type: and the name of a node type"
                self._add("bad-structure", f"node {name!r} has no type", key.line, name, hint=hint)
            node.enabled = self._switch(entry, name)
            node.cache = self._text(entry, "cache", name)
            node.comment = self._text(entry, "comment", name)
            for input_name, input_key, value in self._entries(entry, "inputs"):
                node.inputs[input_name] = value_of(value, self.problems, name, input_name)
                node.input_lines[input_name] = input_key.line
        else:
            message = f"node {name!r} must be a mapping such as {{type: …, inputs: {{…}}}}"
            self._add("bad-structure", message, entry.line, name)
        self.model.put(node)

    def _switch(self, mapping: Mapping, node: str) -> bool:
        if ENABLED not in mapping.items:
            return True
        value = mapping.items[ENABLED][1]
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            return value.value
        self._add("bad-structure", f"{ENABLED} must be true or false", value.line, node)
        return True

    def _output(self, name: str, key: Scalar, entry: Located) -> None:
        value = value_of(entry, self.problems, "outputs", name)
        if not isinstance(value, Ref) and value is not INVALID:
            message, hint = f"output {name!r} must be a reference", f"write {name}: $node or $node.output"
            self._add("bad-reference", message, entry.line, "outputs", input=name, hint=hint)
            value = INVALID
        self.model.outputs[name] = PipelineOutput(value, key.line)
