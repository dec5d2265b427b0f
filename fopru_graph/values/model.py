"""A loaded model and its sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fopru_graph.describing import FILE, Described

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, repr=False)
class ModelSizes(Described):
    """The sizes of a model that its FLOPs and bytes follow from. Weights are those that multiply every token.

    Vision tower: ``tower_layers`` run, with ``tower_weights`` weights together; ``whole_tower`` is (weights, layers)
    of all layers, run or not; ``tower_width`` elements of a token take part in attention; ``patch_weights`` embed a
    patch; ``prefix`` tokens (CLS) come before a tile's patches. Projector: ``patches`` patches become one visual token,
    through ``projector_weights`` weights. ``windowed_layers`` of the tower attend within windows of ``window`` tokens
    only. Language model: ``layers`` decoder layers of ``layer_weights`` weights each,
    hidden size ``width``, MLP size ``inner``, ``query_width`` = heads × head size, ``head_weights`` in the output head.
    Each new token reads ``step_bytes`` bytes of weights. ``causal``: a token of the prompt sees those before it only.
    """

    tower_weights: int
    tower_layers: int
    whole_tower: tuple[int, int]
    tower_width: int
    patch_weights: int
    prefix: int
    patches: int
    projector_weights: int
    layers: int
    layer_weights: int
    width: int
    inner: int
    query_width: int
    head_weights: int
    step_bytes: int
    windowed_layers: int = 0
    window: int = 0
    causal: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class ModelHandle(Described):
    """A loaded model. ``family`` is a `fopru_graph.lvlm.families.family.Family`, untyped as values know no models."""

    name: str = field(metadata={FILE: True})
    family: Any

    @property
    def device(self) -> str:
        """Device of the language model's embeddings, e.g. ``cpu`` or ``cuda:0``."""
        return str(self.family.device)

    @property
    def dtype(self) -> str:
        """Weight type without the ``torch.`` prefix, e.g. ``float32``."""
        return str(self.family.dtype).removeprefix("torch.")
