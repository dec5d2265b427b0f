"""Actors of Ray on this machine make the same rows; what would hang ends in a sentence."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from fopru_graph.errors import UserError
from fopru_graph.processes.process import StopSignals
from fopru_graph.scale import ray as engine
from fopru_graph.scale.watch import Watch
from tests.scale import toy

pytest.importorskip("pyarrow")


def test_actors_make_every_row_once_and_a_killer_costs_its_row(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(engine, "PartMaker", toy.ToyMaker)
    monkeypatch.setenv("PYTHONPATH", f"{toy.ROOT}:{':'.join(sys.path)}")
    paths = ["a", "b", "killer", "d", "broken", "f", "g"]
    run = toy.toy_run(tmp_path, paths)
    with StopSignals() as stop:
        engine.RayWorkers(run, 2, False, 300, stop, lambda watch: None).run()
    rows = {path: (text, error) for path, text, error in toy.results(run.folder)}
    assert [path for path, *_ in toy.results(run.folder)] == paths
    assert rows["killer"] == (None, "2 workers died at this row") and rows["g"] == ("seen g", None)
    assert toy.begun(run).count("killer") == 2 and run.made() == 7


def cluster(**resources):
    return SimpleNamespace(cluster_resources=lambda: resources)


def test_actors_share_gpus_and_leave_a_cpu_for_reading():
    assert engine._resources(cluster(CPU=4.0), None, True, 100) == (3, 0.0)
    assert engine._resources(cluster(CPU=4.0), None, True, 2) == (2, 0.0)
    assert engine._resources(cluster(CPU=16.0, GPU=4.0), None, True, 100) == (4, 1.0)
    assert engine._resources(cluster(CPU=16.0, GPU=2.0), 6, True, 100) == (6, 0.333)
    assert engine._resources(cluster(CPU=16.0, GPU=2.0), 6, False, 100) == (6, 0.0)
    with pytest.raises(UserError, match="4 workers and Ray's reading need 5 CPUs, the cluster has 4") as caught:
        engine._resources(cluster(CPU=4.0), 4, True, 100)
    assert caught.value.hint == "give --workers 3 or fewer"


def test_when_no_row_arrives_for_long_it_fails(tmp_path):
    run = toy.toy_run(tmp_path, ["a"])
    with StopSignals() as stop:
        workers = engine.RayWorkers(run, 1, False, 0.05, stop, Watch.left)
        workers._look()
        time.sleep(0.1)
        with pytest.raises(UserError, match="no row has arrived for"):
            workers._look()


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="needs Ray Data") as caught:
        engine.import_ray()
    assert caught.value.hint == "pip install 'ray[data]'"
