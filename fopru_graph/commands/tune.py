"""``fopru-graph tune``: how few visual tokens are enough for a task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from fopru_graph.commands.arguments import ModelOptions
from fopru_graph.commands.evaluate import EvalOptions, Study, ending_well, open_study, run_cell, settings_given
from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import Records, Task
from fopru_graph.evaluation.tune import PAPER_RATIOS, Drop, Tuned, drop_between, tune
from fopru_graph.evaluation.variants import Variant, variants_of
from fopru_graph.graph import CancelToken, Graph
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.format import percent

Opened = tuple[Task, Records]


def tune_files(
    files: list[Path],
    nodes: list[Path] | None,
    sets: list[str] | None,
    max_drop: float,
    options: EvalOptions,
    model: ModelOptions,
) -> int:
    """Tune every pipeline on every task; returns the exit code."""
    study = open_study(files, nodes, sets, options, model, _check_tunable)
    with ending_well() as token:
        found = list(_tune_all(study, sets, max_drop, options, token))
    study.ranks.leave()
    if study.ranks.first:
        _show(found, options.as_json)
    return 0


def _check_tunable(graph: Graph) -> None:
    """Refuse a pipeline that has no ratio.

    Raises:
        UserError: it drops nothing, or finds its own number of tokens.
    """
    if len(variants_of(graph, (1.0, 0.5))) < 2:
        raise UserError(
            f"{graph.name or graph.file} has no ratio to tune",
            "give pipelines with a pruning node that has a ratio, at the top level",
        )


def _tune_all(
    study: Study, sets: list[str] | None, max_drop: float, options: EvalOptions, token: CancelToken
) -> Iterator[Tuned]:
    loaded: dict[str, dict[str, Any]] = {}

    def run(variant: Variant, opened: Opened) -> Path:
        label = f"{variant.label} on {opened[0].name}"
        run_cell(variant, PipelineModel(variant.graph, loaded, token), opened, options, study.ranks, label)
        return options.out / variant.folder(opened[0].name)

    for graph in study.graphs:
        given = settings_given(graph, sets)
        for opened in study.tasks:
            whole = run(variants_of(graph, (1.0,), given)[0], opened)

            def measure(
                ratio: float, graph: Graph = graph, given: dict[str, Any] = given, opened: Opened = opened,
                whole: Path = whole,
            ) -> Drop:  # fmt: skip
                return drop_between(whole, run(variants_of(graph, (ratio,), given)[0], opened), ratio)

            ratios = PAPER_RATIOS if options.ratios is None else options.ratios
            yield tune(graph.name or str(graph.file), opened[0].name, ratios, max_drop, measure)


def _show(found: Sequence[Tuned], as_json: bool) -> None:
    best = {task: _best([one for one in found if one.task == task]) for task in dict.fromkeys(o.task for o in found)}
    if as_json:
        chosen = {task: None if one is None else one.pipeline for task, one in best.items()}
        print(json.dumps({"results": [one.to_json() for one in found], "best": chosen}, ensure_ascii=False))
        return
    out = stdout_console()
    for one in found:
        table = simple_table(">ratio", ">accuracy", ">drop", ">95 % interval", ">n", "")
        table.title = f"[bold]{escape(one.pipeline)}[/] on {escape(one.task)}, at most {one.max_drop:g} points"
        for drop in one.drops:
            mark = "[green]smallest within[/]" if drop.ratio == one.ratio else ""
            mark += " [green]with confidence[/]" if drop.ratio == one.sure else ""
            interval = f"{drop.low:.2f} to {drop.high:.2f}"
            table.add_row(
                percent(drop.ratio), f"{drop.accuracy:.1f}", f"{drop.drop:.2f}", interval, str(drop.n), mark.strip()
            )
        out.print(table)
        out.print(escape(one.statement()), soft_wrap=True)
    if len(found) > len(best):
        for task, winner in best.items():
            if winner is not None:
                out.print(f"[bold]{escape(task)}[/]: fewest tokens with {escape(winner.pipeline)}", soft_wrap=True)


def _best(found: Sequence[Tuned]) -> Tuned | None:
    """The pipeline with the smallest ratio; of equal ones that with the smaller drop."""
    pairs = [(one, drop) for one in found if (drop := one.chosen) is not None]
    return min(pairs, key=lambda pair: (pair[1].ratio, pair[1].drop))[0] if pairs else None
