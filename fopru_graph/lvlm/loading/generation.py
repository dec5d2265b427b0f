"""The checkpoint's ``generation_config``: what transformers' greedy search and sampling cannot serve is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import cached_file

from fopru_graph.errors import UserError, first_line

FILE = "generation_config.json"
# Other searches, models and ends of an answer than the decoding loops have, by the values that switch them off.
_UNSERVED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "dola_layers": (),
    "constraints": (),
    "force_words_ids": (),
    "prompt_lookup_num_tokens": (),
    "assistant_early_exit": (),
    "use_mtp": (),
    "token_healing": (),
    "stop_strings": (),
    "max_time": (),
}


def check_generation_file(name: str, source: str, options: dict[str, Any]) -> None:
    """Refuse a checkpoint by its generation_config.json, before weights load; without the file there are defaults.

    Raises:
        UserError: the file is damaged, which transformers would pass over, or as for `check_generation_config`.
    """
    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(source, FILE, **absent, **options)
    if path is None:
        return
    try:
        config = GenerationConfig.from_pretrained(Path(path).parent)
    except Exception as error:  # not JSON, not an object, or a value that transformers refuses
        raise UserError(
            f"{name}: {FILE} cannot be used: {first_line(error)}", "repair it, or download it again"
        ) from error
    check_generation_config(config)


def check_generation_config(config: GenerationConfig) -> None:
    """Refuse settings that would change answers and are not served, instead of passing over them.

    Raises:
        UserError: there is such a setting.
    """
    for name, off in _UNSERVED.items():
        value = getattr(config, name, None)
        if value not in (None, False, *off):
            raise UserError(
                f"the checkpoint's generation_config sets {name} to {value!r}, which is not served",
                f"take {name} out of the checkpoint's {FILE}: answers are greedy, or sampled at a temperature",
            )
