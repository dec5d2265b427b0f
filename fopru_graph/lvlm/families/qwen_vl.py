"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, 2 × 2 patches a visual token, positions on three axes.

Kept tokens keep their positions in time, height and width of the whole prompt. The model merges frames of a video in
pairs, and a pair is a tile. Qwen2.5-VL spaces pairs by the video's frame rate, Qwen3-VL writes their times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.families.merging import Grid, MergingFamily, Prepared
from fopru_graph.lvlm.families.modules import count_weights
from fopru_graph.lvlm.families.patch_embedding import fast_patches
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.values import ModelSizes, TileAttention, Video

MAX_ASPECT = 200  # the stock preprocessing refuses pictures whose sides differ more


@register_family(
    "qwen2_vl",
    checkpoints=("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
    tokens="4 to 16384, one for 28 × 28 pixels; as many a pair of video frames",
    video=True,
    note="tokens that are left keep their positions in time, height and width",
)
class Qwen2VL(MergingFamily):
    """`Qwen2VLForConditionalGeneration`, e.g. ``Qwen/Qwen2-VL-2B-Instruct``."""

    auto_class = "Qwen2VLForConditionalGeneration"
    tower_path = "model.visual"
    projector_path = "model.visual.merger"
    tower_layers_path = "blocks"
    attention_name = "attn"
    layerwise_texts = frozenset({"qwen2_vl_text", "qwen2_5_vl_text"})

    @property
    def tower_width(self) -> int:
        """See `Family.tower_width`; configurations differ in its name."""
        return int(self.tower_layers[0].attn.dim)

    @property
    def merge_side(self) -> int:
        return int(self.tower.config.spatial_merge_size)

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`; besides its layers the tower also holds the projector."""
        return replace(super().model_sizes(), patch_weights=count_weights(self.tower.patch_embed))

    @cached_property
    def video_placeholder(self) -> str:  # type: ignore[override]
        return str(self.processor.tokenizer.decode([self.model.config.video_token_id]))

    def patch_groups(self, grid: Grid) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; patches come square by square, so those of a token follow one another."""
        return torch.arange(grid[0] * grid[1] * self.patches).view(-1, self.patches)

    def tower_faster(self) -> AbstractContextManager[None]:
        """See `MergingFamily.tower_faster`: the patches come cut, and are embedded together."""
        return fast_patches(self.tower.patch_embed.proj)

    def attentions(self, calls: Sequence[Attention], grids: Sequence[Grid]) -> list[TileAttention]:
        """See `MergingFamily.attentions`: one call of (1, H, M, d) per tile, whatever the kernel."""
        return [
            TileAttention(call.query[0], call.key[0], call.scale, 0, groups)
            for call, groups in zip(calls, self.patch_groups_of(grids, calls[0].query.device), strict=True)
        ]

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `Family.picture_tokens`."""
        return int(self.processor.image_processor.get_number_of_image_patches(*size, {})) // self.patches

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        for picture in pictures:
            _check_shape(picture)
        batch = self.processor.image_processor(pictures, return_tensors="pt")
        inputs = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
        counts = (batch["image_grid_thw"].prod(1) // self.patches).tolist()
        return self._prepared(inputs, [self.placeholder * count for count in counts])

    def prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> Prepared:
        """See `MergingFamily.prepared`."""
        return self._prepared({name: inputs[name] for name in ("pixel_values", "image_grid_thw")}, [])

    def prepare_videos(self, videos: list[Video]) -> Prepared:
        pixels, grids, markup = [], [], []
        for video in videos:
            frames = list(video.frames)
            _check_shape(frames[0])
            batch = self._frames(frames)
            _, high, wide = batch["image_grid_thw"][0].tolist()
            pairs = self._paired(batch["pixel_values"].view(len(frames), high * wide, -1))
            pixels.append(pairs.flatten(0, 1))
            grids.append([len(pairs), high, wide])
            markup.append(self._video_markup(video, len(pairs), high * wide // self.patches))
        return self._prepared({"pixel_values_videos": torch.cat(pixels), "video_grid_thw": torch.tensor(grids)}, markup)

    def _prepared(self, inputs: dict[str, torch.Tensor], markup: list[str]) -> Prepared:
        """``inputs`` are patches (ΣM, C·T·p·p) and the images' grids (frames, h, w) of patches, in this order."""
        patches, thw = inputs.values()
        grids = [(high, wide) for frames, high, wide in thw.tolist() for _ in range(frames)]
        tiles = zip(patches.split([high * wide for high, wide in grids]), grids, strict=True)
        pixels = [self._tile_pixels(tile_patches, *grid) for tile_patches, grid in tiles]
        return Prepared(inputs, pixels, thw[:, 0].tolist(), markup)

    def _tile_pixels(self, patches: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        """The picture (C, H, W) that a tile's patches (high·wide, C·T·p·p) were cut from; of frames the first."""
        config, merge = self.tower.config, self.merge_side
        patch = config.patch_size
        squares = patches.view(high // merge, wide // merge, merge, merge, config.in_channels, -1, patch, patch)
        return squares[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(-1, high * patch, wide * patch)

    def _frames(self, frames: list[PIL.Image.Image]) -> Any:
        """Frames preprocessed as pictures, in the size for videos."""
        return self.processor.image_processor(frames, size=self._video_size(), return_tensors="pt")

    def _video_size(self) -> dict[str, int]:
        """Least and most pixels of a video; without a video size in the checkpoint, those of a picture."""
        video_processor = getattr(self.processor, "video_processor", None)
        size = video_processor.size if video_processor is not None else getattr(self.processor, "video_size", None)
        size = size or self.processor.image_processor.size
        return {edge: size[edge] for edge in ("shortest_edge", "longest_edge")}

    def _paired(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (F, M, C·T·p·p), each preprocessed as T equal frames, to (⌈F/T⌉, M, C·T·p·p) of T frames each.

        The last frame is repeated to fill its group.
        """
        config = self.tower.config
        group = config.temporal_patch_size  # T, 2 in all checkpoints
        frames = torch.cat([frames, frames[-1:].expand(-len(frames) % group, -1, -1)])
        apart = frames.view(-1, group, frames.shape[1], config.in_channels, group, config.patch_size**2)
        return torch.stack([apart[:, t, :, :, t] for t in range(group)], 3).flatten(2)

    def _video_markup(self, video: Video, pairs: int, count: int) -> str:
        """The markup of a video with ``count`` visual tokens per pair of frames."""
        return self.placeholder * (pairs * count)

    def positions(
        self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]], frame_rates: Sequence[float] = ()
    ) -> torch.Tensor:
        """See `Family.positions`: (3, L). A video of one pair of frames has the positions of a picture."""
        is_video = any(frames > 1 for frames, _, _ in grids)
        kind, token_type = ("video", 2) if is_video else ("image", 1)
        input_ids, side = torch.tensor([list(ids)]), self.merge_side
        thw = [(frames, high * side, wide * side) for frames, high, wide in grids]
        batched, _ = self.model.model.get_rope_index(
            input_ids=input_ids,
            mm_token_type_ids=(input_ids == self.image_token_id).int() * token_type,
            **{f"{kind}_grid_thw": torch.tensor(thw).view(-1, 3)},
            **(self._timing(frame_rates) if is_video else {}),
        )
        positions: torch.Tensor = batched[:, 0]
        return positions

    def _timing(self, frame_rates: Sequence[float]) -> dict[str, Any]:
        """Further inputs that the positions of videos of these frames a second depend on."""
        return {}


@register_family(
    "qwen2_5_vl",
    checkpoints=("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
    tokens="4 to 16384, one for 28 × 28 pixels; as many a pair of video frames",
    video=True,
    note="scores come from the last tower layer that sees all; frames are spaced by their rate, else 24 a second",
)
class Qwen25VL(Qwen2VL):
    """`Qwen2_5_VLForConditionalGeneration`, e.g. ``Qwen/Qwen2.5-VL-3B-Instruct``.

    Most tower layers attend within windows, so scores come from the last layer that sees the whole picture.
    """

    auto_class = "Qwen2_5_VLForConditionalGeneration"

    @property
    def scored_layer(self) -> int:
        return max(self.whole_layers)

    @property
    def whole_layers(self) -> list[int]:
        """See `Family.whole_layers`.

        Raises:
            UserError: there is none.
        """
        whole = [index for index in self.tower.fullatt_block_indexes if 0 <= index < len(self.tower_layers)]
        if not whole:
            raise UserError(
                "no layer of the vision tower sees the whole picture; nothing can be ranked by its attention",
                "name one in fullatt_block_indexes in the checkpoint's config.json",
            )
        return whole

    def patch_groups(self, grid: Grid) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; inside the tower squares of patches are ordered window by window."""
        config, (high, wide) = self.tower.config, grid
        window = config.window_size // config.patch_size // self.merge_side  # visual tokens along a side
        row, column = torch.arange(high)[:, None] // window, torch.arange(wide) // window
        order = (row * wide + column).flatten().argsort(stable=True)
        return super().patch_groups(grid)[order.argsort()]

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`; all layers but those of ``fullatt_block_indexes`` have windows."""
        config = self.tower.config
        windowed = len(self.tower_layers) - len(set(self.whole_layers))
        window = (config.window_size // config.patch_size) ** 2
        return replace(super().model_sizes(), windowed_layers=windowed, window=window)

    def _timing(self, frame_rates: Sequence[float]) -> dict[str, Any]:
        return {"second_per_grid_ts": [self.tower.config.temporal_patch_size / rate for rate in frame_rates]}


@register_family(
    "qwen3_vl",
    checkpoints=("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"),
    tokens="64 to 16384, one for 32 × 32 pixels; up to 12288 a video",
    video=True,
    first_cut="3, the number of DeepStack layers",
    note="no cut before the last DeepStack layer; pairs of frames follow their time, without it 24 a second",
)
class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`, e.g. ``Qwen/Qwen3-VL-2B-Instruct``.

    Features of some tower layers are added to the visual tokens after the first decoder layers (DeepStack). In the
    prompt each pair of frames follows its time.
    """

    auto_class = "Qwen3VLForConditionalGeneration"
    layerwise_texts = frozenset({"qwen3_vl_text"})

    @property
    def projector(self) -> Any:
        """See `Family.projector`; every DeepStack layer has its projector."""
        return torch.nn.ModuleList([self.tower.merger, *self.tower.deepstack_merger_list])

    def deepstack(self, output: Any, grids: Sequence[Grid]) -> list[tuple[torch.Tensor, ...]]:
        counts = [high * wide for high, wide in grids]
        layers = [torch.cat(list(layer)).split(counts) for layer in output.deepstack_features]
        return [tuple(layer[tile] for layer in layers) for tile in range(len(counts))]

    @property
    def first_cut(self) -> int:
        """See `Family.first_cut`: all visual tokens are needed until the last DeepStack features are added."""
        return max(1, len(self.tower.deepstack_merger_list))

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        if not prompt.deepstack:
            return {}
        return {"visual_pos_masks": prompt.visual, "deepstack_visual_embeds": list(prompt.deepstack)}

    def after_layer(self, layer: int, hidden: torch.Tensor, prompt: Any) -> torch.Tensor:
        """See `Layerwise.after_layer`: DeepStack's features are added to the visual tokens."""
        if layer >= len(prompt.deepstack):
            return hidden
        rows = self.to_device((prompt.embedding_index >= 0).flatten().nonzero()[:, 0])
        states = hidden.flatten(0, 1)
        return states.index_copy(0, rows, states[rows] + prompt.deepstack[layer]).view_as(hidden)

    def _frames(self, frames: list[PIL.Image.Image]) -> Any:
        """See `Qwen2VL._frames`; the size is a budget for all frames together, which must be two at least."""
        from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

        group, processor = self.tower.config.temporal_patch_size, self.processor.image_processor
        if len(frames) < group:
            raise UserError(
                f"{self.model_type} takes videos of at least {group} frames, not {len(frames)}",
                "take more frames, or give the frame as a picture",
            )
        size = self._video_size()
        high, wide = smart_resize(
            len(frames),
            frames[0].height,
            frames[0].width,
            temporal_factor=group,
            factor=processor.patch_size * processor.merge_size,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        resized = [frame.resize((wide, high), processor.resample) for frame in frames]
        return processor(resized, do_resize=False, return_tensors="pt")

    def _video_markup(self, video: Video, pairs: int, count: int) -> str:
        """See `Qwen2VL._video_markup`: a pair's time is the mean of its first and last frame's."""
        begin, end = (
            self.processor.tokenizer.decode([token])
            for token in (self.model.config.vision_start_token_id, self.model.config.vision_end_token_id)
        )
        group, shown = self.tower.config.temporal_patch_size, video.frame_times
        ends = [(pair * group, min((pair + 1) * group, len(shown)) - 1) for pair in range(pairs)]
        times = [(shown[first] + shown[last]) / 2 for first, last in ends]
        return "".join(f"<{time:.1f} seconds>{begin}{self.placeholder * count}{end}" for time in times)


def _check_shape(picture: PIL.Image.Image) -> None:
    """Refuse what the stock preprocessing refuses.

    Raises:
        UserError: the picture is too oblong.
    """
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        raise UserError(
            f"a picture of {picture.width} × {picture.height} pixels is too oblong for this model",
            f"one side may be at most {MAX_ASPECT} times the other; crop it, or cut it into several",
        )
