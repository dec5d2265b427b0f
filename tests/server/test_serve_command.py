"""``fopru-graph serve``: its start, its end, and why it does not start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.commands import serve
from tests.server.conftest import Client
from tests.test_cli import invoke

COMMAND = [sys.executable, "-m", "fopru_graph.cli", "serve"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_serves_and_ends_by_a_signal(tmp_path: Path, number: int) -> None:
    arguments = ["fopru_rank", "baseline", "--port", "0", "--data", str(tmp_path / "state"), "--json"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["models"] == ["fopru_rank", "baseline"]
            client = Client(said["address"])
            models = json.loads(client.ask("GET", "/v1/models").body)
            assert [model["id"] for model in models["data"]] == said["models"]
        finally:
            process.send_signal(number)
            _, messages = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in messages
    assert f"serving at {said['address']}" in messages and "models: fopru_rank, baseline" in messages
    assert "GPL-3.0-only" in messages


def test_the_frontend_that_it_names_is_the_one_of_the_extra() -> None:
    config = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{serve._FRONTEND}=={serve._TESTED}"' in config


def test_all_pipelines_of_pictures_that_ship_are_served_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr("fopru_graph.server.app.serve", lambda settings, on_start: served.append(settings))
    assert invoke("serve", "--set", "max_new_tokens=5", "--batch-window", "20").exit_code == 0
    (settings,) = served
    assert {"fopru_fastv", "baseline", "sparsevlm"} <= set(settings.pipelines) and "evs" not in settings.pipelines
    assert {graph.inputs["max_new_tokens"].default for graph in settings.pipelines.values()} == {5}
    assert (settings.host, settings.port, settings.token, settings.batch_seconds) == ("127.0.0.1", 8188, None, 0.02)
    assert settings.canvas and not settings.fetch_pictures


def test_a_token_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr("fopru_graph.server.app.serve", lambda settings, on_start: served.append(settings))
    monkeypatch.setenv("FOPRU_GRAPH_TOKEN", "a token of the environment")
    assert invoke("serve", "baseline", "--host", "0.0.0.0", "--allow-host", "graph.example").exit_code == 0
    assert served[0].token == "a token of the environment" and "graph.example" in served[0].hosts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "lets other machines in"),
        (["--token", "short"], "could be guessed"),
        (["baseline", "baseline"], "two pipelines are called 'baseline'"),
        (["nowhere"], "no pipeline of that name ships"),
        (["baseline", "--set", "ratios=1"], "ratios"),
    ],
)
def test_it_does_not_start_wrongly(arguments: list[str], says: str) -> None:
    result = invoke("serve", *arguments)
    assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.stderr


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("serve", "baseline", "--port", str(port))
    assert (
        result.exit_code == 1
        and f"nothing can listen on 127.0.0.1, port {port}: Address already in use" in result.stderr
    )
    assert result.stderr.count("\n") <= 2


def test_without_aiohttp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("fopru_graph.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delattr("fopru_graph.server", raising=False)
    result = invoke("serve", "baseline")
    assert result.exit_code == 2 and "pip install aiohttp" in result.stderr
