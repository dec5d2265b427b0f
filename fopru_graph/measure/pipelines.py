"""The pipelines of a bench: each at several ratios, made comparable by answers of one length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph import CancelToken, Executor, Graph, MemoryCache, Plan, Ref
from fopru_graph.graph.values import INPUTS, refs_in, with_ancestors
from fopru_graph.measure.arithmetic import SCORING
from fopru_graph.measure.timing import NOT_TIMED
from fopru_graph.results.bench import STOCK, label_of
from fopru_graph.values import ModelHandle

RATIO = "ratio"  # the pipeline input that stands for the share of visual tokens left in the last layer


@dataclass(frozen=True, eq=False)
class BenchedPipeline:
    """A pipeline at one ratio, run up to its generating node ``target``; ``prunes``: whether it drops anything."""

    pipeline: str
    ratio: float | None
    graph: Graph
    plan: Plan
    target: str
    prunes: bool

    @property
    def label(self) -> str:
        """Pipeline and ratio; see `results.bench.Variant.label`."""
        return label_of(self.pipeline, self.ratio)

    @property
    def key(self) -> str:
        """The cache key of the answer: it changes with all that the answer follows from."""
        return self.plan.steps[self.target].key

    def answer_length(self, new_tokens: int) -> dict[str, int]:
        """What to set for answers of ``new_tokens`` tokens, as far as the generating node has such inputs."""
        known = self.plan.steps[self.target].spec.inputs
        return {f"{self.target}.{key}": new_tokens for key in ("max_new_tokens", "min_new_tokens") if key in known}

    @property
    def scoring(self) -> list[str]:
        """What every node that scores or merges computes, see `arithmetic.SCORING`.

        Raises:
            UserError: a node type says something else.
        """
        works = []
        for step in self.plan.steps.values():
            default = "map" if step.spec.category == "score" else "none"
            works.append(work := getattr(step.spec.cls, "attention_work", default))
            if work not in SCORING:
                hint = f"choose {', '.join(SCORING)}"
                raise UserError(f"attention_work of {step.spec.type} is {work!r}", hint)
        return works

    @property
    def categories(self) -> dict[str, str]:
        """The category of every node that runs."""
        return {name: step.spec.category for name, step in self.plan.steps.items()}


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse ratios outside (0, 1].

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
    """The inputs that give a pipeline its ratio, by target; ``ratio`` is None where it runs as written."""

    ratio: float | None
    inputs: Mapping[str, float]
    prunes: bool


def settings_of(graph: Graph, plan: Plan, ratios: Sequence[float]) -> list[Setting]:
    """How to run a pipeline at every ratio, the share of the visual tokens that is left in the last layer.

    A pipeline that declares the input `RATIO` and shares it out to all of its pruning stages is given that. In any
    other, each of n stages keeps the n-th root of the ratio, as the paper does for FoPru and FastV: a quarter is a half
    of a half. What only lends its rule to another node, as to a Schedule, is no stage, and nodes that share a wired
    budget are one: that of the node that sets it. A pipeline that drops nothing is run once, at ratio 1. A pipeline
    without a ratio to set is run once, as written: methods that choose the number of tokens have none.

    Raises:
        UserError: a ratio lies outside (0, 1], or a stage has a fixed number of tokens or a list of ratios.
    """
    check_ratios(ratios)
    pruning = [name for name, step in plan.steps.items() if step.spec.category == "prune"]
    spending = _spending(plan)
    inputs = {name: plan.steps[name].inputs for name in pruning if name in spending}
    stages = [name for name, given in inputs.items() if "ratio" in given and given.get("budget") is None]
    for name, key in product(stages, ("tokens", "ratios")):
        if plan.steps[name].inputs.get(key) is not None:
            raise UserError(
                f"{name_of(graph)}: {name}.{key} is fixed, so no ratio can be set",
                f"add --set {name}.{key}=null, or take it out of the file",
            )
    if not pruning:
        return [Setting(1.0, {}, False)]
    targets = [RATIO] if _is_shared_out(plan, stages) else [f"{name}.ratio" for name in stages]
    if not targets:
        return [Setting(None, {}, True)]
    return [
        Setting(ratio, dict.fromkeys(targets, ratio ** (1 / len(targets))), ratio < 1)
        for ratio in dict.fromkeys(ratios)
    ]


def at_ratio(graph: Graph, ratio: float) -> Graph:
    """A copy of the pipeline at a ratio, by the rule of `settings_of`.

    Raises:
        UserError: the ratio lies outside (0, 1], or the pipeline has none to set.
        PipelineError: the pipeline is not valid.
    """
    (setting,) = settings_of(graph, Executor(graph.registry).plan(graph), [ratio])
    if setting.ratio != ratio:
        why = "it chooses the number of tokens itself" if setting.prunes else "it drops no visual tokens"
        raise UserError(f"{name_of(graph)} has no ratio to set: {why}", "leave the ratio out")
    graph = graph.copy()
    for target, value in setting.inputs.items():
        graph.set(target, value)
    return graph


def _spending(plan: Plan) -> set[str]:
    """The nodes whose own budgets tell in the answer: not those that only lend their rule, as ``pruner``, to others."""
    steps = plan.steps
    ends = [name for name, step in steps.items() if step.spec.category == "generate"] or list(plan.roots)
    return with_ancestors(ends, lambda name: steps[name].read_by(steps[name].inputs.keys() - {"pruner"}))


def _is_shared_out(plan: Plan, stages: Sequence[str]) -> bool:
    """Whether the input `RATIO` is what the stages keep together: not where a user has set one of them by itself.

    Without stages it is enough that a node reads it.
    """
    if not stages:
        return any(_reads_ratio(plan, name) for name in plan.steps)
    exponents = [_exponent(plan, name) for name in stages]
    total = sum(exponents)
    return all(exponents) and (math.isnan(total) or math.isclose(total, 1))


def _exponent(plan: Plan, stage: str) -> float:
    """The power of the input `RATIO` that a stage keeps: 0 if it keeps something else, nan if only others know it."""
    given = plan.flat.nodes[stage].inputs.get("ratio")
    if given == Ref(INPUTS, RATIO):
        return 1.0
    if not isinstance(given, Ref) or given.node not in plan.steps:
        return 0.0
    step = plan.steps[given.node]
    if step.spec.type == "StageRatio" and isinstance(step.inputs["stages"], int):
        return 1 / step.inputs["stages"] if _reads_ratio(plan, step.name) else 0.0
    above = with_ancestors([step.name], lambda name: plan.steps[name].parents)
    return math.nan if any(_reads_ratio(plan, name) for name in above) else 0.0


def _reads_ratio(plan: Plan, name: str) -> bool:
    values = plan.flat.nodes[name].inputs.values()
    return any(ref == Ref(INPUTS, RATIO) for value in values for _, ref in refs_in(value))


def generating_node(graph: Graph, plan: Plan) -> str:
    """The node that answers, wherever it stands.

    Raises:
        UserError: there is none, or more than one that may run.
    """
    generating = [name for name, step in plan.steps.items() if step.spec.category == "generate"]
    if len(generating) != 1:
        found = f"there are {len(generating)}: {', '.join(generating)}" if generating else "there is none"
        hint = "give pipelines that end in one LLMGenerate"
        raise UserError(f"{name_of(graph)}: exactly one generating node is needed, {found}", hint)
    return generating[0]


def name_of(graph: Graph) -> str:
    """A pipeline's name, or else its file."""
    return graph.name or (graph.file or "pipeline")


