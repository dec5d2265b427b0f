"""LLMGenerate: answer a prompt about the images."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Advanced, Context, Node, Outputs, node

MaxNewTokens = Annotated[int, Field(ge=1, description="most tokens of the answer; it ends with the model's positions")]
MinNewTokens = Annotated[
    int, Advanced(), Field(ge=0, description="tokens before stop tokens are taken; 0: the checkpoint decides")
]
System = Annotated[str, Advanced(), Field(description="what the model is told first")]
Messages = Annotated[
    list[dict[str, Any]] | None,
    Advanced(),
    Field(
        description="the chat before the prompt, each turn with role and content: a text, or parts {type: image} and "
        "{type: text, text: …}; it may end with the question if the prompt is empty"
    ),
]
Template = Annotated[
    Literal["chat", "none"],
    Advanced(),
    Field(description="write the prompt in the checkpoint's chat template, or take it as it is"),
]
Stop = Annotated[list[str] | None, Advanced(), Field(description="texts that end the answer and are no part of it")]
RepetitionPenalty = Annotated[
    float | None,
    Advanced(),
    Field(gt=0, description="above 1: what was there before becomes less likely; empty: the checkpoint's"),
]


class Answer(Outputs):
    """The text (a list of texts for a list of prompts) and everything measured while it was made."""

    text: str | list[str]
    generation: values.Generation


@node(category="generate")
class LLMGenerate(Node):
    """Answer a prompt about the images; in-LLM pruners are applied for this run only.

    The checkpoint's generation_config holds (penalties, blocked tokens), except that answers are greedy by default.
    Without tokens (`tokens: null`) the prompt is a question about no picture.
    """

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        tokens: values.VisualTokens | None,
        prompt: Annotated[
            str | list[str], Field(description="the question; a list is a batch; <image> marks where images stand")
        ],
        pruners: Annotated[
            list[values.InLLMPruner | list[values.InLLMPruner]] | None,
            Field(description="pruning inside the language model: pruners, or chains of them as Schedule makes"),
        ] = None,
        max_new_tokens: MaxNewTokens = 64,
        temperature: Annotated[float, Field(ge=0, description="0 takes the most likely token, above it samples")] = 0.0,
        seed: Annotated[int, Field(ge=0, description="of the sampling")] = 0,
        min_new_tokens: MinNewTokens = 0,
        loop: Annotated[
            Literal["auto", "thin", "segments", "static"],
            Advanced(),
            Field(description="how the decoder is driven: auto takes the fastest that fits, thin the stock forward"),
        ] = "auto",
        system: System = "",
        messages: Messages = None,
        template: Template = "chat",
        stop: Stop = None,
        top_p: Annotated[
            float | None,
            Advanced(),
            Field(gt=0, le=1, description="draw from the likeliest tokens of this probability together"),
        ] = None,
        top_k: Annotated[int | None, Advanced(), Field(ge=1, description="draw from so many likeliest tokens")] = None,
        repetition_penalty: RepetitionPenalty = None,
        positions: Annotated[
            Literal["renumbered", "original", "rebased"] | None,
            Field(
                description="which positions kept tokens have; original helps where places count (docs/positions.md); "
                "empty: the method's own"
            ),
        ] = None,
        logprobs: Annotated[
            bool, Advanced(), Field(description="also record the log-probability of each token")
        ] = False,
    ) -> Answer:
        from fopru_graph.lvlm.decoding.generate import generate
        from fopru_graph.lvlm.decoding.sampling import TextStream
        from fopru_graph.lvlm.inputs.chat import Question

        cuts = [cut for given in pruners or () for cut in ([given] if isinstance(given, values.InLLMPruner) else given)]
        texts = [prompt] if isinstance(prompt, str) else prompt
        prompts = [Question(text, system, messages or (), template) for text in texts]
        stream = TextStream(model.family, ctx.text, stop or ()) if len(prompts) == 1 else None
        known = count(1)

        def on_step(ids, _logits) -> None:
            ctx.check_cancelled()
            if stream is not None:
                stream.put(int(ids[0]))
            ctx.progress(next(known), max_new_tokens, "tokens")

        generation = generate(
            model.family,
            tokens,
            prompts,
            cuts,
            max_new_tokens,
            temperature,
            seed,
            on_step,
            min_new_tokens,
            loop,
            top_p,
            top_k,
            repetition_penalty,
            stop or (),
            logprobs,
            positions,
        )
        if stream is not None:
            stream.end()
        text = generation.texts[0] if isinstance(prompt, str) else list(generation.texts)
        return Answer(text=text, generation=generation)
