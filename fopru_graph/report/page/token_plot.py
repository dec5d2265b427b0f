"""The tokens of a sample without pruning (the paper's Figure 3), and the KV cache that pruning leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fopru_graph.report.page.style import (
    WIDTH,
    Drawing,
    add_legend,
    figure_of,
    label_axes,
    label_of,
    sample_counts,
    styles_of,
    to_drawing,
)
from fopru_graph.report.plots import PAPER, share_axis
from fopru_graph.results.methods import Method, ModelResults, Point
from fopru_graph.terminal.format import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of Paul Tol's "bright" scheme, and hatches.
_FILLS = {"visual": ("#4477aa", ""), "text": ("#ccbb44", "///"), "generated": ("#ee6677", "...")}


def token_figure(study: ModelResults, name: str) -> Drawing | None:
    """Left the tokens of a sample by task without pruning, right the KV bytes that pruning leaves.

    None where no unpruned cell counted its tokens.
    """
    tasks = [
        task for task in study.tasks if task in study.unpruned and study.unpruned[task].cell.summary.tokens.encoded
    ]
    if not tasks:
        return None
    figure = figure_of(WIDTH, max(3.4, 1.8 + 0.45 * len(tasks)) + 0.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_proportions(left, study, tasks)
    _draw_bytes(right, study, tasks)
    counts = sample_counts([study.unpruned[task].cell.summary.n for task in tasks])
    caption = (
        f"{study.model}, means of all scored samples, {counts} a task. Left: the share of visual, text and "
        "generated tokens without pruning, and the bytes of the KV cache of a sample. Right: the KV cache that each "
        "method leaves, relative to that, averaged over tasks; lines of methods that leave the same lie on each "
        "other, and what is dropped inside the language model still fills the layers before."
    )
    title = "Tokens and KV cache"
    alt = f"{title}: proportions on {', '.join(tasks)}, and KV bytes against the ratio"
    add_legend(figure)
    return to_drawing(figure, name, title, caption, alt)


def _draw_proportions(axes: Axes, study: ModelResults, tasks: Sequence[str]) -> None:
    heights = range(len(tasks))
    ends = [0.0] * len(tasks)
    for kind, (colour, hatch) in _FILLS.items():
        shares = [proportions(study.unpruned[task])[kind] for task in tasks]
        fill: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": PAPER, "linewidth": 0}
        axes.barh(heights, shares, 0.62, ends, label=f"{kind} tokens", **fill)
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    for height, task in enumerate(tasks):
        summary = study.unpruned[task].cell.summary
        counts = (summary.tokens.final, summary.tokens.text, summary.tokens.new)
        text = " + ".join(f"{count or 0:.0f}" for count in counts) + f" tokens, {size(summary.kv_bytes)}"
        axes.annotate(text, (0, height - 0.36), (2, 0), textcoords="offset points", va="bottom", fontsize=8)
    axes.set_yticks(heights, tasks)
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


def _draw_bytes(axes: Axes, study: ModelResults, tasks: Sequence[str]) -> None:
    styles = styles_of(study)
    shares = []
    for method in study.compared:
        ratios = sorted({ratio for by_ratio in method.points.values() for ratio in by_ratio if ratio is not None})
        line = [(ratio, left) for ratio in ratios if (left := kv_left(study, method, tasks, ratio)) is not None]
        if line:
            axes.plot(*zip(*line, strict=True), label=label_of(method), **styles[method.label].line)
            shares += [ratio for ratio, _ in line]
    share_axis(axes, shares, "ratio that was set")
    axes.set_ylim(bottom=0)
    label_axes(axes, "KV cache that is left", "KV bytes ÷ unpruned, %")


def kv_left(study: ModelResults, method: Method, tasks: Sequence[str], ratio: float | None) -> float | None:
    """KV bytes of a method in percent of the unpruned ones, averaged over tasks; None unless all are known."""
    shares = []
    for task in tasks:
        point, unpruned = method.at(task, ratio), study.unpruned[task].cell.summary.kv_bytes
        if point is None or point.cell.summary.kv_bytes is None or not unpruned:
            return None
        shares.append(100 * point.cell.summary.kv_bytes / unpruned)
    return sum(shares) / len(shares)
