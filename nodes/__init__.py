"""The built-in nodes, one thin file each; installed as `fopru_graph.nodes`."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fopru_graph.nodes.add_uniform import AddUniform as AddUniform
    from fopru_graph.nodes.attention_above import AttentionAbove as AttentionAbove
    from fopru_graph.nodes.average_dropped import AverageDropped as AverageDropped
    from fopru_graph.nodes.blind import Blind as Blind
    from fopru_graph.nodes.budget import Budget as Budget
    from fopru_graph.nodes.cls_attention import ClsAttention as ClsAttention
    from fopru_graph.nodes.contextual_merge import ContextualMerge as ContextualMerge
    from fopru_graph.nodes.dart_prune import DartPrune as DartPrune
    from fopru_graph.nodes.diversity_prune import DiversityPrune as DiversityPrune
    from fopru_graph.nodes.downsample import Downsample as Downsample
    from fopru_graph.nodes.drop_similar import DropSimilar as DropSimilar
    from fopru_graph.nodes.encode_prompt import EncodePrompt as EncodePrompt
    from fopru_graph.nodes.fastv_prune import FastVPrune as FastVPrune
    from fopru_graph.nodes.frame_budget import FrameBudget as FrameBudget
    from fopru_graph.nodes.frame_change import FrameChange as FrameChange
    from fopru_graph.nodes.frame_uniqueness import FrameUniqueness as FrameUniqueness
    from fopru_graph.nodes.holov_prune import HoloVPrune as HoloVPrune
    from fopru_graph.nodes.llm_generate import LLMGenerate as LLMGenerate
    from fopru_graph.nodes.load_image import LoadImage as LoadImage
    from fopru_graph.nodes.load_model import LoadModel as LoadModel
    from fopru_graph.nodes.load_tokens import LoadTokens as LoadTokens
    from fopru_graph.nodes.load_video import LoadVideo as LoadVideo
    from fopru_graph.nodes.mass_prune import MassPrune as MassPrune
    from fopru_graph.nodes.merge_dropped import MergeDropped as MergeDropped
    from fopru_graph.nodes.outlier_prune import OutlierPrune as OutlierPrune
    from fopru_graph.nodes.priortr_prune import PriorTRPrune as PriorTRPrune
    from fopru_graph.nodes.project import Project as Project
    from fopru_graph.nodes.project_all import ProjectAll as ProjectAll
    from fopru_graph.nodes.promote_anchors import PromoteAnchors as PromoteAnchors
    from fopru_graph.nodes.random_score import RandomScore as RandomScore
    from fopru_graph.nodes.rank_prune import RankPrune as RankPrune
    from fopru_graph.nodes.reconstruction_score import ReconstructionScore as ReconstructionScore
    from fopru_graph.nodes.reorder import Reorder as Reorder
    from fopru_graph.nodes.row_prune import RowPrune as RowPrune
    from fopru_graph.nodes.save_text import SaveText as SaveText
    from fopru_graph.nodes.save_tokens import SaveTokens as SaveTokens
    from fopru_graph.nodes.schedule import Schedule as Schedule
    from fopru_graph.nodes.show_kept import ShowKept as ShowKept
    from fopru_graph.nodes.significance import Significance as Significance
    from fopru_graph.nodes.sparse_vlm_prune import SparseVLMPrune as SparseVLMPrune
    from fopru_graph.nodes.spatial_pool import SpatialPool as SpatialPool
    from fopru_graph.nodes.stage_ratio import StageRatio as StageRatio
    from fopru_graph.nodes.stock_generate import StockGenerate as StockGenerate
    from fopru_graph.nodes.switch import Switch as Switch
    from fopru_graph.nodes.text_relevance import TextRelevance as TextRelevance
    from fopru_graph.nodes.tile_budget import TileBudget as TileBudget
    from fopru_graph.nodes.to_me import ToMe as ToMe
    from fopru_graph.nodes.v2drop_prune import V2DropPrune as V2DropPrune
    from fopru_graph.nodes.vision_encode import VisionEncode as VisionEncode
    from fopru_graph.nodes.window_prune import WindowPrune as WindowPrune

_FILES = {module.name.replace("_", ""): module.name for module in pkgutil.iter_modules(__path__)}


if not TYPE_CHECKING:  # else a misspelt name would be an object of any type to checkers

    def __getattr__(name: str) -> object:
        """Load the node class of a name on first use: ``RankPrune`` of ``rank_prune.py``."""
        file = _FILES.get(name.lower()) if name[:1].isupper() else None
        if file is not None and hasattr(module := importlib.import_module(f"{__name__}.{file}"), name):
            return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from fopru_graph.graph import Node

    modules = [importlib.import_module(f"{__name__}.{file}") for file in _FILES.values() if not file.startswith("_")]
    named = [(key, value) for module in modules for key, value in vars(module).items()]
    nodes = {key for key, value in named if isinstance(value, type) and issubclass(value, Node) and value is not Node}
    return sorted([*nodes, *(name for name in globals() if name.startswith("__"))])
