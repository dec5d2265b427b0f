"""Lazy inputs in keys, equal nodes in one run, and effects that hang on branches."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from typing import Annotated, Any

import networkx as nx
import pytest

from fopru_graph.graph import (
    DiskCache,
    Executor,
    Graph,
    GraphNode,
    Lazy,
    MemoryCache,
    Node,
    NodeSkipped,
    NodeStarted,
    Ref,
    Registry,
    Step,
    node,
    plan,
)
from tests.graph import toys
from tests.graph.toys import fresh


@node(category="toy")
class Stepwise(Node):
    """Asks for its inputs one after the other until one is large."""

    def run(self, items: Annotated[Any, Lazy()] = None, more: Annotated[Any, Lazy()] = None) -> Any:
        toys.note("Stepwise")
        return items if more is None else more

    def needs(self, items: Any = None, more: Any = None) -> list[str]:
        if items is None:
            return ["items"]
        return ["more"] if items < 10 else []


_count = itertools.count(1)


@node(category="toy", cache="never")
class Tick(Node):
    """Another number in every call."""

    def run(self) -> int:
        return next(_count)


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.add(*toys.ALL, Stepwise, Tick)
    return made


def choice(graph: Graph, which: Any = True) -> Any:
    """``c`` chooses between a and b."""
    yes, no = graph.Load(size=1, id="a"), graph.Score(picture=graph.Load(size=2, id="b"), id="s")
    chosen = graph.Choose(which=which, yes=yes, no=no, id="c")
    graph.output("x", graph.Echo(value=chosen, id="x"))
    return chosen


def steps(graph: Graph) -> dict[str, Step]:
    return dict(plan(graph).steps)


def key_of_run(graph: Graph, name: str = "x") -> str:
    return fresh(graph).record.nodes[name]["key"]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_branch_that_is_known_not_to_be_taken_is_no_part_of_the_plan_and_of_no_key(graph):
    choice(graph)
    before = steps(graph)
    assert set(before) == {"a", "c", "x"}
    graph.set("b.size", 3)
    assert steps(graph)["x"].key == before["x"].key
    graph.set("a.size", 3)
    assert steps(graph)["x"].key != before["x"].key


@pytest.mark.parametrize("taken", [True, False])
def test_the_same_branch_has_the_same_key_whether_it_was_chosen_before_the_run_or_in_it(registry, taken):
    graphs = [Graph("g", registry=registry) for _ in range(2)]
    choice(graphs[0], taken)
    choice(graphs[1], graphs[1].Flag(value=taken, id="flag"))
    first, second = (fresh(graph).record.nodes for graph in graphs)
    branch = "a" if taken else "s"
    assert first[branch]["key"] == second[branch]["key"]
    assert set(second) - set(first) == {"flag"}


def test_a_branch_that_a_run_did_not_take_is_in_no_key(graph, calls):
    choice(graph, graph.Flag(id="flag"))
    cache = MemoryCache()
    graph.run(cache=cache)
    graph.set("b.size", 3)
    calls.clear()
    assert graph.run(cache=cache)["x"].pixels == (0,)
    assert calls == [], "what was not evaluated cannot make the answer stale"
    graph.set("flag.value", False)
    assert graph.run(cache=cache)["x"].values == (0.0, 1.0, 2.0)
    assert calls == ["Flag", "Load", "Score", "Echo"]


def test_a_change_in_the_taken_branch_is_seen_behind_the_choice(graph):
    choice(graph, graph.Flag(id="flag"))
    cache = MemoryCache()
    graph.run(cache=cache)
    graph.set("a.size", 3)
    assert graph.run(cache=cache)["x"].pixels == (0, 1, 2)
    graph.set("flag.value", False)
    graph.run(cache=cache)
    graph.set("b.size", 1)
    assert graph.run(cache=cache)["x"].values == (0.0,)


def test_a_branch_whose_state_is_unknown_does_not_spoil_the_key_of_the_other(graph, tmp_path):
    missing = graph.ReadFile(path=str(tmp_path / "no.txt"), id="file")
    graph.output("x", graph.Choose(which=graph.Flag(id="flag"), yes=graph.Load(), no=missing, id="x"))
    assert key_of_run(graph) == key_of_run(graph)


def test_a_node_that_asks_step_by_step_is_found_again(graph, calls):
    graph.output("x", graph.Stepwise(items=graph.Whole(value=30, id="i"), more=graph.Whole(value=50, id="m"), id="x"))
    cache = MemoryCache()
    assert graph.run(cache=cache)["x"] == 30
    graph.set("m.value", 60)
    calls.clear()
    assert (graph.run(cache=cache)["x"], calls) == (30, [])
    graph.set("i.value", 3)
    assert (graph.run(cache=cache)["x"], calls) == (60, ["Whole", "Whole", "Stepwise"])


def test_an_input_that_was_not_asked_for_has_its_default_even_if_it_is_known(graph):
    items, more = graph.Whole(value=30, id="i"), graph.Whole(value=50, id="m")
    graph.output("x", graph.Stepwise(items=items, more=more, id="x"))
    graph.output("before", graph.Echo(value=more))  # so that it has run already
    assert fresh(graph)["x"] == 30


def test_the_choice_comes_from_the_disk_without_its_branch(registry, calls, tmp_path):
    graph = Graph("g", registry=registry)
    choice(graph, graph.Flag(id="flag"))
    graph.set("a.size", 1)
    graph.output("kept", graph.Kept(value=graph.Choose(which=graph.Flag(id="f2"), yes=graph.Text(text="y", id="t"))))
    first = fresh(graph, disk=DiskCache(tmp_path))["kept"]
    calls.clear()
    assert fresh(graph, disk=DiskCache(tmp_path), targets=["kept"])["kept"] == first
    assert "Kept" not in calls


# -- equal nodes ------------------------------------------------------------------------------------------------------


def twins(graph: Graph, **second: Any) -> None:
    """Two chains that are the same but for ``second``."""
    for name, options in (("one", {}), ("two", second)):
        load = graph.Load(size=4, id=f"load_{name}")
        graph.output(name, graph.Keep(scores=graph.Score(picture=load, id=f"score_{name}"), **options))


@pytest.mark.parametrize("cache", [None, MemoryCache(0), MemoryCache()])
def test_equal_nodes_run_once_whatever_the_cache(graph, calls, cache):
    twins(graph, ratio=1.0)
    result = Executor(cache=cache).run(graph)
    assert (result["one"], result["two"]) == ([3.0, 2.0], [3.0, 2.0, 1.0, 0.0])
    assert calls == ["Load", "Score", "Keep", "Keep"]
    assert result.cached == {"score_two"}, "nothing above it is needed"


def test_equal_sub_graphs_run_once(registry, calls, tmp_path):
    (tmp_path / "block.yaml").write_text(
        "format: 1\ninputs: {by: {type: float, default: 1.0}}\nnodes:\n  load: {type: Load}\n"
        "  score: {type: Score, inputs: {picture: $load}}\n"
        "  keep: {type: Keep, inputs: {scores: $score, ratio: $inputs.by}}\noutputs: {kept: $keep}\n"
    )
    (tmp_path / "outer.yaml").write_text(
        "format: 1\nnodes:\n  a: {type: ./block.yaml}\n  b: {type: ./block.yaml, inputs: {by: 0.5}}\n"
        "  c: {type: ./block.yaml}\noutputs: {a: $a, b: $b, c: $c}\n"
    )
    result = fresh(Graph.load(tmp_path / "outer.yaml", registry))
    assert result["a"] == result["c"] == [3.0, 2.0, 1.0, 0.0] and result["b"] == [3.0, 2.0]
    assert calls == ["Load", "Score", "Keep", "Keep"]


def test_files_of_equal_content_are_equal(graph, calls, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("the same")
        graph.output(name, graph.ReadFile(path=str(tmp_path / name)))
    assert fresh(graph) == {"a": "the same", "b": "the same"}
    assert calls == ["ReadFile"]


def test_effects_and_nodes_that_run_every_time_are_no_equals(graph, calls):
    for name in ("one", "two"):
        graph.Show(value=1, id=f"show_{name}")
        graph.output(name, graph.Uncached(value=2.0))
    fresh(graph)
    assert sorted(calls) == ["Show:show_one", "Show:show_two", "Uncached", "Uncached"]


def test_behind_nodes_that_run_every_time_equal_keys_are_not_equal_values(graph):
    for name in ("one", "two"):
        graph.output(name, graph.Echo(value=graph.Tick(id=f"tick_{name}"), id=f"echo_{name}"))
    result = fresh(graph)
    assert result["two"] == result["one"] + 1


def test_an_equal_node_in_a_branch_that_is_taken_late_does_not_run_again(graph, calls):
    score = graph.Score(picture=graph.Load(id="load_one"), id="score_one")
    total = graph.Total(values=graph.Keep(scores=score))
    late = graph.Score(picture=graph.Load(id="load_two"), id="score_two", scale=2.0)
    flag = graph.Flag(value=graph.Echo(value=True))
    late = graph.Choose(which=graph.Echo(value=flag, id="last"), yes=late, no=total)
    graph.output("x", graph.Echo(value=[total, late], id="both"))
    fresh(graph)
    assert calls.count("Load") == 1 and calls.count("Score") == 2


def test_a_value_is_kept_for_an_equal_node_only_as_long_as_that_may_run(graph):
    made: list[weakref.ref[Any]] = []

    @node(category="toy")
    class Make(Node):
        """A value that can be watched."""

        def run(self) -> toys.Picture:
            picture = toys.Picture((1,))
            made.append(weakref.ref(picture))
            return picture

    @node(category="toy")
    class Alive(Node):
        """How many watched values are left."""

        def run(self, after: Any) -> int:
            gc.collect()
            return sum(ref() is not None for ref in made)

    graph.registry.add(Make, Alive)
    scored = graph.Score(picture=graph.Make(id="one"), id="scored")
    chosen = graph.Choose(which=graph.Flag(value=False), yes=graph.Make(id="two"), no=graph.Alive(after=scored, id="n"))
    graph.output("x", graph.Alive(after=chosen, id="after"))
    assert fresh(graph)["x"] == 0
    graph.set("flag.value", True)
    fresh(graph)
    assert len(made) == 2, "one in each run"


def test_explain_names_the_node_whose_outputs_are_used(graph):
    twins(graph, ratio=1.0)
    report = Executor().explain(graph)
    assert report["score_two"]["action"] == "reuse" and report["score_two"]["why"] == "the same as score_one"
    assert report["keep"]["action"] == report["keep_2"]["action"] == "run"


# -- effects ----------------------------------------------------------------------------------------------------------


def shown(graph: Graph, which: Any) -> None:
    """A choice with an effect on each of its branches, and one on what it chose."""
    chosen = choice(graph, which)
    graph.Show(value=Ref("a"), id="show_a")
    graph.Show(value=Ref("s"), id="show_s")
    graph.Show(value=chosen, id="show_chosen")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("taken", [True, False])
def test_an_effect_does_not_make_a_branch_run_that_is_not_taken(graph, calls, taken, late):
    shown(graph, graph.Flag(value=taken, id="flag") if late else taken)
    events: list[Any] = []
    fresh(graph, on_event=events.append)
    assert [name for name in calls if name.startswith("Show")].count("Show:show_chosen") == 1
    assert ("Show:show_a" in calls, "Show:show_s" in calls) == (taken, not taken)
    assert ("Score" in calls) == (not taken)
    skipped = [event for event in events if isinstance(event, NodeSkipped)]
    assert [event.node for event in skipped] == ["show_s" if taken else "show_a"]
    assert f"hangs on {'b' if taken else 'a'}, whose branch is not taken" in skipped[0].why


@pytest.mark.parametrize("late", [False, True])
def test_the_output_of_an_effect_in_a_branch_that_is_not_taken_is_none(graph, calls, late):
    shown(graph, graph.Flag(value=False, id="flag") if late else False)
    for name in ("show_a", "show_s"):
        graph.output(name, Ref(name))
    result = fresh(graph)
    assert (result["show_a"], result["show_s"], list(result)) == (None, 1, ["x", "show_a", "show_s"])
    assert "Show:show_a" not in calls and result.record.outputs["show_a"] is None
    assert fresh(graph, targets=["show_a"])["show_a"] == 1, "a target runs"


def test_the_second_run_decides_alike_though_all_is_cached(graph, calls):
    shown(graph, graph.Flag(id="flag"))
    cache = MemoryCache()
    graph.run(cache=cache)
    calls.clear()
    graph.run(cache=cache)
    assert sorted(calls) == ["Show:show_a", "Show:show_chosen"]


def test_an_effect_that_is_asked_for_runs(graph, calls):
    shown(graph, True)
    fresh(graph, to="show_s")
    assert calls == ["Load", "Score", "Show:show_s"]


def test_an_effect_on_what_the_run_evaluates_anyway_runs(graph, calls):
    load = graph.Load(id="load")
    graph.output("x", graph.Choose(which=graph.Flag(value=False), yes=graph.Score(picture=load), no=graph.Text()))
    graph.output("other", graph.Split(picture=load).low)
    graph.Show(value=load, id="show")
    fresh(graph)
    assert "Show:show" in calls and "Score" not in calls


def test_a_choice_that_nothing_reads_stops_no_effect(graph, calls):
    load = graph.Load(id="load")
    graph.Choose(which=False, yes=load, no=graph.Text())
    graph.Show(value=load, id="show")
    fresh(graph)
    assert calls == ["Load", "Show:show"]


def test_effects_alone_choose_branches_by_their_own_lazy_inputs(graph, calls):
    a, b = graph.Text(text="a", id="a"), graph.Text(text="b", id="b")
    graph.Show(value=graph.Choose(which=graph.Flag(), yes=a, no=b), id="chosen")
    graph.Show(value=a, id="show_a")
    graph.Show(value=b, id="show_b")
    fresh(graph)
    assert sorted(calls) == ["Flag", "Show:chosen", "Show:show_a", "Text"]


def test_explain_tells_of_effects_and_branches(graph):
    shown(graph, True)
    report = Executor().explain(graph)
    assert {name: report[name]["action"] for name in ("a", "s", "show_a", "show_s", "show_chosen")} == {
        "a": "run", "s": "skip", "show_a": "run", "show_s": "skip", "show_chosen": "run",
    }  # fmt: skip
    assert "not taken" in report["s"]["why"] and "hangs on" in report["show_s"]["why"]
    graph.nodes["c"].inputs["which"] = graph.Flag(id="flag")._as_ref()
    late = Executor().explain(graph)
    assert late["show_a"]["why"] == late["show_s"]["why"] == "runs if its branch is taken"


# -- all of it at once ------------------------------------------------------------------------------------------------


@node(category="toy")
class IsEven(Node):
    """Whether a number is even."""

    def run(self, value: Any) -> bool:
        return int(value) % 2 == 0


def random_graph(registry: Registry, seed: int) -> Graph:
    """Numbers, sums, choices and effects, many of them equal."""
    rng, graph = random.Random(seed), Graph("g", registry=registry)
    names: list[str] = []

    def some() -> Any:
        return Ref(rng.choice(names)) if names and rng.random() < 0.85 else rng.randint(0, 3)

    for index in range(rng.randint(3, 18)):
        kind, name = (
            rng.choice(["Whole", "Add", "Add", "Choose", "Choose", "Stepwise", "Uncached", "Echo"]),
            f"n{index}",
        )
        if kind == "Add":
            graph.add(kind, name, a=some(), b=some())
        elif kind == "Choose":
            late = names and rng.random() < 0.6
            which = graph.add("IsEven", f"w{index}", value=Ref(rng.choice(names))) if late else rng.random() < 0.5
            graph.add(kind, name, which=which, yes=some(), no=some())
        elif kind == "Stepwise":
            graph.add(kind, name, items=some(), more=some())
        else:
            graph.add(kind, name, value=rng.randint(0, 3) if kind == "Whole" else some())
        names.append(name)
    for index in range(rng.randint(1, 3)):
        graph.output(f"o{index}", Ref(rng.choice(names)))
        graph.add("Show", f"s{index}", value=Ref(rng.choice(names)))
    return graph


def by_hand(graph: Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs, and the values of all nodes that they need, by plain recursion."""
    known: dict[str, Any] = {}

    def value(given: Any) -> Any:
        if not isinstance(given, Ref):
            return given
        if given.node not in known:
            known[given.node] = compute(graph.nodes[given.node])
        return known[given.node]

    def compute(entry: GraphNode) -> Any:
        inputs = entry.inputs
        match entry.type:
            case "Add":
                return value(inputs["a"]) + value(inputs["b"])
            case "Choose":
                return value(inputs["yes" if value(inputs["which"]) else "no"])
            case "Stepwise":
                return value(inputs["items"]) if value(inputs["items"]) >= 10 else value(inputs["more"])
            case "IsEven":
                return value(inputs["value"]) % 2 == 0
        return value(inputs["value"])

    return {name: value(output.ref) for name, output in graph.outputs.items()}, known


