"""fopru-graph: visual-token pruning for vision-language models as composable node-graph pipelines."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fopru_graph.answer import Answer
    from fopru_graph.asking import ask
    from fopru_graph.drop_in import pruned
    from fopru_graph.errors import UserError
    from fopru_graph.graph import (
        Cancelled,
        CancelToken,
        Context,
        DiskCache,
        Graph,
        Lazy,
        MemoryCache,
        Node,
        NodeError,
        Outputs,
        PipelineError,
        Registry,
        RunResult,
        node,
    )
    from fopru_graph.pipeline_map import PipelineMap
    from fopru_graph.pipeline_model import PipelineModel

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "CancelToken",
    "Cancelled",
    "Context",
    "DiskCache",
    "Graph",
    "Lazy",
    "MemoryCache",
    "Node",
    "NodeError",
    "Outputs",
    "PipelineError",
    "PipelineMap",
    "PipelineModel",
    "Registry",
    "RunResult",
    "UserError",
    "ask",
    "node",
    "pruned",
]

# The nodes and the shipped pipelines lie at the top of the repository (`nodes/`, `pipelines/`) and are installed as
# `fopru_graph.nodes` and `fopru_graph.pipelines`. In a checkout these lines let them be found there too.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "nodes").is_dir():
    __path__.append(str(_root))

_ELSEWHERE = {
    "Answer": "fopru_graph.answer",
    "PipelineMap": "fopru_graph.pipeline_map",
    "PipelineModel": "fopru_graph.pipeline_model",
    "UserError": "fopru_graph.errors",
    "ask": "fopru_graph.asking",
    "pruned": "fopru_graph.drop_in",
}  # all other public names are the engine's


if not TYPE_CHECKING:  # else a misspelt name would be an object of any type to checkers

    def __getattr__(name: str) -> object:
        """Load the public names on first use, so that ``import fopru_graph`` stays light."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("Graph", "RunResult"):
            importlib.import_module("fopru_graph.notebook")  # which gives them what notebooks show
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "fopru_graph.graph")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "nodes", "values", *(name for name in globals() if name.startswith("__"))])
