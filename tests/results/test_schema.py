"""What an evaluation and a bench write is what the schema says, field by field and in its order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fopru_graph.measure.bench import Bench
from fopru_graph.measure.pipelines import benched_pipelines
from fopru_graph.results import bench
from fopru_graph.results.schema import Identity, Row, Summary
from tests.evaluation.toys import ToyModel, ToyRecords, cell_run
from tests.measure import toys


def test_the_files_of_a_cell_hold_the_fields_of_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fopru_graph.evaluation.runner.draw_gallery", lambda run, folder: None)
    cell_run(tmp_path, ToyRecords(12, broken=[4]), ToyModel(fails=[7])).run()
    for name, schema in (("cell.json", Identity), ("summary.json", Summary)):
        written = json.loads((tmp_path / name).read_text())
        assert list(written) == list(schema.model_fields), name
        assert schema.model_validate(written).model_dump(mode="json") == written, name
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows if row["status"] == "error"] == [4, 7]
    for row in rows:
        assert list(row) == list(Row.model_fields)
        assert json.dumps(Row.model_validate(row).model_dump()) == json.dumps(row)


def test_what_the_report_reads_of_a_bench_is_written() -> None:
    pipelines = benched_pipelines(toys.pipeline("pruned", 1), (1.0, 0.5))
    result = Bench(pipelines, clock=toys.clock, new_tokens=5, rounds=2).run()
    read = bench.Bench.model_validate_json(json.dumps(result.to_json()))
    assert (read.model, read.rounds, read.machine) == (result.model, 2, result.machine)
    assert [(variant.pipeline, variant.ratio, variant.ttft_ms.median) for variant in read.variants] == [
        (variant.pipeline, variant.ratio, variant.ttft.median) for variant in result.variants
    ]