def behind_uncached(graph: Graph, name: str) -> bool:
    above = nx.ancestors(graph.links(), name) | {name}
    return any(graph.nodes[other].type == "Uncached" for other in above)


@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in (0, 20, 40)])
def test_random_graphs_give_what_plain_recursion_gives_and_run_nothing_twice(registry, seeds):
    registry.add(IsEven)
    for seed in seeds:
        graph, memory = random_graph(registry, seed), MemoryCache(1000)
        outputs, needed = by_hand(graph)
        for cache in (MemoryCache(0), memory, memory, MemoryCache(3)):
            events: list[Any] = []
            result = graph.run(cache=cache, on_event=events.append)
            assert result == outputs, (seed, graph.dumps())
            ran = [event.node for event in events if isinstance(event, NodeStarted)]
            skipped = {event.node for event in events if isinstance(event, NodeSkipped)}
            for name in (name for name, entry in graph.nodes.items() if entry.type == "Show"):
                assert (name in ran) != (name in skipped), seed
                assert name in ran or graph.nodes[name].inputs["value"].node not in needed, seed
            plain = [name for name in ran if graph.nodes[name].type != "Show" and not behind_uncached(graph, name)]
            keys = [result.record.nodes[name]["key"] for name in plain]
            assert len(keys) == len(set(keys)), (seed, graph.dumps())


