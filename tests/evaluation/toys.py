"""A task of numbered questions and a model that answers at once, to test the running without any model."""

from __future__ import annotations

from types import SimpleNamespace

import PIL.Image

from fopru_graph.answer import Answer
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.evaluation.runner import CellRun
from fopru_graph.evaluation.task import RecordError, Score, Task
from fopru_graph.graph import Graph, NodeError

BASELINE, RANK = "pipelines/baseline.yaml", "pipelines/fopru_rank.yaml"


class ToyRecords:
    """``count`` records; those in ``broken`` cannot be read."""

    def __init__(self, count=12, broken=(), fingerprint="toy", why="broken"):
        self.count, self.broken, self.fingerprint, self.why = count, set(broken), fingerprint, why
        self.source = "toys"

    def __len__(self):
        return self.count

    def key(self, index):
        return f"toy/{index}"

    def read(self, index):
        if index in self.broken:
            raise RecordError(f"toy.jsonl row {index + 1}: {self.why}")
        return {"number": index}

    def picture_files(self, index):
        return []

    def images(self, index, record):
        return [(f"picture {index // 3}", PIL.Image.new("RGB", (4, 4)))]


class _Family:
    """Pictures all become as many visual tokens."""

    def picture_tokens(self, size):
        return None


class ToyModel:
    """Answers with the number that it is asked for, or with ``answers``; fails or stops where it is told to."""

    def __init__(self, fails=(), stop=None, answers=None):
        self.handle = SimpleNamespace(name="toy", device="cpu", dtype="float32", family=_Family())
        self.fails, self.stop, self.asked, self.says, self.batches = set(fails), stop, [], answers, []

    def answer(self, prompt, images, max_new_tokens=None):
        number = int(prompt)
        if self.stop is not None and len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append(number)
        if number in self.fails:
            raise NodeError("generate", "LLMGenerate", None, RuntimeError(f"no memory for {number}"), {}, [])
        report = {
            "visual_tokens": {"encoded": 8, "kept": 4, "final": 2, "layer_average": 3.0},
            "kv_lengths": [10, 8],
            "visual_per_layer": [4, 2],
            "new_tokens": 2,
            "kv_bytes": 100 + number,
            "prefill_ms": 1.0,
        }
        return Answer(self.says or prompt, report, 2.0, None)

    def answers(self, questions, max_new_tokens=None, sets=None):
        """As `PipelineModel.answers`; ``batches`` has the sizes of those that were asked."""
        self.batches.append(len(questions))
        given = [self.answer(prompt, [picture], max_new_tokens) for prompt, picture in questions]
        if len(given) == 1:
            return given
        times = {"samples": len(given), "prefill_ms": 9.0}
        return [Answer(each.text, each.report | times, None, None, place) for place, each in enumerate(given)]


TASK = Task(
    name="toy",
    title="Toy",
    open=lambda data, limit: ToyRecords(limit or 12),
    prompt=lambda record: str(record["number"]),
    score=lambda answer, record: Score(float(record["number"] % 2 == 0), {"length": len(answer)}),
    max_new_tokens=4,
    scorer="toy@1",
    kind=lambda record: "even" if record["number"] % 2 == 0 else "odd",
    metrics=lambda rows: {"seen": float(len(rows))},
)


def cell_run(folder, records=None, model=None, file=RANK, ratio=0.5, ranks=None, **options):
    variant = configurations_of(Graph.load(file), (ratio,))[0]
    return CellRun(variant, TASK, records or ToyRecords(), model or ToyModel(), folder, ranks or Ranks(), **options)
