"""Execution: what runs, what does not, in which order, and what becomes of values, errors and events."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Annotated, Any

import pytest
from pydantic import Field

from fopru_graph.graph import (
    Cancelled,
    CancelToken,
    Context,
    Executor,
    Graph,
    Lazy,
    MemoryCache,
    Node,
    NodeError,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    NodeText,
    PipelineError,
    Ref,
    RunFinished,
    RunStarted,
    node,
)
from tests.graph import toys
from tests.graph.toys import fresh


def chain(graph: Graph, length: int) -> Ref:
    last = graph.Add(a=0, id="n0")
    for index in range(1, length):
        last = graph.Add(a=last, id=f"n{index}")
    return last


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_linear(graph):
    graph.output("sum", chain(graph, 5))
    assert fresh(graph) == {"sum": 5.0}


def test_a_chain_of_two_thousand_nodes(graph):
    graph.output("sum", chain(graph, 2000))
    cache = MemoryCache(5000)
    assert graph.run(cache=cache)["sum"] == 2000.0
    assert graph.run(cache=cache)["sum"] == 2000.0
    assert Graph.loads(graph.dumps(), graph.registry) == graph
    assert len(graph.copy().nodes) == 2000


def test_branches_that_merge(graph, calls):
    load = graph.Load(size=4)
    left, right = graph.Score(picture=load), graph.Score(picture=load, scale=2)
    long = graph.Keep(scores=right, ratio=1.0)
    graph.output("sum", graph.Add(a=graph.Total(values=graph.Keep(scores=left, ratio=1.0)), b=graph.Total(values=long)))
    assert fresh(graph)["sum"] == 18.0
    assert calls.count("Load") == 1


def test_branches_that_do_not_merge(graph):
    load = graph.Load(size=2)
    for index in range(3):
        graph.output(f"out{index}", graph.Score(picture=load, scale=float(index)))
    assert {name: scores.values for name, scores in fresh(graph).items()} == {
        "out0": (0.0, 0.0), "out1": (0.0, 1.0), "out2": (0.0, 2.0),
    }  # fmt: skip


def test_default_only_inputs(graph):
    graph.output("text", graph.Text())
    assert fresh(graph)["text"] == ""


def test_a_variadic_input_merges_branches_of_different_length(graph):
    split = graph.Split(picture=graph.Load(size=4))
    graph.output("count", graph.Gather(pictures=[split.low, graph.TakePhoto(), split.high]))
    assert fresh(graph)["count"] == 3


def test_output_reuse_under_several_names(graph, calls):
    load = graph.Load()
    graph.output("a", load)
    graph.output("b", load)
    result = fresh(graph)
    assert result["a"] is result["b"]
    assert calls == ["Load"]


def test_one_output_goes_to_several_readers_unchanged(graph):
    value = graph.Echo(value=[1, {"a": 2}])
    graph.output("x", graph.Echo(value=value))
    graph.output("y", graph.Echo(value=value))
    result = fresh(graph)
    assert result["x"] is result["y"]
    assert result["x"] == [1, {"a": 2}]


def test_a_pipeline_input_can_be_an_output(graph):
    graph.output("size", graph.input("size", "int", 3))
    graph.output("load", graph.Load(size=Ref("inputs", "size")))
    result = fresh(graph, sets={"size": 5})
    assert (list(result), result["size"], len(result["load"].pixels)) == (["size", "load"], 5, 5)


def test_sets_do_not_change_the_graph(graph):
    graph.output("load", graph.Load(size=3))
    assert len(fresh(graph, sets={"load.size": 5})["load"].pixels) == 5
    assert len(fresh(graph)["load"].pixels) == 3


# -- targets ----------------------------------------------------------------------------------------------------------


def several(graph: Graph) -> None:
    load = graph.Load()
    graph.output("low", graph.Split(picture=load).low)
    graph.output("score", graph.Score(picture=load))
    graph.Show(value=graph.Text(), id="show")


def test_all_outputs_and_output_nodes_run_by_default(graph, calls):
    several(graph)
    assert list(fresh(graph)) == ["low", "score"]
    assert sorted(calls) == ["Load", "Score", "Show:show", "Split", "Text"]


def test_output_nodes_come_first_among_those_that_could_run(graph, calls):
    graph.output("x", graph.Score(picture=graph.Load()))
    graph.Show(value=1, id="late")
    fresh(graph)
    assert calls == ["Show:late", "Load", "Score"]


def test_partial_execution_runs_only_ancestors_of_the_targets(graph, calls):
    several(graph)
    assert list(fresh(graph, targets=["score"])) == ["score"]
    assert calls == ["Load", "Score"]
    calls.clear()
    assert list(fresh(graph, targets=["low", "show"])) == ["low", "output"]
    assert sorted(calls) == ["Load", "Show:show", "Split", "Text"]


def test_targets_whose_outputs_have_one_name_are_told_apart(graph, calls):
    several(graph)
    result = fresh(graph, targets=["load", "show"])
    assert list(result) == ["output", "show.output"]
    assert result["output"].pixels == result.by_node["load"]["output"].pixels == (0, 1, 2, 3)


def test_run_up_to_a_node_gives_its_outputs(graph, calls):
    several(graph)
    assert list(fresh(graph, to="split")) == ["low", "high"]
    assert list(fresh(graph, to="split.high")) == ["high"]
    assert calls == ["Load", "Split"] * 2
    assert fresh(graph, to="load").by_node["load"]["output"].pixels == (0, 1, 2, 3)


def test_run_up_to_a_node_needs_no_declared_outputs(graph):
    graph.Load(size=2)
    assert fresh(graph, to="load")["output"].pixels == (0, 1)


def test_an_empty_list_of_targets_and_unknown_targets_are_refused(graph, calls):
    several(graph)
    with pytest.raises(PipelineError, match="nothing was asked for"):
        fresh(graph, targets=[])
    with pytest.raises(PipelineError, match="did you mean 'score'"):
        fresh(graph, targets=["scor"])
    with pytest.raises(PipelineError, match="no output 'lo' .did you mean 'low'"):
        fresh(graph, to="split.lo")
    assert calls == []


def test_an_invalid_pipeline_runs_nothing_and_lists_every_error(graph, calls):
    graph.output("a", graph.Load(size=0))
    graph.output("b", graph.Score())
    graph.output("c", graph.TakePhoto())
    with pytest.raises(PipelineError) as caught:
        fresh(graph)
    assert [problem.code for problem in caught.value.problems] == ["out-of-range", "missing-input"]
    assert calls == []


# -- lazy inputs ------------------------------------------------------------------------------------------------------


def test_a_lazy_input_is_not_evaluated_unless_needed(graph, calls):
    graph.output("x", graph.Choose(which=True, yes=graph.Load(size=1), no=graph.Score(picture=graph.Load(size=2))))
    assert fresh(graph)["x"].pixels == (0,)
    assert calls == ["Load"]


def test_a_lazy_input_pulls_its_ancestors_when_needed(graph, calls):
    flag = graph.Flag(value=False)
    graph.output("x", graph.Choose(which=flag, yes=graph.Boom(), no=graph.Score(picture=graph.Load(size=2))))
    assert fresh(graph)["x"].values == (0.0, 1.0)
    assert calls == ["Flag", "Load", "Score"]


def test_a_lazy_input_that_another_node_evaluated_is_shared(graph, calls):
    load = graph.Load()
    graph.output("a", graph.Choose(which=True, yes=load, no=graph.Boom()))
    graph.output("b", graph.Score(picture=load))
    fresh(graph)
    assert calls.count("Load") == 1


def test_partial_execution_with_lazy_nodes(graph, calls):
    choose = graph.Choose(which=True, yes=graph.Load(), no=graph.Boom())
    graph.output("a", graph.Score(picture=choose))
    graph.output("b", graph.Boom(value=choose))
    fresh(graph, targets=["a"])
    assert calls == ["Load", "Score"]


def test_nested_lazy_choices(graph, calls):
    inner = graph.Choose(which=False, yes=graph.Boom(), no=graph.Text(text="inner"))
    graph.output("x", graph.Choose(which=True, yes=inner, no=graph.Boom()))
    assert fresh(graph)["x"] == "inner"
    assert calls == ["Text"]


@node(category="toy")
class Stepwise(Node):
    """Asks for its inputs one after the other until one is large."""

    def run(self, items: Annotated[Any, Lazy()] = None, more: Annotated[Any, Lazy()] = None) -> Any:
        return items if more is None else more

    async def needs(self, **ready: Any) -> list[str]:
        if "items" not in ready:
            return ["items"]
        return ["more"] if ready["items"] < 10 else []


@pytest.mark.parametrize(("first", "ran"), [(3, 2), (30, 1)])
def test_needs_is_asked_again_with_what_is_ready_and_may_be_a_coroutine(graph, calls, first, ran):
    graph.registry.add(Stepwise)
    graph.output("x", graph.Stepwise(items=graph.Echo(value=first), more=graph.Echo(value=50)))
    assert fresh(graph)["x"] == (50 if ran == 2 else 30)
    assert calls == ["Echo"] * ran


@node(category="toy")
class AsksWrong(Node):
    """Asks for what it does not have."""

    def run(self, value: Annotated[Any, Lazy()] = None) -> Any:
        return value

    def needs(self) -> list[str]:
        return ["valu"]


def test_needs_that_asks_for_an_unknown_input_fails_with_the_node(graph):
    graph.registry.add(AsksWrong)
    graph.output("x", graph.AsksWrong(value=graph.Load()))
    with pytest.raises(NodeError, match="needs.. asked for 'valu'"):
        fresh(graph)


# -- errors and cancellation ------------------------------------------------------------------------------------------


def test_a_failing_node_is_named_with_type_line_cause_inputs_and_finished_nodes(registry):
    text = (
        "format: 1\nnodes:\n  load: {type: Load}\n  boom: {type: Boom, inputs: {value: $load}}\noutputs: {x: $boom}\n"
    )
    with pytest.raises(NodeError) as caught:
        fresh(Graph.loads(text, registry, "some.yaml"))
    error = caught.value
    assert (error.node, error.type, error.location, error.done) == ("boom", "Boom", "some.yaml:4", ["load"])
    assert isinstance(error.cause, RuntimeError)
    assert error.__cause__ is error.cause
    assert error.inputs == {"value": "Picture(pixels=tuple of 4: 0, …)", "expected": "False"}
    assert str(error).startswith("boom (Boom, some.yaml:4) failed: RuntimeError: it went boom")
    assert error.record.status == "failed"
    assert list(error.record.nodes) == ["load"]


def test_an_expected_failure_keeps_its_one_sentence(graph):
    graph.output("x", graph.Boom(expected=True))
    with pytest.raises(NodeError) as caught:
        fresh(graph)
    assert str(caught.value) == "boom (Boom): the picture is empty (take another)"
    assert caught.value.hint == "take another"


def test_nothing_after_a_failure_runs_and_the_executor_can_be_used_again(graph, registry, calls):
    executor = Executor(registry, cache=MemoryCache())
    graph.output("x", graph.Score(picture=graph.Echo(value=graph.Boom(value=graph.Load()))))
    for _ in range(2):
        with pytest.raises(NodeError):
            executor.run(graph)
    assert calls == ["Load", "Boom", "Boom"]
    good = Graph("good", registry=registry)
    good.output("x", good.Load())
    assert executor.run(good).cached == {"load"}


@node(category="toy")
class Waits(Node):
    """Waits until it is cancelled."""

    started = threading.Event()

    def run(self, ctx: Context, turn: int = 0) -> int:
        self.started.set()
        for _ in range(5_000):
            ctx.check_cancelled()
            threading.Event().wait(0.001)
        raise AssertionError("nobody cancelled")


def test_cancel_within_a_node_caches_nothing_of_it(graph):
    graph.registry.add(Waits)
    cache, token = MemoryCache(), CancelToken()
    graph.output("x", graph.Waits(turn=1))
    Waits.started.clear()
    canceller = threading.Thread(target=lambda: (Waits.started.wait(5), token.cancel()))
    canceller.start()
    events: list[Any] = []
    with pytest.raises(Cancelled) as caught:
        graph.run(cache=cache, cancel=token, on_event=events.append)
    canceller.join()
    assert len(cache) == 0
    assert events[-1].status == "cancelled"
    assert caught.value.record.status == "cancelled"


def test_cancel_between_nodes(graph, calls):
    token = CancelToken()
    graph.output("x", chain(graph, 5))

    def listen(event: Any) -> None:
        if isinstance(event, NodeFinished) and event.node == "n1":
            token.cancel()

    with pytest.raises(Cancelled):
        fresh(graph, cancel=token, on_event=listen)
    assert calls == ["Add", "Add"]
    token.clear()
    assert fresh(graph, cancel=token)["x"] == 5.0


def test_an_exception_of_the_listener_ends_the_run_as_it_is(graph):
    graph.output("x", graph.Steps())

    def listen(event: Any) -> None:
        if isinstance(event, NodeProgress):
            raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        fresh(graph, on_event=listen)


def test_a_node_that_returns_the_wrong_outputs_is_an_error_of_that_node(graph, monkeypatch):
    monkeypatch.setattr(toys.Split, "run", lambda self, picture: 3)
    graph.output("x", graph.Split(picture=graph.Load()).low)
    with pytest.raises(NodeError, match="run must return Halves"):
        fresh(graph)


@node(category="toy")
class Share(Node):
    """Has bounds and choices."""

    def run(self, ratio: Annotated[float, Field(gt=0, le=1)] = 1.0) -> float:
        return ratio


def test_bounds_hold_for_linked_numbers_and_ints_become_floats(graph):
    graph.registry.add(Share)
    graph.output("x", graph.Share(ratio=graph.Whole(value=1)))
    assert type(fresh(graph)["x"]) is float
    graph.set("whole.value", 2)
    with pytest.raises(NodeError, match="ratio must be less than or equal to 1, but is 2"):
        fresh(graph)


def test_coroutines_run_alone_mixed_with_others_and_inside_a_running_loop(graph):
    graph.output("x", graph.Add(a=graph.Sleepy(value=2), b=graph.Add(a=1)))
    assert fresh(graph)["x"] == 4.0

    async def notebook() -> float:
        return fresh(graph)["x"]

    assert asyncio.run(notebook()) == 4.0


# -- values and events ------------------------------------------------------------------------------------------------


@node(category="toy")
class Watch(Node):
    """Passes a new picture on and notes which of the earlier ones are alive."""

    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def run(self, picture: Any = None, turn: int = 0) -> toys.Picture:
        gc.collect()
        self.alive.append(sum(ref() is not None for ref in self.made))
        new = toys.Picture((turn,))
        self.made.append(weakref.ref(new))
        return new


@pytest.fixture
def watched(graph):
    graph.registry.add(Watch)
    Watch.made.clear()
    Watch.alive.clear()
    return graph


def test_a_value_is_released_after_its_last_reader(watched):
    last = watched.Watch(turn=0)
    for turn in range(1, 6):
        last = watched.Watch(picture=last, turn=turn)
    watched.output("x", last)
    result = fresh(watched)
    assert Watch.alive == [0, 1, 1, 1, 1, 1]
    assert [ref() is not None for ref in Watch.made] == [False] * 5 + [True]
    assert result["x"] is Watch.made[-1]()
    assert list(result.by_node) == ["watch_6"]


@node(category="toy", output=True)
class MakesAndShows(Node):
    """Runs for its effect; nobody reads what it returns."""

    def run(self, picture: Any = None) -> toys.Picture:
        new = toys.Picture((0,))
        Watch.made.append(weakref.ref(new))
        return new


def test_a_value_that_nobody_reads_is_released_at_once(watched):
    watched.registry.add(MakesAndShows)
    watched.MakesAndShows()
    watched.output("x", watched.Watch(turn=1))
    fresh(watched)
    assert Watch.alive == [0]


def test_cached_values_are_not_released(watched):
    cache = MemoryCache()
    watched.output("x", watched.Watch(picture=watched.Watch(turn=0), turn=1))
    watched.run(cache=cache)
    gc.collect()
    assert all(ref() is not None for ref in Watch.made)


def test_a_value_for_a_lazy_input_is_kept_until_nobody_can_ask_for_it(watched):
    """The branch that a choice does not take must not hold values until the end."""
    shared = watched.Watch(turn=0, id="shared")
    choose = watched.Choose(which=True, yes=watched.Watch(picture=shared, turn=1), no=watched.Score(picture=shared))
    watched.output("x", watched.Watch(picture=choose, turn=2))
    fresh(watched)
    assert Watch.alive == [0, 1, 1]


def test_events_of_a_run_in_order(graph):
    events: list[Any] = []
    graph.output("x", graph.Steps(count=2))
    fresh(graph, on_event=events.append)
    assert [type(event) for event in events] == [
        RunStarted, NodeStarted, NodeProgress, NodeText, NodeProgress, NodeText, NodeFinished, RunFinished,
    ]  # fmt: skip
    assert events[0].nodes == ("steps",)
    assert (events[2].i, events[2].n, events[3].chunk) == (1, 2, "0")
    assert (events[-2].cached, events[-1].status) == (False, "done")


def test_progress_of_two_runs_is_kept_apart(graph):
    first: list[Any] = []
    second: list[Any] = []
    graph.output("x", graph.Steps())
    threads = [
        threading.Thread(target=fresh, args=(graph,), kwargs={"on_event": seen.append}) for seen in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(event) for event in first] == [type(event) for event in second]
    assert sum(isinstance(event, NodeProgress) for event in first) == 3


def test_the_figures_of_a_value_travel_with_the_event_and_the_record(graph):
    events: list[Any] = []
    graph.output("x", graph.Score(picture=graph.Load()))
    cache = MemoryCache()
    for _ in range(2):
        result = graph.run(on_event=events.append, cache=cache)
        assert [event.report for event in events if isinstance(event, NodeFinished)][-1] == {"count": 4}
        assert result.record.nodes["score"]["report"] == {"count": 4}


def test_a_failure_s_events(graph):
    events: list[Any] = []
    graph.output("x", graph.Boom())
    with pytest.raises(NodeError):
        fresh(graph, on_event=events.append)
    assert [type(event) for event in events] == [RunStarted, NodeStarted, NodeFailed, RunFinished]
    assert events[-1].status == "failed"


def test_the_output_folder_reaches_nodes(graph, tmp_path):
    @node(category="toy")
    class Where(Node):
        """Says where it may write."""

        def run(self, ctx: Context) -> str:
            return f"{ctx.node} {ctx.out}"

    graph.registry.add(Where)
    graph.output("x", graph.Where())
    assert fresh(graph, out=tmp_path)["x"] == f"where {tmp_path}"


# -- coroutines -------------------------------------------------------------------------------------------------------


@node(category="toy")
class Coroutine(Node):
    """Ends in a way of one's choice, and cleans up."""

    cleaned: list[str] = []

    async def run(self, end: str = "value") -> str:
        try:
            await asyncio.sleep(0)
            if end == "error":
                raise RuntimeError("inside")
            if end == "timeout":
                await asyncio.wait_for(asyncio.sleep(60), 0.001)
            if end == "cancel":
                raise asyncio.CancelledError
            return end
        finally:
            self.cleaned.append(end)

    async def check(self, end: str) -> list[str]:
        await asyncio.sleep(0)
        return ["end must not be empty"] if not end else []

    async def fingerprint(self, end: str) -> str:
        await asyncio.sleep(0)
        return end


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        ("error", NodeError, "RuntimeError: inside"),
        ("timeout", NodeError, "TimeoutError"),
        ("cancel", Cancelled, "cancelled"),
        ("", PipelineError, "end must not be empty"),
    ],
)
def test_a_coroutine_that_fails_times_out_or_is_cancelled(graph, end, error, message):
    graph.registry.add(Coroutine)
    Coroutine.cleaned.clear()
    graph.output("x", graph.Coroutine(end=end))
    with pytest.raises(error, match=message):
        fresh(graph)
    assert Coroutine.cleaned == ([end] if end else [])
    graph.set("coroutine.end", "fine")
    assert fresh(graph)["x"] == "fine"


def test_coroutines_are_cached_like_other_nodes(graph):
    graph.registry.add(Coroutine)
    Coroutine.cleaned.clear()
    graph.output("x", graph.Coroutine())
    cache = MemoryCache()
    assert [graph.run(cache=cache).cached for _ in range(2)] == [frozenset(), {"coroutine"}]
    assert Coroutine.cleaned == ["value"]


def test_a_failure_of_one_branch_while_another_is_a_coroutine(graph):
    graph.registry.add(Coroutine)
    graph.output("x", graph.Coroutine())
    graph.output("y", graph.Boom())
    with pytest.raises(NodeError, match="it went boom"):
        fresh(graph)
