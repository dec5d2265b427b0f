"""Loading without a word: a library writes nothing that nobody asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from huggingface_hub import constants
from transformers.utils import logging

_LOADING = threading.RLock()  # what is set here is global, as is the type that transformers makes weights in


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers and huggingface_hub show no progress and log errors only, as long as this lasts.

    Their own variables ask for more: ``HF_HUB_DISABLE_PROGRESS_BARS=0`` for bars, ``TRANSFORMERS_VERBOSITY`` for words.
    """
    with _LOADING, contextlib.ExitStack() as restored:
        if "TRANSFORMERS_VERBOSITY" not in os.environ:
            restored.callback(logging.set_verbosity, logging.get_verbosity())
            logging.set_verbosity_error()
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and logging.is_progress_bar_enabled():
            restored.callback(logging.enable_progress_bar)
            logging.disable_progress_bar()
        yield
