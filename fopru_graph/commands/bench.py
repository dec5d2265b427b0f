"""``fopru-graph bench``: measure pipelines against each other, show the figures and write them to a folder."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fopru_graph.commands.arguments import fail, open_graphs, parse_ratios, target_of
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import BenchOptions
from fopru_graph.commands.run import interrupt_cancels, make_folder, quieten
from fopru_graph.errors import UserError, first_line
from fopru_graph.graph import Cancelled, CancelToken, Graph, NodeError, PipelineError
from fopru_graph.measure.bench import Bench, OnProgress
from fopru_graph.measure.pipelines import BenchedPipeline, benched_pipelines, stock_pipeline
from fopru_graph.report.bench.files import read_bench, save_bench, write_bench
from fopru_graph.report.bench.paper import PAPER_MODELS, paper_json, show_paper
from fopru_graph.report.bench.paper_files import write_paper
from fopru_graph.report.bench.table import machine_name, show_bench
from fopru_graph.results.bench import BenchResult
from fopru_graph.results.schema import BENCH
from fopru_graph.terminal.console import console, say, show_failure, show_warning
from fopru_graph.terminal.stdout import stdout

_INTERRUPTED = "interrupted; what was measured until then is above and in the files"

PAPER_RATIOS = {  # the ratios at which the paper measured each pipeline
    "baseline": (1.0,),
    "fopru_rank": (0.75, 0.5, 0.25),
    "fopru_row": (0.75, 0.5, 0.25),
    "fastv": (0.75, 0.5, 0.25),
    "fopru_fastv": (0.25,),
}


def bench(options: BenchOptions, model: ModelOptions) -> int:
    """Measure the pipelines that are named, or those of the paper; returns the exit code."""
    ratios = parse_ratios(options.ratio) or ()
    if options.paper == bool(options.files):
        fail(2, "name pipeline files, or --paper and no file", "e.g. fopru-graph bench pipelines/*.yaml")
    if options.resume and not options.paper:
        fail(2, "--resume goes with --paper", "leave it out")
    if options.paper:
        return bench_paper(options, model)
    graphs = open_graphs(options.files or [], options.nodes, options.changes, model)
    return bench_pipelines(graphs, ratios, options)


def bench_pipelines(graphs: Sequence[Graph], ratios: Sequence[float], options: BenchOptions) -> int:
    """Measure pipelines against each other at every ratio; returns the exit code."""
    _check_names(graphs)
    _make_folder(options.out)
    try:
        cases = [case for graph in graphs for case in benched_pipelines(graph, ratios)]
        cases += [stock_pipeline(graphs[0])] if options.stock else []
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))
    try:
        result = _measure(cases, options, options.out)
    except Cancelled:
        show_failure("interrupted before anything was measured")
        return 130
    except NodeError as error:
        show_failure(str(error), error.hint, error.location, error.node, error.raised_at)
        return 1
    if options.as_json:
        stdout.json(result.to_json())
    else:
        show_bench(result)
    for path in write_bench(result, options.out):
        say((path.suffix.removeprefix("."), "dim"), f" {path}")
    if result.interrupted:
        show_failure(_INTERRUPTED)
        return 130
    return 3 if result.skipped else 0


def bench_paper(options: BenchOptions, model: ModelOptions) -> int:
    """Measure the paper's models (or the one that ``--set model=`` names), show its tables; returns the exit code."""
    sets = options.changes
    chosen = [option.partition("=")[2] for option in sets if target_of(option) == "model"]
    others = [option for option in sets if target_of(option) != "model"]
    names = chosen or [accepted[0] for accepted in PAPER_MODELS.values()]
    _make_folder(options.out)
    if not any(target_of(option) == "image" for option in others):
        others.append(f"image={_paper_picture(options.out)}")
    results: list[BenchResult] = []
    unmeasured: dict[str, str] = {}
    interrupted = unwritten = False
    for name in names:
        try:
            folder = options.out / name.replace("/", "--").replace(":", "-")
            results.append(_paper_result(_paper_cases(name, others, options, model), options, folder))
            interrupted = results[-1].interrupted
            unwritten |= not _is_written(partial(write_bench, results[-1], folder))
        except NodeError as error:
            unmeasured[_paper_name(name)] = str(error.cause)
        except RuntimeError as error:  # the device failed between two nodes
            unmeasured[_paper_name(name)] = first_line(error)
        except Cancelled:
            interrupted = True
        unwritten |= not _is_written(partial(write_paper, results, unmeasured, options.out))
        if interrupted:
            break
        gc.collect()  # a model that the collector has not met would still hold its memory
    if options.as_json:
        stdout.json({"tables": paper_json(results), "unmeasured": unmeasured})
    else:
        show_paper(results, unmeasured)
    if interrupted:
        show_failure(_INTERRUPTED)
        return 130
    if unwritten:
        return 1
    return 3 if unmeasured or any(result.skipped for result in results) else 0


