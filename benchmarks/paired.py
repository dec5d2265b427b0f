"""Two commits of this project against each other, interleaved: what a change is worth on a machine that others use too.

    python benchmarks/paired.py OLD pipelines/baseline.yaml pipelines/fopru_rank.yaml --set model=random:llava-cpu

Each commit is checked out into a folder of its own and runs in a process of its own, in this environment. In a round
each pipeline is answered by one of them and then by the other, the first by turns. Printed are medians, the ratio old
by new (above 1: new is faster) with its bootstrap interval over rounds, and the same ratio of old against itself, the
noise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.peers.rounds import Failed, Process  # noqa: E402
from fopru_graph.results.statistics import gain  # noqa: E402

FIGURES = {"ttft": "TTFT ms", "tpot": "TPOT ms"}


def main() -> None:
    """Measure and print; ``--json`` also writes every time."""
    given = _arguments()
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(_checked_out(revision)) for revision in (given.old, given.new))
        sides = {"old": (old, given.set_old), "again": (old, given.set_old), "new": (new, given.set_new)}
        workers = {
            side: stack.enter_context(_worker(folder, given, [*given.set, *more]))
            for side, (folder, more) in sides.items()
        }
        facts = {side: worker.ask(None) for side, worker in workers.items()}
        labels = [fact["labels"] for fact in facts.values()]
        if not all(each == labels[0] for each in labels):
            raise SystemExit(f"the commits do not offer the same rows: {labels}")
        for side, (folder, _) in sides.items():
            if not facts[side]["code"].startswith(str(folder)):
                raise SystemExit(f"{side} runs {facts[side]['code']}, not the code in {folder}")
        runs = _rounds(workers, labels[0], given.rounds)
        peaks = {side: worker.ask(None)["peak_mib"] for side, worker in workers.items()}
    for line in table(runs):
        print(line)
    print("Peak RSS MiB:", ", ".join(f"{side} {peak:.0f}" for side, peak in peaks.items()))
    if given.json:
        given.json.write_text(json.dumps({"arguments": sys.argv[1:], "peak_mib": peaks, "runs": runs}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a commit, or . for the working tree")
    parser.add_argument("pipelines", nargs="+")
    parser.add_argument("--new", default=".", help="the other commit; the working tree unless named")
    parser.add_argument("--ratio", default="0.25", help="retention ratios with commas, for pipelines that have one")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    clock = "wall, or cpu: what the process computed, whoever else uses the machine; for one thread"
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=clock)
    for name, of in (("--set", "both commits"), ("--set-old", "the old one"), ("--set-new", "the new one")):
        parser.add_argument(name, action="append", default=[], metavar="INPUT=VALUE", help=f"for {of}")
    parser.add_argument("--json", type=Path, help="a file for every time that was measured")
    return parser.parse_args()


@contextlib.contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    """The folder of a commit, removed in the end."""
    if revision == ".":
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "commit")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", path, revision], cwd=ROOT, check=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", path], cwd=ROOT, check=True)


@contextlib.contextmanager
def _worker(folder: Path, given: argparse.Namespace, sets: Sequence[str]) -> Iterator[Process]:
    """A process that runs the pipelines with the code of ``folder``: a row's label in, figures out."""
    task = {"pipelines": given.pipelines, "ratios": given.ratio, "new_tokens": given.new_tokens}
    task |= {"sets": sets, "clock": given.clock}
    command = [sys.executable, str(Path(__file__).with_name("paired_worker.py")), json.dumps(task)]
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        worker = Process(command, given.threads, Path(log.name), folder)
        try:
            yield worker
        except Failed as error:
            raise SystemExit(f"the worker in {folder} failed: {error}") from None
        finally:
            worker.close()


def _rounds(workers: Mapping[str, Process], labels: Sequence[str], rounds: int) -> dict[str, Any]:
    """Times by row, figure and side, a list over rounds; a first round warms up and does not count."""
    runs: dict[str, Any] = {label: {figure: {side: [] for side in workers} for figure in FIGURES} for label in labels}
    for number in range(rounds + 1):
        turn = number % len(workers)
        order = [*list(workers)[turn:], *list(workers)[:turn]]
        for label in labels:
            for side in order:
                answer = workers[side].ask({"row": label})
                for figure in FIGURES if number else ():
                    runs[label][figure][side].append(answer[figure])
        print(f"round {number} of {rounds}", file=sys.stderr)
    return runs


def table(runs: dict[str, Any]) -> Iterator[str]:
    """The lines of a Markdown table of what `_rounds` returns."""
    yield "| row | figure | old | new | old / new | 95 % interval | old / old |"
    yield "|---|---|---|---|---|---|---|"
    for label, figures in runs.items():
        for figure, sides in figures.items():
            if None in sides["old"]:
                continue
            old, new, again = (median(sides[side]) for side in ("old", "new", "again"))
            ratio, low, high = _gain(sides["old"], sides["new"])
            times = f"{old:.1f} | {new:.1f} | {ratio:.3f} | {low:.3f}–{high:.3f} | {old / again:.3f}"
            yield f"| {label} | {FIGURES[figure]} | {times} |"


def _gain(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    ratio = gain([[time] for time in old], [[time] for time in new], 1.0)
    return ratio.measured, ratio.low, ratio.high


if __name__ == "__main__":
    main()
