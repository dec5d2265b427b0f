"""The graph engine: node declarations, graphs, YAML, validation, plans, execution, caches and run records.

It knows nothing of models and imports no torch.
"""

from fopru_graph.errors import UserError
from fopru_graph.graph.cache import Codec, CorruptEntry, DiskCache, JsonCodec, MemoryCache
from fopru_graph.graph.context import CancelToken, Context
from fopru_graph.graph.declare import Lazy, Node, NodeSpec, Outputs, node
from fopru_graph.graph.describe import describe
from fopru_graph.graph.entries import GraphNode, PipelineInput, PipelineOutput
from fopru_graph.graph.errors import Cancelled, NodeError, PipelineError, Problem
from fopru_graph.graph.events import (
    CacheWarning,
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    NodeText,
    RunFinished,
    RunStarted,
)
from fopru_graph.graph.executor import Executor
from fopru_graph.graph.expand import expand
from fopru_graph.graph.graph import Graph
from fopru_graph.graph.handle import Handle
from fopru_graph.graph.load import parse_value
from fopru_graph.graph.pipeline_inputs import INPUT_TYPES
from fopru_graph.graph.plan import Plan, Step, plan
from fopru_graph.graph.record import RunRecord, RunResult
from fopru_graph.graph.registry import PackFailure, Registry
from fopru_graph.graph.sockets import MISSING, Socket
from fopru_graph.graph.tree import Ref
from fopru_graph.graph.validate import validate, validate_file

__all__ = [
    "INPUT_TYPES",
    "MISSING",
    "CacheWarning",
    "CancelToken",
    "Cancelled",
    "Codec",
    "Context",
    "CorruptEntry",
    "DiskCache",
    "Event",
    "Executor",
    "Graph",
    "GraphNode",
    "Handle",
    "JsonCodec",
    "Lazy",
    "MemoryCache",
    "Node",
    "NodeError",
    "NodeFailed",
    "NodeFinished",
    "NodeProgress",
    "NodeSpec",
    "NodeStarted",
    "NodeText",
    "Outputs",
    "PackFailure",
    "PipelineError",
    "PipelineInput",
    "PipelineOutput",
    "Plan",
    "Problem",
    "Ref",
    "Registry",
    "RunFinished",
    "RunRecord",
    "RunResult",
    "RunStarted",
    "Socket",
    "Step",
    "UserError",
    "describe",
    "expand",
    "node",
    "parse_value",
    "plan",
    "validate",
    "validate_file",
]
