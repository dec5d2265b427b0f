"""Golden vectors: what lmms-eval 0.7.3 itself says to documents and answers. For development only; tests read the JSON.

Run it in an environment of its own, never in the project's, and never with a CUDA build of torch:

    python3.11 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.13.0
    /tmp/golden/bin/pip install --no-deps lmms-eval==0.7.3
    /tmp/golden/bin/pip install loguru numpy pyyaml Pillow tqdm datasets pytz python-dateutil sacrebleu nltk \
        transformers accelerate evaluate tenacity openai requests pandas scipy scikit-learn jsonlines sqlitedict \
        pytablewriter rich psutil
    /tmp/golden/bin/pip download --no-deps -d /tmp/golden lmms-eval==0.3.0
    /tmp/golden/bin/python tests/evaluation/golden/make_golden.py /tmp/golden/lmms_eval-0.3.0-py3-none-any.whl

Nothing of lmms-eval is replaced by a stand-in but the data sets (documents are written out in `documents.py`), the
class's attributes that only a downloaded data set would fill, and `random.choice` of MMMU, whose draws are recorded as
null. Scores come out of `ConfigurableTask.process_results` after the task's own filter, as in a run of the harness.
The wheel of 0.3.0 is read for OCRBench's rule of 2024.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import platform
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
documents = importlib.import_module("documents")

YAML = {
    "pope": "pope/pope.yaml",
    "gqa": "gqa/gqa.yaml",
    "scienceqa": "scienceqa/scienceqa_img.yaml",
    "ai2d": "ai2d/ai2d.yaml",
    "textvqa": "textvqa/textvqa_val.yaml",
    "textvqa_ocr": "textvqa/textvqa_val.yaml",
    "ocrbench": "ocrbench/ocrbench.yaml",
    "mmmu": "mmmu/mmmu_val.yaml",
    "mme": "mme/mme.yaml",
    "mmbench": "mmbench/mmbench_en_dev_static.yaml",
    "vqav2": "vqav2/vqav2_val.yaml",
    "vizwiz": "vizwiz_vqa/vizwiz_vqa_val.yaml",
    "seedbench": "seedbench/seedbench.yaml",
    "chartqa": "chartqa/chartqa.yaml",
    "docvqa": "docvqa/docvqa_val.yaml",
    "refcoco": "refcoco/refcoco_bbox_rec_val.yaml",
}
METRIC = {
    "pope": "pope_accuracy",
    "ocrbench": "ocrbench_accuracy",
    "mmmu": "mmmu_acc",
    "mmbench": "gpt_eval_score",
    "seedbench": "seed_all",
    "chartqa": "relaxed_overall",
    "docvqa": "anls",
    "refcoco": "refcoco_ACC@0.5",
}
AGGREGATED = ("mmbench", "seedbench", "refcoco")  # tasks whose scores their aggregation makes


class Picture:
    """Stands for a picture, so that it shows which ones a task takes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, _mode: str) -> Picture:
        return self


class Harness:
    """One task of lmms-eval, without its data set."""

    def __init__(self, name: str) -> None:
        import lmms_eval.tasks
        from lmms_eval.api.metrics import anls, exact_match_fn
        from lmms_eval.utils import load_yaml_config

        folder = Path(lmms_eval.tasks.__file__).parent
        self.name, self.config = name, load_yaml_config(str(folder / YAML[name]))
        self.kwargs = dict(self.config.get("lmms_eval_specific_kwargs", {"default": {}})["default"])
        if name == "textvqa_ocr":
            self.kwargs["ocr"] = True
        self.metric = {k: v for k, v in self.config["metric_list"][0].items() if k.startswith("ignore_")}
        self.metrics = {"anls": anls} if name == "docvqa" else {"exact_match": exact_match_fn}

    def document(self, doc: dict[str, Any]) -> dict[str, Any]:
        if self.name == "seedbench":
            return copy.deepcopy(doc) | {"image": [Picture("image")]}
        pictures = {f"image_{i}": Picture(f"image_{i}") for i in range(1, 8)} if self.name == "mmmu" else {}
        return copy.deepcopy(doc) | pictures | {"image": Picture("image")}

    def prompt(self, doc: dict[str, Any]) -> str:
        to_text = self.config["doc_to_text"]
        arguments = [self.document(doc), self.kwargs][: len(inspect.signature(to_text).parameters)]
        return to_text(*arguments)

    def pictures(self, doc: dict[str, Any]) -> list[str]:
        return [picture.name for picture in self.config["doc_to_visual"](self.document(doc))]

    def results(self, doc: dict[str, Any], answer: str) -> dict[str, Any]:
        """What the harness makes of one generated text."""
        from lmms_eval.api.task import ConfigurableTask

        [response] = self._filtered(answer, doc)
        itself = SimpleNamespace(
            OUTPUT_TYPE="generate_until",
            config=SimpleNamespace(process_results=self.config.get("process_results"), doc_to_choice=None),
            multiple_target=0,
            doc_to_target=self._target,
            _metric_fn_list=self.metrics,
            _metric_fn_kwargs={name: self.metric for name in self.metrics},
        )
        return ConfigurableTask.process_results(itself, doc, [response])

    def score(self, doc: dict[str, Any], answer: str) -> float:
        entries = self.results(self.document(doc), answer)
        entry = next(iter(entries.values())) if self.name == "mme" else entries[METRIC.get(self.name, "exact_match")]
        if self.name in AGGREGATED:
            return float(self.aggregate([entry]))
        return float(entry["score"] if isinstance(entry, dict) else entry)

    def aggregate(self, entries: list[Any], metric: str | None = None) -> float:
        """What the harness's aggregation of a metric says."""
        if self.name == "mmbench":
            from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

            main = [{**entry, "index": entry["index"] % 10**6} if len(entries) == 1 else entry for entry in entries]
            return float(mmbench_evaluator.eval_result(main, eval_method="static")[0])
        wanted = metric or METRIC[self.name]
        return float(next(m["aggregation"] for m in self.config["metric_list"] if m["metric"] == wanted)(entries))

    def _filtered(self, answer: str, doc: dict[str, Any]) -> list[str]:
        if "filter_list" not in self.config:
            return [answer]
        options = dict(self.config["filter_list"][0]["filter"][0])
        return options.pop("function")(**options).apply([[answer]], [doc])

    def _target(self, doc: dict[str, Any]) -> str:
        target = self.config["doc_to_target"]
        return doc[target] if isinstance(target, str) else target(doc, "mcq")


