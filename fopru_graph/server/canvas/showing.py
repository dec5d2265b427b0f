"""What a node shows on the canvas: its answers as text, its picture as a file of the temporary folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.comfy.plan import IMAGE, NodePlan
from fopru_graph.server.canvas.messages import Shown
from fopru_graph.server.folders import Folders, keep_newest

if TYPE_CHECKING:
    import PIL.Image

MOST_PICTURES = 1000  # in the temporary folder, as many as there are jobs in the history


def shown(plan: NodePlan, outputs: Mapping[str, Any], folders: Folders, metadata: Mapping[str, Any]) -> Shown:
    """What the frontend shows of a node's outputs.

    Args:
        plan: of the node.
        outputs: by name.
        folders: pictures go to its ``temp``, under names of their own.
        metadata: put into pictures as JSON, so that dropping one on the canvas brings the workflow back.
    """
    found: Shown = {}
    for out in plan.outputs:
        value = outputs[out.output]
        if out.type == IMAGE and plan.spec.output:
            found["images"] = [_saved(value, folders, metadata)]
        elif plan.answers and out.type == "STRING":
            found["text"] = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        elif plan.spec.output and isinstance(value, str):
            found["text"] = [f"saved as {Path(value).relative_to(folders.root).as_posix()}"]
    return found


def _saved(value: str | PIL.Image.Image, folders: Folders, metadata: Mapping[str, Any]) -> dict[str, str]:
    import PIL.Image

    from fopru_graph.pictures.kept import save_png

    folder = folders.place("temp")
    keep_newest(folder, MOST_PICTURES - 1)
    name = f"{uuid.uuid4().hex}.png"
    texts = {key: json.dumps(part) for key, part in metadata.items()}
    if isinstance(value, str):
        with PIL.Image.open(value, formats=["PNG"]) as picture:
            save_png(picture, folder / name, texts)
    else:
        save_png(value, folder / name, texts)
    return {"filename": name, "subfolder": "", "type": "temp"}
