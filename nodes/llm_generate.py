"""LLMGenerate: answer a prompt about the images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, Outputs, node

MaxNewTokens = Annotated[int, Field(ge=1, description="most tokens of the answer; it ends with the model's positions")]
MinNewTokens = Annotated[int, Field(ge=0, description="tokens before stop tokens are taken; 0: the checkpoint decides")]


class Answer(Outputs):
    """The text (a list of texts for a list of prompts) and everything measured while it was made."""

    text: str | list[str]
    generation: values.Generation


@node(category="generate")
class LLMGenerate(Node):
    """Answer a prompt about the images; in-LLM pruners are applied for this run only.

    The checkpoint's generation_config holds (penalties, blocked tokens), except that answers are greedy by default.
    """

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        tokens: values.VisualTokens,
        prompt: Annotated[
            str | list[str], Field(description="the question; a list is a batch; <image> marks where images stand")
        ],
        pruners: Annotated[
            list[values.InLLMPruner] | None, Field(description="pruning inside the language model")
        ] = None,
        max_new_tokens: MaxNewTokens = 64,
        temperature: Annotated[float, Field(ge=0, description="0 takes the most likely token, above it samples")] = 0.0,
        seed: Annotated[int, Field(ge=0, description="of the sampling")] = 0,
        min_new_tokens: MinNewTokens = 0,
        loop: Annotated[
            Literal["auto", "thin", "segments", "static"],
            Field(description="how the decoder is driven: auto takes the fastest that fits, thin the stock forward"),
        ] = "auto",
    ) -> Answer:
        from fopru_graph.lvlm.decoding.generate import generate
        from fopru_graph.lvlm.decoding.sampling import TextStream

        prompts = [prompt] if isinstance(prompt, str) else prompt
        stream = TextStream(model.family, ctx.text) if len(prompts) == 1 else None

        def on_step(ids, _logits) -> None:
            ctx.check_cancelled()
            if stream is not None:
                stream.put(int(ids[0]))

        options = {"temperature": temperature, "seed": seed, "min_new_tokens": min_new_tokens, "loop": loop}
        generation = generate(model.family, tokens, prompts, pruners or (), max_new_tokens, on_step=on_step, **options)
        if stream is not None:
            stream.end()
        text = generation.texts[0] if isinstance(prompt, str) else list(generation.texts)
        return Answer(text=text, generation=generation)
