"""fopru-graph: visual-token pruning for vision-language models as composable node-graph pipelines."""

import importlib
from pathlib import Path

__version__ = "0.1.0"

# The nodes and the shipped pipelines lie at the top of the repository (`nodes/`, `pipelines/`) and are installed as
# `fopru_graph.nodes` and `fopru_graph.pipelines`. In a checkout these lines let them be found there too.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "nodes").is_dir():
    __path__.append(str(_root))

_PUBLIC = {"PipelineModel": "fopru_graph.pipeline_model", "PipelineMap": "fopru_graph.pipeline_map"} | dict.fromkeys(
    ("Graph", "Node", "node", "Outputs", "Lazy", "Context", "PipelineError", "NodeError"), "fopru_graph.graph"
)


def __getattr__(name: str) -> object:
    """Load the public names on first use, so that ``import fopru_graph`` stays light."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
