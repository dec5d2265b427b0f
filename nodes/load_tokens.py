from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import InputPath, Node, node


@node(category="load")
class LoadTokens(Node):
    """Read the tokens that SaveTokens wrote (to: safetensors), for LLMGenerate in place of Project's."""

    def run(
        self,
        model: values.ModelHandle,
        file: Annotated[str, InputPath(kind="tokens"), Field(description="a safetensors file of SaveTokens")],
    ) -> values.VisualTokens:
        from fopru_graph.serving.tensors import load_tokens

        return load_tokens(file).tokens_for(model)

    def fingerprint(self, file: str = "") -> str:
        """The file's content, so that a changed file is read again."""
        from fopru_graph.identity.content import file_digest

        return file_digest(file)
