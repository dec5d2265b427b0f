"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, 2 × 2 patches a visual token, positions on three axes.

Positions in time, height and width are those of the whole prompt; tokens that are left keep theirs. Frames of a video
are merged in pairs by the model; such a pair is a tile. Nobody tells a video's frame rate here, so the one that
transformers takes in this case is taken, 24 frames a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import matrices
from fopru_graph.lvlm.families.merging import MergingFamily, Prepared
from fopru_graph.values import ModelSizes, TileAttention

FPS = 24.0
MOST_OBLONG = 200  # the stock preprocessing refuses pictures whose sides differ more


class Qwen2VL(MergingFamily):
    """`Qwen2VLForConditionalGeneration`, e.g. ``Qwen/Qwen2-VL-2B-Instruct``."""

    model_types = ("qwen2_vl",)
    auto_class = "Qwen2VLForConditionalGeneration"
    attention_name = "attn"

    @property
    def tower(self) -> Any:
        """See `Family.tower`."""
        return self.model.model.visual

    @property
    def tower_layers(self) -> Any:
        """See `Family.tower_layers`."""
        return self.tower.blocks

    @property
    def tower_width(self) -> int:
        """See `Family.tower_width`; configurations differ in its name."""
        return int(self.tower_layers[0].attn.dim)

    @property
    def projector(self) -> Any:
        """See `Family.projector`; it is a part of the tower."""
        return self.tower.merger

    @property
    def _merge(self) -> int:
        """Patches along a side of a visual token."""
        return int(self.tower.config.spatial_merge_size)

    @cached_property
    def patches(self) -> int:  # type: ignore[override]
        """Patches merged into one visual token."""
        return self._merge**2

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`; what is in the tower besides its layers is not all for patches."""
        return replace(super().model_sizes(), patch_weights=matrices(self.tower.patch_embed))

    @cached_property
    def video_placeholder(self) -> str:  # type: ignore[override]
        """See `Family.video_placeholder`."""
        return str(self.processor.tokenizer.decode([self.model.config.video_token_id]))

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; patches come square by square, so those of a token follow one another."""
        return torch.arange(grid[0] * grid[1] * self.patches).view(-1, self.patches)

    def attentions(
        self, noted: Sequence[tuple[torch.Tensor, torch.Tensor, float]], prepared: Prepared
    ) -> list[TileAttention]:
        """See `MergingFamily.attentions`: one call of (1, H, M, d) a tile, whatever the kernel."""
        return [
            TileAttention(query[0], key[0], scale, 0, self.patch_groups(grid).to(query.device))
            for (query, key, scale), grid in zip(noted, prepared.grids, strict=True)
        ]

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`."""
        for picture in pictures:
            _check_shape(picture)
        batch = self.processor.image_processor(pictures, return_tensors="pt")
        inputs = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
        counts = (batch["image_grid_thw"].prod(1) // self.patches).tolist()
        return self._prepared(inputs, [self.placeholder * count for count in counts])

    def prepare_videos(self, videos: list[list[PIL.Image.Image]]) -> Prepared:
        """See `MergingFamily.prepare_videos`."""
        pixels, grids, markup = [], [], []
        for frames in videos:
            _check_shape(frames[0])
            batch = self._frames(frames)
            _, high, wide = batch["image_grid_thw"][0].tolist()
            merged = self._paired(batch["pixel_values"].view(len(frames), high * wide, -1))
            pixels.append(merged.flatten(0, 1))
            grids.append([len(merged), high, wide])
            markup.append(self._film(len(frames), len(merged), high * wide // self.patches))
        return self._prepared({"pixel_values_videos": torch.cat(pixels), "video_grid_thw": torch.tensor(grids)}, markup)

    def _prepared(self, inputs: dict[str, torch.Tensor], markup: list[str]) -> Prepared:
        """Patches (ΣN, C·T·p·p) and grids (images, 3) of patches, in this order, ready for the model."""
        patches, thw = inputs.values()
        tiles = [(image, high, wide) for image, (frames, high, wide) in enumerate(thw.tolist()) for _ in range(frames)]
        own = patches.split([high * wide for _, high, wide in tiles])
        return Prepared(
            inputs=inputs,
            grids=tuple((high // self._merge, wide // self._merge) for _, high, wide in tiles),
            owners=tuple(image for image, _, _ in tiles),
            pixels=tuple(self._seen(one, *tile[1:]) for one, tile in zip(own, tiles, strict=True)),
            markup=tuple(markup),
        )

    def _seen(self, patches: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        """The picture (C, H, W) that a tile's patches (high·wide, C·T·p·p) were cut from, or the first frame of it."""
        config, merge = self.tower.config, self._merge
        patch = config.patch_size
        squares = patches.view(high // merge, wide // merge, merge, merge, config.in_channels, -1, patch, patch)
        return squares[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(-1, high * patch, wide * patch)

    def _frames(self, frames: list[PIL.Image.Image]) -> Any:
        """Frames preprocessed as pictures in the size that a video is given."""
        return self.processor.image_processor(frames, size=self._video_size(), return_tensors="pt")

    def _video_size(self) -> dict[str, int]:
        """Least and most pixels of a video; a checkpoint that says nothing about videos treats frames as pictures."""
        stock = getattr(self.processor, "video_processor", None)
        size = stock.size if stock is not None else getattr(self.processor, "video_size", None)
        size = size or self.processor.image_processor.size
        return {edge: size[edge] for edge in ("shortest_edge", "longest_edge")}

    def _paired(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (F, N, C·T·p·p), each T times the same, as (⌈F/T⌉, N, C·T·p·p) of T frames; the last one repeats."""
        config = self.tower.config
        together = config.temporal_patch_size
        frames = torch.cat([frames, frames[-1:].expand(-len(frames) % together, -1, -1)])
        apart = frames.view(-1, together, frames.shape[1], config.in_channels, together, config.patch_size**2)
        return torch.stack([apart[:, t, :, :, t] for t in range(together)], 3).flatten(2)

    def _film(self, frames: int, pairs: int, count: int) -> str:
        """The markup of a video with ``count`` tokens a pair of frames."""
        return self.placeholder * (pairs * count)

    def positions(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """See `Family.positions`: (3, L). Only with more than one pair of frames is a video other than a picture."""
        film = any(frames > 1 for frames, _, _ in grids)
        kind, mark = ("video", 2) if film else ("image", 1)
        input_ids = torch.tensor([list(ids)])
        thw = [(frames, high * self._merge, wide * self._merge) for frames, high, wide in grids]
        found, _ = self.model.model.get_rope_index(
            input_ids=input_ids,
            mm_token_type_ids=(input_ids == self.image_token_id).int() * mark,
            **{f"{kind}_grid_thw": torch.tensor(thw).view(-1, 3)},
            **(self._timing(len(thw)) if film else {}),
        )
        positions: torch.Tensor = found[:, 0]
        return positions

    def _timing(self, videos: int) -> dict[str, Any]:
        """What the positions of so many videos depend on besides their grids."""
        return {}


class Qwen25VL(Qwen2VL):
    """`Qwen2_5_VLForConditionalGeneration`, e.g. ``Qwen/Qwen2.5-VL-3B-Instruct``.

    Most layers of its tower see windows, so scores come from the last that sees the whole picture.
    """

    model_types = ("qwen2_5_vl",)
    auto_class = "Qwen2_5_VLForConditionalGeneration"

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`."""
        whole = [index for index in self.tower.fullatt_block_indexes if 0 <= index < len(self.tower_layers)]
        if not whole:
            raise UserError(
                "no layer of the vision tower sees the whole picture; nothing can be ranked by its attention",
                "name one in fullatt_block_indexes in the checkpoint's config.json",
            )
        return max(whole)

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; inside the tower squares of patches lie window by window."""
        config, (high, wide) = self.tower.config, grid
        side = config.window_size // config.patch_size // self._merge
        row, column = torch.arange(high)[:, None] // side, torch.arange(wide) // side
        order = (row * wide + column).flatten().argsort(stable=True)
        return super().patch_groups(grid)[order.argsort()]

    def _timing(self, videos: int) -> dict[str, Any]:
        return {"second_per_grid_ts": [self.tower.config.temporal_patch_size / FPS] * videos}


class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`, e.g. ``Qwen/Qwen3-VL-2B-Instruct``.

    Features of some tower layers are added to the visual tokens after the first layers of the language model
    (DeepStack). A pair of frames stands by itself in the prompt, after its time.
    """

    model_types = ("qwen3_vl",)
    auto_class = "Qwen3VLForConditionalGeneration"

    @property
    def projector(self) -> Any:
        """See `Family.projector`; every DeepStack layer has its own."""
        return torch.nn.ModuleList([self.tower.merger, *self.tower.deepstack_merger_list])

    def deepstack(self, output: Any, prepared: Prepared) -> list[tuple[torch.Tensor, ...]]:
        """See `MergingFamily.deepstack`."""
        counts = [high * wide for high, wide in prepared.grids]
        layers = [torch.cat(list(layer)).split(counts) for layer in output.deepstack_features]
        return [tuple(layer[tile] for layer in layers) for tile in range(len(counts))]

    @property
    def first_cut(self) -> int:
        """See `Family.first_cut`: all visual tokens are needed as long as features are added to them."""
        return max(1, len(self.tower.deepstack_merger_list))

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """See `Family.prefill_inputs`."""
        if not prompt.deepstack:
            return {}
        return {"visual_pos_masks": prompt.visual, "deepstack_visual_embeds": list(prompt.deepstack)}

    def _frames(self, frames: list[PIL.Image.Image]) -> Any:
        """See `Qwen2VL._frames`; the size is a budget for all frames together, and two are the fewest."""
        from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

        together, processor = self.tower.config.temporal_patch_size, self.processor.image_processor
        if len(frames) < together:
            raise UserError(
                f"{self.model_types[0]} takes videos of at least {together} frames, not {len(frames)}",
                "take more frames, or give the frame as a picture",
            )
        size = self._video_size()
        high, wide = smart_resize(
            len(frames),
            frames[0].height,
            frames[0].width,
            temporal_factor=together,
            factor=processor.patch_size * processor.merge_size,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        resized = [frame.resize((wide, high), processor.resample) for frame in frames]
        return processor(resized, do_resize=False, return_tensors="pt")

    def _film(self, frames: int, pairs: int, count: int) -> str:
        """See `Qwen2VL._film`: a pair's time is the mean of its first and last frame's."""
        begin, end = (
            self.processor.tokenizer.decode([token])
            for token in (self.model.config.vision_start_token_id, self.model.config.vision_end_token_id)
        )
        together = self.tower.config.temporal_patch_size
        ends = [(pair * together, min((pair + 1) * together, frames) - 1) for pair in range(pairs)]
        times = [(first / FPS + last / FPS) / 2 for first, last in ends]
        return "".join(f"<{time:.1f} seconds>{begin}{self.placeholder * count}{end}" for time in times)


def _check_shape(picture: PIL.Image.Image) -> None:
    """Refuse what the stock preprocessing refuses."""
    if max(picture.size) > MOST_OBLONG * min(picture.size):
        raise UserError(
            f"a picture of {picture.width} × {picture.height} pixels is too oblong for this model",
            f"one side may be at most {MOST_OBLONG} times the other; crop it, or cut it into several",
        )
