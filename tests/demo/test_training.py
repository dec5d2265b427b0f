"""The training script runs from nothing to a folder that loads; what it learns in a few steps is not judged."""

from __future__ import annotations

import json

from fopru_graph.demo import train
from fopru_graph.lvlm.loading.load import load_model


def test_the_one_command_trains_exports_and_writes_a_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "VALIDATION_SCENES", 2)
    work, out = tmp_path / "work", tmp_path / "model"
    sizes = ["--steps", "2,1,1,1", "--size", "2", "--scenes", "2", "--threads", "1", "--no-compile"]
    monkeypatch.setattr("sys.argv", ["train", "--work", str(work), "--out", str(out), *sizes])
    train.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["stage"] for row in rows] == list(train.STAGES)
    assert all(row["answer"] > 0 for row in rows if row["stage"] in ("language", "joint"))
    card = (out / "README.md").read_text()
    assert "FoPru rank 25%" in card and "| joint | 1 |" in card
    assert load_model(str(out), device="cpu").family.model.num_parameters() > 7_000_000
    train.main()  # all stages are done: only the export is made again
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")] == []
