"""The graph engine: node types, pipelines in YAML or Python, validation, plans, runs, caches and run records.

It knows nothing of models and does not import torch. Its layers, each of which imports only those below it:
``graph`` (the façade), ``run``, ``plan``, ``check``, ``yaml``, ``model``, ``declare``, ``sockets``, and the rest.
"""

from fopru_graph.errors import UserError
from fopru_graph.graph.cache import Codec, CorruptEntry, DiskCache, DiskEntry, JsonCodec
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.check.validate import validate, validate_file
from fopru_graph.graph.context import CancelToken, Context
from fopru_graph.graph.declare.node import Advanced, Lazy, Node, NodeSpec, OutputFile, Outputs, Takes, node
from fopru_graph.graph.declare.packs import PackFailure
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Cancelled, NodeError, PipelineError, Problem
from fopru_graph.graph.events import (
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    NodeText,
    RunFinished,
    RunStarted,
    RunWarning,
)
from fopru_graph.graph.graph import Graph, Handle
from fopru_graph.graph.memory import MemoryCache
from fopru_graph.graph.model import INPUT_TYPES, GraphNode, PipelineInput, PipelineOutput
from fopru_graph.graph.plan import Plan, plan
from fopru_graph.graph.run.executor import Executor
from fopru_graph.graph.run.record import RunRecord, RunResult
from fopru_graph.graph.sockets import InputPath, Socket
from fopru_graph.graph.steps import Step
from fopru_graph.graph.values import MISSING, Ref, describe
from fopru_graph.graph.yaml.read import parse_value

# fmt: off
__all__ = [
    "Advanced", "Context", "InputPath", "Lazy", "Node", "NodeSpec", "OutputFile", "Outputs", "Socket", "Takes", "node",
    "PackFailure", "Registry",
    "INPUT_TYPES", "MISSING", "Graph", "GraphNode", "Handle", "PipelineInput", "PipelineOutput", "Ref", "parse_value",
    "Cancelled", "NodeError", "PipelineError", "Problem", "UserError",
    "expand", "validate", "validate_file",
    "CancelToken", "Executor", "Plan", "RunRecord", "RunResult", "Step", "describe", "plan",
    "Codec", "CorruptEntry", "DiskCache", "DiskEntry", "JsonCodec", "MemoryCache",
    "Event", "NodeFailed", "NodeFinished", "NodeProgress", "NodeSkipped", "NodeStarted", "NodeText", "RunFinished",
    "RunStarted", "RunWarning",
]
# fmt: on
