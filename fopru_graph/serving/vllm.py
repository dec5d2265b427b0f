"""vLLM takes image embeddings with a chat request (``image_embeds`` parts) and offline (``multi_modal_data``).

It repeats a picture's placeholder once for each row of its tensor. It counts positions by itself; for Qwen-VL it
derives them from the grid that goes with the tensor.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.chat import MARKER
from fopru_graph.serving.engines import VLLM
from fopru_graph.serving.handover import Handover
from fopru_graph.serving.tensors import packed

_WITH_GRID = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
_WRITES_PLACEHOLDERS = frozenset({"paligemma"})  # vLLM does, whatever the prompt


def chat_request(handover: Handover) -> bytes:
    """The JSON body of a chat request: ``model`` and ``messages`` with an ``image_embeds`` part for each picture.

    ``add_special_tokens`` is there where the tokenizer begins texts with a token that the chat template does not write.

    A tensor is written as vLLM reads it: base64 of `torch.save`, of one picture's (k, H) in the model's type; for
    Qwen-VL beside its ``image_grid_thw`` (3,) int64, in patches.

    Raises:
        UserError: vLLM cannot take it, see `check`, or its chat cannot express the question.
    """
    check(handover)
    if not handover.templated:
        raise UserError(
            "vLLM writes chat requests in the checkpoint's chat template, and this prompt goes without one",
            "use vllm-offline, which holds the prompt itself",
        )
    parts = iter([{"type": "image_embeds", "image_embeds": payload} for payload in _payloads(handover)])
    turns = handover.question.turns()
    if not any(None in pieces for _, pieces in turns):  # pictures come first in the user's first turn
        asked_first = next(turn for turn, (role, _) in enumerate(turns) if role == "user")
        role, pieces = turns[asked_first]
        turns[asked_first] = role, [*[None] * len(handover.tokens.embeddings), *pieces]
    messages = [
        {"role": role, "content": [next(parts) if piece is None else _text(piece) for piece in pieces]}
        for role, pieces in turns
    ]
    body: dict[str, Any] = {"model": handover.model, "messages": messages}
    if handover.marked:  # which vLLM's chat does not by itself
        body["add_special_tokens"] = True
    return (json.dumps(body, ensure_ascii=False) + "\n").encode()


def offline(handover: Handover) -> bytes:
    """A safetensors file of what ``LLM.generate`` takes.

    ``prompt_token_ids`` (M,) int64 has one placeholder for each picture; for PaliGemma, into whose prompts vLLM puts
    them by itself, the metadata's ``prompt`` stands in its place. The other tensors are ``multi_modal_data["image"]``:
    ``image_embeds.0``, … (k, H), to be given as a list; for Qwen-VL a dictionary of ``image_embeds`` (Σk, H) and
    ``image_grid_thw`` (n, 3) int64.

    Raises:
        UserError: vLLM cannot take it, see `check`.
    """
    check(handover)
    rows = _rows(handover)
    metadata = {"engine": "vllm", "model": handover.model, "positions": handover.numbering}
    if handover.family in _WITH_GRID:
        tensors = {"image_embeds": torch.cat(rows), "image_grid_thw": _grids(handover)}
    else:
        tensors = {f"image_embeds.{image}": part for image, part in enumerate(rows)}
    if handover.family in _WRITES_PLACEHOLDERS:
        metadata["prompt"] = handover.question.last.replace(MARKER, "")
    else:
        tensors["prompt_token_ids"] = torch.tensor(handover.text_ids)
    return packed(tensors, metadata)


def check(handover: Handover) -> None:
    """Refuse what vLLM cannot be told.

    Raises:
        UserError: it does not take the family, it is a video, or it would number the tokens otherwise.
    """
    VLLM.check(handover.family)
    if handover.derived is None:
        raise UserError("a video cannot be handed to vLLM as image embeddings", "use a safetensors file")
    if torch.equal(handover.positions, handover.derived):
        return
    if handover.family in _WITH_GRID:
        raise UserError(
            f"vLLM numbers the tokens of {handover.family} by a whole grid, and the places of those that are left "
            f"({handover.numbering}) are none",
            "set positions: row to send them as a picture of one row, which changes answers, or use SGLang",
        )
    raise UserError(
        f"vLLM numbers all tokens one after the other, and these have {handover.numbering} positions",
        "set positions: renumbered",
    )


def _payloads(handover: Handover) -> list[Any]:
    encoded = [_base64(part) for part in _rows(handover)]
    if handover.family not in _WITH_GRID:
        return encoded
    grids = map(_base64, _grids(handover))
    return [{"image_embeds": part, "image_grid_thw": grid} for part, grid in zip(encoded, grids, strict=True)]


def _rows(handover: Handover) -> list[torch.Tensor]:
    """Each picture's (k, H); Qwen3-VL's DeepStack features stand behind the embeddings: H is then that many widths."""
    tokens = handover.tokens
    stacked = tokens.deepstack or ((),) * len(tokens.embeddings)
    return [torch.cat([rows, *layers], -1) for rows, layers in zip(tokens.embeddings, stacked, strict=True)]


def _grids(handover: Handover) -> torch.Tensor:
    """(n, 3) int64: frames, and the patches of each picture's height and width."""
    side = handover.side
    return torch.tensor([(frames, high * side, wide * side) for frames, high, wide in handover.grids])


def _text(piece: str) -> dict[str, str]:
    return {"type": "text", "text": piece}


def _base64(tensor: torch.Tensor) -> str:
    """As vLLM reads tensors. What is saved is a copy: of a view torch would save all that it is a view of."""
    stream = io.BytesIO()
    torch.save(tensor.clone(), stream)
    return base64.b64encode(stream.getvalue()).decode("ascii")
