"""``fopru-graph tune``: how few visual tokens are enough for a task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from fopru_graph.commands.arguments import parse_ratios, set_values
from fopru_graph.commands.evaluate import EvaluationInputs, failures_end_program, open_inputs, run_cell
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import TuneOptions
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.task import Records, Task
from fopru_graph.evaluation.tune import PAPER_RATIOS, Drop, Tuned, drop_between, find_smallest_ratio
from fopru_graph.graph import CancelToken, Graph
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.terminal.console import say, simple_table, stdout_console
from fopru_graph.terminal.format import percent
from fopru_graph.terminal.stdout import stdout


def tune(options: TuneOptions, model: ModelOptions) -> int:
    """Tune every pipeline on every task; returns the exit code."""
    ratios = parse_ratios(options.ratio) or PAPER_RATIOS
    inputs = open_inputs(options, model, _check_tunable)
    with failures_end_program() as token:
        inputs.ranks.meet()
        results = list(_tune_all(inputs, ratios, options, token))
    inputs.ranks.leave()
    if inputs.ranks.first:
        _show(results, options.as_json)
    return 0


def _check_tunable(graph: Graph) -> None:
    """Refuse a pipeline that has no ratio.

    Raises:
        UserError: it drops nothing, or its method decides how many tokens it keeps.
    """
    if len(configurations_of(graph, (1.0, 0.5))) < 2:
        raise UserError(
            f"{graph.name or graph.file} has no ratio to tune",
            "give pipelines with a pruning node that has a ratio",
        )


def _tune_all(
    inputs: EvaluationInputs, ratios: Sequence[float], options: TuneOptions, token: CancelToken
) -> Iterator[Tuned]:
    loaded: dict[str, dict[str, Any]] = {}

    def run(graph: Graph, ratio: float, opened: tuple[Task, Records]) -> Path:
        """Run a pipeline at one ratio on a task; returns the folder of its results."""
        (configuration,) = configurations_of(graph, (ratio,), set_values(graph, options.changes))
        label = f"{configuration.label} on {opened[0].name}"
        model = PipelineModel(configuration.graph, loaded, token)
        run_cell(configuration, model, opened, options, inputs.ranks, label)
        return options.out / configuration.folder(opened[0].name)

    def drop_at(graph: Graph, opened: tuple[Task, Records], unpruned: Path, ratio: float) -> Drop:
        return drop_between(unpruned, run(graph, ratio, opened), ratio)

    for graph, opened in itertools.product(inputs.graphs, inputs.tasks):
        measure = partial(drop_at, graph, opened, run(graph, 1.0, opened))
        yield find_smallest_ratio(graph.name or str(graph.file), opened[0].name, ratios, options.max_drop, measure)


def _show(results: Sequence[Tuned], as_json: bool) -> None:
    tasks = dict.fromkeys(result.task for result in results)
    best = {task: _best([result for result in results if result.task == task]) for task in tasks}
    if as_json:
        chosen = {task: None if result is None else result.pipeline for task, result in best.items()}
        stdout.json({"results": [result.to_json() for result in results], "best": chosen})
        return
    out = stdout_console()
    for result in results:
        table = simple_table(">ratio", ">accuracy", ">drop", ">95 % interval", ">n", "")
        table.title = f"[bold]{escape(result.pipeline)}[/] on {escape(result.task)}, at most {result.max_drop:g} points"
        for drop in result.drops:
            mark = "[green]smallest within[/]" if drop.ratio == result.ratio else ""
            mark += " [green]with confidence[/]" if drop.ratio == result.sure else ""
            interval = f"{drop.low:.2f} to {drop.high:.2f}"
            table.add_row(
                percent(drop.ratio), f"{drop.accuracy:.1f}", f"{drop.drop:.2f}", interval, str(drop.n), mark.strip()
            )
        out.print(table)
        say(result.statement(), to=out)
    if len(results) > len(best):
        for task, winner in best.items():
            if winner is not None:
                say((task, "bold"), f": fewest tokens with {winner.pipeline}", to=out)


def _best(results: Sequence[Tuned]) -> Tuned | None:
    """The pipeline with the smallest ratio; of equal ratios the one with the smaller drop."""
    pairs = [(result, drop) for result in results if (drop := result.chosen) is not None]
    return min(pairs, key=lambda pair: (pair[1].ratio, pair[1].drop))[0] if pairs else None
