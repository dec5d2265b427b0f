"""`fopru-graph map` under kill -9, over many rows, and against a plain loop.

    python benchmarks/map_kills.py rows --rows 1000            # the same rows by every engine, and their throughput
    python benchmarks/map_kills.py kills --engine local        # driver, worker, both; at random moments
    python benchmarks/map_kills.py memory --rows 20000         # resident memory of driver and worker, row by row
    python benchmarks/map_kills.py disk                        # a full disk; mounts a tmpfs

Pictures are scenes of the demo model, 64 pixels a side, and the model is the demo's, asked for one token. With
``--toy`` there is no model: a row is text in, text out after ``--pause`` seconds, so that only the engine is at work
(the toy of tests/scale). Ray is measured where it can be imported. Results are printed, and appended to ``--log`` as
JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

QUESTION = "what does the text say ?"
SETS = {"prompt": QUESTION, "max_new_tokens": 1}
VICTIMS = ("driver", "worker", "both")


def main() -> None:
    """Run what the first argument names."""
    given = _arguments()
    if given.what == "drive":
        drive(Path(given.folder), given.engine, given.workers, given.rows, given.part_rows, given.pause)
        return
    folder = Path(given.folder or tempfile.mkdtemp(prefix="map-kills-"))
    bench = Bench(given, folder)
    {"rows": bench.compare, "kills": bench.kills, "memory": bench.memory, "disk": bench.disk}[given.what]()


class Bench:
    """One call of this program; everything is written below ``folder``."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.pictures = folder / f"pictures{given.rows}"
        if not given.toy and not self.pictures.exists():
            draw(self.pictures, given.rows)

    def say(self, **facts: Any) -> None:
        """Print facts and append them to the log."""
        facts = {"time": time.strftime("%T"), "load": round(os.getloadavg()[0], 1), **facts}
        print(json.dumps(facts), flush=True)
        if self.given.log:
            with open(self.given.log, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(facts) + "\n")

    def begin(self, out: Path, engine: str, workers: int) -> subprocess.Popen[str]:
        """Start a driver that maps into ``out``."""
        given = self.given
        if given.toy:
            command = [__file__, "drive", "--folder", str(out.parent), "--rows", str(given.rows)]
            command += ["--pause", str(given.pause)]
        else:
            command = ["-m", "fopru_graph", "map", "fopru_rank", "--over", str(self.pictures), "--into", str(out)]
            command += [part for name, value in SETS.items() for part in ("--set", f"{name}={value}")]
            command += ["--write", "text", "--write", "visual_tokens", "--json"]
        command += ["--engine", engine, "--workers", str(workers), "--part-rows", str(given.part_rows)]
        return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)

    # -- the same rows, and how many a second -------------------------------------------------------------------------

    def compare(self) -> None:
        """Every engine over all rows, after a plain loop over a part of them in this process, and after it again."""
        loop = self.plain_loop()
        reference: list[dict[str, Any]] | None = None
        engines = [("local", 1), ("local", 2), *([("ray", 1), ("ray", 2)] if find_spec("ray") else [])]
        for engine, workers in engines:
            out = self.folder / f"{engine}{workers}" / "out"
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir(parents=True)
            begin = time.monotonic()
            process = self.begin(out, engine, workers)
            first, last = _span(process, out)
            code, seconds = process.wait(), time.monotonic() - begin
            found = rows(out)
            reference = reference or found
            rate = self.given.rows / (last - first)
            self.say(
                engine=engine, workers=workers, code=code, rows=len(found), same_rows=found == reference,
                seconds=round(seconds, 1), start_s=round(first - begin, 1), rows_per_s=round(rate, 2),
                share_of_loop=round(rate / loop, 2) if loop else None,
            )  # fmt: skip
        self.plain_loop()

    def plain_loop(self) -> float | None:
        """Rows a second of a loop over `PipelineModel.answer`, the model being loaded."""
        if self.given.toy:
            return None
        from fopru_graph import Graph, PipelineModel

        graph = Graph.load(ROOT / "pipelines" / "fopru_rank.yaml")
        graph.set("max_new_tokens", 1)
        model = PipelineModel(graph)
        pictures = sorted(self.pictures.iterdir())[: max(50, self.given.rows // 5)]
        model.answer(QUESTION, [str(pictures[0])])
        begin = time.monotonic()
        for picture in pictures:
            model.answer(QUESTION, [str(picture)])
        rate = len(pictures) / (time.monotonic() - begin)
        self.say(engine="plain loop", rows=len(pictures), rows_per_s=round(rate, 2))
        return rate

    # -- kill -9 ------------------------------------------------------------------------------------------------------

    def kills(self) -> None:
        """Kill the driver, a worker, or both at random moments; every row is there once in the end."""
        engine, given = self.given.engine, self.given
        out = self.folder / "whole" / "out"
        out.parent.mkdir(parents=True, exist_ok=True)
        process = self.begin(out, engine, given.workers)
        first, last = _span(process, out)
        process.wait()
        reference = rows(out)
        self.say(engine=engine, whole_run_s=round(last - first, 1), rows=len(reference), parts=len(parts(out)))
        chance = random.Random(given.seed)
        for victim in VICTIMS:
            for number in range(given.moments):
                where = self.folder / f"{engine}-{victim}-{number}" / "out"
                shutil.rmtree(where.parent, ignore_errors=True)
                where.parent.mkdir(parents=True)
                self.killed(where, victim, chance.uniform(0, last - first), reference)

    def killed(self, out: Path, victim: str, moment: float, reference: list[dict[str, Any]]) -> None:
        """One run with a kill ``moment`` seconds after the first row was begun, and the run that goes on from there."""
        engine = self.given.engine
        process = self.begin(out, engine, self.given.workers)
        _wait(lambda: told(out), process)
        time.sleep(moment)
        workers, before = alive(out), parts(out)
        if victim != "driver" and workers:
            random.choice(workers).kill()
        if victim != "worker":
            process.kill()
        code = process.wait()
        left = psutil.wait_procs(workers, timeout=30)[1] if victim != "worker" else []
        if victim != "worker":
            before = parts(out)  # whole parts that appeared until the last worker was gone count too
            second = self.begin(out, engine, self.given.workers)
            code = second.wait()
        after = parts(out)
        redone = sum(after.get(path) != state for path, state in before.items())
        self.say(
            engine=engine, victim=victim, moment_s=round(moment, 2), whole_parts_at_kill=len(before), redone=redone,
            workers_left=len(left), code=code, same_rows=rows(out) == reference,
        )  # fmt: skip

    # -- memory -------------------------------------------------------------------------------------------------------

    def memory(self) -> None:
        """Resident memory of the driver and its workers while all rows go through."""
        out = self.folder / "memory" / "out"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir(parents=True)
        process = self.begin(out, self.given.engine, self.given.workers)
        seen: list[tuple[int, float, float]] = []
        _wait(lambda: alive(out), process)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                done = sum(pyarrow.parquet.read_metadata(path).num_rows for path in parts(out))
                worker = max(process.memory_info().rss for process in alive(out))
                seen.append((done, psutil.Process(process.pid).memory_info().rss / 2**20, worker / 2**20))
            time.sleep(2)
        for tenth in range(0, 11):
            near = [mark for mark in seen if mark[0] >= tenth * self.given.rows // 10][:1]
            for done, driver, worker in near:
                self.say(rows=done, driver_mib=round(driver, 1), worker_mib=round(worker, 1))
        self.say(code=process.wait(), rows=len(rows(out)))

    # -- a full disk --------------------------------------------------------------------------------------------------

    def disk(self) -> None:
        """A file system without room for all parts, then with it."""
        mount = self.folder / "small"
        mount.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(mount)], check=True)
        try:
            out = mount / "out"
            process = self.begin(out, self.given.engine, self.given.workers)
            said = process.communicate()[0]
            before = parts(out)
            self.say(size="160k", code=process.returncode, whole_parts=len(before), said=said[-400:])
            subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
            process = self.begin(out, self.given.engine, self.given.workers)
            process.communicate()
            kept = all(parts(out).get(path) == state for path, state in before.items())
            self.say(size="64m", code=process.returncode, rows=len(rows(out)), kept=kept)
        finally:
            subprocess.run(["umount", str(mount)], check=False)


def drive(folder: Path, engine: str, workers: int, count: int, part_rows: int, pause: float) -> None:
    """A driver of toys; the folder is locked, planned and worked through as by the command."""
    from fopru_graph.processes.process import StopSignals
    from fopru_graph.scale import local, ray
    from tests.scale import toy

    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    local.worker.__name__ = "tests.scale.toy"
    ray.PartMaker = toy.ToyMaker  # type: ignore[misc]
    name = f"{time.time():.3f}"
    run = toy.toy_run(folder, [f"{n:07}" for n in range(count)], name, part_rows=part_rows, pause=pause, trace=False)
    with StopSignals() as stop:
        if engine == "ray":
            ray.RayWorkers(run, workers, False, 600, stop, lambda _: None).run()
        else:
            local.LocalWorkers(run, [{}] * workers, stop, lambda _: None).run()


def draw(folder: Path, count: int) -> None:
    """Small pictures of the demo's scenes."""
    from fopru_graph.demo.scenes import render, sample_scene, scene_rng

    folder.mkdir(parents=True)
    for number in range(count):
        render(sample_scene(scene_rng("test", number)), 64).save(folder / f"{number:06}.png")


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows of all parts, by id."""
    found = [row for path in parts(out) for row in pyarrow.parquet.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: row["path"])


def parts(out: Path) -> dict[Path, tuple[int, int]]:
    """The part files, each with what changes when it is written again."""
    found = {}
    for path in sorted(out.glob("part-*.parquet")):
        status = path.stat()
        found[path] = (status.st_ino, status.st_mtime_ns)
    return found


def alive(out: Path) -> list[psutil.Process]:
    """The workers of the folder's runs whose processes live."""
    found = []
    for file in out.glob("_map/runs/*/workers/*"):
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            about = json.loads(file.read_text())
            process = psutil.Process(about["pid"])
            if process.create_time() == about["created"]:
                found.append(process)
    return found


def told(out: Path) -> list[Path]:
    """What workers have told of the rows that they began."""
    return [path for path in out.glob("_map/runs/*/state/*.rows") if path.stat().st_size > len("begin\n")]


def _span(process: subprocess.Popen[str], out: Path) -> tuple[float, float]:
    """When the first row was begun, and when the last part was there."""
    _wait(lambda: told(out), process)
    first = time.monotonic()
    last = first
    count = 0
    while process.poll() is None:
        if len(parts(out)) > count:
            count, last = len(parts(out)), time.monotonic()
        time.sleep(0.05)
    return first, last


def _wait(ready: Any, process: subprocess.Popen[str]) -> None:
    while not ready() and process.poll() is None:
        time.sleep(0.02)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "kills", "memory", "disk", "drive"])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part-rows", type=int, default=20)
    parser.add_argument("--moments", type=int, default=5, help="kills of each victim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--toy", action="store_true", help="rows without a model")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a toy's row takes")
    parser.add_argument("--folder", help="where everything is written; a new folder in /tmp without it")
    parser.add_argument("--log", help="file that results are appended to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
