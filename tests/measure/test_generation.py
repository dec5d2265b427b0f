"""The times of a generation: which steps a time per output token has, and what the others took."""

from __future__ import annotations

import pytest

from fopru_graph.values import Generation


def generation(steps: tuple[float, ...], **fields) -> Generation:
    counts = {"encoded": 1, "projected": 1, "visual_per_layer": (1,), "kv_lengths": (9,), "kv_bytes": 8, "kept": ()}
    texts = {"prompts": ("?",), "texts": ("!",), "token_ids": (tuple(range(len(steps) + 1)),)}
    where = {"device": "cpu", "dtype": "float32", "prefill_ms": 5.0}
    return Generation(**texts, **counts, **where, step_ms=steps, **fields)


@pytest.mark.parametrize(
    ("steps", "once", "tpot", "one_time"),
    [
        ((400.0, 3.0, 3.0, 3.0), {0}, 3.0, 397.0),
        ((400.0, 3.0, 603.0, 3.0, 3.0), {0, 2}, 3.0, 997.0),  # a longer step took over and was captured
        ((3.0, 3.0, 203.0, 3.0), {2}, 3.0, 200.0),  # captured later, because the first steps might have been all
        ((2.0, 3.0), {0}, 3.0, 0.0),
        ((400.0,), {0}, None, None),
        ((), {0}, None, None),
    ],
)
def test_a_time_per_output_token_has_no_work_that_is_done_once(steps, once, tpot, one_time):
    report = generation(steps, once=frozenset(once)).report()
    assert (report["tpot_ms"], report["one_time_ms"]) == (tpot, one_time)


def test_a_report_names_the_loop_and_whether_it_was_captured():
    report = generation((1.0,), loop="static", captured=True).report()
    assert (report["loop"], report["captured"]) == ("static", True)
