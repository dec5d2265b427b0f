"""Train the bundled demo model from nothing: ``python -m fopru_graph.demo.train --out DIR``.

Four stages, each saved in the work folder; an interrupted training continues with the stage that was not finished:

1. ``language``: the language model learns to answer from *symbolic* visual tokens, each the sum of the word embeddings
   of a patch's labels. It learns binding ("which colour has the triangle") without the cost of the vision tower. A
   training-only head asks every token of the question for the answer: the word "triangle" can find its patches in one
   step of attention, and the answer's position can copy from it. Without this head binding is learned much later.
2. ``tower``: the vision tower learns to see. Every patch learns its labels, and a global read-out from a few random
   tokens must name everything in the picture. The read-out gathers attention on the objects, as CLIP's contrastive
   objective does; without it attention settles on the background and no attention-based pruner can work.
3. ``align``: the projector learns to map tower features onto the symbolic tokens (LLaVA's stage 1).
4. ``joint``: all parts together learn from questions about rendered pictures (LLaVA's stage 2).

No visual token is ever dropped in training: the pruning methods are training-free and must stay so here.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from fopru_graph.demo import architecture
from fopru_graph.demo.architecture import GRID
from fopru_graph.demo.batches import IGNORED, Batch, Packer, accuracy_by_kind
from fopru_graph.demo.objectives import STAGES, Heads, Symbols, presence_loss

VALIDATION_SCENES = 192


class Trainer:
    """The model, its training-only modules, and one method per stage."""

    def __init__(self, folder: Path, compiled: bool) -> None:
        self.folder, self.compiled = folder, compiled
        folder.mkdir(parents=True, exist_ok=True)
        self.model = architecture.build_model()
        self.tokenizer = architecture.build_tokenizer()
        self.symbols = Symbols(self.model.config.text_config.hidden_size, self.tokenizer)
        self.heads = Heads(self.model.config.vision_config.hidden_size)
        core = self.model.model
        self.parts = {
            "language": nn.ModuleDict({"lm": core.language_model, "symbols": self.symbols}),
            "tower": nn.ModuleDict({"tower": core.vision_tower, "heads": self.heads}),
            "align": nn.ModuleDict({"projector": core.multi_modal_projector}),
            "joint": nn.ModuleDict(
                {
                    "lm": core.language_model,
                    "tower": core.vision_tower,
                    "projector": core.multi_modal_projector,
                    "heads": self.heads,
                    "symbols": self.symbols,
                }
            ),
        }

    # -- forward pieces ------------------------------------------------------------------------------------------

    def _maybe_compile(self, function: Callable) -> Callable:
        return torch.compile(function, dynamic=False) if self.compiled else function

    def _see(self, pixels: torch.Tensor, last: bool = False) -> tuple[torch.Tensor, ...]:
        """Features (B, 1 + N, D) of the layer that the projector reads and, if ``last``, also of the last layer."""
        with torch.autocast("cpu", torch.bfloat16):
            states = self.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        return (states[-2], states[-1]) if last else (states[-2],)

    def _read(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model.model.language_model(
                inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state

    def _answer(
        self, read: Callable, packer: Packer, batch: Batch, visual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, with that of early answers, and the greedy choices (B, L), from visual tokens (B, N, D)."""
        words = self.model.get_input_embeddings()
        text = words(batch.input_ids)
        start = len(packer.prefix)
        embeds = torch.cat([text[:, :start], visual.to(text.dtype), text[:, packer.prefix_length :]], 1)
        size = batch.input_ids.shape[0]
        mask = packer.attention_mask().expand(size, -1, -1, -1)
        hidden = read(embeds, mask, packer.position_ids().expand(size, -1))
        logits = (hidden[:, packer.prefix_length :].to(text.dtype) @ words.weight.T).float()
        targets = batch.targets[:, packer.prefix_length :]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        loss = loss + 0.5 * self.symbols.answers_in_questions(hidden, batch, packer.prefix_length)
        choices = F.pad(logits.argmax(-1), (packer.prefix_length, 0), value=IGNORED)
        return loss, choices

    # -- stages --------------------------------------------------------------------------------------------------

    def language(self, steps: int, size: int) -> None:
        """Stage 1: answer from symbolic tokens, first on an 8 × 8 grid with few shapes, then on the full grid."""
        words = self.model.get_input_embeddings()
        small, full = Packer(self.tokenizer, GRID // 2), Packer(self.tokenizer, GRID)
        reads = {packer: self._maybe_compile(self._read) for packer in (small, full)}

        def visual(batch: Batch, noise: float) -> torch.Tensor:
            tokens = self.symbols(batch, words.weight)
            return tokens + noise * tokens.detach().std() * torch.randn_like(tokens)

        def step(i: int) -> dict[str, torch.Tensor]:
            packer = small if i < 0.5 * steps else full
            batch = packer.batch("train", i * size, size, pixels=False, most_shapes=3 if i < 0.2 * steps else 6)
            loss, _ = self._answer(reads[packer], packer, batch, visual(batch, noise=0.3 * max(0.0, 2 * i / steps - 1)))
            return {"answer": loss}

        def validate(i: int) -> dict[str, float]:
            packer = small if i < 0.5 * steps else full
            return self._validate(
                packer, size, False, lambda b: self._answer(reads[packer], packer, b, visual(b, 0.0))[1]
            )

        self._run("language", steps, 1e-3, step, validate)

    def tower(self, steps: int, size: int) -> None:
        """Stage 2: dense labels and the global read-out; the last layer's CLS reads out as well, as in CLIP."""
        packer = Packer(self.tokenizer, GRID, per_scene=1)
        see = self._maybe_compile(lambda pixels: self._see(pixels, last=True))

        def step(i: int) -> dict[str, torch.Tensor]:
            batch = packer.batch("train", 10**7 + i * size, size, pixels=True, sign_share=0.8)
            features, last = see(batch.pixels)
            dense, read_out = self.heads.losses(features.float(), batch)
            final = presence_loss(self.heads.last_read_out(last[:, :1].float()), batch)
            return {"dense": dense, "read_out": read_out, "last": 0.3 * final}

        def validate(i: int) -> dict[str, float]:
            batch = packer.batch("validation", 0, size, pixels=True)
            x = self.heads.norm(see(batch.pixels)[0].float())[:, 1:]
            scores = {}
            for name, head in self.heads.dense.items():
                labelled = batch.labels[name] > 0
                scores[name] = (head(x).argmax(-1) == batch.labels[name])[labelled].float().mean().item()
            return scores

        self._run("tower", steps, 1.5e-3, step, validate)

    def align(self, steps: int, size: int) -> None:
        """Stage 3: the projector alone learns the symbolic tokens."""
        packer = Packer(self.tokenizer, GRID, per_scene=1)
        words = self.model.get_input_embeddings()
        projector = self.model.model.multi_modal_projector
        # Symbolic tokens are about 0.05 in size and the tower's features about 6: with the usual initialisation the
        # first outputs are so far off that every hidden unit dies.
        nn.init.normal_(projector.linear_1.weight, std=0.012)
        nn.init.normal_(projector.linear_2.weight, std=0.003)
        see = self._maybe_compile(lambda pixels: self._see(pixels)[0])

        def step(i: int) -> dict[str, torch.Tensor]:
            batch = packer.batch("train", 2 * 10**7 + i * size, size, pixels=True)
            with torch.no_grad():
                features = see(batch.pixels).float()
                target = self.symbols(batch, words.weight)
            return {"align": _alignment(projector(features[:, 1:]), target, batch)}

        self._run("align", steps, 2e-3, step, None)

    def joint(self, steps: int, size: int) -> None:
        """Stage 4: questions about rendered pictures; the objectives of the tower continue at low weight."""
        packer = Packer(self.tokenizer, GRID)
        words = self.model.get_input_embeddings()
        projector = self.model.model.multi_modal_projector
        see = self._maybe_compile(lambda pixels: self._see(pixels)[0])
        read = self._maybe_compile(self._read)

        def step(i: int) -> dict[str, torch.Tensor]:
            batch = packer.batch("train", 3 * 10**7 + i * size, size, pixels=True, sign_share=0.6)
            features = see(batch.pixels).float()
            visual = projector(features[:, 1:])
            loss, _ = self._answer(read, packer, batch, visual)
            dense, read_out = self.heads.losses(features, batch)
            with torch.no_grad():
                target = self.symbols(batch, words.weight)
            align = _alignment(visual, target, batch)
            fade = max(0.0, 1 - 2 * i / steps)
            return {"answer": loss, "dense": 0.3 * dense, "read_out": 0.1 * read_out, "align": 0.5 * fade * align}

        def validate(i: int) -> dict[str, float]:
            return self._validate(
                packer,
                size,
                True,
                lambda b: self._answer(read, packer, b, projector(see(b.pixels).float()[:, 1:]))[1],
            )

        self._run("joint", steps, 6e-4, step, validate)

    # -- the loop ------------------------------------------------------------------------------------------------

    def _validate(
        self, packer: Packer, size: int, pixels: bool, choose: Callable[[Batch], torch.Tensor]
    ) -> dict[str, float]:
        tally: dict[str, list[bool]] = {}
        for first in range(0, VALIDATION_SCENES, size):
            batch = packer.batch("validation", first, size, pixels=pixels)
            for kind, flags in accuracy_by_kind(choose(batch), batch, packer.prefix_length).items():
                tally.setdefault(kind, []).extend(flags)
        scores = {kind: sum(flags) / len(flags) for kind, flags in sorted(tally.items())}
        return scores | {"mean": sum(scores.values()) / len(scores)}

    def _run(self, stage: str, steps: int, rate: float, step: Callable, validate: Callable | None) -> None:
        """The loop of all stages: AdamW, warm-up and cosine, clipping; log rows, validation and checkpoints."""
        optimiser, parameters = self._optimiser(stage, rate)
        start, recent = time.time(), []
        for i in range(steps):
            warm, cosine = min(1.0, (i + 1) / 100), 0.5 * (1 + math.cos(math.pi * i / steps))
            for group in optimiser.param_groups:
                group["lr"] = rate * warm * (0.02 + 0.98 * cosine)
            losses = step(i)
            optimiser.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            recent.append({name: value.item() for name, value in losses.items()})
            last = i + 1 == steps
            if (i + 1) % 100 == 0 or last:
                row = {"stage": stage, "step": i + 1, "minutes": round((time.time() - start) / 60, 2)}
                row |= {
                    name: round(sum(step_losses[name] for step_losses in recent) / len(recent), 4) for name in losses
                }
                if validate is not None and ((i + 1) % 200 == 0 or last):
                    with torch.no_grad():
                        row["validation"] = {kind: round(share, 4) for kind, share in validate(i).items()}
                    self._save(stage)
                self._log(stage, row)
                recent = []
        self._save(stage)
        (self.folder / f"{stage}.done").touch()

    def _optimiser(self, stage: str, rate: float) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
        """AdamW over the stage's parameters; all others are frozen."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        parameters = [parameter.requires_grad_(True) for parameter in self.parts[stage].parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parts[stage].train()
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True), parameters

    def _log(self, stage: str, row: dict) -> None:
        print(json.dumps(row), flush=True)
        with (self.folder / f"{stage}.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps(row), file=log)

    def _save(self, stage: str) -> None:
        state = {name: tensor.contiguous() for name, tensor in self.parts[stage].state_dict().items()}
        save_file(state, self.folder / f"{stage}.safetensors")

    def load(self, stage: str) -> None:
        """Load a stage's weights from the work folder."""
        self.parts[stage].load_state_dict(load_file(self.folder / f"{stage}.safetensors"))


def _alignment(visual: torch.Tensor, target: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Squared error of projected tokens (B, N, D) against the symbolic ones, relative to their variance.

    Patches of objects count most.
    """
    error = (visual - target).square().mean(-1) / target.var()
    return (error * (0.2 + ~batch.empty)).mean()


def main() -> None:
    """Run the stages that the command line names and that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-training"), help="checkpoints and logs")
    parser.add_argument(
        "--out", type=Path, help="when all stages are done, export the model and its card to this folder"
    )
    parser.add_argument("--scenes", type=int, default=300, help="test scenes for the model card")
    parser.add_argument("--stage", default="all", help=f"all, or some of {','.join(STAGES)}")
    parser.add_argument("--steps", default="1800,4000,600,3500", help="steps of the four stages")
    parser.add_argument("--size", type=int, default=16, help="scenes per step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true", help="where torch.compile has no C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    trainer = Trainer(options.work, compiled=not options.no_compile)
    steps = dict(zip(STAGES, map(int, options.steps.split(",")), strict=True))
    for stage in STAGES:
        if (options.work / f"{stage}.done").exists():
            trainer.load(stage)
    for stage in STAGES if options.stage == "all" else options.stage.split(","):
        if not (options.work / f"{stage}.done").exists():
            getattr(trainer, stage)(steps[stage], options.size)
    if options.out is not None:
        from fopru_graph.demo.export import export, write_card

        export(options.work, options.out)
        write_card(options.work, options.out, options.scenes)


if __name__ == "__main__":
    main()
