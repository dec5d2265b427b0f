"""Model families, one file each; `family_for` finds the one that serves a checkpoint."""

from __future__ import annotations

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.idefics import Idefics3, SmolVLM
from fopru_graph.lvlm.families.internvl import InternVL
from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.llava_next import LlavaNext
from fopru_graph.lvlm.families.llava_onevision import LlavaOnevision
from fopru_graph.lvlm.family import Family

FAMILIES: tuple[type[Family], ...] = (Llava, LlavaNext, LlavaOnevision, InternVL, Idefics3, SmolVLM)


def family_for(model_type: str | None, name: str) -> type[Family]:
    """The family that serves ``config.model_type``.

    Raises:
        UserError: none does; the message names the types that are served.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    served = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    raise UserError(f"{name}: architecture {model_type!r} is not supported", f"supported model types: {served}")
