"""The bench: all pipelines in one process, one after the other in every round, gains from the same rounds.

First every pipeline gives one token, then a whole answer whose peak memory is taken, then another of which nothing is
taken: what is done once, as capturing CUDA graphs, is done before the rounds. In a round every pipeline gives one whole
answer and one first token alone. The reference is measured twice, as two pipelines: the difference is the noise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Executor, MemoryCache, NodeError
from fopru_graph.measure.arithmetic import CONVENTION, Workload, first_token_flops, published_macs, step_bytes
from fopru_graph.measure.machine import copy_rate, machine_facts, peak_memory_bytes, peaks, reset_peaks
from fopru_graph.measure.pipelines import BenchedPipeline, load_models
from fopru_graph.measure.timing import RunTimes, Timeline
from fopru_graph.results.bench import STAGES, STOCK, BenchResult, Gain, Variant
from fopru_graph.results.schema import Timing
from fopru_graph.results.statistics import gain, timing
from fopru_graph.values import ModelSizes

OnProgress = Callable[[int, int, str], None]


@dataclass(eq=False)
class _Measured:
    """What was measured of a pipeline so far: runs of whole answers, and runs of the first token alone."""

    pipeline: BenchedPipeline
    answers: list[RunTimes] = field(default_factory=list)
    first_tokens: list[RunTimes] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    one_time_ms: float | None = None  # of the answers before the rounds

    @property
    def report(self) -> Mapping[str, Any]:
        """The report of the last whole answer; all answers have the same counts."""
        return self.answers[-1].report

    @property
    def samples(self) -> int:
        """Prompts that are answered at once."""
        return int(self.report["samples"])

    @property
    def prompt_lengths(self) -> tuple[int, ...]:
        """The prompt's tokens in each decoder layer: what its KV cache holds in the end, less the generated tokens."""
        generated = self.report["new_tokens"] // self.samples - 1
        return tuple(length - generated for length in self.report["kv_lengths"])

    @property
    def tpots(self) -> list[float]:
        """The mean time per output token of every answer; empty for answers without a step after the first."""
        return [run.report["tpot_ms"] for run in self.answers if run.report["tpot_ms"] is not None]

    def bytes_read(self, sizes: ModelSizes) -> float:
        """Bytes that an average decoding step must read."""
        report = self.report
        return step_bytes(sizes, report["kv_bytes"], report["kv_lengths"], report["new_tokens"] // self.samples)

    def stages(self) -> dict[str, Timing]:
        """The times of each stage: decoding from whole answers, the others from runs that settled between stages."""
        runs_of = {stage: self.answers if stage == "decode" else self.first_tokens for stage in STAGES}
        return {
            stage: timing([run.stages[stage] for run in runs])
            for stage, runs in runs_of.items()
            if stage in runs[0].stages
        }


class Bench:
    """A bench on one model.

    Args:
        pipelines: what to compare; gains are relative to the first that drops nothing, or else to the first.
        new_tokens: length of every answer.
        rounds: how often everything is repeated.
        cancel: ends the bench early; what was measured is kept.
        on_progress: called with the number of runs done, that of all runs, and a text that says what comes next.
        on_result: called with what was measured so far, as if interrupted, after each pipeline of the first round and
            after each later round.
        clock: seconds; tests pass a clock that stands still.

    Raises:
        UserError: there are no pipelines.
    """

    def __init__(
        self,
        pipelines: Sequence[BenchedPipeline],
        new_tokens: int = 64,
        rounds: int = 4,
        cancel: CancelToken | None = None,
        on_progress: OnProgress | None = None,
        on_result: Callable[[BenchResult], None] = lambda result: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not pipelines:
            raise UserError("there is nothing to bench", "name at least one pipeline file")
        self._measured = [_Measured(pipeline) for pipeline in pipelines]
        whole = [m for m in self._measured if not m.pipeline.prunes and m.pipeline.pipeline != STOCK]
        self._reference = (whole or self._measured)[0]
        self._again = _Measured(self._reference.pipeline)
        self._rows = [*self._measured, self._again]
        self._new_tokens, self._rounds = new_tokens, rounds
        self._cancel, self._on_progress, self._on_result, self._clock = cancel, on_progress, on_result, clock
        self._loaded: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._model: Any = None  # the ModelHandle of the first pipeline, once it is loaded
        self._machine: dict[str, Any] = {"new_tokens": new_tokens}
        self._done = 0

    def run(self) -> BenchResult:
        """Measure everything.

        Raises:
            NodeError: the model cannot be loaded, or the reference fails; without them there is nothing to compare.
            Cancelled: the bench was ended before the reference was measured once.
        """
        self._load()
        interrupted = False
        try:
            for measured in self._rows:
                self._attempt(measured, 1)
            for measured in self._rows:
                self._measure_memory(measured)
            for measured in self._rows:
                self._warm(measured)
            facts = machine_facts(self._model.device, self._model.dtype)  # with the clocks of a device at work
            self._machine = facts | self._machine
            for number in range(self._rounds):
                for measured in self._order(number):
                    self._measure(measured)
                    if number == 0:
                        self._on_result(self._result(interrupted=True))
                if number:
                    self._on_result(self._result(interrupted=True))
        except Cancelled:
            if not self._reference.first_tokens:
                raise
            interrupted = True
        return self._result(interrupted)

    # -- running ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        for pipeline in (measured.pipeline for measured in self._measured):
            model = load_models(pipeline.graph, pipeline.plan, self._loaded, self._cancel, self._progress)
            self._model = self._model or model
        if self._model is None:
            raise UserError("no pipeline loads a model", "bench pipelines with a LoadModel node")
        if rate := copy_rate(self._model.device):
            self._machine["copied_gb_per_s"] = round(rate / 1e9, 1)

    def _order(self, number: int) -> list[_Measured]:
        """All pipelines, the reference twice: as given in the first round, shuffled afterwards, so that none always
        runs after the same neighbour."""
        others = [measured for measured in self._measured if measured is not self._reference]
        order = [self._reference, *others, self._again]
        if number:
            random.Random(number).shuffle(order)
        return order

    def _attempt(self, measured: _Measured, new_tokens: int, settled: bool = False) -> RunTimes | None:
        """Run a pipeline once; one that fails is left out from then on, unless it is the reference."""
        label = measured.pipeline.label
        if label in self._failed:
            return None
        self._progress(label)
        self._done += 1
        try:
            return self._run(measured.pipeline, new_tokens, settled)
        except NodeError as error:
            if measured.pipeline is self._reference.pipeline:
                raise
            self._failed[label] = str(error)
            return None

    def _measure_memory(self, measured: _Measured) -> None:
        device = self._model.device
        self._model.family.forget()
        reset_peaks(device)
        self._warm(measured)
        measured.memory = peaks(device)

    def _warm(self, measured: _Measured) -> None:
        """Answer without taking times, except what was done once: it may be put off to the second answer of a shape."""
        if run := self._attempt(measured, self._new_tokens):
            times = (measured.one_time_ms, run.report.get("one_time_ms"))
            measured.one_time_ms = max((ms for ms in times if ms is not None), default=None)

    def _measure(self, measured: _Measured) -> None:
        if run := self._attempt(measured, self._new_tokens):
            measured.answers.append(run)
        if run := self._attempt(measured, 1, settled=True):
            measured.first_tokens.append(run)

    def _run(self, pipeline: BenchedPipeline, new_tokens: int, settled: bool) -> RunTimes:
        cache = MemoryCache()
        for key, outputs in self._loaded.items():
            cache.put(key, outputs)
        settle = self._synchronise if settled else lambda: None
        timeline = Timeline(pipeline.categories, pipeline.target, self._clock, settle)
        Executor(pipeline.graph.registry, cache=cache).run(
            pipeline.graph,
            to=pipeline.target,
            sets=pipeline.answer_length(new_tokens),
            on_event=timeline,
            cancel=self._cancel,
        )
        return timeline.times()

    def _synchronise(self) -> None:
        """Let a GPU finish what it has been given."""
        if self._model.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._model.device)

    def _progress(self, text: str) -> None:
        if self._on_progress is not None:
            self._on_progress(self._done, (3 + 2 * self._rounds) * len(self._rows), text)

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def _result(self, interrupted: bool) -> BenchResult:
        model = self._model
        sizes = model.family.model_sizes()
        complete = [measured for measured in self._measured if measured.answers and measured.first_tokens]
        labels = [measured.pipeline.label for measured in self._measured if measured not in complete]
        unmeasured = [label for label in labels if label not in self._failed]
        return BenchResult(
            model=model.name,
            reference=self._reference.pipeline.label,
            variants=tuple(self._variant(measured, sizes) for measured in complete),
            self_gain=self._ttft_gain(self._again, 1.0) if self._again.first_tokens else None,
            rounds=len(self._reference.first_tokens),
            convention=CONVENTION,
            machine=self._machine,
            interrupted=interrupted,
            skipped=(
                *(f"{label}: {reason}" for label, reason in self._failed.items()),
                *(f"{label}: not measured before the interrupt" for label in unmeasured),
            ),
        )

    def _variant(self, measured: _Measured, sizes: ModelSizes) -> Variant:
        report, reference = measured.report, self._reference
        flops = self._flops(measured, sizes)
        tpot, tpot_gain = None, None
        if measured.tpots:
            ideal = reference.bytes_read(sizes) / measured.bytes_read(sizes)
            rounds, of_reference = ([[time] for time in m.tpots] for m in (measured, reference))
            tpot, tpot_gain = timing(measured.tpots), gain(of_reference, rounds, ideal)
        return Variant(
            pipeline=measured.pipeline.pipeline,
            ratio=measured.pipeline.ratio,
            ttft=timing([time for times in self._ttfts(measured) for time in times]),
            ttft_with_preprocessing=timing(
                [run.ttft_with_preprocessing for runs in self._unsettled(measured) for run in runs]
            ),
            tpot=tpot,
            end_to_end=timing([run.end_to_end for run in measured.answers]),
            stages=measured.stages(),
            ttft_gain=self._ttft_gain(measured, self._flops(reference, sizes)["total"] / flops["total"]),
            tpot_gain=tpot_gain,
            tokens_per_layer=measured.prompt_lengths,
            visual_per_layer=tuple(report["visual_per_layer"]),
            new_tokens=report["new_tokens"],
            kv_bytes=report["kv_bytes"],
            peak_memory_bytes=peak_memory_bytes(measured.memory),
            memory=measured.memory,
            flops=flops,
            loop=report.get("loop", ""),
            captured=report.get("captured", False),
            positions=report.get("positions", ""),
            one_time_ms=measured.one_time_ms,
            key=measured.pipeline.key,
            step_bytes=measured.bytes_read(sizes) if measured.tpots else None,
        )

    def _unsettled(self, measured: _Measured) -> list[tuple[RunTimes, ...]]:
        """Each round's runs whose time to first token counts: on a GPU only those that did not wait at every stage."""
        if self._model.device.startswith("cuda"):
            return [(run,) for run in measured.answers]
        return list(zip(measured.answers, measured.first_tokens, strict=False))

    def _ttfts(self, measured: _Measured) -> list[list[float]]:
        return [[run.ttft for run in runs] for runs in self._unsettled(measured)]

    def _ttft_gain(self, measured: _Measured, ideal: float) -> Gain:
        return gain(self._ttfts(self._reference), self._ttfts(measured), ideal)

    def _flops(self, measured: _Measured, sizes: ModelSizes) -> dict[str, int]:
        lengths, stock = measured.prompt_lengths, measured.pipeline.pipeline == STOCK
        encoding = (self._reference if stock else measured).answers[-1]  # stock reports no tiles
        work = Workload(
            tower_tokens=encoding.tower_tokens,
            encoded=encoding.encoded,
            kept=measured.report["visual_tokens"]["kept"],
            tokens_per_layer=lengths,
            scoring=measured.pipeline.scoring,
            batch=measured.samples,
            whole_tower=stock,
            projects_all=stock or encoding.projects_all,
        )
        published = {f"decoder_macs_{name}": macs for name, macs in published_macs(sizes, lengths).items()}
        return first_token_flops(sizes, work) | published
