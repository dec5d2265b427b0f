"""Whatever a client sends, the server answers it, or says what is wrong with it; it never fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fopru_graph.server.chat.schemas import ChatRequest
from tests.server.asking import SIGN_ASKED
from tests.server.conftest import Answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*ChatRequest.model_fields, "ratio", "positions", "max_new_tokens", "n", "tools", "logit_bias"])
PARTS = st.lists(st.sampled_from(SIGN_ASKED["content"]) | JSON, max_size=3) | JSON
TURNS = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": PARTS})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.dictionaries(NAMES | st.text(max_size=10), JSON, max_size=3),
    turns=st.lists(TURNS | JSON, min_size=1, max_size=3) | st.just([SIGN_ASKED]),
)
def test_any_json_is_answered_or_refused(post: Callable[..., Answer], fields: dict[str, Any], turns: list[Any]) -> None:
    body = {"model": "fopru_fastv", "messages": turns, "max_tokens": 2} | fields
    answer = post("/v1/chat/completions", json.dumps(body))
    assert answer.status in (200, 400, 404), answer.body
    if answer.status != 200:
        error = json.loads(answer.body)["error"]
        assert error["message"] and set(error) == {"message", "type", "param", "code"}


def asked(fields: str) -> str:
    """A question about no picture with more fields, as JSON text."""
    return '{"model": "fopru_fastv", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2, ' + fields + "}"


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        asked(", ".join(f'"{name}": null' for name in ChatRequest.model_fields if name not in ("model", "messages"))),
        asked('"messages": [{"role": "user", "content": "\\ud800"}]'),
        asked('"messages": [{"role": "user", "content": "a\\u0000b"}]'),
        asked('"messages": [{"role": "user", "content": "' + "word " * 5000 + '"}]'),
        asked('"max_tokens": 1e400'),
        asked('"max_tokens": ' + "9" * 400),
        asked('"ratio": 1e400'),
        asked('"temperature": 1e-300'),
        asked('"temperature": 1, "seed": 9223372036854775807'),
        asked('"model": "baseline"'),
    ],
)
def test_odd_values_are_no_failure(post: Callable[..., Answer], body: str) -> None:
    assert post("/v1/chat/completions", body).status in (200, 400)
