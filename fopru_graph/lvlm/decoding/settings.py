"""What changes logits before a token is chosen: the checkpoint's ``generation_config``, by transformers' own code.

Greedy search is the default whatever the checkpoint's ``do_sample`` says, so that answers repeat; all its other
settings are honoured. Both arms of a bench go by `Decoding.arguments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList

from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.families.family import Family


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen, as a generating node is told; what is 0, None or empty the checkpoint may set.

    Args:
        max_new_tokens: most tokens of an answer, the stop token included.
        min_new_tokens: stop tokens are not taken before so many others.
        temperature: 0 takes the most likely token; above 0 tokens are drawn, as the stock ``generate`` draws them.
        seed: of the drawing only.
        top_p: tokens are drawn from the most likely ones that have this probability together, in (0, 1].
        top_k: tokens are drawn from so many most likely ones.
        repetition_penalty: above 1 tokens that were there before become less likely, in prompt or answer.
        stop: an answer ends where its text has one of these; the text ends before it.

    Raises:
        UserError: a value is out of its range, or changes nothing because nothing is drawn.
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 0.0
    seed: int = 0
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1: an answer has at least one token"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "repetition_penalty": (self.repetition_penalty is None or self.repetition_penalty > 0, "above 0"),
            "stop": (not isinstance(self.stop, str) and all(self.stop), "texts that are not empty"),
        }
        for name, (fits, wanted) in ranges.items():
            if not fits:
                raise UserError(f"{name} cannot be {getattr(self, name)!r}", f"{name} is {wanted}")
        for name in ("top_p", "top_k"):
            if getattr(self, name) is not None and not self.temperature:
                raise UserError(
                    f"{name} changes nothing at temperature 0, which takes the most likely token",
                    f"set a temperature above 0, or leave {name} out",
                )

    def arguments(self) -> dict[str, Any]:
        """As arguments of the stock ``generate``, without ``stop`` and ``seed``."""
        arguments: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            arguments["temperature"] = float(self.temperature)
        names = ("min_new_tokens", "top_p", "top_k", "repetition_penalty")
        return arguments | {name: value for name in names if (value := getattr(self, name))}


def logits_processors(
    family: Family, ids: torch.Tensor, mask: torch.Tensor, arguments: dict[str, Any]
) -> LogitsProcessorList:
    """What the stock ``generate`` would apply to the logits, in its order; empty if there is nothing.

    Args:
        family: the model.
        ids: (B, U) of the unpruned prompts, as stock has them: dropped tokens change no penalty and no length.
        mask: (B, U) on the CPU, 0 on padding.
        arguments: as `Decoding.arguments` returns them.

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
