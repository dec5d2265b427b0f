"""What changes logits before a token is chosen: the checkpoint's ``generation_config``, by transformers' own code.

Greedy search is the default whatever the checkpoint's ``do_sample`` says, so that answers repeat; all its other
settings are honoured. Both arms of a bench go by `node_arguments`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessorList

from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.families.family import Family


def node_arguments(max_new_tokens: int, min_new_tokens: int = 0, temperature: float = 0.0) -> dict[str, Any]:
    """The inputs of a generating node as arguments of the stock ``generate``; what is 0 the checkpoint may set."""
    arguments: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
    if temperature > 0:
        arguments["temperature"] = float(temperature)
    if min_new_tokens:
        arguments["min_new_tokens"] = min_new_tokens
    return arguments


def logits_processors(
    family: Family, ids: torch.Tensor, mask: torch.Tensor, arguments: dict[str, Any]
) -> LogitsProcessorList:
    """What the stock ``generate`` would apply to the logits, in its order; empty if there is nothing.

    Args:
        family: the model.
        ids: (B, U) of the unpruned prompts, as stock has them: dropped tokens change no penalty and no length.
        mask: (B, U) on the CPU, 0 on padding.
        arguments: as `node_arguments` returns it.

    Raises:
        UserError: a setting of the checkpoint's has a wrong value.
    """
    model, (batch, length) = family.model, ids.shape
    try:
        config, _ = model._prepare_generation_config(None, **arguments)
        model._prepare_special_tokens(config, True, device="cpu", batch_size=batch)  # it reads what it makes
        if config._eos_token_tensor is not None:
            config._eos_token_tensor = family.to_device(config._eos_token_tensor)
        config.max_length = length + config.max_new_tokens
        if config.min_new_tokens:
            config.min_length = 0  # stock sets both, which says the same twice
        # Given these ids stock reads one of them, which waits for the device, so only who needs them gets them.
        reads_prompt = config.encoder_repetition_penalty != 1 or config.encoder_no_repeat_ngram_size
        processors: LogitsProcessorList = model._get_logits_processor(
            generation_config=config,
            input_ids_seq_length=length,
            encoder_input_ids=ids if reads_prompt else None,
            device=family.device,
            model_kwargs={"attention_mask": mask},
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise wrong_setting(error) from error
    return processors


def wrong_setting(error: Exception) -> UserError:
    """The refusal of a setting that transformers refused with ``error``."""
    return UserError(
        f"the checkpoint's generation_config cannot be used: {first_line(error)}", "correct its generation_config.json"
    )
