"""Export a finished training to the shipped folder: ``python -m fopru_graph.demo.export --work demo-training``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from fopru_graph.demo import architecture
from fopru_graph.demo.evaluate import evaluate
from fopru_graph.demo.objectives import STAGES
from fopru_graph.demo.questions import KINDS
from fopru_graph.lvlm.loading.load import load_model

OUT = Path(__file__).resolve().parent / "model"


def export(work: Path, out: Path) -> None:
    """Write the model after stage ``joint``: bfloat16 weights, configuration, tokenizer, processor, chat template."""
    model = architecture.build_model()
    state = load_file(work / "joint.safetensors")
    parts = {
        "lm": model.model.language_model,
        "tower": model.model.vision_tower,
        "projector": model.model.multi_modal_projector,
    }
    for name, module in parts.items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    model.tie_weights()
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    model.to(torch.bfloat16).save_pretrained(out)
    architecture.build_processor().save_pretrained(out)


def write_card(work: Path, out: Path, scenes: int) -> None:
    """Evaluate the exported model on the test split and write its model card and training log."""
    rows = evaluate(load_model(str(out), device="cpu", dtype="float32").family, "test", scenes)
    log = [line for stage in STAGES for line in (work / f"{stage}.jsonl").read_text().splitlines()]
    (out / "training-log.jsonl").write_text("\n".join(log) + "\n", encoding="utf-8")
    (out / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(rows, log, scenes), encoding="utf-8")


def _card(rows: dict[str, dict], log: list[str], scenes: int) -> str:
    columns = ["tokens kept", *KINDS, "all", "object patches kept"]
    return _TEXT.format(
        stages="\n".join(map(_stage_row, _runs(log))),
        head="| " + " | ".join(columns) + " |\n|" + "---|" * len(columns),
        table="\n".join(_method_row(name, row) for name, row in rows.items()),
        scenes=scenes,
        questions=rows["all tokens"]["questions"],
    )


def _stage_row(run: list[dict]) -> str:
    last = run[-1]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in last.get("validation", {}).items())
    return f"| {last['stage']} | {last['step']} | {last['minutes']:.0f} | {shares} |"


def _method_row(name: str, row: dict) -> str:
    kept = f"{row['object_patches_kept']:.0%}" if "object_patches_kept" in row else ""
    return f"| {name} | " + " | ".join(f"{row[kind]:.1%}" for kind in [*KINDS, "all"]) + f" | {kept} |"


def _runs(log: list[str]) -> list[list[dict]]:
    """The log's rows by uninterrupted run of a stage, in which steps count up."""
    runs: list[list[dict]] = []
    for row in map(json.loads, log):
        if runs and runs[-1][-1]["stage"] == row["stage"] and runs[-1][-1]["step"] < row["step"]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


_TEXT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# The fopru-graph demo model

A small LLaVA, trained from nothing on synthetic scenes, so that every pipeline of fopru-graph can be run, seen and
tested without a network. It knows six shapes, eight colours and twenty-four words and nothing else: it is no general
model, and figures on it say nothing about larger ones.

* Architecture: stock `LlavaForConditionalGeneration`. CLIP tower 6 × 192 on 16 × 16 patches of 14 pixels (features
  of layer −2, as LLaVA-1.5), two-layer MLP projector, Llama 6 × 256 with 4 heads and 2 key-value heads. 7.1 M
  parameters, bfloat16.
* Training data: scenes drawn on the fly by `fopru_graph/demo/scenes.py`; train, validation and test use disjoint
  streams.
* Training: `python -m fopru_graph.demo.train --out DIR` trains and exports; four stages, described in the script. No
  visual token is ever dropped in training: the pruning methods are training-free and stay so.

| stage | steps | minutes, one or two CPU cores | last validation |
|---|---|---|---|
{stages}

A stage with several rows was interrupted, the objectives in the script were improved, and training went on from the
weights it had. The script as it stands has all of these objectives from the first step on; in that form it has been run
end to end with a few steps only (a test does that), not yet at full length. `training-log.jsonl` is the full log.

## Accuracy on the test split

{questions} questions about {scenes} unseen scenes; the whole answer must be right; weights as shipped, computed in
float32. FastV drops from layer 3 on (of 6). Nothing was tuned towards these figures.

{head}
{table}

`python -m fopru_graph.demo.evaluate` repeats the table.
"""


def main() -> None:
    """Export, evaluate, and write the model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--scenes", type=int, default=300)
    options = parser.parse_args()
    export(options.work, options.out)
    write_card(options.work, options.out, options.scenes)


if __name__ == "__main__":
    main()
