"""Pipelines on the command line: their names, their inputs and their ratio."""

from __future__ import annotations

import json

import pytest

from tests.test_cli import invoke


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -- run --ratio ------------------------------------------------------------------------------------------------------


def test_the_ratio_of_a_run_is_that_of_a_bench():
    data = json.loads(invoke("run", "fopru_fastv", "--ratio", "0.0625", "--json").stdout)
    assert [data["visual_tokens"][key] for key in ("encoded", "kept", "final")] == [256, 64, 16]
    assert data["ttft_ms"] > 0
    explained = invoke("run", "fopru_rank", "--ratio", "0.5", "--explain", "--json")
    asked = json.loads(explained.stdout)["prune"]["made_of"]["inputs"]["ratio"]
    assert asked == ["float", "0.5"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["baseline", "--ratio", "0.5"], "baseline has no ratio to set: it drops no visual tokens"),
        (["prumerge", "--ratio", "0.5"], "prumerge has no ratio to set: it chooses the number of tokens itself"),
        (["fopru_rank", "--ratio", "2"], "ratio 2 is not in (0, 1]"),
        (["fopru_rank", "--ratio", "0.5", "--set", "prune.tokens=8"], "prune.tokens is fixed, so no ratio can be set"),
        (["fopru_rank", "--ratio", "half"], "Invalid value for '--ratio'"),
    ],
)
def test_a_ratio_that_cannot_be_set_is_one_sentence(arguments, says):
    result = invoke("run", *arguments, "--json")
    assert result.exit_code == 2 and says in json.loads(result.stdout)["error"]["message"]
