"""``fopru-graph doctor``: check whether this installation works."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape

from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.stdout import stdout

PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "safetensors"),
    *("networkx", "pyyaml", "pillow", "pydantic"),
)


class Finding(NamedTuple):
    """The result of one check: its subject, whether it is in order, and details."""

    what: str
    ok: bool
    found: str


def doctor(as_json: bool) -> int:
    """Check everything and print the findings; returns the exit code."""
    findings = examine()
    if as_json:
        stdout.json([finding._asdict() for finding in findings], indent=2)
    else:
        _show(findings)
    return 0 if all(finding.ok for finding in findings) else 1


def examine() -> list[Finding]:
    """Check everything, the cheap things first; a check that fails does not hide the others."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        *((name, lambda name=name: importlib.metadata.version(name)) for name in PACKAGES),
        ("devices", _devices),
        ("transformers features", _features),
        ("node types", _node_types),
        ("shipped pipelines", _pipelines),
        ("an answer from the demo model", _answer),
    ]
    return [_check(what, check) for what, check in checks]


def _check(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except Exception as error:  # doctor is run to see what is broken, whatever it is
        return Finding(what, False, f"{type(error).__name__}: {error}")


def _devices() -> str:
    import torch

    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return ", ".join([*names, f"cpu ({torch.get_num_threads()} threads)"])


def _features() -> str:
    from fopru_graph.lvlm.loading.compat import missing_capabilities

    if missing := missing_capabilities():
        raise RuntimeError("; ".join(missing))
    return "all there"


def _node_types() -> str:
    from fopru_graph.graph import Registry

    registry = Registry.default()
    if failures := registry.failures:
        raise RuntimeError("; ".join(map(str, failures)))
    return ", ".join(registry.types())


def _pipelines() -> str:
    from fopru_graph.graph import Graph, PipelineError

    shipped = shipped_pipelines()
    for path in shipped.values():
        if problems := Graph.load(path).problems():
            raise PipelineError(problems, str(path))
    return ", ".join(shipped)


def _answer() -> str:
    from fopru_graph.graph import Graph

    with tempfile.TemporaryDirectory() as folder:
        result = Graph.load(shipped_pipelines()["fopru_fastv"]).run(out=Path(folder))
    if result["text"] != "stop":
        raise RuntimeError(f"the sign says 'stop', the model says {result['text']!r}")
    return f"{result['text']!r}, as it should be"


def _show(findings: list[Finding]) -> None:
    table = simple_table("", "", "found")
    for finding in findings:
        table.add_row("[green]ok[/]" if finding.ok else "[red]bad[/]", finding.what, escape(finding.found))
    stdout_console().print(table)
