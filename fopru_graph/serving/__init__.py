"""What a pipeline kept, in the forms that serving engines take, and a file that this package reads again."""

from fopru_graph.serving.engines import ENGINES, TARGETS, Engine
from fopru_graph.serving.tensors import SavedTokens, load_tokens

__all__ = ["ENGINES", "TARGETS", "Engine", "SavedTokens", "load_tokens"]
