"""The zoo's models, each made once for all tests of the room."""

from __future__ import annotations

import functools

import pytest

from tests.lvlm.zoo import ZOO


@pytest.fixture(scope="session")
def family_of():
    """A family's tiny model by name."""
    return functools.cache(lambda name: ZOO[name].build("sdpa"))
