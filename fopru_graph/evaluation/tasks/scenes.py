"""Drawn scenes, the test split of those that the bundled demo model was trained on; needs no data and no network."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fopru_graph.demo.questions import Question, all_kinds
from fopru_graph.demo.scenes import Scene, render, sample_scene, scene_rng
from fopru_graph.errors import UserError
from fopru_graph.evaluation.scorers.matching import exact
from fopru_graph.evaluation.task import Record, Score, Task

if TYPE_CHECKING:
    import PIL.Image

SCENE_COUNT = 300
_SPLIT = "test"


class SceneRecords:
    """The questions about the scenes, scene by scene, as ``python -m fopru_graph.demo.evaluate`` asks them.

    A picture is painted each time it is read. The fingerprint is a hash of all scenes and questions.
    """

    source = "drawn scenes"

    def __init__(self, limit: int | None) -> None:
        asked: list[tuple[int, int, Question]] = []
        digest = hashlib.sha256()
        for scene in range(SCENE_COUNT):
            drawn, questions = _draw(scene)
            digest.update(repr((drawn, questions)).encode())
            asked += [(scene, number, question) for number, question in enumerate(questions)]
        self._asked = asked[:limit]
        self.fingerprint = f"sha256:{digest.hexdigest()}"

    def __len__(self) -> int:
        return len(self._asked)

    def key(self, index: int) -> str:
        """The numbers of the scene and of its question, e.g. ``scenes/12/0``."""
        scene, number, _ = self._asked[index]
        return f"scenes/{scene}/{number}"

    def read(self, index: int) -> Record:
        """Question, answer, kind of the question and number of the scene."""
        scene, _, question = self._asked[index]
        return {"scene": scene, "kind": question.kind, "question": question.text, "answer": question.answer}

    def picture_files(self, _index: int) -> list[str]:
        """See `Records.picture_files`: the scenes are drawn from what the fingerprint covers."""
        return []

    def images(self, index: int, record: Record) -> list[tuple[str, PIL.Image.Image]]:
        """The painted scene; consecutive questions share its identity."""
        scene = record["scene"]
        return [(f"scenes/{_SPLIT}/{scene}", render(_draw(scene)[0]))]


def _draw(scene: int) -> tuple[Scene, list[Question]]:
    rng = scene_rng(_SPLIT, scene)
    drawn = sample_scene(rng)
    return drawn, all_kinds(drawn, rng)


def _open(data: str | None, limit: int | None) -> SceneRecords:
    if data is not None:
        raise UserError("the task 'scenes' draws its own pictures and reads no data", "leave its --data out")
    return SceneRecords(limit)


SCENES = Task(
    name="scenes",
    title="drawn scenes of the bundled demo model",
    open=_open,
    prompt=lambda record: str(record["question"]),
    score=lambda answer, record: Score(float(exact(answer, record["answer"]))),
    max_new_tokens=4,
    scorer="exact@1",
)
