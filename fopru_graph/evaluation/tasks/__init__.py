"""The benchmarks, one file each. Prompts, splits and limits of new tokens are those of lmms-eval 0.7.3."""

from __future__ import annotations

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import Task
from fopru_graph.evaluation.tasks.ai2d import AI2D
from fopru_graph.evaluation.tasks.gqa import GQA
from fopru_graph.evaluation.tasks.mmmu import MMMU
from fopru_graph.evaluation.tasks.ocrbench import OCRBENCH, OCRBENCH_2024
from fopru_graph.evaluation.tasks.pope import POPE
from fopru_graph.evaluation.tasks.scenes import SCENES
from fopru_graph.evaluation.tasks.scienceqa import SCIENCEQA
from fopru_graph.evaluation.tasks.textvqa import TEXTVQA, TEXTVQA_OCR
from fopru_graph.graph.errors import hint_choices

_TASKS = {
    task.name: task
    for task in (SCENES, AI2D, SCIENCEQA, MMMU, POPE, GQA, OCRBENCH, OCRBENCH_2024, TEXTVQA, TEXTVQA_OCR)
}
TASKS = tuple(_TASKS)


def get_task(name: str) -> Task:
    """A benchmark by its name, one of `TASKS`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _TASKS:
        raise UserError(f"there is no task '{name}'", hint_choices(name, TASKS))
    return _TASKS[name]
