from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="encode")
class EncodePrompt(Node):
    """The question's tokens as the language model embeds them, for scorers that read it; without the chat template."""

    def run(
        self,
        model: values.ModelHandle,
        prompt: Annotated[
            str | list[str],
            Field(description="the question; a list is a batch; <image> marks how many images each is about"),
        ],
    ) -> values.PromptEmbeddings:
        from fopru_graph.lvlm.inputs.prompt import embed_texts

        return embed_texts(model.family, [prompt] if isinstance(prompt, str) else prompt)
