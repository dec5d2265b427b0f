"""Loading is silent, and leaves the libraries' settings as they were."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from transformers.utils import logging

from fopru_graph.lvlm.loading.quiet import quiet


@pytest.fixture
def talkative(monkeypatch):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    for name in ("enable_progress_bars", "disable_progress_bars"):  # of huggingface_hub: they heed the variable
        monkeypatch.setattr(logging.hf_hub_utils, name, lambda: None)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    yield monkeypatch
    logging.set_verbosity(verbosity)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


def settings() -> tuple[int, bool]:
    return logging.get_verbosity(), logging.is_progress_bar_enabled()


def test_it_is_quiet_for_as_long_as_it_lasts(talkative):
    with quiet(), quiet():
        assert settings() == (logging.ERROR, False)
    assert settings() == (logging.INFO, True)
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert settings() == (logging.INFO, True)


def test_who_asks_for_more_gets_it(talkative):
    talkative.setenv("TRANSFORMERS_VERBOSITY", "info")
    talkative.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", False)
    with quiet():
        assert settings() == (logging.INFO, True)
