"""The script of the canvas, run by Node with stand-ins for what the frontend gives it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fopru_graph.comfy import pack
from fopru_graph.comfy.plan import plans
from fopru_graph.graph import Registry

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

APP = """
export const app = globalThis.stub = {
  canvas: {default_connection_color_byType: {MODEL: "#123456"}},
  registerExtension(extension) { this.extension = extension; },
};
globalThis.LGraphCanvas = {link_type_colors: {}};
globalThis.document = {documentElement: {style: {set: {}, setProperty(name, value) { this.set[name] = value; }}}};
"""
WIDGETS = """
export const ComfyWidgets = {STRING(node, name, spec) {
  const widget = {name, spec, options: {}, value: "", element: {}};
  node.widgets.push(widget);
  return {widget};
}};
"""


class Canvas:
    """A folder as the frontend serves it, with the pack's script in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "extensions" / "fopru_graph"
        shutil.copytree(pack.FILES / "web", self.place)
        (self.place / "table.js").write_text(pack.canvas_table(plans(Registry.default())))
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "scripts").mkdir()
        self.serve("app", APP)
        self.serve("widgets", WIDGETS)

    def serve(self, name: str, text: str) -> None:
        (self.folder / "scripts" / f"{name}.js").write_text(text)

    def run(self, code: str) -> dict[str, object]:
        """What ``code`` puts into ``told``, after the script was loaded."""
        text = (
            'import { app } from "./scripts/app.js";\nimport "./extensions/fopru_graph/fopru.js";\n'
            f"const told = {{}};\nconst extension = app.extension;\n{code}\nconsole.log(JSON.stringify(told));\n"
        )
        (self.folder / "main.js").write_text(text)
        assert NODE is not None
        done = subprocess.run(
            [NODE, "main.js"], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told | {"warned": done.stderr.count("fopru-graph: no ")}


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    return Canvas(tmp_path)


NODE_TYPE = """
class Type {
  constructor() { this.widgets = [{name: "prompt"}]; this.size = [10, 10]; }
  computeSize() { return [200, 5]; }
  setSize(size) { this.size = size; }
}
Type.prototype.onExecuted = function (message) { this.before = message; };
extension.beforeRegisterNodeDef(Type, {name: NAME});
const node = new Type();
"""


def node_type(name: str = "FopruLLMGenerate") -> str:
    return NODE_TYPE.replace("NAME", json.dumps(name))


def test_links_get_their_colours_in_both_tables_and_in_the_style(canvas: Canvas) -> None:
    told = canvas.run("""
        const early = {...app.canvas.default_connection_color_byType};
        extension.setup();
        Object.assign(told, {early, canvas: app.canvas.default_connection_color_byType,
          links: LGraphCanvas.link_type_colors, style: document.documentElement.style.set});
    """)
    colours = pack.link_colours(plans(Registry.default()))
    assert told["early"] == {"MODEL": "#123456"}
    assert told["canvas"] == {"MODEL": "#123456"} | colours
    assert told["links"] == colours
    assert told["style"] == {f"--color-datatype-{name}": colour for name, colour in colours.items()}


def test_a_palette_that_forgot_the_colours_gets_them_with_the_next_workflow(canvas: Canvas) -> None:
    told = canvas.run("""
        extension.setup();
        app.canvas.default_connection_color_byType = {};
        extension.afterConfigureGraph();
        told.canvas = app.canvas.default_connection_color_byType;
    """)
    assert told["canvas"] == pack.link_colours(plans(Registry.default()))


def test_the_answer_stands_in_a_box_that_is_stored_nowhere(canvas: Canvas) -> None:
    told = canvas.run(
        node_type()
        + """
        node.onExecuted({text: ["a sign"]});
        node.onExecuted({text: ["stop", "go"]});
        node.onExecuted({images: []});
        Object.assign(told, {widgets: node.widgets, before: node.before, size: node.size});
    """
    )
    first, box = told["widgets"]  # type: ignore[misc]
    assert first == {"name": "prompt"}
    assert box["value"] == "stop\ngo"
    assert box["serialize"] is False and box["options"]["serialize"] is False
    assert box["element"]["readOnly"] is True and box["spec"] == ["STRING", {"multiline": True}]
    assert told["before"] == {"images": []}
    assert told["size"] == [200, 10]
    assert told["warned"] == 0


def test_no_input_is_called_like_the_box() -> None:
    answering = [plan for plan in plans(Registry.default()).values() if plan.answers]
    assert answering
    assert [slot.name for plan in answering for slot in plan.slots if slot.name == "answer"] == []


@pytest.mark.parametrize("name", ["KSampler", "FopruRankPrune"])
def test_other_nodes_are_left_alone(canvas: Canvas, name: str) -> None:
    told = canvas.run(node_type(name) + 'node.onExecuted({text: ["a"]}); told.widgets = node.widgets;')
    assert told["widgets"] == [{"name": "prompt"}]


@pytest.mark.parametrize(
    "gone",
    ["(app.canvas = undefined)", "delete globalThis.LGraphCanvas", "delete globalThis.document"],
)
def test_colours_of_a_frontend_that_lacks_a_table_are_set_where_they_can(canvas: Canvas, gone: str) -> None:
    told = canvas.run(f"{gone}; extension.setup(); told.done = true;")
    assert told["done"] is True


@pytest.mark.parametrize("widgets", [None, "", "export const ComfyWidgets = {};"])
def test_without_the_frontends_widgets_the_node_runs_without_a_box(canvas: Canvas, widgets: str | None) -> None:
    if widgets is None:
        (canvas.folder / "scripts" / "widgets.js").unlink()
    else:
        canvas.serve("widgets", widgets)
    told = canvas.run(node_type() + 'node.onExecuted({text: ["a"]}); Object.assign(told, {...node});')
    assert told["before"] == {"text": ["a"]}
    assert told["widgets"] == [{"name": "prompt"}]
    assert told["warned"] == 1
