"""Each family of the zoo in turn, made once for a module of tests that asks for it."""

from __future__ import annotations

import pytest

from tests.lvlm.zoo import ZOO


@pytest.fixture(scope="module", params=ZOO)
def row(request):
    return ZOO[request.param]


@pytest.fixture(scope="module")
def family(row):
    return row.build("sdpa")


@pytest.fixture(scope="module")
def eager(row):
    return row.build("eager")
