"""The values that travel on a pipeline's edges: small frozen data classes that import no torch.

Shapes: a tile has N visual tokens on a grid (h, w), of which K are kept; D is the width of the vision encoder, E that
of the language model. A *tile* is one picture as the vision encoder sees it: LLaVA-1.5 makes one tile of an image,
other families cut it into several. All pruning before the projector works tile by tile.
"""

from fopru_graph.values.generation import Generation, PromptFigures
from fopru_graph.values.in_llm import InLLMPruner, LayerView
from fopru_graph.values.model import ModelHandle, ModelSizes
from fopru_graph.values.pictures import UNTIMED_FPS, Image, Video
from fopru_graph.values.selection import Budget, PromptEmbeddings, Selection, Significance, VisualTokens
from fopru_graph.values.vision import Tile, TileAttention, VisionFeatures

__all__ = [
    "UNTIMED_FPS",
    "Budget",
    "Generation",
    "Image",
    "InLLMPruner",
    "LayerView",
    "ModelHandle",
    "ModelSizes",
    "PromptEmbeddings",
    "PromptFigures",
    "Selection",
    "Significance",
    "Tile",
    "TileAttention",
    "Video",
    "VisionFeatures",
    "VisualTokens",
]
