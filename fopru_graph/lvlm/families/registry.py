"""Which model families are served, and what each can do. Imports no torch; a family is loaded when it is needed."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family


@dataclass(frozen=True)
class Served:
    """One family, named as transformers' ``model_type``.

    ``place`` is its module under `families` and its class there; ``checkpoints`` are names on the hub of this
    architecture; ``projects`` says whether dropped tokens are never projected or dropped right after; ``tokens`` is the
    number of visual tokens of an image; ``proven_on`` what its tests run on; ``note`` what one must know.
    """

    family: str
    place: tuple[str, str]
    checkpoints: tuple[str, ...]
    tokens: str
    projects: str = "all, then dropped"
    video: bool = False
    first_cut: str = "1"
    proven_on: str = "random tiny models"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The family as a JSON object."""
        fields = asdict(self)
        del fields["place"]
        supports = {"pre_projector": True, "in_llm": True, "batch": True, "multi_image": True}
        return fields | supports | {"checkpoints": list(self.checkpoints)}

    def load(self) -> type[Family]:
        """The family's class."""
        module, name = self.place
        kind: type[Family] = getattr(importlib.import_module(f"fopru_graph.lvlm.families.{module}"), name)
        return kind


SERVED = (
    Served(
        "llava",
        ("llava", "Llava"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"),
        "576",
        projects="only those kept",
        proven_on="random tiny models, the bundled trained demo",
    ),
    Served(
        "llava_next",
        ("llava_next", "LlavaNext"),
        (
            "llava-hf/llava-v1.6-vicuna-7b-hf",
            "llava-hf/llava-v1.6-vicuna-13b-hf",
            "llava-hf/llava-v1.6-mistral-7b-hf",
            "llava-hf/llama3-llava-next-8b-hf",
        ),
        "up to 2928: 576 a tile and a newline a row",
        projects="only those kept",
        note="a newline stays while its row has a token",
    ),
    Served(
        "llava_onevision",
        ("llava_onevision", "LlavaOnevision"),
        (
            "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        ),
        "up to about 8900: 729 of the overview, then 729 a tile and a newline a row; 196 a video frame",
        video=True,
        note="more than about ten tiles are shrunk; VisionEncode's together takes each picture as one tile",
    ),
    Served(
        "internvl",
        ("internvl", "InternVL"),
        ("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-8B-hf"),
        "256 a tile, up to 12 tiles and a thumbnail: 3328; 256 a video frame",
        video=True,
    ),
    Served(
        "idefics3",
        ("idefics", "Idefics3"),
        ("HuggingFaceM4/Idefics3-8B-Llama3",),
        "169 a tile, up to 4 × 4 tiles and one of the whole: 2873",
        note="pictures are enlarged to the longest edge; the markers of a tile stay",
    ),
    Served(
        "smolvlm",
        ("idefics", "SmolVLM"),
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
        "64 or 81 a tile, up to 4 × 4 tiles and one of the whole: 1377; one tile a video frame",
        video=True,
        note="frames have no times here: the prompt counts 24 a second, as stock does; the markers of a tile stay",
    ),
    Served(
        "gemma3",
        ("gemma3", "Gemma3"),
        ("google/gemma-3-4b-it", "google/gemma-3-12b-it", "google/gemma-3-27b-it"),
        "256",
        note="no pan and scan; a layer with a sliding window ranks what is outside it last, every sixth has none",
    ),
    Served(
        "paligemma",
        ("paligemma", "PaliGemma"),
        ("google/paligemma-3b-mix-224", "google/paligemma-3b-mix-448", "google/paligemma2-3b-mix-224"),
        "256, 1024 or 4096, by the checkpoint's resolution",
        note="no chat; PaliGemma 2 runs with attention: eager only, its soft-capping of attention is not in the scores",
    ),
    Served(
        "mistral3",
        ("mistral3", "Mistral3"),
        ("mistralai/Mistral-Small-3.1-24B-Instruct-2503",),
        "up to 3025: one for 28 × 28 pixels of the picture, at most 1540 along a side",
        note="a row's break goes when the row has no token left",
    ),
    Served(
        "qwen2_vl",
        ("qwen_vl", "Qwen2VL"),
        ("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
        "4 to 16384, one for 28 × 28 pixels; as many a pair of video frames",
        video=True,
        note="tokens that are left keep their positions in time, height and width",
    ),
    Served(
        "qwen2_5_vl",
        ("qwen_vl", "Qwen25VL"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        "4 to 16384, one for 28 × 28 pixels; as many a pair of video frames",
        video=True,
        note="scores come from the last tower layer that sees the whole picture; frames count 24 a second",
    ),
    Served(
        "qwen3_vl",
        ("qwen_vl", "Qwen3VL"),
        ("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"),
        "64 to 16384, one for 32 × 32 pixels; up to 12288 a video",
        video=True,
        first_cut="3, the number of DeepStack layers",
        note="no cut before the last DeepStack layer; the prompt counts 24 frames a second, as stock does",
    ),
)


def served_family(model_type: str | None, name: str) -> type[Family]:
    """The family that serves ``config.model_type``.

    Raises:
        UserError: none does; the message names the types that are served.
    """
    for one in SERVED:
        if one.family == model_type:
            return one.load()
    types = ", ".join(one.family for one in SERVED)
    raise UserError(f"{name}: architecture {model_type!r} is not supported", f"supported model types: {types}")
