"""What tests ask a server: the turns of a chat, and their pictures."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image

from fopru_graph.lvlm.inputs.images import load_image

TEXT, COLOUR = "what does the text say ?", "what colour is the star ?"
SIGN, TAXI = (load_image(f"demo:{name}").picture for name in ("street-sign", "taxi-rank"))


def data_url(picture: PIL.Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def image(picture: PIL.Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(picture)}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in content]}


SIGN_ASKED, TAXI_ASKED = user(image(SIGN), TEXT), user(image(TAXI), COLOUR)
