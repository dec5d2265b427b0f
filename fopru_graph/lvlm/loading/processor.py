"""A checkpoint's processor, or its parts if the stock class asks for packages that are not needed here.

Several stock processors need torchvision for a video processor that pictures never pass through. Their image processors
work on PIL pictures without it, and the families write the prompts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from fopru_graph.errors import first_line

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_VIDEOS = ("processor_config.json", "video_preprocessor_config.json")


@dataclass
class PartsProcessor:
    """Image processor, tokenizer and chat template of a checkpoint.

    ``chat_template`` is None where the tokenizer carries one, or several of which it takes its default.
    ``lacks`` says why the stock class did not load. ``video_size`` holds the least and most pixels of a video under the
    stock names shortest_edge and longest_edge; None if the checkpoint names none.
    """

    image_processor: Any
    tokenizer: Any
    chat_template: str | None
    lacks: str = "it was made of parts"
    video_size: dict[str, int] | None = None

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> str:
        """The conversation as text, as the stock processor writes it."""
        text: str = self.tokenizer.apply_chat_template(conversation, chat_template=self.chat_template, **options)
        return text


def open_processor(source: str, options: dict[str, Any]) -> Any:
    """The stock processor of a folder or hub name, or its parts if that class does not load.

    Raises:
        Exception: whatever transformers raises for an image processor or tokenizer that is missing or damaged.
    """
    try:
        return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False, backend="pil", **options)
    except Exception as error:  # ImportError, AttributeError, ValueError …: the parts may load all the same
        images = transformers.AutoImageProcessor.from_pretrained(
            source, trust_remote_code=False, backend="pil", **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        template = None if tokenizer.chat_template else _template(source, options)
        return PartsProcessor(images, tokenizer, template, first_line(error), _video_size(source, options))


def _template(source: str, options: dict[str, Any]) -> str | None:
    """The chat template in a file of the processor, for tokenizers that carry none."""
    for name in _TEMPLATES:
        text = _text(source, name, options)
        if text is not None:
            return text if name.endswith(".jinja") else str(json.loads(text)["chat_template"])
    return None


def _video_size(source: str, options: dict[str, Any]) -> dict[str, int] | None:
    """See `PartsProcessor.video_size`; older files say min_pixels and max_pixels."""
    for name in _VIDEOS:
        settings: Any = json.loads(_text(source, name, options) or "{}")
        settings = settings.get("video_processor") or {} if name == _VIDEOS[0] else settings
        size = settings.get("size") if isinstance(settings.get("size"), dict) else {}
        least = settings.get("min_pixels", size.get("shortest_edge"))
        most = settings.get("max_pixels", size.get("longest_edge"))
        if least and most:
            return {"shortest_edge": least, "longest_edge": most}
    return None


def _text(source: str, name: str, options: dict[str, Any]) -> str | None:
    """The contents of a file of the checkpoint; None if it has no such file."""
    path = transformers.utils.cached_file(source, name, _raise_exceptions_for_missing_entries=False, **options)
    return None if path is None else Path(path).read_text(encoding="utf-8")
