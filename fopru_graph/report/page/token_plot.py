"""What a sample is made of without pruning, and the KV cache that pruning leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fopru_graph.report.page.style import (
    PAPER,
    WIDTH,
    Drawing,
    Look,
    drawn,
    figure_of,
    label_of,
    legend,
    looks_of,
    said,
    share_axis,
)
from fopru_graph.results.methods import Method, ModelResults, Point
from fopru_graph.terminal.console import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILLS = {"visual": "#4477aa", "text": "#ccbb44", "generated": "#ee6677"}  # Paul Tol's "bright" scheme
_HATCHES = {"visual": "", "text": "///", "generated": "..."}


def token_figure(study: ModelResults, name: str) -> Drawing | None:
    """What a sample is made of by task without pruning (the paper's Fig. 3), and the KV bytes that pruning leaves."""
    tasks = [
        task for task in study.tasks if task in study.unpruned and study.unpruned[task].cell.summary.tokens.encoded
    ]
    if not tasks:
        return None
    figure = figure_of(WIDTH, max(3.4, 1.8 + 0.45 * len(tasks)) + 0.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_proportions(left, study, tasks)
    looks = looks_of(study)
    _draw_bytes(right, study, tasks, looks)
    legend(figure)
    n = [study.unpruned[task].cell.summary.n for task in tasks]
    caption = (
        f"{study.model}, means of all scored samples, {said(n)} a task. Left: the share of visual, text and "
        "generated tokens without pruning, and the bytes of the KV cache of a sample. Right: the KV cache that each "
        "method leaves, relative to that, averaged over tasks; lines of methods that leave the same lie on each "
        "other, and what is dropped inside the language model still fills the layers before."
    )
    title = "Tokens and KV cache"
    return drawn(
        figure, name, title, caption, f"{title}: proportions on {', '.join(tasks)}, and KV bytes against the ratio"
    )


def _draw_proportions(axes: Axes, study: ModelResults, tasks: Sequence[str]) -> None:
    ends = [0.0] * len(tasks)
    for kind, colour in _FILLS.items():
        shares = [proportions(study.unpruned[task])[kind] for task in tasks]
        axes.barh(
            range(len(tasks)),
            shares,
            left=ends,
            color=colour,
            hatch=_HATCHES[kind],
            edgecolor=PAPER,
            label=f"{kind} tokens",
            linewidth=0,
            height=0.62,
        )
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    for place, task in enumerate(tasks):
        tokens, kv = study.unpruned[task].cell.summary.tokens, study.unpruned[task].cell.summary.kv_bytes
        counts = (tokens.final, tokens.text, tokens.new)
        text = " + ".join(f"{count or 0:.0f}" for count in counts) + f" tokens, {size(kv)}"
        axes.annotate(text, (0, place - 0.36), (2, 0), textcoords="offset points", va="bottom", fontsize=8)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(tasks) - 0.5, -0.7)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the tokens of a sample, %")
    axes.set_title("without pruning, by task", fontsize=10)


def proportions(point: Point) -> dict[str, float]:
    """Percentages of visual, text and generated tokens of a mean sample, as the language model sees them."""
    tokens = point.cell.summary.tokens
    counts = {"visual": tokens.kept or 0.0, "text": tokens.text or 0.0, "generated": tokens.new or 0.0}
    total = sum(counts.values()) or 1.0
    return {kind: 100 * count / total for kind, count in counts.items()}


def _draw_bytes(axes: Axes, study: ModelResults, tasks: Sequence[str], looks: dict[str, Look]) -> None:
    shares = []
    for method in study.compared:
        ratios = sorted({ratio for own in method.points.values() for ratio in own if ratio is not None})
        line = [(ratio, left) for ratio in ratios if (left := kv_left(study, method, tasks, ratio)) is not None]
        if line:
            axes.plot(*zip(*line, strict=True), label=label_of(method), **looks[method.label].line)
            shares += [ratio for ratio, _ in line]
    share_axis(axes, shares, "ratio that was set")
    axes.set_ylabel("KV bytes ÷ unpruned, %")
    axes.set_ylim(bottom=0)
    axes.set_title("KV cache that is left", fontsize=10)
    axes.grid(axis="y")


def kv_left(study: ModelResults, method: Method, tasks: Sequence[str], ratio: float | None) -> float | None:
    """Percentage of the unpruned KV bytes, averaged over those tasks; None unless all are known."""
    parts = []
    for task in tasks:
        point, whole = method.at(task, ratio), study.unpruned[task].cell.summary.kv_bytes
        if point is None or point.cell.summary.kv_bytes is None or not whole:
            return None
        parts.append(100 * point.cell.summary.kv_bytes / whole)
    return sum(parts) / len(parts)
