"""The benchmarks, a file each: as data (`read`, `table`), or as code where data is not enough.

Prompts, splits and limits of new tokens are those of lmms-eval 0.7.3.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import Task
from fopru_graph.evaluation.tasks.mmmu import MMMU
from fopru_graph.evaluation.tasks.read import FOLDER, read_task, shipped
from fopru_graph.evaluation.tasks.scenes import SCENES
from fopru_graph.evaluation.tasks.table import table_task
from fopru_graph.graph.errors import hint_choices

TASKS = ("scenes", *sorted([*shipped(), "mmmu"]))
_SUFFIXES = (".yaml", ".yml")


def get_task(reference: str) -> Task:
    """A benchmark by its name, one of `TASKS`, or an own task by its file.

    Raises:
        UserError: there is none of that name.
        PipelineError: the file cannot be used; with every problem and its line.
    """
    if reference.endswith(_SUFFIXES):
        return table_task(read_task(Path(reference)), Path(reference))
    if reference not in TASKS:
        raise UserError(f"there is no task '{reference}'", hint_choices(reference, TASKS))
    return _shipped(reference)


@cache
def _shipped(name: str) -> Task:
    written = {task.name: task for task in (SCENES, MMMU)}
    return written[name] if name in written else table_task(read_task(FOLDER / f"{name}.yaml"))