# -- targets ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_up_to_a_declared_output_a_sub_graph_or_an_output_of_one(registry, calls, tmp_path):
    (tmp_path / "block.yaml").write_text(
        "format: 1\nnodes:\n  load: {type: Load}\n  text: {type: Text, inputs: {text: hi}}\n"
        "outputs: {picture: $load, text: $text}\n"
    )
    (tmp_path / "one.yaml").write_text("format: 1\nnodes:\n  text: {type: Text}\noutputs: {only: $text}\n")
    (tmp_path / "outer.yaml").write_text(
        "format: 1\nnodes:\n  block: {type: ./block.yaml}\n  single: {type: ./one.yaml}\n"
        "outputs: {answer: $block.text}\n"
    )
    graph = Graph.load(tmp_path / "outer.yaml", registry)
    assert fresh(graph, to="answer") == {"answer": "hi"}
    assert fresh(graph, to="block.text") == {"block.text": "hi"}
    assert fresh(graph, to="single") == {"single.only": ""}
    assert calls == ["Text"] * 3
    assert list(fresh(graph, to="block")) == ["block.picture", "block.text"]
    assert fresh(graph, targets=["single", "answer"]) == {"single.only": "", "answer": "hi"}
    with pytest.raises(ValueError, match="no output 'txt'"):
        fresh(graph, to="block.txt")
    with pytest.raises(ValueError, match="did you mean 'answer'"):
        fresh(graph, to="anser")
    assert list(graph.outputs) == ["answer"]