def mmmu_score(harness: Harness, doc: dict[str, Any], answer: str) -> float | None:
    """Right or wrong by MMMU's own evaluation; None where the harness drew a letter at random."""
    from lmms_eval.tasks._task_utils import mmmu_mcq_utils
    from lmms_eval.tasks.mmmu import utils

    drawn: list[bool] = []
    real, mmmu_mcq_utils.random = mmmu_mcq_utils.random, SimpleNamespace(choice=lambda _c: drawn.append(True) or "?")
    try:
        entry = harness.results(harness.document(doc), answer)["mmmu_acc"]
    finally:
        mmmu_mcq_utils.random = real
    return None if drawn else float(utils.evaluate_mmmu([entry])[1]["acc"])


def old_ocrbench(wheel: str) -> dict[str, Any]:
    """The names of OCRBench's module in lmms-eval 0.3.0."""
    names: dict[str, Any] = {"__name__": "ocrbench_0_3_0"}
    with zipfile.ZipFile(wheel) as archive:
        exec(compile(archive.read("lmms_eval/tasks/ocrbench/utils.py"), "ocrbench", "exec"), names)
    return names


def pope_extra(harness: Harness, vectors: list[dict[str, Any]]) -> dict[str, Any]:
    """The harness's aggregates over all vectors."""
    rows = [harness.results(harness.document(v["doc"]), a)["pope_accuracy"] for v in vectors for a in v["answers"]]
    metrics = {entry["metric"]: entry["aggregation"](rows) for entry in harness.config["metric_list"]}
    return {"aggregates": metrics}


def ocrbench_extra(harness: Harness, vectors: list[dict[str, Any]], wheel: str) -> dict[str, Any]:
    """Scores of the rule of 2024, and the aggregate of three right answers, computed twice in one process."""
    old = old_ocrbench(wheel)["ocrbench_process_results"]
    for vector in vectors:
        scores = {a: old(vector["doc"], [a.strip()])["ocrbench_accuracy"]["score"] for a in vector["answers"]}
        vector["answers_2024"] = {a: float(score) for a, score in scores.items()}
    right = {"question_type": "Doc-oriented VQA", "score": 1}
    with tempfile.TemporaryDirectory() as folder:
        aggregate = functools.partial(
            harness.config["metric_list"][0]["aggregation"], args=SimpleNamespace(output_path=folder)
        )
        return {"aggregate_of_three_right": [aggregate([right] * 3), aggregate([right] * 3)]}


def mme_extra(harness: Harness, vectors: list[dict[str, Any]]) -> dict[str, Any]:
    """The harness's two scores, with some answers given to all documents; a pair has a name for each answer."""
    rows: dict[str, list[Any]] = {"mme_perception_score": [], "mme_cognition_score": []}
    for vector in vectors:
        for answer in documents.ANYTHING:
            for key, entry in harness.results(harness.document(vector["doc"]), answer).items():
                rows[key].append(entry | {"question_id": f"{entry['question_id']} {answer}"})
    return {"aggregates": {key: harness.aggregate(entries, key) for key, entries in rows.items()}}