def _paper_result(cases: Sequence[BenchedPipeline], options: BenchOptions, folder: Path) -> BenchResult:
    """Measure a model, or take over what the folder has of it if all of that was asked for again."""
    known = read_bench(folder) if options.resume else None
    if known and not known.interrupted and known.rounds == options.repeat:
        same = [variant.key for variant in known.variants] == [case.key for case in cases]
        if same and known.machine.get("new_tokens") == options.new_tokens:
            say(("taken over", "dim"), f" {folder / BENCH} ({machine_name(known.machine)})")
            return known
    return _measure(cases, options, folder)


def _is_written(write: Callable[[], object]) -> bool:
    """Write files; if they cannot be, warn: the figures are shown at the end all the same."""
    try:
        write()
    except UserError as error:
        show_warning(error.message)
        return False
    return True


def _paper_cases(name: str, sets: list[str], options: BenchOptions, model: ModelOptions) -> list[BenchedPipeline]:
    from fopru_graph import pipelines

    folder = Path(pipelines.__path__[0])
    files = [folder / f"{pipeline}.yaml" for pipeline in PAPER_RATIOS]
    graphs = open_graphs(files, None, [f"model={name}", *sets], model)
    pairs = zip(graphs, PAPER_RATIOS.values(), strict=True)
    cases = [case for graph, ratios in pairs for case in benched_pipelines(graph, ratios)]
    cases.sort(key=lambda case: case.ratio or 0.0 if case.prunes else 0.0)  # what is interrupted has the largest gains
    return cases + ([stock_pipeline(graphs[0])] if options.stock else [])


def _paper_picture(folder: Path) -> Path:
    """Write a picture of 640 × 480, like most of POPE's: the size decides how many tiles LLaVA-1.6 cuts it into."""
    from fopru_graph.lvlm.inputs.images import load_image

    path = folder / "picture-640x480.png"
    try:
        load_image("demo:street-sign").picture.resize((640, 480)).save(path)
    except OSError as error:
        fail(2, f"{path} cannot be written: {error.strerror or error}", "make room, or give a picture: --set image=…")
    return path


def _paper_name(model: str) -> str:
    return next((name for name, accepted in PAPER_MODELS.items() if model in accepted), model)


def _measure(cases: Sequence[BenchedPipeline], options: BenchOptions, folder: Path) -> BenchResult:
    """Measure; what was measured so far stands in the folder's ``bench.json`` all the while."""
    import torch

    def save(result: BenchResult) -> None:
        with contextlib.suppress(UserError):  # told when all is written, at the end
            save_bench(result, folder)

    quieten()
    torch.set_num_threads(options.threads)
    token = CancelToken()
    with interrupt_cancels(token), _progress() as on_progress:
        return Bench(cases, options.new_tokens, options.repeat, token, on_progress, save).run()


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A progress bar on stderr that disappears at the end."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, text: progress.update(task, completed=done, total=total, description=text)


def _check_names(graphs: Sequence[Graph]) -> None:
    names = [graph.name for graph in graphs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        fail(2, f"two pipelines are named {repeated!r}", "give each file's name: of its own")


def _make_folder(folder: Path) -> None:
    """As `make_folder`; a folder that cannot be used ends the program."""
    try:
        make_folder(folder)
    except UserError as error:
        fail(2, error.message, error.hint)
