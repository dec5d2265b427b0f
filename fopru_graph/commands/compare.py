"""``fopru-graph compare``: the same questions with and without pruning, side by side, by one loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.commands.arguments import fail, open_graphs, parse_ratios, set_values, split_names, write_text
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import CompareOptions
from fopru_graph.commands.questions import Question, read_questions
from fopru_graph.commands.run import interrupt_cancels, make_folder, quieten
from fopru_graph.commands.shipped import find_pipeline
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration, configurations_of
from fopru_graph.evaluation.pictures import picture_values
from fopru_graph.graph import Cancelled, CancelToken, Graph, NodeError, PipelineError, Ref
from fopru_graph.graph.values import INPUTS, replace_refs
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.report.compare import ComparedAnswer, ComparedQuestion, Comparison, comparison_page
from fopru_graph.terminal.compare import show_comparison, show_question
from fopru_graph.terminal.console import console, say, show_warning
from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    import PIL.Image

_UNPRUNED = "baseline"  # the pipeline that ships for it


@dataclass(frozen=True, eq=False)
class _Asked:
    """A pipeline that is ready to answer."""

    configuration: Configuration
    model: PipelineModel


def compare(options: CompareOptions, model: ModelOptions) -> int:
    """Ask every pipeline every question; returns the exit code."""
    quieten()
    ratios = parse_ratios(options.ratio)
    configurations = _configurations(options, model, ratios)
    questions = _questions(options)
    token = CancelToken()
    try:
        with interrupt_cancels(token):
            comparison = _compared(configurations, questions, token, show=not options.as_json)
    except Cancelled:
        fail(130, "interrupted")
    except NodeError as error:  # of loading the model
        fail(1, str(error), error.hint, error)
    except UserError as error:
        fail(2, error.message, error.hint)
    if options.html is not None:
        write_text(comparison_page(comparison), options.html)
    if options.as_json:
        stdout.json(comparison.to_json() | {"html": None if options.html is None else str(options.html)})
    else:
        if len(questions) > 1:
            show_comparison(comparison.summary(), len(questions))
        if options.html is not None:
            say(("page", "dim"), f" {options.html}")
    return 3 if comparison.failed else 0


def _questions(options: CompareOptions) -> list[Question]:
    """What is asked; what cannot be asked, or shown, ends the program before the work."""
    try:
        if options.html is not None:
            make_folder(options.html.parent)
        return read_questions(options.images, options.prompt)
    except UserError as error:
        fail(2, error.message, error.hint)


def _configurations(
    options: CompareOptions, model: ModelOptions, ratios: Sequence[float] | None
) -> list[Configuration]:
    """The pipelines at their ratios, the unpruned model first."""
    names = split_names(options.pipelines)
    if not names:
        fail(2, "there is no pipeline", "write e.g. --pipelines fopru_rank,fopru_fastv")
    files = [find_pipeline(Path(name)) for name in names]
    graphs = open_graphs(files, options.nodes, options.changes, model)
    try:
        found: list[Configuration] = []
        for graph in graphs:
            found.extend(configurations_of(graph, ratios, set_values(graph, options.changes)))
        plain = next((each for each in found if not each.prunes), None)
        if plain is None:
            (plain,) = configurations_of(_unpruned(graphs[0]), None)
        return [plain, *(each for each in found if each.prunes)]
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))


def _unpruned(graph: Graph) -> Graph:
    """The shipped pipeline that prunes nothing, with the model that another one loads."""
    flat, plain = graph.flat(), Graph.load(_UNPRUNED)
    loading = flat.of_type("LoadModel")
    if len(loading) == 1:

        def value_of(ref: Ref) -> Any:
            return flat.inputs[ref.output].default if ref.node == INPUTS and ref.output else ref

        for key, value in flat.node(loading[0]).inputs.items():
            plain.set(f"{plain.of_type('LoadModel')[0]}.{key}", replace_refs(value, value_of))
    return plain


def _compared(
    configurations: Sequence[Configuration], questions: Sequence[Question], token: CancelToken, show: bool
) -> Comparison:
    loaded: dict[str, dict[str, Any]] = {}
    with console.status("loading the model"):
        asked = [_Asked(each, PipelineModel(each.graph, loaded, token)) for each in configurations]
    handle = asked[0].model.handle
    for other in asked[1:]:
        if other.model.handle is not handle:
            raise UserError(
                f"{other.configuration.pipeline} loads {other.model.handle.name} and "
                f"{asked[0].configuration.pipeline} {handle.name}, or otherwise: their times do not compare",
                "give all the same model, e.g. --set model=NAME",
            )
    compared = []
    for number, question in enumerate(questions, 1):
        with console.status(f"question {number} of {len(questions)}"):
            compared.append(_answered(asked, question))
        if show:
            _show(compared[-1])
    return Comparison(handle.name, handle.device, handle.dtype, compared)


def _answered(asked: Sequence[_Asked], question: Question) -> ComparedQuestion:
    """All answers to a question."""
    from fopru_graph.lvlm.inputs.images import load_image

    try:
        picture = load_image(question.image).picture
    except UserError as error:
        return ComparedQuestion(question.image, question.prompt, error=str(error))
    answers: list[ComparedAnswer] = []
    for each in asked:
        try:
            answers.append(_answer(each, question, picture, answers[0] if answers else None))
        except (NodeError, UserError) as error:
            pipeline, ratio = each.configuration.pipeline, each.configuration.ratio
            answers.append(ComparedAnswer(pipeline, ratio, error=str(error)))
    return ComparedQuestion(question.image, question.prompt, answers)


def _answer(
    each: _Asked, question: Question, picture: PIL.Image.Image, unpruned: ComparedAnswer | None
) -> ComparedAnswer:
    """One pipeline's answer; before it a first token that is not timed warms up and shows what is kept."""
    from fopru_graph.pictures.kept_map import kept_overlay, whole_mask

    # A key of its own, so that the answer does not find the picture encoded.
    untimed = each.model.answer(question.prompt, [(f"untimed {question.id}", picture)], 1)
    for warning in untimed.result.warnings:
        show_warning(f"{warning.node}: {warning.message}")
    drawn = picture_values(each.model.last_run())
    answer = each.model.answer(question.prompt, [(question.id, picture)])
    report = answer.report
    return ComparedAnswer(
        each.configuration.pipeline,
        each.configuration.ratio,
        answer.text,
        report["visual_tokens"],
        answer.ttft_ms,
        None if answer.ttft_ms is None else answer.ttft_ms + sum(report["step_ms"]),
        report["new_tokens"],
        report["kv_bytes"],
        None if unpruned is None or unpruned.text is None else answer.text == unpruned.text,
        overlay=None if drawn is None else kept_overlay(drawn.features, drawn.generation, drawn.areas),
        mask=None if drawn is None else whole_mask(drawn.features, drawn.generation, drawn.areas),
        whole=unpruned.visual_tokens["encoded"] if unpruned and unpruned.visual_tokens else None,
    )


def _show(question: ComparedQuestion) -> None:
    from fopru_graph.pictures.kept_map import mask_text

    rows = []
    for answer in question.answers:
        drawn = answer.mask is not None and not answer.mask.all()
        map_lines = mask_text(answer.mask) if drawn else []
        rows.append(answer.to_json() | {"label": answer.label, "tokens": answer.tokens, "map": map_lines})
    show_question(question.image, question.prompt, rows, question.error)
