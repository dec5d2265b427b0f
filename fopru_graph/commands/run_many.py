"""``fopru-graph run FILE IMAGE…``: a pipeline asked about many pictures, with its model loaded once."""

from __future__ import annotations

import time
import traceback as tracebacks
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fopru_graph.answer import Answer
from fopru_graph.batches import AHEAD, answered, equal_batches, work_of
from fopru_graph.commands.arguments import fail, refuse
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import RunOptions
from fopru_graph.commands.questions import Question, read_questions
from fopru_graph.commands.run import interrupt_cancels, open_pipeline, quieten, run_pipeline
from fopru_graph.errors import UserError, first_line
from fopru_graph.graph import Cancelled, CancelToken, Executor, Graph, NodeError, PipelineError
from fopru_graph.lvlm.inputs.images import picture_size
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.terminal.console import say, show_failure
from fopru_graph.terminal.counting import Counting
from fopru_graph.terminal.stdout import stdout

_TOKENS = {"encoded": "encoded", "kept": "into the LLM", "final": "in its last layer"}


def run_images(options: RunOptions, model: ModelOptions) -> int:
    """Run a pipeline on the pictures of the command line; returns the exit code.

    A single one is shown like any run of the pipeline, unless a program reads the answer.
    """
    graph = open_pipeline(options, model)
    questions = _questions(graph, options)
    if len(questions) == 1 and not options.as_json and {"image", "prompt"} <= graph.inputs.keys():
        graph.set("image", questions[0].image)
        graph.set("prompt", questions[0].prompt)
        return run_pipeline(graph, Executor(graph.registry), options)
    return _run_many(graph, questions, options)


def _questions(graph: Graph, options: RunOptions) -> list[Question]:
    """What the command line asks; a picture without a question of its own is asked the pipeline's."""
    given = {
        "--to": options.to is not None,
        "--explain": options.explain,
        "--watch": options.watch,
        "--cache": options.cache is not None,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        fail(2, f"{wrong[0]} does not go with pictures as arguments", "set one picture: --set image=PICTURE")
    prompt = options.prompt
    if prompt is None and "prompt" in graph.inputs and isinstance(default := graph.inputs["prompt"].default, str):
        prompt = default
    try:
        return read_questions(options.images or (), prompt)
    except UserError as error:
        fail(2, error.message, error.hint)


@dataclass
class _Tally:
    """What the rows that were printed add up to."""

    answers: int = 0
    errors: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOKENS, 0))

    def add(self, row: dict[str, Any]) -> None:
        if row["error"] is not None:
            self.errors += 1
            return
        self.answers += 1
        for name in _TOKENS:
            self.tokens[name] += row["visual_tokens"][name]

    def lines(self, seconds: float) -> Iterator[str]:
        """All of it for people: how many and how fast, and mean visual tokens where there are answers."""
        failed = f", {_count(self.errors, 'error')}" if self.errors else ""
        rate = (self.answers + self.errors) / seconds
        yield f"{_count(self.answers, 'answer')}{failed} in {seconds:.1f} s, {rate:.2f} pictures/s"
        if self.answers:
            means = (f"{count / self.answers:.4g} {_TOKENS[name]}" for name, count in self.tokens.items())
            yield f"visual tokens, means: {' → '.join(means)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _run_many(graph: Graph, questions: Sequence[Question], options: RunOptions) -> int:
    """Print a row for each question in their order; returns the exit code: 3 if a picture has an error instead."""
    quieten()
    token, tally = CancelToken(), _Tally()
    begin = time.perf_counter()
    try:
        with interrupt_cancels(token):
            model = PipelineModel(graph, cancel=token)
            begin = time.perf_counter()
            with Counting(len(questions), "pictures") as counting:
                for row in _rows(model, questions, options):
                    _print(row, options.as_json)
                    tally.add(row)
                    counting.advance(_count(tally.errors, "error") if tally.errors else "")
                    if stdout.failure is not None:  # nobody reads on, or there is no room
                        break
    except Cancelled:
        show_failure(f"interrupted after {tally.answers + tally.errors} of {len(questions)} pictures")
        return 130
    except NodeError as error:  # of a node that loads; those of questions are rows
        fail(1, str(error), error.hint, error)
    except PipelineError as error:
        refuse(error.problems, options.file)
    except UserError as error:
        fail(2, error.message, error.hint)
    for line in tally.lines(time.perf_counter() - begin):
        say(line)
    return 3 if tally.errors else 0


def _rows(model: PipelineModel, questions: Sequence[Question], options: RunOptions) -> Iterator[dict[str, Any]]:
    """The rows in the order of the questions, after every few batches; if the run is cancelled, those that are done."""
    rest, size = iter(questions), options.batch_size
    while ahead := list(islice(rest, AHEAD * size if size > 1 else 1)):
        done: dict[int, dict[str, Any]] = {}
        try:
            work = [_work(model, question) for question in ahead] if size > 1 else [1]
            for batch in equal_batches(work, size):
                done |= zip(batch, _answer(model, [ahead[number] for number in batch], options.traceback), strict=True)
        except Cancelled:
            yield from (done[number] for number in sorted(done))
            raise
        yield from (done[number] for number in range(len(ahead)))


def _work(model: PipelineModel, question: Question) -> int:
    """About how many tokens a question has; a picture that cannot be read is told when its question is asked."""
    return work_of(model.handle.family, question.prompt, picture_size(question.image))


def _answer(model: PipelineModel, batch: Sequence[Question], traceback: bool) -> list[dict[str, Any]]:
    """The rows of a batch; each has its share of the time that it took."""
    begin = time.perf_counter()
    outcomes = list(answered(model, [(question.prompt, question.image) for question in batch]))
    share_ms = (time.perf_counter() - begin) * 1e3 / len(batch)
    rows = []
    for question, outcome in zip(batch, outcomes, strict=True):
        if traceback and isinstance(outcome, NodeError):
            tracebacks.print_exception(outcome.cause)
        rows.append(_row(question, outcome, share_ms))
    return rows


def _row(question: Question, outcome: Answer | Exception, share_ms: float) -> dict[str, Any]:
    head = {"id": question.id, "image": question.image, "prompt": question.prompt}
    if isinstance(outcome, Exception):
        return head | {"text": None, "visual_tokens": None, "new_tokens": None, "times": None, "error": _why(outcome)}
    times = {
        "ttft_ms": None if outcome.ttft_ms is None else round(outcome.ttft_ms, 3),
        "total_ms": round(share_ms, 3),
        "batch": outcome.report["samples"],
    }
    counts = {name: outcome.report[name] for name in ("visual_tokens", "new_tokens")}
    return head | {"text": outcome.text} | counts | {"times": times, "error": None}


def _why(error: Exception) -> str:
    if isinstance(error, NodeError):
        return f"{error.node}: {first_line(error.cause)}" + (f" ({error.hint})" if error.hint else "")
    if isinstance(error, UserError):
        return error.message + (f" ({error.hint})" if error.hint else "")
    return f"{type(error).__name__}: {first_line(error)}"


def _print(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        stdout.json(row)
    elif row["error"] is None:
        stdout.line(f"{row['id']}: {row['text']}")
    else:
        say(("error:", "red"), f" {row['id']}: {row['error']}")
