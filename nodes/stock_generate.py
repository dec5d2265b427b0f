"""StockGenerate: the model as transformers runs it, to compare with."""

from __future__ import annotations

from itertools import count
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, node
from fopru_graph.nodes.llm_generate import (
    Answer,
    MaxNewTokens,
    Messages,
    MinNewTokens,
    RepetitionPenalty,
    Stop,
    System,
    Template,
)


@node(category="generate")
class StockGenerate(Node):
    """Answer a prompt about pictures with transformers' own processor and generate, without pruning."""

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        image: values.Image | list[values.Image],
        prompt: Annotated[str, Field(description="the question; <image> marks where images stand")],
        max_new_tokens: MaxNewTokens = 64,
        min_new_tokens: MinNewTokens = 0,
        system: System = "",
        messages: Messages = None,
        template: Template = "chat",
        stop: Stop = None,
        repetition_penalty: RepetitionPenalty = None,
    ) -> Answer:
        from fopru_graph.lvlm.decoding.stock_generate import stock_generate
        from fopru_graph.lvlm.inputs.chat import Question

        images = image if isinstance(image, list) else [image]
        question = Question(prompt, system, messages or (), template)
        lengths = max_new_tokens, min_new_tokens
        known = count(1)

        def on_token() -> None:
            ctx.check_cancelled()
            ctx.progress(next(known), max_new_tokens, "tokens")

        generation = stock_generate(model.family, images, question, *lengths, on_token, repetition_penalty, stop or ())
        return Answer(text=generation.texts[0], generation=generation)
