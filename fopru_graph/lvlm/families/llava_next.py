"""LLaVA-1.6 (LLaVA-NeXT): one overview tile and a grid of tiles an image, unpadded, with a newline after every row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate.utils import align_module_device
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, image_size_to_num_patches

from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.inputs.resolution import shrunken
from fopru_graph.values import Image, Selection, VisionFeatures, VisualTokens

NEWLINE = -1


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`, e.g. ``llava-hf/llava-v1.6-vicuna-7b-hf``.

    A picture with a lower `Image.resolution` is made smaller before it is cut; the number of tiles follows from that,
    and the fewest are an overview and the smallest grid of the checkpoint.
    """

    model_types = ("llava_next",)
    auto_class = "LlavaNextForConditionalGeneration"

    def _preprocess(self, images: list[Image]) -> tuple[list[torch.Tensor], list[int], list[tuple[int, int]]]:
        images = [shrunken(image) for image in images]
        batch = self.processor.image_processor([image.picture for image in images], return_tensors="pt")
        counts = [self._tiles_of(image.shape) for image in images]
        pixels = [tile for tiles, count in zip(batch["pixel_values"], counts, strict=True) for tile in tiles[:count]]
        owners = [image for image, count in enumerate(counts) for _ in range(count)]
        return pixels, owners, [image.shape for image in images]

    def _places(self, owners: Sequence[int], sizes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, int] | None]:
        """See `Llava._places`: the overview comes first and has none, the others come row by row."""
        places: list[tuple[int, int] | None] = []
        for image, size in enumerate(sizes):
            tiles, config = list(owners).count(image), self.model.config
            places.append(None)
            if tiles > 1:
                side = config.vision_config.image_size
                _, wide = get_anyres_image_grid_shape(list(size), config.image_grid_pinpoints, side)
                places += [divmod(tile, wide) for tile in range(tiles - 1)]
        return places

    def _tiles_of(self, size: tuple[int, int]) -> int:
        config = self.model.config
        count: int = image_size_to_num_patches(
            image_size=list(size),
            grid_pinpoints=config.image_grid_pinpoints,
            patch_size=config.vision_config.image_size,
        )
        return count

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`. Kept tokens go where the model's own packing puts them, whatever order they come in.

        Patches that the packing removes as padding are dropped even if they were selected; the newline of a row stays
        as long as a patch of its row does. Both make the number of rows depend on the scores: the host waits for them.
        """
        chosen = self.chosen(features, selection)
        kept = torch.zeros(sum(features.counts), dtype=torch.bool)
        firsts = torch.tensor([0, *features.counts]).cumsum(0)
        for first, index in zip(firsts, chosen, strict=False):
            kept[first + index.cpu()] = True
        packed = self._packed(features)
        tiles = [tile.image for tile in features.tiles]
        overviews = [features.counts[0] if tiles.count(image) > 1 else 0 for image in range(len(packed))]
        alive = [_surviving(places, kept, overview) for places, overview in zip(packed, overviews, strict=True)]
        rows = [places[left] for places, left in zip(packed, alive, strict=True)]
        flat = torch.cat(rows)
        real = flat != NEWLINE
        out = self._values(features, flat, torch.cat(alive))
        tile = torch.bucketize(flat, firsts[1:], right=True)
        origin = torch.stack([tile, flat - firsts[tile]], 1).masked_fill(~real[:, None], -1)
        lengths = [len(one) for one in rows]
        return VisualTokens(out.split(lengths), origin.split(lengths), tuple(len(places) for places in packed))

    def _values(self, features: VisionFeatures, places: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """The rows (K, E) that are left: the patches ``places`` (K,) projected, newlines between them.

        ``alive`` tells them among all rows of all images, one after the other.
        """
        real = places != NEWLINE
        all_features = torch.cat([tile.features for tile in features.tiles])
        out = self._newline().expand(len(places), -1).clone()
        projected = self._project_rows([all_features], [places[real].to(all_features.device)])
        out[real.to(out.device)] = projected.to(out.device)
        return out

    def _newline(self) -> torch.Tensor:
        """The row (E,) at the end of a line."""
        with align_module_device(self.model.model):  # an offloaded parameter is there for the time of a call only
            newline: torch.Tensor = self.model.model.image_newline.to(self.device)
        return newline

    def _packed(self, features: VisionFeatures) -> list[torch.Tensor]:
        """The patch number (over all tiles) or `NEWLINE` of every row of every image, by the model's own packing."""
        owners = [tile.image for tile in features.tiles]
        numbers = torch.arange(sum(features.counts)).view(len(owners), -1, 1)
        packed, _ = self.model.model.pack_image_features(
            list(numbers.split([owners.count(image) for image in range(len(features.image_sizes))])),
            [list(size) for size in features.image_sizes],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=torch.full((1,), NEWLINE),
        )
        return [one.squeeze(-1) for one in packed]


def _surviving(places: torch.Tensor, kept: torch.Tensor, overview: int) -> torch.Tensor:
    """Which of one image's rows are left, (rows,) bool: kept patches, and newlines with a kept patch in their own row.

    ``overview`` is the number of tokens of the overview tile, which has no newlines and comes first; 0 without a grid.
    """
    newline = places == NEWLINE
    alive = ~newline & kept[places.clamp(min=0)]
    before = torch.cat([torch.zeros(1, dtype=torch.int64), alive.cumsum(0)])  # kept patches before each place
    ends = newline.nonzero()[:, 0]
    begins = torch.cat([torch.tensor([overview]), ends[:-1] + 1])
    alive[ends] = before[ends] > before[begins]
    return alive
