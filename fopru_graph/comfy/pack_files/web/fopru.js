// The canvas: colours of our links, and a box with the answer on the nodes that give one. Every service of the frontend
// may be missing or another one tomorrow: then the canvas stays as it is, and the nodes work as before.
import { app } from "../../scripts/app.js";
import { ANSWERING, COLOURS } from "./table.js";

const { ComfyWidgets } = await import("../../scripts/widgets.js").catch(() => ({}));
const BOX = "answer";

function quietly(what, work) {
  try {
    work();
  } catch (error) {
    console.warn(`fopru-graph: no ${what}`, error);
  }
}

// Loading a palette forgets colours of types that it does not know, so this comes after it, and again with each workflow.
function paint() {
  quietly("link colours", () => {
    const canvas = app.canvas;
    const tables = [
      canvas?.default_connection_color_byType,
      (globalThis.LGraphCanvas ?? canvas?.constructor)?.link_type_colors,
    ];
    for (const table of tables) {
      if (table) Object.assign(table, COLOURS);
    }
    const style = globalThis.document?.documentElement?.style;
    for (const [type, colour] of Object.entries(COLOURS)) {
      style?.setProperty(`--color-datatype-${type}`, colour);
    }
  });
}

function boxOf(node) {
  const found = node.widgets?.find((widget) => widget.name === BOX);
  if (found) return found;
  const box = ComfyWidgets.STRING(node, BOX, ["STRING", { multiline: true }], app).widget;
  // Neither in the workflow nor in the prompt: widgets are stored by position, and an answer is no input.
  box.serialize = false;
  box.options = Object.assign(box.options ?? {}, { serialize: false, read_only: true });
  const field = box.element ?? box.inputEl;
  if (field) field.readOnly = true;
  const wanted = node.computeSize?.();
  if (wanted && node.size) node.setSize?.([0, 1].map((side) => Math.max(wanted[side], node.size[side])));
  return box;
}

function show(node, text) {
  quietly("answer box", () => {
    if (text === undefined || text === null) return;
    boxOf(node).value = [text].flat().join("\n");
    node.setDirtyCanvas?.(true, true);
  });
}

app.registerExtension({
  name: "fopru-graph.canvas",
  setup: paint,
  afterConfigureGraph: paint,
  beforeRegisterNodeDef(type, data) {
    if (!ANSWERING.includes(data?.name)) return;
    const before = type.prototype.onExecuted;
    type.prototype.onExecuted = function (message) {
      before?.apply(this, arguments);
      show(this, message?.text);
    };
  },
});