def mmbench_extra(harness: Harness, vectors: list[dict[str, Any]]) -> dict[str, Any]:
    """Circular accuracy of some runs over all documents, and the answer that fits two empty options too."""
    right = [vector["doc"]["answer"] for vector in vectors]
    runs = [right, [f"({letter})" for letter in right], right[:2] + ["A"] + right[3:], ["A"] * 6, right[:5] + ["no"]]
    runs += [["wood"] * 3 + ["Rembrandt"] * 2 + ["sign"], ["wood"] * 3 + ["the answer is B"] * 3, [""] * 6]

    def accuracy(answers: list[str]) -> float:
        pairs = zip(vectors, answers, strict=True)
        return harness.aggregate([harness.results(harness.document(v["doc"]), a)["gpt_eval_score"] for v, a in pairs])

    doc = vectors[3]["doc"] | {"A": "banana", "B": "apple"}
    empty = {"doc": doc, "answer": "a ripe banana", "score": harness.score(doc, "a ripe banana")}
    return {"circular": [{"answers": run, "accuracy": accuracy(run)} for run in runs], "empty_options": empty}


def refcoco(harness: Harness) -> list[dict[str, Any]]:
    """Vectors of the documents that the harness makes of the rows."""
    import PIL.Image
    from datasets import Dataset, Features, Image, Sequence, Value

    rows = [row | {"image": PIL.Image.new("RGB", tuple(row["size"]))} for row in documents.REFERRING]
    kinds = {"question_id": Value("string"), "answer": Sequence(Value("string")), "bbox": Sequence(Value("float64"))}
    features = Features(kinds | {"size": Sequence(Value("int64")), "image": Image()})
    docs = list(harness.config["process_docs"](Dataset.from_list(rows, features=features)))
    metrics = [entry["metric"] for entry in harness.config["metric_list"]]
    vectors = []
    for doc in docs:
        answers = documents.boxes(doc["bbox"], doc["answer"])
        entries = {answer: harness.results(doc, answer)[metrics[0]] for answer in answers}
        scores = {a: [harness.aggregate([entry], metric) for metric in metrics] for a, entry in entries.items()}
        vectors.append(
            {"doc": {"answer": doc["answer"]}, "prompt": harness.config["doc_to_text"](doc), "answers": scores}
        )
    return vectors


def textvqa_extra(harness: Harness) -> dict[str, Any]:
    """Normalised texts, and one document object scored twice: the harness changes its answers in place."""
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    texts = [*EvalAIAnswerProcessor.CONTRACTIONS, *EvalAIAnswerProcessor.NUMBER_MAP]
    texts += [f"(a {mark}b{mark}c {mark} d)" for mark in EvalAIAnswerProcessor.PUNCTUATIONS]
    texts += documents.answers("normalise", {"question": "", "answer": "the t-shirt, of Joe's"})
    doc = {"question": "q", "question_id": 0, "answers": ["hes"] * 10}
    shared = harness.document(doc)
    again = [float(harness.results(shared, "hes")["exact_match"]) for _ in range(2)]
    normalised = {text: EvalAIAnswerProcessor()(text) for text in dict.fromkeys(texts)}
    return {"normalised": normalised, "twice": {"doc": doc, "answer": "hes", "scores": again}}


def main(wheel: str) -> None:
    """Write one file a task."""
    for name in YAML:
        harness = Harness(name)
        score = functools.partial(mmmu_score, harness) if name == "mmmu" else harness.score
        if name == "refcoco":
            vectors = refcoco(harness)
        else:
            vectors = [
                {
                    "doc": doc,
                    "prompt": harness.prompt(doc),
                    "pictures": harness.pictures(doc),
                    "answers": {answer: score(doc, answer) for answer in documents.answers(name, doc)},
                }
                for doc in documents.DOCUMENTS[name.removesuffix("_ocr")]
            ]
        content: dict[str, Any] = {
            "header": {
                "format": 1,
                "task": name,
                "made_with": {"lmms-eval": version("lmms-eval"), "python": platform.python_version()},
                "max_new_tokens": harness.config["generation_kwargs"].get("max_new_tokens"),
            },
            "vectors": vectors,
        }
        if name == "pope":
            content |= pope_extra(harness, vectors)
        elif name == "ocrbench":
            content["header"]["made_with"]["lmms-eval of 2024"] = "0.3.0"
            content |= ocrbench_extra(harness, vectors, wheel)
        elif name == "textvqa":
            content |= textvqa_extra(harness)
        elif name == "mme":
            content |= mme_extra(harness, vectors)
        elif name == "mmbench":
            content |= mmbench_extra(harness, vectors)
        elif name == "refcoco":
            content |= {"rows": documents.REFERRING, "metrics": [m["metric"] for m in harness.config["metric_list"]]}
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        print(name, sum(len(vector["answers"]) for vector in vectors), "vectors")


if __name__ == "__main__":
    main(sys.argv[1])
