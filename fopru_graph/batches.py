"""Batches: which pipelines take several questions at once, which questions go together, and what if one fails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.graph import Cancelled, GraphNode, Plan, Ref
from fopru_graph.graph.annotations import compatible
from fopru_graph.graph.model import Model
from fopru_graph.graph.values import INPUTS, refs_in

if TYPE_CHECKING:
    from fopru_graph.answer import Answer
    from fopru_graph.lvlm.families.family import Family
    from fopru_graph.pipeline_model import PipelineModel

AHEAD = 4  # batches' worth of questions to choose batches of equal work from
_PADDING = 0.2  # most of a batch that may be padding
_ALIKE = 8  # steps of work in which e times as much is: work that differs less is equal, and stays in its order
_SAME = 256  # visual tokens to reckon with where pictures all have as many, or it is not known
_CHARACTERS = 4  # of text a token, about


def prompt_sockets(graph: Model, targets: Sequence[str]) -> list[str]:
    """The inputs of nodes, ``NODE.INPUT``, that get the question.

    Args:
        graph: a pipeline without sub-graphs.
        targets: where the question goes: such inputs, or pipeline inputs by their names.
    """
    wired = {Ref(INPUTS, target) for target in targets}
    reading = [f"{name}.{key}" for name, entry in graph.nodes.items() for key in _inputs_that_are(entry, wired)]
    return [*(target for target in targets if "." in target), *reading]


def _inputs_that_are(entry: GraphNode, wired: set[Ref]) -> list[str]:
    return [key for key, value in entry.inputs.items() if isinstance(value, Ref) and value in wired]


def takes_batches(plan: Plan, source: str, target: str, targets: Sequence[str]) -> bool:
    """Whether a pipeline gives each question of a batch the answer that it has alone.

    Not where a node takes one picture or one question only, where answers are sampled, which draws for all of a batch
    in turn, or where the generating node keeps no figures of each answer.

    Args:
        plan: up to the node ``target``, which generates.
        source: the node that gives the pictures.
        targets: where the question goes, see `prompt_sockets`.
    """
    graph, step = plan.flat, plan.steps[target]
    asked, wired = set(prompt_sockets(graph, targets)), {Ref(INPUTS, name) for name in targets}
    for name, node_step in plan.steps.items():
        for key, value in graph.nodes[name].inputs.items():
            refs = {ref for _, ref in refs_in(value)}
            kind = node_step.spec.inputs[key].annotation
            if f"{name}.{key}" in asked:
                fits = compatible(list[str], kind)
            elif any(ref.node == source for ref in refs):
                fits = isinstance(value, Ref) and compatible(list[values.Image], kind)
            else:
                fits = not refs & wired
            if not fits:
                return False
    has_figures = any(socket.annotation is values.Generation for socket in step.spec.outputs.values())
    return has_figures and not step.inputs.get("temperature")


def work_of(family: Family, prompt: str, size: tuple[int, int] | None) -> int:
    """About how many tokens the prompt of a question has.

    Args:
        family: the model.
        prompt: the question.
        size: (height, width) of its picture; None if it is not known.
    """
    try:
        tokens = family.picture_tokens(size) if size else None
    except Exception:  # of a picture that the model refuses, which is told when it is asked
        tokens = None
    return (tokens or _SAME) + len(prompt) // _CHARACTERS


def equal_batches(work: Sequence[int], most: int) -> list[list[int]]:
    """Questions in batches of about equal work, so that little of a batch is padding.

    Args:
        work: of each question, see `work_of`.
        most: questions of a batch at most.

    Returns:
        The numbers of the questions, batch by batch. Questions of about equal work stay in their order, so that those
        about one picture stay together.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(work)), key=lambda number: round(math.log(max(1, work[number])) * _ALIKE)):
        joined = [*batches[-1], number] if batches else []
        longest = max((work[each] for each in joined), default=0)
        padding = len(joined) * longest - sum(work[each] for each in joined)
        if joined and len(joined) <= most and padding <= _PADDING * len(joined) * longest:
            batches[-1] = joined
        else:
            batches.append([number])
    return batches


def answered(
    model: PipelineModel,
    questions: Sequence[tuple[str, Any]],
    max_new_tokens: int | None = None,
    sets: Mapping[str, Any] | None = None,
) -> Iterator[Answer | Exception]:
    """The answers of a batch in its order, each as soon as it is there; one that fails gives its error instead.

    A batch that fails is halved until the questions at fault are alone, so that they spoil no other's answer, and a
    batch that is too large for the memory is answered in parts.

    Raises:
        Cancelled: the run was cancelled.
    """
    try:
        answers = model.answers(questions, max_new_tokens, sets=sets)
    except Cancelled:
        raise
    except Exception as error:  # nodes of others fail as they like
        if len(questions) == 1:
            yield error
            return
        half = len(questions) // 2
        yield from answered(model, questions[:half], max_new_tokens, sets)
        yield from answered(model, questions[half:], max_new_tokens, sets)
        return
    yield from answers
