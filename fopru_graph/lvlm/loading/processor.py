"""A checkpoint's processor, or its parts where the stock class asks for packages that nothing here needs.

Several stock processors insist on torchvision for a video processor that a picture never meets. Their image processors
work on PIL pictures without it, and prompts are written by the families themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from fopru_graph.lvlm.loading.checkpoint import first_line

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_VIDEOS = ("processor_config.json", "video_preprocessor_config.json")


@dataclass
class PartsProcessor:
    """Image processor, tokenizer and chat template of a checkpoint.

    ``lacks`` is why the stock class did not load; ``video_size`` the least and most pixels of a video, named
    shortest_edge and longest_edge as stock names them, None where the checkpoint says nothing of videos.
    """

    image_processor: Any
    tokenizer: Any
    chat_template: str | None
    lacks: str = "it was made of parts"
    video_size: dict[str, int] | None = None

    def apply_chat_template(self, conversation: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """The conversation as text, as the stock processor writes it."""
        text: str = self.tokenizer.apply_chat_template(
            conversation,
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return text


def open_processor(source: str, options: dict[str, Any]) -> Any:
    """The stock processor of a folder or hub name, or else its parts.

    Raises:
        Exception: whatever transformers raises for an image processor or tokenizer that is missing or damaged.
    """
    try:
        return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False, backend="pil", **options)
    except Exception as error:  # of many kinds: ImportError, AttributeError, ValueError … ; the parts may do without
        images = transformers.AutoImageProcessor.from_pretrained(
            source, trust_remote_code=False, backend="pil", **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        template = tokenizer.chat_template or _template(source, options)
        return PartsProcessor(images, tokenizer, template, first_line(error), _video_size(source, options))


def _template(source: str, options: dict[str, Any]) -> str | None:
    """The chat template that a processor keeps beside the tokenizer's."""
    for name in _TEMPLATES:
        text = _text(source, name, options)
        if text is not None:
            return text if name.endswith(".jinja") else str(json.loads(text)["chat_template"])
    return None


def _video_size(source: str, options: dict[str, Any]) -> dict[str, int] | None:
    """See `PartsProcessor.video_size`; older files say min_pixels and max_pixels."""
    for name in _VIDEOS:
        told: Any = json.loads(_text(source, name, options) or "{}")
        told = told.get("video_processor") or {} if name == _VIDEOS[0] else told
        size = told.get("size") if isinstance(told.get("size"), dict) else {}
        least, most = (
            told.get("min_pixels", size.get("shortest_edge")),
            told.get("max_pixels", size.get("longest_edge")),
        )
        if least and most:
            return {"shortest_edge": least, "longest_edge": most}
    return None


def _text(source: str, name: str, options: dict[str, Any]) -> str | None:
    """The contents of a file of the checkpoint; None where it has no such file."""
    path = transformers.utils.cached_file(source, name, _raise_exceptions_for_missing_entries=False, **options)
    return None if path is None else Path(path).read_text(encoding="utf-8")
