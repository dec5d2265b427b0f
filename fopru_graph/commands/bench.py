"""``fopru-graph bench``: measure, show, and leave the figures in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fopru_graph.commands.arguments import ModelOptions, fail, open_graphs
from fopru_graph.commands.run import interrupt_cancels, quieten
from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Graph, NodeError, PipelineError
from fopru_graph.measure.bench import Bench, OnProgress
from fopru_graph.measure.pipelines import BenchedPipeline, benched_pipelines, stock_pipeline
from fopru_graph.report.bench.files import write_bench
from fopru_graph.report.bench.paper import PAPER_MODELS, paper_json, show_paper
from fopru_graph.report.bench.table import show_bench
from fopru_graph.results.bench import BenchResult
from fopru_graph.terminal.console import console, show_failure

_INTERRUPTED = "interrupted; what was measured until then is above and in the files"

PAPER_RATIOS = {  # what the paper measured of each pipeline
    "baseline": (1.0,),
    "fopru_rank": (0.75, 0.5, 0.25),
    "fopru_row": (0.75, 0.5, 0.25),
    "fastv": (0.75, 0.5, 0.25),
    "fopru_fastv": (0.25,),
}


@dataclass(frozen=True)
class BenchOptions:
    """What the command line asks for."""

    ratios: tuple[float, ...]
    new_tokens: int
    rounds: int
    stock: bool
    threads: int
    out: Path
    as_json: bool


def bench_pipelines(graphs: Sequence[Graph], options: BenchOptions) -> int:
    """Bench pipelines against each other; returns the exit code."""
    _check_names(graphs)
    _make_folder(options.out)
    try:
        cases = [case for graph in graphs for case in benched_pipelines(graph, options.ratios)]
        cases += [stock_pipeline(graphs[0])] if options.stock else []
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))
    try:
        result = _measure(cases, options)
    except Cancelled:
        show_failure("interrupted before anything was measured")
        return 130
    except NodeError as error:
        show_failure(str(error), error.hint)
        return 1
    if options.as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        show_bench(result)
    for path in write_bench(result, options.out):
        console.print(f"[dim]{path.suffix.removeprefix('.')}[/] {escape(str(path))}", soft_wrap=True)
    if result.interrupted:
        show_failure(_INTERRUPTED)
        return 130
    return 3 if result.skipped else 0


def bench_paper(sets: list[str] | None, options: BenchOptions, model: ModelOptions) -> int:
    """Bench the paper's models (or the one that is set) and show its tables; returns the exit code."""
    chosen = [text.partition("=")[2] for text in sets or [] if text.startswith("model=")]
    others = [text for text in sets or [] if not text.startswith("model=")]
    names = chosen or [accepted[0] for accepted in PAPER_MODELS.values()]
    _make_folder(options.out)
    if not any(text.startswith("image=") for text in others):
        others.append(f"image={_paper_picture(options.out)}")
    results: list[BenchResult] = []
    unmeasured: dict[str, str] = {}
    interrupted = False
    for name in names:
        try:
            results.append(_measure(_paper_cases(name, others, options, model), options))
            write_bench(results[-1], options.out / name.replace("/", "--").replace(":", "-"))
            interrupted = results[-1].interrupted
        except NodeError as error:
            unmeasured[_paper_name(name)] = str(error.cause)
        except Cancelled:
            interrupted = True
        if interrupted:
            break
    if options.as_json:
        print(json.dumps({"tables": paper_json(results), "unmeasured": unmeasured}, ensure_ascii=False))
    else:
        show_paper(results, unmeasured)
    if interrupted:
        show_failure(_INTERRUPTED)
        return 130
    return 3 if unmeasured or any(result.skipped for result in results) else 0


def _paper_cases(name: str, sets: list[str], options: BenchOptions, model: ModelOptions) -> list[BenchedPipeline]:
    from fopru_graph import pipelines

    folder = Path(pipelines.__path__[0])
    files = [folder / f"{pipeline}.yaml" for pipeline in PAPER_RATIOS]
    graphs = open_graphs(files, None, [f"model={name}", *sets], options.as_json, model)
    pairs = zip(graphs, PAPER_RATIOS.values(), strict=True)
    cases = [case for graph, ratios in pairs for case in benched_pipelines(graph, ratios)]
    return cases + ([stock_pipeline(graphs[0])] if options.stock else [])


def _paper_picture(folder: Path) -> Path:
    """A picture of 640 × 480, as most of POPE's are: its size decides how many tiles LLaVA-1.6 cuts it into."""
    from fopru_graph.lvlm.inputs.images import load_image

    path = folder / "picture-640x480.png"
    load_image("demo:street-sign").picture.resize((640, 480)).save(path)
    return path


def _paper_name(model: str) -> str:
    return next((name for name, accepted in PAPER_MODELS.items() if model in accepted), model)


def _measure(cases: Sequence[BenchedPipeline], options: BenchOptions) -> BenchResult:
    import torch

    quieten()
    torch.set_num_threads(options.threads)
    token = CancelToken()
    with interrupt_cancels(token), _progress() as on_progress:
        return Bench(cases, options.new_tokens, options.rounds, token, on_progress).run()


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr that goes away when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, text: progress.update(task, completed=done, total=total, description=escape(text))


def _check_names(graphs: Sequence[Graph]) -> None:
    names = [graph.name for graph in graphs]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        fail(2, f"two pipelines are named {doubled!r}", "give each file's name: of its own")


def _make_folder(folder: Path) -> None:
    """Before minutes of measuring, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(2, f"the output folder {folder} cannot be made: {error.strerror}", "choose another with --out")
