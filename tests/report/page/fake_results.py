"""A results folder as `fopru-graph eval` would leave it, with invented but plausible figures, in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fopru_graph.results.statistics import interval

RATIOS = (0.0039, 0.0273, 0.0625, 0.11, 0.17, 0.25, 0.5, 0.75, 1.0)
ENCODED, TEXT, NEW = 256, 14, 2
SKILLS = {  # how much better than blind at a ratio, as a share of what the unpruned model is better by
    "fopru_rank": lambda r: r**0.12,
    "fopru_row": lambda r: r**0.22,
    "fopru_fastv": lambda r: r**0.15,
    "fastv": lambda r: r**0.35,
    "fopru_no_variance": lambda r: 0.9 * r**0.2,
    "fopru_no_reordering": lambda r: 0.95 * r**0.2,
    "spatial_pool": lambda r: r**0.25,
    "random": lambda r: r**0.28,
    "downsample": lambda r: r**0.14,
}
TYPES = {"scenes": ("colour", "counting", "reading"), "textvqa": ("all",)}
_UNPRUNED, _BLIND = 0.93, 0.42


def write_results(folder: Path, samples: int = 60, ratios: tuple[float, ...] = RATIOS, model: str = "demo") -> Path:
    """Cells of eleven methods on two tasks, one of them broken, some with error rows; returns the folder."""
    for task in TYPES:
        write_cell(folder, "baseline", task, 1.0, _UNPRUNED, ENCODED, samples, model, prunes=False)
        write_cell(folder, "blind", task, None, _BLIND, 0, samples, model)
        for pipeline, skill in SKILLS.items():
            for ratio in ratios:
                accuracy = _BLIND + (_UNPRUNED - _BLIND) * skill(ratio) if ratio < 1 else _UNPRUNED
                final = max(1, int(ENCODED * ratio))
                errors = 2 if (pipeline, ratio) == ("fastv", 0.25) else 0
                write_cell(folder, pipeline, task, ratio, accuracy, final, samples, model, errors, prunes=ratio < 1)
        write_cell(folder, "prumerge", task, None, 0.78, None, samples, model)
    write_cell(folder, "prumerge_plus", "textvqa", None, 0.0, 64, samples, model, errors=samples)
    broken = write_cell(folder, "fastv", "scenes", 0.3, 0.5, 77, samples, model)
    (broken / "results.jsonl").write_bytes((broken / "results.jsonl").read_bytes()[:-40])
    for pipeline in ("fopru_rank", "fopru_row"):
        write_pictures(folder / f"{pipeline}--scenes--r0.25")
    return folder


def write_cell(
    folder: Path,
    pipeline: str,
    task: str,
    ratio: float | None,
    accuracy: float,
    final: int | None,
    samples: int = 60,
    model: str = "demo",
    errors: int = 0,
    prunes: bool = True,
    settings: dict[str, Any] | None = None,
    **identity: Any,
) -> Path:
    """One cell; ``final`` tokens are left of every sample, or as many as its picture needs where it is None."""
    given = dict(settings or {})
    parts = [pipeline.replace("/", "_"), task, "as-written" if ratio is None else f"r{ratio:.6g}"]
    cell = folder / "--".join(parts + (["abcd1234"] if given else []))
    (cell / "shards").mkdir(parents=True)
    rng = np.random.default_rng(sum(map(ord, f"{task}{model}")))
    hard, busy = rng.random(samples), rng.random(samples)
    noise = np.random.default_rng(sum(map(ord, f"{pipeline}{ratio}" if prunes else ""))).normal(0, 0.04, samples)
    rows = []
    for i in range(samples):
        picture = f"{task}/{i // 4}"
        row: dict[str, Any] = {"index": i, "id": f"{picture}/{i % 4}"}
        if i < errors:
            row |= {"type": None, "picture": None, "status": "error", "answer": None, "score": None, "facts": {}}
            row |= {"error": "prune: out of memory"} | dict.fromkeys(("encoded", "kept", "final", "layer_average"))
            rows.append(row | dict.fromkeys(("text_tokens", "new_tokens", "kv_bytes")) | {"timing": {}})
            continue
        left = int(8 + 40 * busy[i]) if final is None else final
        encoded = final if pipeline == "downsample" and final else ENCODED
        score = float(hard[i] + noise[i] < accuracy)
        if task == "textvqa" and score:
            score = (0.3, 0.6, 0.9, 1.0, 1.0, 1.0)[i % 6]
        average = (left + encoded) / 2 if pipeline == "fastv" else left
        row |= {"type": TYPES.get(task, ("all",))[i % len(TYPES.get(task, ("all",)))], "picture": picture}
        row |= {"status": "ok", "answer": "red", "score": score, "facts": {}, "error": None}
        row |= {"encoded": encoded, "kept": encoded if pipeline == "fastv" else left, "final": left}
        row |= {"layer_average": average, "text_tokens": TEXT, "new_tokens": NEW}
        ms = 20 + 0.1 * (average if pipeline == "downsample" else ENCODED / 2 + average / 2)
        timing = {
            "ttft_ms": ms + 0.1 * noise[i] if i % 4 == 0 else None,
            "prefill_ms": ms / 2,
            "total_ms": ms,
            "rank": 0,
        }
        rows.append(row | {"kv_bytes": int(1024 * (average + TEXT + NEW)), "timing": timing})
    about = {"pipeline": pipeline, "task": task, "ratio": ratio, "model": model, "scorer": "exact@1", "prunes": prunes}
    about |= identity
    write_json(
        cell / "cell.json",
        about
        | {
            "format": identity.get("format", 1),
            "file": f"pipelines/{pipeline}.yaml",
            "graph": {"name": pipeline, "ratio": ratio},
            "settings": given | ({"prune.ratio": ratio} if ratio is not None and prunes else {}),
            "data": identity.get("data", {"source": "bundled", "fingerprint": "f" * 64}),
            "versions": {"fopru_graph": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.9"},
            "machine": {"device": "cpu", "device_name": "Test CPU", "dtype": "float32", "threads": 1},
            "command": ["fopru-graph", "eval", f"pipelines/{pipeline}.yaml", "--task", task, "--out", "my results"],
            "cwd": "",
            "started": "2026-11-24T12:00:00+00:00",
        },
    )
    (cell / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(cell / "summary.json", about | _summary(rows))
    return cell


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if row["status"] == "ok"]
    figures: dict[str, Any] = {"n": len(good), "errors": len(rows) - len(good), "accuracy": None, "ci": [None, None]}
    figures |= {"per_type": {}, "metrics": {}, "ttft_ms": None, "kv_bytes": None, "common_error": None}
    figures["tokens"] = dict.fromkeys(("encoded", "kept", "final", "layer_average", "text", "new"))
    if not good:
        return figures | {"common_error": {"message": "prune: out of memory", "count": len(rows)}}
    scores = [row["score"] for row in good]
    figures["accuracy"] = round(float(np.mean(scores)), 6)
    figures["ci"] = [round(end, 6) for end in interval(scores, [row["picture"] for row in good])]
    for name in sorted({row["type"] for row in good}):
        own = [row["score"] for row in good if row["type"] == name]
        figures["per_type"][name] = {"accuracy": round(float(np.mean(own)), 6), "n": len(own)}
    keys = ("encoded", "kept", "final", "layer_average", "text_tokens", "new_tokens")
    figures["tokens"] = {key.removesuffix("_tokens"): float(np.mean([row[key] for row in good])) for key in keys}
    figures["kv_bytes"] = float(np.mean([row["kv_bytes"] for row in good]))
    first = [row["timing"]["ttft_ms"] for row in good if row["timing"]["ttft_ms"] is not None]
    median, p90 = np.percentile(first, [50, 90])
    return figures | {"ttft_ms": {"median": float(median), "p90": float(p90), "n": len(first)}}


def write_pictures(cell: Path, count: int = 2, answer: str = "red") -> None:
    """Pictures of kept tokens as the runner leaves them, here plain noise."""
    (cell / "pictures").mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1600, 480), Image.Resampling.NEAREST).save(cell / "pictures" / f"{number}.png")
        about = {"source": f"scenes/{number}", "question": "what colour is the circle ?", "answer": answer}
        write_json(cell / "pictures" / f"{number}.json", about | {"encoded": 256, "kept": 64, "final": 64})


def write_attention(cell: Path, layers: int = 6) -> None:
    """Concentration of attention that grows from layer to layer."""
    tops = np.linspace(0, 1, 21)
    curves = [(tops ** (1 / (1 + 0.6 * layer))).round(5).tolist() for layer in range(layers)]
    grid = np.random.default_rng(0).random((16, 16))
    maps = {str(layer): (grid ** (1 + layer)).round(5).tolist() for layer in (0, layers // 2, layers - 1)}
    picture = {"source": "scenes/0", "grid": [16, 16], "curves": curves, "maps": maps}
    picture["tokens_for_80"] = [round(0.8 ** (1 + 0.6 * layer), 5) for layer in range(layers)]
    write_json(cell / "attention.json", {"model": "demo", "layers": layers, "read_layer": 4, "pictures": [picture]})


def write_json(path: Path, value: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value))
