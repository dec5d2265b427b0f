from __future__ import annotations

import pytest

from tests import tiny


@pytest.fixture
def folder(tmp_path):
    """A complete small checkpoint in Hugging Face layout."""
    family = tiny.llava()
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    return tmp_path
