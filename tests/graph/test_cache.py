"""Keys and caches: never a wrong result, and no work twice."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.graph import (
    Context,
    DiskCache,
    Executor,
    Graph,
    JsonCodec,
    MemoryCache,
    Node,
    Registry,
    RunWarning,
    node,
    plan,
)
from fopru_graph.graph.steps import digest, ingredients
from tests.graph import toys
from tests.graph.toys import fresh

ROOT = Path(__file__).parents[2]


def keys(graph: Graph) -> dict[str, str]:
    return {name: step.key for name, step in plan(graph).steps.items()}


def single(registry: Registry, type_name: str, **inputs: Any) -> str:
    graph = Graph("g", registry=registry)
    graph.output("x", graph.add(type_name, "n", **inputs))
    return keys(graph)["n"]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_values_of_different_type_have_different_keys(registry):
    values = [
        1,
        1.0,
        "1",
        True,
        None,
        [1],
        [1.0],
        [True],
        {"a": 1},
        {"a": 1.0},
        {"a": [1]},
        0.0,
        -0.0,
        0,
        False,
        "",
        [],
        {},
    ]
    found = [single(registry, "Echo", value=value) for value in values]
    assert len(set(found)) == len(values)


def test_an_int_for_a_float_socket_is_the_same_value(registry):
    assert single(registry, "Add", a=1) == single(registry, "Add", a=1.0)


def test_a_default_that_is_written_out_changes_nothing(registry):
    assert single(registry, "Add", a=1) == single(registry, "Add", a=1, b=1.0)
    assert single(registry, "Add", a=1) != single(registry, "Add", a=1, b=2)


def test_deep_values_take_part_to_the_last_leaf(registry):
    def deep(leaf: int) -> Any:
        value: Any = leaf
        for level in range(50):
            value = [value] if level % 2 else {"k": value}
        return value

    assert single(registry, "Echo", value=deep(1)) != single(registry, "Echo", value=deep(2))
    assert single(registry, "Echo", value=deep(1)) == single(registry, "Echo", value=deep(1))


def test_the_order_of_keys_of_inputs_and_of_nodes_and_their_names_change_nothing(registry):
    one = Graph.loads(
        "format: 1\nnodes:\n  e: {type: Echo, inputs: {value: {a: 1, b: 2}}}\n"
        "  k: {type: Add, inputs: {a: $t, b: 2}}\n  t: {type: Total, inputs: {values: [1, 2]}}\n"
        "outputs: {k: $k, e: $e}\n", registry,
    )  # fmt: skip
    two = Graph.loads(
        "format: 1\nnodes:\n  total: {type: Total, inputs: {values: [1, 2]}}\n"
        "  sum: {type: Add, inputs: {b: 2, a: $total.output}}\n"
        "  echo: {type: Echo, inputs: {value: {b: 2, a: 1}}}\noutputs: {e: $echo, k: $sum}\n", registry,
    )  # fmt: skip
    first, second = keys(one), keys(two)
    assert (first["k"], first["t"], first["e"]) == (second["sum"], second["total"], second["echo"])


def test_the_output_that_is_read_takes_part(registry):
    def key(output: str) -> str:
        graph = Graph("g", registry=registry)
        split = graph.Split(picture=graph.Load())
        graph.output("x", graph.Score(picture=split[output], id="s"))
        return keys(graph)["s"]

    assert key("low") != key("high")


def test_a_change_upstream_changes_every_key_below_and_no_other(graph):
    load = graph.Load(size=3)
    graph.output("x", graph.Score(picture=load, id="s"))
    graph.output("y", graph.Text(text="a", id="t"))
    before = keys(graph)
    graph.set("load.size", 4)
    after = keys(graph)
    assert [before[name] == after[name] for name in ("load", "s", "t")] == [False, False, True]


SCRIPT = """
from fopru_graph.graph import Graph, Registry, plan
from tests.graph import toys
registry = Registry()
registry.add(*toys.ALL)
graph = Graph("g", registry=registry)
value = graph.Echo(value={"b": [1, 2.5, "x", None], "a": {"z": 1, "y": True}})
graph.output("x", graph.Echo(value=[value, graph.Load(size=3)]))
print({name: step.key for name, step in plan(graph).steps.items()})
"""


def test_keys_are_the_same_in_every_process():
    outputs = set()
    for seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_code_and_version_take_part(tmp_path):
    def key(body: str, version: str) -> str:
        (tmp_path / "pack.py").write_text(
            textwrap.dedent(f"""
            from fopru_graph.graph import Node, node
            @node(category="toy", version="{version}")
            class Mine(Node):
                def run(self, x: int = 1) -> int:
                    return {body}
            """)
        )
        os.utime(tmp_path / "pack.py", (key.turn, key.turn))  # type: ignore[attr-defined]
        key.turn += 10  # type: ignore[attr-defined]
        registry = Registry()
        assert registry.load_folder(tmp_path) == []
        return single(registry, "Mine")

    key.turn = 1_000_000_000  # type: ignore[attr-defined]
    first = key("x", "1")
    assert key("x", "1") == first
    assert key("x + 1", "1") != first
    assert key("x", "2") != first


def test_the_version_alone_takes_part():
    newer = dataclasses.replace(toys.Load.spec, version="2")
    assert digest(ingredients(newer, {}, {}, {})) != digest(ingredients(toys.Load.spec, {}, {}, {}))


def test_the_content_of_a_file_takes_part(registry, tmp_path, calls):
    path = tmp_path / "a.txt"
    path.write_text("one")
    graph = Graph("g", registry=registry)
    graph.output("x", graph.ReadFile(path=graph.input("file", "path", str(path))))
    cache = MemoryCache()
    assert [graph.run(cache=cache)["x"] for _ in range(2)] == ["one", "one"]
    path.write_text("two")
    assert graph.run(cache=cache)["x"] == "two"
    assert calls == ["ReadFile"] * 2


def test_a_fingerprint_that_cannot_be_had_is_never_a_hit(registry, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    graph = Graph("g", registry=registry)
    graph.output("x", graph.Echo(value=graph.ReadFile(path=graph.Text(text=str(path)))))
    cache = MemoryCache()
    assert graph.run(cache=cache)["x"] == "one"
    path.write_text("two")
    assert graph.run(cache=cache)["x"] == "two"


# -- memory -----------------------------------------------------------------------------------------------------------


def pipeline(graph: Graph) -> Graph:
    graph.output("x", graph.Total(values=graph.Keep(scores=graph.Score(picture=graph.Load(size=4)), ratio=0.5)))
    return graph


def test_full_cache(graph, calls):
    cache = MemoryCache()
    first = pipeline(graph).run(cache=cache)
    calls.clear()
    second = graph.run(cache=cache)
    assert calls == []
    assert second == first
    assert second.cached == {"total"}


def test_partial_cache(graph, calls):
    cache = MemoryCache()
    pipeline(graph).run(cache=cache)
    calls.clear()
    graph.set("keep.ratio", 1.0)
    result = graph.run(cache=cache)
    assert calls == ["Keep", "Total"]
    assert result.cached == {"score"}
    assert result["x"] == 6.0


def test_without_a_cache_everything_runs_again(graph, calls):
    fresh(pipeline(graph))
    fresh(graph)
    assert len(calls) == 8


def test_a_graph_remembers_its_own_runs(graph, calls):
    pipeline(graph).run()
    calls.clear()
    graph.set("keep.ratio", 1.0)
    assert graph.run()["x"] == 6.0
    assert calls == ["Keep", "Total"]
    copy = graph.copy()
    calls.clear()
    copy.run()
    assert len(calls) == 4  # memory is a graph's own


def test_a_hit_needs_no_ancestors_even_failing_ones(graph, monkeypatch):
    cache = MemoryCache()
    pipeline(graph).run(cache=cache)
    for key in list(cache._entries):
        if key != keys(graph)["keep"]:
            del cache._entries[key]
    monkeypatch.setattr(toys.Load, "run", lambda self, size: 1 / 0)
    assert graph.run(cache=cache)["x"] == 5.0


def test_the_least_recently_used_entry_goes_first():
    cache = MemoryCache(2)
    cache.put("a", {})
    cache.put("b", {})
    cache.get("a")
    cache.put("c", {})
    assert [key in cache for key in "abc"] == [True, False, True]
    cache.clear()
    assert len(cache) == 0


def test_nodes_that_are_never_cached_and_output_nodes_always_run(graph, calls):
    graph.output("x", graph.Uncached(value=2))
    graph.Show(value=graph.Load())
    cache = MemoryCache()
    graph.run(cache=cache)
    calls.clear()
    graph.run(cache=cache)
    assert sorted(calls) == ["Show:show", "Uncached"]


def test_the_yaml_s_policy_wins(registry, calls, tmp_path):
    text = (
        "format: 1\nnodes:\n  a: {type: Whole, cache: never}\n  b: {type: Text, cache: disk}\noutputs: {a: $a, b: $b}\n"
    )
    for _ in range(2):
        Graph.loads(text, registry).run(cache=MemoryCache(), disk=DiskCache(tmp_path))
    assert calls == ["Whole", "Text", "Whole"]


def test_two_graphs_share_a_cache_by_content_not_by_name(registry, calls):
    cache = MemoryCache()
    for name in ("first", "second"):
        graph = Graph(name, registry=registry)
        graph.output(name, graph.add("Load", name, size=7))
        graph.run(cache=cache)
    assert calls == ["Load"]


# -- disk -------------------------------------------------------------------------------------------------------------


def kept(registry: Registry, value: Any = 1) -> Graph:
    graph = Graph("g", registry=registry)
    graph.output("x", graph.Kept(value=value))
    return graph


def entry_of(cache: DiskCache, graph: Graph) -> Path:
    key = keys(graph)["kept"]
    return cache.folder / key[:2] / key


def test_the_disk_cache_outlives_the_process(registry, calls, tmp_path):
    graph = kept(registry, [1, 2.5, "ü", None, True, {"a": []}])
    first = fresh(graph, disk=DiskCache(tmp_path / "c"))
    second = fresh(graph, disk=DiskCache(tmp_path / "c"))
    assert calls == ["Kept"]
    assert second == first
    assert second.cached == {"kept"}


def test_only_nodes_that_ask_for_it_are_kept_on_disk(graph, tmp_path):
    disk = DiskCache(tmp_path / "c")
    fresh(pipeline(graph), disk=disk)
    assert list(disk.folder.iterdir()) == []


def test_the_folder_is_private(registry, tmp_path):
    disk = DiskCache(tmp_path / "c")
    fresh(kept(registry), disk=disk)
    for path in (disk.folder, *disk.folder.rglob("*")):
        if path.is_dir() and path.name != "0":
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def every_file(entry: Path) -> list[Path]:
    return sorted(path for path in entry.rglob("*") if path.is_file())


@pytest.mark.parametrize("file", [0, 1])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_entry_is_a_miss_with_a_warning_and_is_replaced(registry, calls, tmp_path, file, damage):
    disk, graph = DiskCache(tmp_path / "c"), kept(registry, {"some": "value"})
    expected = fresh(graph, disk=disk)["x"]
    path = every_file(entry_of(disk, graph))[file]
    data = path.read_bytes()
    spoilt = {"flip": data[:9] + bytes([data[9] ^ 4]) + data[10:], "truncate": data[:-3], "empty": b"", "remove": None}[
        damage
    ]
    path.unlink() if spoilt is None else path.write_bytes(spoilt)
    events: list[Any] = []
    assert fresh(graph, disk=disk, on_event=events.append)["x"] == expected
    assert calls == ["Kept", "Kept"]
    assert [event.node for event in events if isinstance(event, RunWarning)] == ["kept"]
    assert fresh(graph, disk=disk).cached == {"kept"}


def test_every_flipped_byte_of_an_entry_is_noticed(registry, tmp_path):
    disk, graph = DiskCache(tmp_path / "c"), kept(registry, 12)
    expected = fresh(graph, disk=disk).by_node["kept"]
    key = keys(graph)["kept"]
    for path in every_file(entry_of(disk, graph)):
        data = path.read_bytes()
        for index in range(len(data)):
            path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
            try:
                assert disk.get(key) == expected
            except Exception as error:
                assert "damaged" in str(error)  # noqa: PT017
        path.write_bytes(data)


def test_an_entry_under_a_wrong_key_is_refused(registry, tmp_path, calls):
    disk, one, two = DiskCache(tmp_path / "c"), kept(registry, 1), kept(registry, 2)
    fresh(one, disk=disk)
    entry_of(disk, two).parent.mkdir(exist_ok=True)
    os.rename(entry_of(disk, one), entry_of(disk, two))
    assert fresh(two, disk=disk)["x"] == {"value": 2}


def test_a_value_that_json_would_change_is_not_kept(graph, tmp_path):
    graph.output("x", graph.Load())
    graph.nodes["load"].cache = "disk"
    events: list[Any] = []
    disk = DiskCache(tmp_path / "c")
    fresh(graph, disk=disk, on_event=events.append)
    assert "Picture cannot be kept" in next(event.message for event in events if isinstance(event, RunWarning))
    assert list(disk.folder.rglob("*.json")) == []
    with pytest.raises(TypeError):
        disk.put("00", {"output": (1, 2)})


def test_concurrent_writers_leave_one_sound_entry(tmp_path):
    value = {"output": {"numbers": list(range(2000))}}

    def write() -> None:
        for _ in range(10):
            DiskCache(tmp_path / "c").put("ab" * 32, value)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    disk = DiskCache(tmp_path / "c")
    assert disk.get("ab" * 32) == value
    assert [path.name for path in disk.folder.iterdir()] == ["ab"]
    disk.clear()
    assert disk.get("ab" * 32) is None


def test_a_codec_of_one_s_own(registry, tmp_path, calls):
    class Upper:
        def dump(self, value: Any, folder: Path) -> None:
            (folder / "x.txt").write_text(json.dumps(value))

        def load(self, folder: Path) -> Any:
            return json.loads((folder / "x.txt").read_text())

    graph = kept(registry)
    for _ in range(2):
        fresh(graph, disk=DiskCache(tmp_path / "c", Upper()))
    assert calls == ["Kept"]


def test_a_run_without_room_on_disk_goes_on_with_a_warning(registry, tmp_path, monkeypatch):
    disk = DiskCache(tmp_path / "c")

    def full(key: str, values: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "put", full)
    events: list[Any] = []
    assert fresh(kept(registry), disk=disk, on_event=events.append)["x"] == {"value": 1}
    assert any(isinstance(event, RunWarning) for event in events)


def test_a_disk_cache_keeps_what_was_used_last_within_its_bytes(tmp_path):
    def put(number: int) -> None:
        disk.put(f"{number:064x}", {"output": "x" * 1000})
        os.utime(disk.folder / "00" / f"{number:064x}" / "manifest.json", (number, number))

    disk = DiskCache(tmp_path / "c", max_bytes=5000)
    for number in range(3):
        put(number)
    (size,) = {entry.size for entry in disk.entries()}
    assert 1000 < size < 5000 / 3
    assert disk.get(f"{0:064x}") is not None  # used now, so that 1 is the oldest
    put(3)
    assert [int(entry.key, 16) for entry in disk.entries()] == [0, 3, 2]
    with pytest.raises(ValueError, match="the cache may have 5000"):
        disk.put("f" * 64, {"output": "x" * 6000})
    assert len(disk.entries()) == 3
    DiskCache(tmp_path / "c", max_bytes=size).put("f" * 64, {"output": "x" * 1000})
    assert [entry.key for entry in disk.entries()] == ["f" * 64]


def test_what_killed_runs_left_is_swept_and_what_others_write_now_is_not(tmp_path):
    disk = DiskCache(tmp_path / "c")
    for name, age in (("old", 7200), ("now", 0)):
        work = disk.folder / f".writing-{name}"
        work.mkdir()
        (work / "tensors").write_text("half of it")
        os.utime(work, (time.time() - age,) * 2)
    disk.put("ab" * 32, {"output": 1})
    assert sorted(path.name for path in disk.folder.iterdir()) == [".writing-now", "ab"]


def test_clearing_takes_entries_only(tmp_path):
    """The folder may be one that holds other things too."""
    disk = DiskCache(tmp_path)
    for key in ("ab" * 32, "ab" + "cd" * 31, "00" * 32):
        disk.put(key, {"output": 1})
    (tmp_path / ".writing-killed").mkdir()
    for mine in ("thesis.txt", "ab/notes.txt", "ff/photo/a.txt"):
        (tmp_path / mine).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / mine).write_text("mine")
    assert len(disk.clear()) == 3
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["ab", "ab/notes.txt", "ff", "ff/photo", "ff/photo/a.txt", "thesis.txt"]


def test_an_entry_that_another_process_removes_while_it_is_read_is_a_miss_without_a_warning(tmp_path):
    class Removing(JsonCodec):
        def load(self, folder: Path) -> Any:
            disk.clear()
            return super().load(folder)

    disk = DiskCache(tmp_path, Removing())
    disk.put("ab" * 32, {"output": 1})
    assert disk.get("ab" * 32) is None


def test_processes_that_make_room_for_each_other_lose_nothing_but_the_oldest(tmp_path):
    def write(number: int) -> None:
        disk = DiskCache(tmp_path, max_bytes=2000)
        for index in range(15):
            disk.put(f"{number:02x}{index:062x}", {"output": [index] * 50})
            disk.get(f"{(number + 1) % 4:02x}{index:062x}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    disk = DiskCache(tmp_path, max_bytes=2000)
    assert all(disk.get(entry.key) == {"output": [int(entry.key[2:], 16)] * 50} for entry in disk.entries())
    assert sum(entry.size for entry in disk.entries()) <= 2000
    assert not list(tmp_path.glob(".writing-*"))


def test_a_cache_that_may_only_be_read_serves(tmp_path, monkeypatch):
    disk = DiskCache(tmp_path)
    disk.put("ab" * 32, {"output": 1})

    def refuse(*_arguments: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert disk.get("ab" * 32) == {"output": 1}


def test_a_graph_of_more_nodes_than_a_memory_cache_holds_by_default_runs_nothing_twice(graph, calls):
    last: Any = graph.Add(a=1, id="first")
    for _ in range(80):
        last = graph.Add(a=last)
    graph.output("x", last)
    for at in (1, 2, 1):
        graph.run(sets={"first.a": at})
    assert calls == ["Add"] * 162
    graph.run(cache=MemoryCache(3))
    assert graph.run(cache=MemoryCache(3))["x"] == 82.0


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_tells_what_runs_is_reused_and_is_skipped_and_why(graph, calls):
    pipeline(graph)
    graph.output(
        "c",
        graph.Choose(
            which=graph.Flag(id="f"), yes=graph.Text(text="y", id="y"), no=graph.Text(text="n", id="n"), id="c"
        ),
    )
    graph.Whole(id="unused")
    executor = Executor(cache=MemoryCache())
    executor.run(graph, ["x"])
    calls.clear()
    graph.set("keep.ratio", 1.0)
    report = executor.explain(graph)
    assert {name: entry["action"] for name, entry in report.items()} == {
        "load": "skip", "score": "reuse", "keep": "run", "total": "run",
        "f": "run", "y": "skip", "n": "skip", "c": "run", "unused": "skip",
    }  # fmt: skip
    assert "lazy" in report["y"]["why"]
    assert "no wanted output" in report["unused"]["why"]
    assert report["keep"]["made_of"]["inputs"]["scores"] == ["ref", [report["score"]["key"], "output"]]
    assert report["keep"]["made_of"]["inputs"]["ratio"] == ["float", "1.0"]
    assert calls == []


# Nodes that run for their effect


@node(category="toy", output=True)
class Mark(Node):
    """Leaves a file with its cache key, and can tell whether it is still there."""

    def run(self, ctx: Context, value: Any, file: str = "mark.txt") -> str:
        toys.note("Mark")
        path = ctx.output_path(file)
        path.write_text(ctx.key)
        return str(path)

    def done(self, ctx: Context, output: str, file: str = "mark.txt") -> bool:
        if file == "broken.txt":
            raise OSError
        return Path(output) == ctx.output_path(file) and Path(output).read_text() == ctx.key


def test_an_effect_that_is_still_there_is_not_made_again(registry, tmp_path):
    registry.add(Mark)
    graph = Graph("g", registry=registry)
    graph.Mark(value=graph.Text(text="a", id="text"), id="mark")
    runs = lambda: toys.CALLS.count("Mark")  # noqa: E731
    cache = MemoryCache()
    before = runs()
    result = graph.run(cache=cache, out=tmp_path)
    assert (runs() - before, result.cached) == (1, frozenset())
    assert graph.run(cache=cache, out=tmp_path).cached == {"mark"} and runs() - before == 1
    graph.run(cache=cache, out=tmp_path / "elsewhere")
    assert runs() - before == 2 and (tmp_path / "elsewhere" / "mark.txt").is_file()
    (tmp_path / "mark.txt").write_text("another run's")
    graph.run(cache=cache, out=tmp_path)
    assert runs() - before == 3
    (tmp_path / "mark.txt").unlink()
    graph.run(cache=cache, out=tmp_path)
    assert runs() - before == 4
    graph.set("text.text", "b")
    graph.run(cache=cache, out=tmp_path)
    assert runs() - before == 5
    graph.run(out=tmp_path, cache=MemoryCache(0))
    assert runs() - before == 6


def test_an_effect_that_cannot_be_judged_is_made_again(registry, tmp_path):
    registry.add(Mark)
    graph = Graph("g", registry=registry)
    graph.Mark(value=1, file="broken.txt")
    cache, before = MemoryCache(), toys.CALLS.count("Mark")
    for _ in range(2):
        graph.run(cache=cache, out=tmp_path)
    assert toys.CALLS.count("Mark") - before == 2


def test_effects_without_a_judge_are_made_every_time(registry, tmp_path):
    graph = Graph("g", registry=registry)
    graph.Show(value=1, id="show")
    cache, before = MemoryCache(), toys.CALLS.count("Show:show")
    for _ in range(2):
        graph.run(cache=cache, out=tmp_path)
    assert toys.CALLS.count("Show:show") - before == 2


# -- values that nobody can change in the cache ------------------------------------------------------------------------


@node(category="toy")
class Nested(Node):
    """Containers in containers."""

    kept: list[Any] = []

    def run(self) -> Any:
        value = {"list": [1, [2]], "tuple": ([3],), "set": {4}}
        self.kept.append(value)
        return value


def spoil(value: Any) -> None:
    value["list"][1].append(9)
    value["tuple"][0].append(9)
    value["set"].add(9)
    value["more"] = 9


def test_a_cached_value_cannot_be_changed_by_its_maker_or_its_readers(graph):
    graph.registry.add(Nested)
    graph.output("x", graph.Nested())
    expected = {"list": [1, [2]], "tuple": ([3],), "set": {4}}
    cache = MemoryCache()
    spoil(graph.run(cache=cache)["x"])  # the node's own value
    spoil(Nested.kept[-1])
    for _ in range(2):
        result = graph.run(cache=cache)
        assert result.cached == {"nested"}
        assert result["x"] == expected
        spoil(result["x"])


def test_a_cache_shares_what_is_no_plain_container():
    picture, cache = toys.Picture((1,)), MemoryCache()
    cache.put("key", {"output": [picture]})
    assert cache.get("key")["output"][0] is picture
