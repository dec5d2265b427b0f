"""Which model families are served, and what each can do. Imports no torch.

A family registers itself with a decorator, as models do in timm, and nothing else names it::

    @register_family("llava", checkpoints=("llava-hf/llava-1.5-7b-hf",), tokens="576")
    class Llava(Family): ...

Importing a family imports torch and transformers, which takes seconds. So `served_families` reads the decorators'
arguments from the source files of this folder, and `FamilyCard.load` imports a family when it is needed.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fopru_graph.errors import UserError
from fopru_graph.lvlm import families

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family

FamilyClass = TypeVar("FamilyClass", bound="type[Family]")
_classes: dict[str, type[Family]] = {}


def register_family(model_type: str, /, **facts: Any) -> Callable[[FamilyClass], FamilyClass]:
    """Class decorator: the class serves checkpoints whose ``config.model_type`` is ``model_type``.

    ``facts`` are fields of `FamilyCard`; all arguments must be literals, because they are also read without importing.
    """

    def register(family: FamilyClass) -> FamilyClass:
        family.model_type = model_type
        _classes[model_type] = family
        return family

    return register


@dataclass(frozen=True)
class FamilyCard:
    """What is known of a family without importing it.

    ``module`` is its file's name, ``family`` transformers' ``model_type``, ``checkpoints`` names on the hub, ``tokens``
    the number of visual tokens of an image, ``projects`` which visual tokens the projector computes, ``first_cut`` the
    first decoder layer that can prune, ``proven_on`` what its tests run on, ``note`` what a user must know.
    """

    module: str
    family: str
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
        del fields["module"]
        supports = {"pre_projector": True, "in_llm": True, "batch": True, "multi_image": True}
        return fields | supports | {"checkpoints": list(self.checkpoints)}

    def load(self) -> type[Family]:
        """Import the family's class."""
        importlib.import_module(f"{families.__name__}.{self.module}")
        return _classes[self.family]


def served_families() -> list[FamilyCard]:
    """The cards of all families, by file name.

    Raises:
        ValueError: an argument of `register_family` is no literal.
    """
    files = [file for folder in families.__path__ for file in Path(folder).glob("*.py")]
    return [card for file in sorted(files, key=lambda file: file.name) for card in _read_cards(file)]


def _read_cards(file: Path) -> list[FamilyCard]:
    cards = []
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        for decorator in statement.decorator_list if isinstance(statement, ast.ClassDef) else ():
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == register_family.__name__:
                model_type = ast.literal_eval(decorator.args[0])
                facts = {str(fact.arg): ast.literal_eval(fact.value) for fact in decorator.keywords}
                cards.append(FamilyCard(file.stem, model_type, **facts))
    return cards


def served_family(model_type: str | None, name: str) -> type[Family]:
    """The family that serves ``config.model_type``; ``name`` is the checkpoint's, for the message.

    Raises:
        UserError: no family does; the message names the types that are served.
    """
    if model_type in _classes:  # imported already; reading the files takes 30 ms, and every plan of a run asks
        return _classes[model_type]
    cards = {card.family: card for card in served_families()}
    if model_type not in cards:
        raise UserError(
            f"{name}: architecture {model_type!r} is not supported", f"supported model types: {', '.join(cards)}"
        )
    return cards[model_type].load()
