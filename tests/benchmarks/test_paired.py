"""The comparison of two commits: what it makes of the times, and that no side always comes first."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from benchmarks import paired


def test_the_ratio_is_of_medians_and_old_against_itself_tells_the_noise():
    times = {"old": [90.0, 100.0, 110.0], "again": [80.0, 80.0, 80.0], "new": [50.0, 40.0, 60.0]}
    without = dict.fromkeys(times, [None])
    head, _, line = paired.table({"fopru_rank 25 %": {"ttft": times, "tpot": without}})
    row = dict(zip((cell.strip() for cell in head.split("|")), (cell.strip() for cell in line.split("|")), strict=True))
    assert (row["figure"], row["old"], row["new"], row["old / new"]) == ("TTFT ms", "100.0", "50.0", "2.000")
    assert row["95 % interval"] == "1.800–2.500" and row["old / old"] == "1.250"


def test_each_side_comes_first_by_turns_and_the_first_round_does_not_count():
    asked = []

    def worker(side):
        return SimpleNamespace(ask=lambda _row: asked.append(side) or {"ttft": len(asked), "tpot": 1.0})

    sides = {"old": worker("o"), "again": worker("a"), "new": worker("n")}
    runs = paired._rounds(sides, ["row"], 2)
    assert asked == [*"oan", *"ano", *"noa"]
    assert runs["row"]["ttft"] == {"old": [6, 8], "again": [4, 9], "new": [5, 7]}


def test_a_worker_that_ends_is_told(monkeypatch, tmp_path):
    given = type(
        "Given", (), {"pipelines": ["missing.yaml"], "ratio": "0.25", "new_tokens": 1, "threads": 1, "clock": "cpu"}
    )
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(SystemExit, match="it ended with status 1"), paired._worker(tmp_path, given, []) as worker:
        worker.ask(None)
