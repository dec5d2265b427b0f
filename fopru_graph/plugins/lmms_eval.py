"""Pipelines as a model of lmms-eval: ``lmms_eval --model fopru_graph --model_args pipeline=FILE,ratio=0.25 …``.

lmms-eval 0.7.3 finds it by entry point. Its response cache tells models apart by ``--model_args`` alone, so that
everything that may change an answer is given there; what is in the pipeline's file it does not see.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from tqdm import tqdm

from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.graph import Graph, Registry, parse_value
from fopru_graph.pipeline_model import Answer, PipelineModel

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 1024  # what lmms-eval's own models take for tasks that do not say
_FILLED_IN = "\n\n"  # lmms-eval's own end of an answer for tasks that name none; it would cut off reasoning


class FopruGraph(lmms):
    """A pipeline that answers one sample after the other, by the same machinery as ``fopru-graph eval``.

    Args:
        pipeline: the YAML file.
        ratio: share of the visual tokens that is kept, by the rule of ``eval --ratio``; None runs it as written.
        device: where the model runs; with several processes each takes a GPU of its own.
        dtype: type of the weights; None leaves what the pipeline says.
        nodes: folder with node types of one's own.
        batch_size: must be 1.
        max_batch_size: given by lmms-eval; without meaning here.
        sets: pipeline inputs (``model``) and inputs of nodes (``fastv.layer``) with their values.

    Raises:
        UserError: an argument does not fit the pipeline.
        PipelineError: the pipeline is not valid, or has no place for a value.
        NodeError: the model cannot be loaded.
    """

    is_simple = True

    def __init__(
        self,
        pipeline: str,
        ratio: float | None = None,
        device: str | None = None,
        dtype: str | None = None,
        nodes: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **sets: Any,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise UserError(f"samples are answered one by one, not {batch_size} at a time", "use --batch_size 1")
        ranks = Ranks.of_environment()
        self._rank, self._world_size = ranks.rank, ranks.world
        graph = Graph.load(pipeline, _registry(nodes))
        _place(graph, {"device": device or ranks.device(), "dtype": dtype})
        for target, value in sets.items():
            graph.set(target, _parsed(graph, target, value))
        self._pipeline = PipelineModel(_at_ratio(graph, ratio))

    @property
    def batch_size(self) -> int:
        """Samples that are answered at a time."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts what it exchanges between processes."""
        device: torch.device = self._pipeline.handle.family.device
        return device

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Greedy answers in the order of the requests; what goes wrong ends the run, it never becomes an answer.

        Raises:
            UserError: a task asks for sampling or beams, or a sample shows something else than pictures.
            NodeError: a node failed on a sample.
        """
        results, answers, begin = [], [], time.perf_counter()
        for request in tqdm(requests, disable=self.rank != 0, desc="Model Responding"):
            context, options, doc_to_visual, doc_id, task, split = request.args
            shown = doc_to_visual(self.task_dict[task][split][doc_id])
            pictures = [_picture(visual, f"{task}, sample {doc_id}") for visual in shown or ()]
            answered = self._pipeline.answer(context, pictures, _new_tokens(options, task))
            answers.append(answered)
            results.append(GenerationResult(_cut(answered.text, options.get("until")), _counted(answered)))
        if answers:
            self._log(answers, time.perf_counter() - begin)
        return results

    def _log(self, answers: Sequence[Answer], seconds: float) -> None:
        """Tell lmms-eval what was measured; it puts averages over all processes under ``throughput``."""
        made = sum(answered.report["new_tokens"] for answered in answers)
        first = [answered.ttft_ms for answered in answers if answered.ttft_ms is not None]
        tokens = [answered.report["visual_tokens"] for answered in answers]
        facts: dict[str, Any] = {"total_requests": len(answers)}
        facts |= {f"visual_tokens_{name}": statistics.fmean(one[name] for one in tokens) for name in tokens[0]}
        facts |= {"ttft_ms": statistics.median(first)} if first else {}
        log_metrics(seconds, made, made / seconds, facts)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """A pipeline gives answers, no likelihoods.

        Raises:
            UserError: always.
        """
        raise UserError("a pipeline gives no likelihoods", "choose tasks whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """A pipeline answers one question at a time.

        Raises:
            UserError: always.
        """
        raise UserError("a pipeline holds no conversation", "choose tasks whose output_type is generate_until")


def _registry(folder: str | None) -> Registry:
    """The built-in node types and those of a folder."""
    registry = Registry.default()
    if folder is not None:
        for failure in registry.load_folder(folder):
            raise UserError(f"{failure.source} failed to load: {failure.error.strip().splitlines()[-1]}", "mend it")
    return registry


def _place(graph: Graph, given: Mapping[str, str | None]) -> None:
    """Set device and type of the weights in every LoadModel node, as far as they are given."""
    for name, entry in graph.nodes.items():
        if entry.type == "LoadModel":
            for key, value in given.items():
                if value is not None:
                    graph.set(f"{name}.{key}", value)


def _parsed(graph: Graph, target: str, value: Any) -> Any:
    """A value as in YAML; lmms-eval has made numbers and booleans of texts already. A pipeline's texts stay texts."""
    text = target in graph.inputs and graph.inputs[target].type in ("str", "path")
    return parse_value(value) if isinstance(value, str) and not text else value


def _at_ratio(graph: Graph, ratio: float | None) -> Graph:
    """The pipeline with its ratio set.

    Raises:
        UserError: it has none, or it keeps everything whatever the ratio.
    """
    (variant,) = configurations_of(graph, None if ratio is None else (float(ratio),))
    if ratio is not None and variant.ratio != float(ratio):
        raise UserError(f"{Path(graph.file or variant.pipeline).name} has no ratio to set", "leave out ratio=…")
    return variant.graph


def _picture(visual: Any, where: str) -> PIL.Image.Image:
    """The picture of a sample.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(visual, PIL.Image.Image):
        kind = "a file name, so probably a video" if isinstance(visual, str) else type(visual).__name__
        raise UserError(f"{where}: pipelines are asked about pictures here, but got {kind}", "choose tasks of pictures")
    return visual


def _new_tokens(options: Mapping[str, Any], task: str) -> int:
    """Most tokens of an answer.

    Raises:
        UserError: the task's generation_kwargs ask for anything but greedy decoding.
    """
    samples = options.get("do_sample", (options.get("temperature") or 0) > 0)
    if samples or (options.get("num_beams") or 1) > 1:
        raise UserError(
            f"{task} asks for sampling or beams, but pipelines are evaluated greedily",
            "add --gen_kwargs do_sample=False,temperature=0,num_beams=1",
        )
    return int(options.get("max_new_tokens") or MAX_NEW_TOKENS)


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first of the texts that end it."""
    for end in [until] if isinstance(until, str) else until or ():
        if end and end != _FILLED_IN:
            text = text.partition(end)[0]
    return text


def _counted(answered: Answer) -> TokenCounts:
    """Tokens of the prompt, the visual ones that are left of it included, and of the answer."""
    report = answered.report
    made = int(report["new_tokens"])
    return TokenCounts(input_tokens=int(report["kv_lengths"][0]) - (made - 1), output_tokens=made)
