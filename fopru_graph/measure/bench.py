"""The bench: all variants in one process, one after the other in every round, ratios from the same rounds.

First everything is warmed up, then each variant's peak memory is taken from one whole answer, then come the rounds. In
a round every variant, and the reference twice, gives one whole answer and one first token alone.
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
from fopru_graph.measure.machine import machine_facts
from fopru_graph.measure.memory import peaks, reset_peaks
from fopru_graph.measure.pipelines import Case
from fopru_graph.measure.statistics import gain, timing
from fopru_graph.measure.summary import NOT_TIMED
from fopru_graph.measure.timeline import Sample, Timeline
from fopru_graph.results.bench import STAGES, STOCK, BenchResult, Gain, Variant
from fopru_graph.values import ModelHandle, ModelSizes

OnProgress = Callable[[int, int, str], None]


@dataclass(eq=False)
class _Row:
    """What was measured of one case so far."""

    case: Case
    whole: list[Sample] = field(default_factory=list)
    first: list[Sample] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)


class Bench:
    """One bench on one model.

    Args:
        cases: what to compare; gains are relative to the first that drops nothing, or else the first.
        new_tokens: length of every answer.
        rounds: how often everything is repeated.
        cancel: ends the bench early; what was measured is kept.
        on_progress: called with the runs done, the runs to do, and what comes next.
        clock: seconds; tests pass one of their own.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        new_tokens: int = 64,
        rounds: int = 4,
        cancel: CancelToken | None = None,
        on_progress: OnProgress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not cases:
            raise UserError("there is nothing to bench", "name at least one pipeline file")
        self._rows = [_Row(case) for case in cases]
        plain = [row for row in self._rows if not row.case.prunes and row.case.pipeline != STOCK]
        self._reference = (plain or self._rows)[0]
        self._again = _Row(self._reference.case)
        self._new_tokens, self._rounds = new_tokens, rounds
        self._cancel, self._on_progress, self._clock = cancel, on_progress, clock
        self._loaded: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._done = 0

    def run(self) -> BenchResult:
        """Measure everything.

        Raises:
            NodeError: the model cannot be loaded, or the reference fails; without them there is nothing to compare.
            Cancelled: it was ended before the reference was measured once.
        """
        self._load()
        interrupted = False
        try:
            for row in self._rows:
                self._attempt(row, 1)
            for row in self._rows:
                self._measure_memory(row)
            for number in range(self._rounds):
                for row in self._order(number):
                    self._attempt(row, self._new_tokens, row.whole)
                    self._attempt(row, 1, row.first, settled=True)
        except Cancelled:
            if not self._reference.first:
                raise
            interrupted = True
        return self._result(interrupted)

    # -- running ------------------------------------------------------------------------------------------------------

    @property
    def _models(self) -> list[ModelHandle]:
        found = (value for outputs in self._loaded.values() for value in outputs.values())
        return [value for value in found if isinstance(value, ModelHandle)]

    @property
    def _model(self) -> ModelHandle:
        return self._models[0]

    def _load(self) -> None:
        """Run the loading nodes of all cases once; equal ones, by their cache keys, share what they loaded."""
        for row in self._rows:
            case = row.case
            for name, step in case.plan.steps.items():
                if step.spec.category != NOT_TIMED or step.key in self._loaded:
                    continue
                self._tell(f"loading {name}")
                cache = MemoryCache()
                Executor(case.graph.registry, cache=cache).run(case.graph, to=name, cancel=self._cancel)
                self._loaded[step.key] = cache.get(step.key) or {}
        if not self._models:
            raise UserError("no pipeline loads a model", "bench pipelines with a LoadModel node")

    def _order(self, number: int) -> list[_Row]:
        """All rows, the reference twice: as given in the first round, shuffled afterwards, so that no one always runs
        after the same neighbour."""
        rest = [row for row in self._rows if row is not self._reference]
        rows = [self._reference, *rest, self._again]
        if number:
            random.Random(number).shuffle(rows)
        return rows

    def _attempt(self, row: _Row, new_tokens: int, into: list[Sample] | None = None, settled: bool = False) -> None:
        """Run a row once; a row that fails is left out from then on, unless it is the reference."""
        if row.case.label in self._failed:
            return
        self._tell(row.case.label)
        self._done += 1
        try:
            sample = self._run(row.case, new_tokens, settled)
        except NodeError as error:
            if row.case is self._reference.case:
                raise
            self._failed[row.case.label] = str(error)
            return
        if into is not None:
            into.append(sample)

    def _measure_memory(self, row: _Row) -> None:
        device = self._model.device
        self._model.family.forget()
        reset_peaks(device)
        self._attempt(row, self._new_tokens)
        row.memory = peaks(device)

    def _run(self, case: Case, new_tokens: int, settled: bool) -> Sample:
        cache = MemoryCache()
        for key, outputs in self._loaded.items():
            cache.put(key, outputs)
        timeline = Timeline(case.categories, case.target, self._clock, self._wait if settled else _go_on)
        Executor(case.graph.registry, cache=cache).run(
            case.graph, to=case.target, sets=case.lengths(new_tokens), on_event=timeline, cancel=self._cancel
        )
        return timeline.sample()

    def _wait(self) -> None:
        """Let a GPU finish what it has been given."""
        if self._model.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._model.device)

    def _tell(self, text: str) -> None:
        if self._on_progress is not None:
            rows = len(self._rows)
            self._on_progress(self._done, 2 * rows + self._rounds * 2 * (rows + 1), text)

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def _result(self, interrupted: bool) -> BenchResult:
        model = self._model
        sizes = model.family.model_sizes()
        measured = [row for row in self._rows if row.whole and row.first]
        skipped = [f"{label}: {why}" for label, why in self._failed.items()]
        skipped += [
            f"{row.case.label}: not measured before the interrupt"
            for row in self._rows
            if row not in measured and row.case.label not in self._failed
        ]
        noise = self._gain_of(self._again, self._ttft, 1.0) if self._again.first else None
        return BenchResult(
            model=model.name,
            reference=self._reference.case.label,
            variants=tuple(self._variant(row, sizes) for row in measured),
            self_gain=noise,
            rounds=len(self._reference.first),
            convention=CONVENTION,
            machine=machine_facts(model.device, model.dtype) | {"new_tokens": self._new_tokens},
            interrupted=interrupted,
            skipped=tuple(skipped),
        )

    def _variant(self, row: _Row, sizes: ModelSizes) -> Variant:
        report = row.whole[-1].report
        flops, bytes_read = self._flops(row, sizes), _bytes_read(row, sizes)
        ideal = self._flops(self._reference, sizes)["total"] / flops["total"]
        tpot, tpot_gain = None, None
        if report["step_ms"]:
            tpot = timing(_tpots(row))
            tpot_gain = self._gain_of(row, _tpots, _bytes_read(self._reference, sizes) / bytes_read)
        return Variant(
            pipeline=row.case.pipeline,
            ratio=row.case.ratio,
            ttft=timing(self._ttft(row)),
            ttft_with_preprocessing=timing([sample.ttft_with_preprocessing for sample in self._untouched(row)]),
            tpot=tpot,
            end_to_end=timing([sample.end_to_end for sample in row.whole]),
            stages=_stages(row),
            ttft_gain=self._gain_of(row, self._ttft, ideal),
            tpot_gain=tpot_gain,
            tokens_per_layer=_prompt_lengths(report),
            visual_per_layer=tuple(report["visual_per_layer"]),
            new_tokens=report["new_tokens"],
            kv_bytes=report["kv_bytes"],
            peak_memory_bytes=row.memory.get("allocated", row.memory["rss"]),
            memory=row.memory,
            flops=flops,
        )

    def _untouched(self, row: _Row) -> list[Sample]:
        """The runs whose time to first token counts: on a GPU not those that waited at every stage."""
        if self._model.device.startswith("cuda"):
            return row.whole
        return [sample for pair in zip(row.whole, row.first, strict=False) for sample in pair]

    def _ttft(self, row: _Row) -> list[float]:
        return [sample.ttft for sample in self._untouched(row)]

    def _gain_of(self, row: _Row, times: Callable[[_Row], list[float]], ideal: float) -> Gain:
        return gain(times(self._reference), times(row), ideal)

    def _flops(self, row: _Row, sizes: ModelSizes) -> dict[str, int]:
        sample = row.whole[-1]
        lengths = _prompt_lengths(sample.report)
        work = Workload(
            tiles=sample.tiles or self._reference.whole[-1].tiles,  # stock's own encoding sends no report
            scored="score" in row.case.categories.values(),
            projected=sample.report["visual_tokens"]["kept"],
            tokens_per_layer=lengths,
            batch=sample.report["samples"],
            whole_tower=row.case.pipeline == STOCK,
        )
        published = {f"decoder_macs_{name}": macs for name, macs in published_macs(sizes, lengths).items()}
        return first_token_flops(sizes, work) | published


def _go_on() -> None:
    """Wait for nothing."""


def _prompt_lengths(report: Mapping[str, Any]) -> tuple[int, ...]:
    """The prompt's tokens in each layer: what its cache holds in the end, less the generated ones."""
    generated = report["new_tokens"] // report["samples"] - 1
    return tuple(length - generated for length in report["kv_lengths"])


def _bytes_read(row: _Row, sizes: ModelSizes) -> float:
    report = row.whole[-1].report
    return step_bytes(sizes, report["kv_bytes"], report["kv_lengths"], report["new_tokens"] // report["samples"])


def _tpots(row: _Row) -> list[float]:
    """The mean time per output token of every answer."""
    return [sum(sample.steps) / len(sample.steps) for sample in row.whole]


def _stages(row: _Row) -> dict[str, Any]:
    """Each stage's times: those before the first token from the runs that settled between stages."""
    samples = {stage: row.whole if stage == "decode" else row.first for stage in STAGES}
    return {
        stage: timing([sample.stages[stage] for sample in runs])
        for stage, runs in samples.items()
        if stage in runs[0].stages
    }
