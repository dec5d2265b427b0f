"""LLaVA-1.6 (LLaVA-NeXT): an overview tile and a grid of tiles per image, unpadded, with a newline after every row.

*Packing* is what the stock model does with the projected tiles of an image: it puts them side by side, removes padding,
and inserts the newline embedding. The *slots* of an image are the visual tokens of its packed sequence, newlines too.
"""

from __future__ import annotations

import torch
from accelerate.utils import align_module_device
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, image_size_to_num_patches

from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.values import Image, Selection, VisionFeatures, VisualTokens

NEWLINE = -1


@register_family(
    "llava_next",
    checkpoints=(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llava-v1.6-vicuna-13b-hf",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    tokens="up to 2928: 576 a tile and a newline a row",
    projects="only those kept",
    note="a newline stays while its row has a token",
)
class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`, e.g. ``llava-hf/llava-v1.6-vicuna-7b-hf``.

    A picture with a lower `Image.resolution` is shrunk before it is cut, so it may have fewer tiles; the fewest are an
    overview and the smallest grid of the checkpoint.
    """

    auto_class = "LlavaNextForConditionalGeneration"

    def _encode_pictures(self, images: list[Image], begin: float) -> VisionFeatures:
        """See `Llava._encode_pictures`: the overview comes first and has no position, the others come row by row."""
        images = [shrink(image) for image in images]
        batch = self.processor.image_processor([image.picture for image in images], return_tensors="pt")
        config = self.model.config
        pinpoints, side = config.image_grid_pinpoints, config.vision_config.image_size
        pixels: list[torch.Tensor] = []
        tile_images: list[int] = []
        positions: list[tuple[int, int] | None] = []
        for i, (image, tiles) in enumerate(zip(images, batch["pixel_values"], strict=True)):
            count = image_size_to_num_patches(list(image.shape), pinpoints, side)
            _, wide = get_anyres_image_grid_shape(list(image.shape), pinpoints, side)
            pixels += tiles[:count]
            tile_images += [i] * count
            positions += [None, *(divmod(tile, wide) for tile in range(count - 1))]
        return self._encode_tiles(pixels, tile_images, [image.shape for image in images], begin, positions)

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`. Kept tokens go where the model's packing puts them, whatever order they come in.

        Patches that the packing removes as padding are dropped even if they were selected. The newline of a row stays
        as long as a patch of its row does. The number of tokens thus depends on the scores, so the host waits for them.
        """
        first_patches = torch.tensor([0, *features.counts]).cumsum(0)  # of each tile, counted over all tiles
        kept = torch.zeros(sum(features.counts), dtype=torch.bool)
        for first, index in zip(first_patches, self.kept_indices(features, selection), strict=False):
            kept[first + index.cpu()] = True
        slots = self._packed(features)
        tile_images = [tile.image for tile in features.tiles]
        overviews = [features.counts[0] if tile_images.count(image) > 1 else 0 for image in range(len(slots))]
        alive = [_surviving(patches, kept, overview) for patches, overview in zip(slots, overviews, strict=True)]
        patches = torch.cat([patches[left] for patches, left in zip(slots, alive, strict=True)])
        embeddings = self._embeddings(features, patches, torch.cat(alive))
        tile = torch.bucketize(patches, first_patches[1:], right=True)
        origin = torch.stack([tile, patches - first_patches[tile]], 1).masked_fill((patches == NEWLINE)[:, None], -1)
        lengths = [int(left.sum()) for left in alive]
        return VisualTokens(embeddings.split(lengths), origin.split(lengths), tuple(map(len, slots)))

    def _embeddings(self, features: VisionFeatures, patches: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """The embeddings (K, E) of the slots that are left.

        ``patches`` (K,) holds their patch numbers or `NEWLINE`; ``alive`` (slots of all images,) bool marks them.
        """
        real = patches != NEWLINE
        all_features = torch.cat([tile.features for tile in features.tiles])
        embeddings = self._newline().expand(len(patches), -1).clone()
        projected = self._project_kept([all_features], [patches[real].to(all_features.device)])
        embeddings[real.to(embeddings.device)] = projected.to(embeddings.device)
        return embeddings

    def _newline(self) -> torch.Tensor:
        """The embedding (E,) at the end of a row."""
        with align_module_device(self.model.model):  # an offloaded parameter is there only during a call
            newline: torch.Tensor = self.model.model.image_newline.to(self.device)
        return newline

    def _packed(self, features: VisionFeatures) -> list[torch.Tensor]:
        """The patch number (over all tiles) or `NEWLINE` of every slot of every image.

        The stock packing gives them, run on patch numbers instead of features.
        """
        images = [tile.image for tile in features.tiles]
        numbers = torch.arange(sum(features.counts)).view(len(images), -1, 1)
        packed, _ = self.model.model.pack_image_features(
            list(numbers.split([images.count(image) for image in range(len(features.image_sizes))])),
            [list(size) for size in features.image_sizes],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=torch.full((1,), NEWLINE),
        )
        return [numbers.squeeze(-1) for numbers in packed]


def _surviving(patches: torch.Tensor, kept: torch.Tensor, overview: int) -> torch.Tensor:
    """Which slots of one image are left, (slots,) bool: kept patches, and newlines whose row has a kept patch.

    Args:
        patches: (slots,) each slot's patch number, or `NEWLINE`.
        kept: (all patches of all tiles,) bool.
        overview: tokens of the overview tile, which comes first and has no newlines; 0 if there is none.
    """
    newline = patches == NEWLINE
    alive = ~newline & kept[patches.clamp(min=0)]
    before = torch.cat([torch.zeros(1, dtype=torch.int64), alive.cumsum(0)])  # kept patches before each slot
    row_ends = newline.nonzero()[:, 0]
    row_begins = torch.cat([torch.tensor([overview]), row_ends[:-1] + 1])
    alive[row_ends] = before[row_ends] > before[row_begins]
    return alive
