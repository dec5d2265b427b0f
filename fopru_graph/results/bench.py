"""What `bench` measured, as plain data, and its form in ``bench.json``. Nothing here measures; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fopru_graph.results.schema import JsonObject, NonNegative, Timing

NOISY = 0.05  # a reference that may differ from itself by more was measured in too few rounds, or beside other work
STOCK = "stock"  # the pipeline name of transformers' own `generate`
STAGES = ("encode", "score", "select", "project", "prefill", "decode")


def label_of(pipeline: str, ratio: float | None) -> str:
    """Pipeline and ratio, e.g. ``fastv 25 %``; the pipeline alone where it has no ratio, and for stock."""
    return pipeline if ratio is None or pipeline == STOCK else f"{pipeline} {100 * ratio:.4g} %"


@dataclass(frozen=True)
class Gain:
    """How many times faster than the reference: ratio of medians, its 95 % bootstrap interval, and the ideal ratio.

    ``ideal`` is the ratio of operations for the time to first token, and of bytes read for the time per output token.
    """

    measured: float
    low: float
    high: float
    ideal: float

    @property
    def reached(self) -> float:
        """The share of the ideal gain that was measured."""
        return self.measured / self.ideal


@dataclass(frozen=True)
class Variant:
    """The figures of one pipeline at one ratio.

    ``ratio`` is the share of visual tokens that the whole pipeline keeps; None for a pipeline run as its file says.
    ``ttft`` runs from the pixels in memory to the first token's id, ``ttft_with_preprocessing`` from the decoded
    picture. ``stages`` are parts of the time to first token; ``decode`` is all that follows it. ``tokens_per_layer``
    counts the prompt's tokens, text and visual, in each decoder layer, ``visual_per_layer`` the visual ones alone.
    ``memory`` holds peak bytes by kind (``allocated``, ``reserved``, ``rss``), ``flops`` the operations until the first
    token by stage, two a multiply–accumulate. ``loop`` drove the decoder, ``captured``: as a CUDA graph.
    ``one_time_ms`` is what an answer's steps took for work that is done once, e.g. capturing; ``tpot`` is without it.
    ``key`` is the cache key of the answer: it changes with all that the answer follows from. ``step_bytes`` are what a
    decoding step must read on average; None without a ``tpot``. ``positions`` says how kept tokens were numbered.
    """

    pipeline: str
    ratio: float | None
    ttft: Timing
    ttft_with_preprocessing: Timing
    tpot: Timing | None
    end_to_end: Timing
    stages: Mapping[str, Timing]
    ttft_gain: Gain
    tpot_gain: Gain | None
    tokens_per_layer: tuple[int, ...]
    visual_per_layer: tuple[int, ...]
    new_tokens: int
    kv_bytes: int
    peak_memory_bytes: int
    memory: Mapping[str, int]
    flops: Mapping[str, int]
    loop: str = ""
    captured: bool = False
    one_time_ms: float | None = None
    key: str = ""
    step_bytes: float | None = None
    positions: str = ""

    @property
    def label(self) -> str:
        """Pipeline and ratio, e.g. ``fastv 25 %``; unique in a bench."""
        return label_of(self.pipeline, self.ratio)

    def to_json(self) -> dict[str, Any]:
        """The variant as a JSON object."""
        return {
            "pipeline": self.pipeline,
            "ratio": self.ratio,
            "ttft_ms": asdict(self.ttft),
            "ttft_with_preprocessing_ms": asdict(self.ttft_with_preprocessing),
            "tpot_ms": asdict(self.tpot) if self.tpot else None,
            "end_to_end_ms": asdict(self.end_to_end),
            "stages_ms": {name: asdict(timing) for name, timing in self.stages.items()},
            **_gain_json("ttft_gain", self.ttft_gain),
            **_gain_json("tpot_gain", self.tpot_gain),
            "tokens_per_layer": list(self.tokens_per_layer),
            "visual_per_layer": list(self.visual_per_layer),
            "new_tokens": self.new_tokens,
            "kv_bytes": self.kv_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "memory_bytes": dict(self.memory),
            "flops": dict(self.flops),
            "loop": self.loop,
            "captured": self.captured,
            "one_time_ms": self.one_time_ms,
            "key": self.key,
            "step_bytes": self.step_bytes,
            "positions": self.positions,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Variant:
        """The variant that `to_json` made ``data`` of; raises KeyError, TypeError or ValueError for anything else."""
        ttft_gain, tpot_gain = _gain_of("ttft_gain", data), _gain_of("tpot_gain", data)
        if ttft_gain is None:
            raise ValueError("a variant without ttft_gain")
        return cls(
            ttft=Timing(**data["ttft_ms"]),
            ttft_with_preprocessing=Timing(**data["ttft_with_preprocessing_ms"]),
            end_to_end=Timing(**data["end_to_end_ms"]),
            tpot=Timing(**data["tpot_ms"]) if data["tpot_ms"] else None,
            stages={name: Timing(**timing) for name, timing in data["stages_ms"].items()},
            ttft_gain=ttft_gain,
            tpot_gain=tpot_gain,
            tokens_per_layer=tuple(data["tokens_per_layer"]),
            visual_per_layer=tuple(data["visual_per_layer"]),
            memory=data["memory_bytes"],
            **{name: data[name] for name in _AS_THEY_ARE},
        )


_AS_THEY_ARE = (
    *("pipeline", "ratio", "new_tokens", "kv_bytes", "peak_memory_bytes", "flops"),
    *("loop", "captured", "one_time_ms", "key", "step_bytes", "positions"),
)


def _gain_json(name: str, gain: Gain | None) -> dict[str, Any]:
    figures = (gain.measured, gain.ideal, [gain.low, gain.high]) if gain else (None, None, None)
    return dict(zip((name, f"{name}_ideal", f"{name}_ci"), figures, strict=True))


def _gain_of(name: str, data: Mapping[str, Any]) -> Gain | None:
    """The gain that `_gain_json` wrote."""
    if data[name] is None:
        return None
    low, high = data[f"{name}_ci"]
    return Gain(data[name], low, high, data[f"{name}_ideal"])


@dataclass(frozen=True)
class BenchResult:
    """All variants of a bench on one model and machine.

    ``reference`` is the label of the variant that gains are relative to. ``self_gain`` is that variant, measured a
    second time in every round, against itself: its interval is the noise. ``convention`` says how operations are
    counted, ``skipped`` what was not measured and why.
    """

    model: str
    reference: str
    variants: tuple[Variant, ...]
    self_gain: Gain | None
    rounds: int
    convention: str
    machine: Mapping[str, Any]
    interrupted: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the figures are worth less than they look: the reference differs from itself by more than `NOISY`."""
        noise = self.self_gain
        apart = max(abs(end - 1) for end in (noise.measured, noise.low, noise.high)) if noise else 0.0
        if apart <= NOISY:
            return ()
        return (
            f"{self.reference} differs from itself by up to {100 * apart:.0f} %, so gains of that size are noise; "
            "measure again on a quiet machine, in more rounds (--repeat)",
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``bench.json``."""
        return {
            "model": self.model,
            "reference": self.reference,
            "variants": [variant.to_json() for variant in self.variants],
            "baseline_against_itself": asdict(self.self_gain) if self.self_gain else None,
            "warnings": list(self.warnings),
            "rounds": self.rounds,
            "flops_convention": self.convention,
            "interrupted": self.interrupted,
            "skipped": list(self.skipped),
            "machine": dict(self.machine),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BenchResult:
        """The bench that `to_json` made ``data`` of; raises KeyError, TypeError or ValueError for anything else."""
        noise = data["baseline_against_itself"]
        return cls(
            variants=tuple(map(Variant.from_json, data["variants"])),
            self_gain=Gain(**noise) if noise else None,
            convention=data["flops_convention"],
            skipped=tuple(data["skipped"]),
            **{name: data[name] for name in ("model", "reference", "rounds", "interrupted", "machine")},
        )


class BenchTtft(JsonObject):
    """Median time to first token in ms."""

    median: NonNegative


class BenchVariant(JsonObject):
    """The part of a variant in ``bench.json`` that the report reads."""

    pipeline: str
    ratio: float | None
    ttft_ms: BenchTtft


class Bench(JsonObject):
    """The part of ``bench.json`` that the report reads."""

    model: str
    rounds: int = 0
    machine: dict[str, Any] = {}
    variants: list[BenchVariant]
