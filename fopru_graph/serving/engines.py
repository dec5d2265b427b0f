"""Which engines take the embeddings of which families, and why not. Imports no torch.

Read in the source of the versions that are named; docs/serving.md shows this as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fopru_graph.errors import UserError

Positions = Literal["renumbered", "original", "rebased", "row"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)
Target = Literal["safetensors", "vllm", "vllm-offline", "sglang"]
TARGETS: Mapping[Target, str] = {  # and what their files are called
    "safetensors": "tokens.safetensors",
    "vllm": "vllm.json",
    "vllm-offline": "vllm.safetensors",
    "sglang": "sglang.safetensors",
}


@dataclass(frozen=True)
class Engine:
    """A serving engine: its name, the version that was read, the families it takes, and why it refuses the others."""

    name: str
    version: str
    takes: tuple[str, ...]
    refuses: Mapping[str, str]

    def check(self, family: str) -> None:
        """Refuse a family that the engine does not take.

        Raises:
            UserError: with the reason.
        """
        if family in self.takes:
            return
        reason = self.refuses.get(family, f"nothing is known of {family} there")
        raise UserError(
            f"{self.name} {self.version} takes no embeddings of {family}: {reason}",
            f"it takes {', '.join(self.takes)}; a safetensors file takes every family",
        )


_PIXELS = "it counts placeholders from the picture's size"
_TOWER = "it runs its vision tower on whatever it is given"
_NO_CLASS = "it has no class for it, and its fallback to transformers opens pictures only"
VLLM = Engine(
    "vLLM",
    "0.32",
    (
        *("llava", "llava_next", "llava_onevision", "internvl", "paligemma"),
        *("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    ),
    {
        "gemma3": "its model asserts that there are none",
        "mistral3": "its model drops them",
        "idefics3": _PIXELS,
        "smolvlm": _PIXELS,
    },
)
SGLANG = Engine(
    "SGLang",
    "0.5.23",
    ("qwen2_5_vl", "gemma3"),
    {
        "qwen2_vl": _TOWER,
        "qwen3_vl": _TOWER,
        "llava": _TOWER,
        "mistral3": _TOWER,
        "llava_next": _NO_CLASS,
        "llava_onevision": _NO_CLASS,
        "internvl": f"{_NO_CLASS} (InternVLChatModel is the class of other checkpoints)",
        "paligemma": _NO_CLASS,
        "idefics3": _NO_CLASS,
        "smolvlm": _NO_CLASS,
    },
)
ENGINES: Mapping[str, Engine] = {"vllm": VLLM, "vllm-offline": VLLM, "sglang": SGLANG}  # by target
