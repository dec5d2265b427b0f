"""Pipelines as a model of lmms-eval: ``lmms_eval --model fopru_graph --model_args pipeline=FILE,ratio=0.25 …``.

lmms-eval 0.7.3 finds it by entry point. Its response cache tells models apart by ``--model_args`` alone, so everything
that may change an answer is given there; the cache does not see a change of the pipeline's file.
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

from fopru_graph.answer import Answer
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.graph import Graph, Registry, parse_value
from fopru_graph.pipeline_model import PipelineModel

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 1024  # what lmms-eval's models take for tasks that do not say
_DEFAULT_UNTIL = "\n\n"  # lmms-eval's end of an answer for tasks that name none; it would cut off reasoning


class FopruGraph(lmms):
    """A pipeline that answers one sample after the other, by the same machinery as ``fopru-graph eval``.

    Args:
        pipeline: the YAML file.
        ratio: share of the visual tokens that is kept, by the rule of ``eval --ratio``; None leaves what the file says.
        device: where the model runs; with several processes each takes a GPU of its own.
        dtype: type of the weights; None leaves what the pipeline says.
        nodes: folder with further node types.
        batch_size: must be 1.
        max_batch_size: given by lmms-eval and ignored.
        sets: values of pipeline inputs (``model``) and of inputs of nodes (``fastv.layer``).

    Raises:
        UserError: an argument does not fit the pipeline.
        PipelineError: the pipeline is not valid, or has no such input.
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
        load_inputs = {"device": device or ranks.device(), "dtype": dtype}
        for name in graph.of_type("LoadModel"):
            for key, value in load_inputs.items():
                if value is not None:
                    graph.set(f"{name}.{key}", value)
        for target, value in sets.items():
            is_text = target in graph.inputs and graph.inputs[target].type in ("str", "path")
            # lmms-eval has parsed numbers and booleans already; the rest is read as in YAML, but texts stay texts.
            graph.set(target, parse_value(value) if isinstance(value, str) and not is_text else value)
        self._pipeline = PipelineModel(_at_ratio(graph, ratio))

    @property
    def batch_size(self) -> int:
        """Samples that are answered at a time."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts the tensors that its processes exchange."""
        device: torch.device = self._pipeline.handle.family.device
        return device

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Greedy answers in the order of the requests; an error ends the run, it never becomes an answer.

        Raises:
            UserError: a task asks for sampling or beams, or a sample holds anything but pictures.
            NodeError: a node failed on a sample.
        """
        results, answers, begin = [], [], time.perf_counter()
        for request in tqdm(requests, disable=self.rank != 0, desc="Model Responding"):
            context, options, doc_to_visual, doc_id, task, split = request.args
            visuals = doc_to_visual(self.task_dict[task][split][doc_id])
            pictures = [_picture(visual, f"{task}, sample {doc_id}") for visual in visuals or ()]
            answered = self._pipeline.answer(context, pictures, _max_new_tokens(options, task))
            answers.append(answered)
            results.append(GenerationResult(_cut(answered.text, options.get("until")), _token_counts(answered)))
        if answers:
            _log(answers, time.perf_counter() - begin)
        return results

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refused with a UserError: a pipeline gives answers, no likelihoods."""
        raise UserError("a pipeline gives no likelihoods", "choose tasks whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused with a UserError: a pipeline answers one question at a time."""
        raise UserError("a pipeline holds no conversation", "choose tasks whose output_type is generate_until")


def _registry(folder: str | None) -> Registry:
    """The built-in node types and those of a folder."""
    registry = Registry.default()
    for failure in [] if folder is None else registry.load_folder(folder):
        raise UserError(str(failure), "mend it")
    return registry


def _at_ratio(graph: Graph, ratio: float | None) -> Graph:
    """The pipeline with its ratio set; a UserError if it has none, or keeps everything whatever the ratio."""
    (variant,) = configurations_of(graph, None if ratio is None else (float(ratio),))
    if ratio is not None and variant.ratio != float(ratio):
        raise UserError(f"{Path(graph.file or variant.pipeline).name} has no ratio to set", "leave out ratio=…")
    return variant.graph


def _picture(visual: Any, where: str) -> PIL.Image.Image:
    """The picture of a sample; a UserError if it is something else."""
    if not isinstance(visual, PIL.Image.Image):
        kind = "a file name, so probably a video" if isinstance(visual, str) else type(visual).__name__
        raise UserError(f"{where}: pipelines are asked about pictures here, but got {kind}", "choose tasks of pictures")
    return visual


def _max_new_tokens(options: Mapping[str, Any], task: str) -> int:
    """Most tokens of an answer; a UserError if the task's generation_kwargs ask for anything but greedy decoding."""
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
        if end and end != _DEFAULT_UNTIL:
            text = text.partition(end)[0]
    return text


def _token_counts(answered: Answer) -> TokenCounts:
    """Tokens of the prompt, with the visual tokens that are left in it, and of the answer."""
    new = int(answered.report["new_tokens"])
    return TokenCounts(input_tokens=int(answered.report["kv_lengths"][0]) - (new - 1), output_tokens=new)


def _log(answers: Sequence[Answer], seconds: float) -> None:
    """Give lmms-eval the figures of the answers; it shows averages over all processes under ``throughput``."""
    new = sum(answered.report["new_tokens"] for answered in answers)
    ttft_ms = [answered.ttft_ms for answered in answers if answered.ttft_ms is not None]
    counts = [answered.report["visual_tokens"] for answered in answers]
    figures = {f"visual_tokens_{name}": statistics.fmean(count[name] for count in counts) for name in counts[0]}
    figures |= {"ttft_ms": statistics.median(ttft_ms)} if ttft_ms else {}
    log_metrics(seconds, new, new / seconds, {"total_requests": len(answers)} | figures)
