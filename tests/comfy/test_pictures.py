"""Pictures between ComfyUI and us: batches of floats, and PNG files that carry their workflow."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fopru_graph.comfy import pictures
from tests.comfy.standin import ComfyUI


def batch(count: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, 40, 30, channels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_is_pictures_of_eight_bits(channels: int) -> None:
    given = batch(2, channels)
    given[0, 0, 0] = 1.0001  # as an upscaler leaves it
    found = pictures.of_batch(given)
    assert len(found) == 2 and all(each.picture.mode == "RGB" for each in found)
    if channels == 3:
        wanted = (given.clamp(0, 1) * 255).round().numpy().astype(np.uint8)
        assert all(np.array_equal(np.asarray(each.picture), rows) for each, rows in zip(found, wanted, strict=True))
        assert torch.allclose(pictures.to_batch(found[1].picture), given[1:], atol=1 / 255)


def test_long_texts_are_left_out_of_pictures(
    comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert set(pictures.metadata({"a": 1}, {"workflow": {}, "none": None})) == {"prompt", "workflow"}
    assert pictures.metadata({"a": "x" * 600_000}, {"workflow": "y" * 600_000}) == {}
    assert "1 MiB" in caplog.text
    monkeypatch.setattr(sys.modules["comfy.cli_args"].args, "disable_metadata", True)
    assert pictures.metadata({"a": 1}, None) == {}
