"""What a bench runs: pipelines at several ratios, made comparable by answers of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.graph.plan import Plan
from fopru_graph.graph.run.executor import Executor
from fopru_graph.results.bench import STOCK, label_of

RATIOS = (1.0, 0.75, 0.5, 0.25)


@dataclass(frozen=True, eq=False)
class Case:
    """One pipeline at one ratio, run up to its generating node ``target``; ``prunes``: whether it drops anything."""

    pipeline: str
    ratio: float | None
    graph: Graph
    plan: Plan
    target: str
    prunes: bool

    @property
    def label(self) -> str:
        """Pipeline and ratio; see `result.Variant.label`."""
        return label_of(self.pipeline, self.ratio)

    def lengths(self, new_tokens: int) -> dict[str, int]:
        """What to set so that every answer has ``new_tokens`` tokens, as far as the generating node can be told."""
        known = self.plan.steps[self.target].spec.inputs
        keys = [key for key in ("max_new_tokens", "min_new_tokens") if key in known]
        return {f"{self.target}.{key}": new_tokens for key in keys}

    @property
    def categories(self) -> dict[str, str]:
        """The category of every node that runs."""
        return {name: step.spec.category for name, step in self.plan.steps.items()}


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse shares that are none.

    Raises:
        UserError: a ratio lies outside (0, 1], or there is none.
    """
    if not ratios:
        raise UserError("there is no ratio", "write e.g. --ratio 1,0.5,0.25")
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise UserError(f"ratio {ratio:g} is not in (0, 1]", "a ratio is the share of visual tokens that is kept")


@dataclass(frozen=True)
class Setting:
    """A pipeline's pruning nodes set to a ratio: ``inputs`` by name; ``ratio`` None where it is run as written."""

    ratio: float | None
    inputs: Mapping[str, float]
    prunes: bool


def settings_of(graph: Graph, plan: Plan, ratios: Sequence[float]) -> list[Setting]:
    """How to run a pipeline at every ratio; one that drops nothing is run once, at 1, one that has no ratio as written.

    A pipeline of n pruning stages keeps the n-th root of the ratio in each of them, as the paper does for FoPru and
    FastV: a quarter is a half of a half. Methods that find their own number of tokens have no ratio, nor has a block.

    Raises:
        UserError: a ratio lies outside (0, 1], or a pruning node has a fixed number of tokens.
    """
    check_ratios(ratios)
    pruning = [name for name, step in plan.steps.items() if step.spec.category == "prune"]
    stages = [name for name in pruning if "ratio" in plan.steps[name].inputs]
    settable = [name for name in stages if name in graph]
    for name in settable:
        if plan.steps[name].inputs.get("tokens") is not None:
            raise UserError(
                f"{name_of(graph)}: {name}.tokens is fixed, so no ratio can be set",
                f"add --set {name}.tokens=null, or take it out of the file",
            )
    if not pruning:
        return [Setting(1.0, {}, False)]
    if not stages or len(settable) < len(stages):
        return [Setting(None, {}, True)]
    shares = {ratio: ratio ** (1 / len(stages)) for ratio in ratios}
    return [Setting(ratio, {f"{name}.ratio": share for name in stages}, ratio < 1) for ratio, share in shares.items()]


def generating_node(graph: Graph, plan: Plan) -> str:
    """The one node at the top level that answers.

    Raises:
        UserError: there is none, or more than one.
    """
    generating = [name for name, step in plan.steps.items() if step.spec.category == "generate"]
    if len(generating) != 1 or generating[0] not in graph:
        raise UserError(
            f"{name_of(graph)}: exactly one generating node at the top level is needed, there are {len(generating)}",
            "give pipelines that end in LLMGenerate",
        )
    return generating[0]


def cases_of(graph: Graph, ratios: Sequence[float]) -> list[Case]:
    """A pipeline at every ratio, see `settings_of`.

    Raises:
        UserError: the pipeline generates nothing, or no ratio can be set.
        PipelineError: the pipeline is not valid.
    """
    plan = Executor(graph.registry).plan(graph)
    target = generating_node(graph, plan)
    return [
        _case(graph, setting.ratio, setting.inputs, target, setting.prunes)
        for setting in settings_of(graph, plan, ratios)
    ]


def stock_case(graph: Graph) -> Case:
    """The same model, picture and prompt as in ``graph``, answered by transformers' own ``generate``.

    Raises:
        UserError: the pipeline encodes no picture or asks several prompts at once.
    """
    steps = Executor(graph.registry).plan(graph).steps
    encode = next((name for name in graph.nodes if name in steps and steps[name].spec.category == "encode"), None)
    target = next((name for name in graph.nodes if name in steps and steps[name].spec.category == "generate"), None)
    if encode is None or target is None:
        raise UserError(f"{name_of(graph)}: no picture is encoded at the top level", "leave out --stock")
    given = graph.node(target).inputs
    if isinstance(given.get("prompt"), list):
        raise UserError(f"{name_of(graph)}: the stock row answers one prompt, not a batch", "leave out --stock")
    graph = graph.copy()
    graph.name = STOCK
    image = graph.node(encode).inputs["image"]
    graph.add("StockGenerate", STOCK, model=given["model"], image=image, prompt=given["prompt"])
    return _case(graph, 1.0, {}, STOCK, False)


def _case(graph: Graph, ratio: float | None, sets: Mapping[str, float], target: str, prunes: bool) -> Case:
    graph = graph.copy()
    for name, value in sets.items():
        graph.set(name, value)
    plan = Executor(graph.registry).plan(graph, to=target)
    return Case(name_of(graph), ratio, graph, plan, target, prunes)


def name_of(graph: Graph) -> str:
    """What a pipeline is called: its name, or else its file."""
    return graph.name or (graph.file or "pipeline")