def load_models(
    graph: Graph,
    plan: Plan,
    loaded: dict[str, dict[str, Any]],
    cancel: CancelToken | None = None,
    on_load: Callable[[str], None] = lambda text: None,
) -> ModelHandle | None:
    """Run the loading nodes of a pipeline, except those whose outputs ``loaded`` holds; returns its model, if any.

    ``loaded`` holds outputs by cache key, so that pipelines share what they load; new outputs are added to it.
    ``on_load`` is called with ``loading NAME`` before a node runs.

    Raises:
        NodeError: a node failed, e.g. because there is no such model.
    """
    steps = [step for step in plan.steps.values() if step.spec.category == NOT_TIMED and step.spec.cache != "never"]
    for step in steps:
        if step.key not in loaded:
            on_load(f"loading {step.name}")
            cache = MemoryCache()
            for key in loaded:
                cache.put(key, loaded[key])
            Executor(graph.registry, cache=cache).run(graph, to=step.name, cancel=cancel)
            loaded[step.key] = cache.get(step.key) or {}
    outputs = (value for step in steps for value in loaded[step.key].values())
    return next((value for value in outputs if isinstance(value, ModelHandle)), None)


def benched_pipelines(graph: Graph, ratios: Sequence[float]) -> list[BenchedPipeline]:
    """A pipeline at every ratio, see `settings_of`.

    Raises:
        UserError: the pipeline generates nothing, or no ratio can be set.
        PipelineError: the pipeline is not valid.
    """
    plan = Executor(graph.registry).plan(graph)
    target = generating_node(graph, plan)
    return [_benched(graph, setting, target) for setting in settings_of(graph, plan, ratios)]


def stock_pipeline(graph: Graph) -> BenchedPipeline:
    """The same model, picture and prompt as in ``graph``, answered by transformers' own ``generate``.

    Raises:
        UserError: the pipeline encodes no picture or asks several prompts at once.
    """
    graph = graph.flat()
    steps = Executor(graph.registry).plan(graph).steps
    by_category = {steps[name].spec.category: name for name in reversed(list(graph.nodes)) if name in steps}  # first
    if not {"encode", "generate"} <= set(by_category):
        raise UserError(f"{name_of(graph)}: no picture is encoded", "leave out --stock")
    given = graph.node(by_category["generate"]).inputs
    if isinstance(given.get("prompt"), list):
        raise UserError(f"{name_of(graph)}: the stock row answers one prompt, not a batch", "leave out --stock")
    graph = graph.copy()
    graph.name = STOCK
    image = graph.node(by_category["encode"]).inputs["image"]
    asked = {name: given[name] for name in graph.registry.get("StockGenerate").inputs if name in given}
    graph.add("StockGenerate", STOCK, **asked | {"image": image})
    return _benched(graph, Setting(1.0, {}, False), STOCK)


def _benched(graph: Graph, setting: Setting, target: str) -> BenchedPipeline:
    graph = graph.copy()
    for name, value in setting.inputs.items():
        graph.set(name, value)
    plan = Executor(graph.registry).plan(graph, to=target)
    return BenchedPipeline(name_of(graph), setting.ratio, graph, plan, target, setting.prunes)
