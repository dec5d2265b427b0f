"""StockGenerate: the model as transformers runs it, to compare with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, node
from fopru_graph.nodes.llm_generate import Answer, MaxNewTokens, MinNewTokens


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
    ) -> Answer:
        from fopru_graph.lvlm.decoding.stock_generate import stock_generate

        images = image if isinstance(image, list) else [image]
        generation = stock_generate(model.family, images, prompt, max_new_tokens, min_new_tokens, ctx.check_cancelled)
        return Answer(text=generation.texts[0], generation=generation)
