from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, OutputFile, node
from fopru_graph.graph.files import write_atomically
from fopru_graph.nodes.llm_generate import Messages, System, Template


@node(category="show", output=True)
class SaveTokens(Node):
    """Write the projected tokens that are left, and the prompt, to a file for a serving engine (docs/serving.md).

    What an engine cannot take is refused with the reason. Pruning inside the language model is no part of it.
    """

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        tokens: values.VisualTokens,
        prompt: Annotated[str, Field(description="the question; <image> marks where images stand")],
        to: Annotated[
            Literal["safetensors", "vllm", "vllm-offline", "sglang"],
            Field(description="who reads it: LoadTokens and programs of your own, or an engine"),
        ] = "safetensors",
        positions: Annotated[
            Literal["renumbered", "original", "rebased", "row"] | None,
            Field(description="as in LLMGenerate; row: one row of tokens, which vLLM can be told of Qwen-VL's"),
        ] = None,
        system: System = "",
        messages: Messages = None,
        template: Template = "chat",
        file: Annotated[
            str | None,
            OutputFile(),
            Field(pattern=r"^\w[\w.-]*$", description="name in the output folder; empty: by the target"),
        ] = None,
    ) -> str:
        from fopru_graph.lvlm.inputs.chat import Question
        from fopru_graph.serving.engines import TARGETS
        from fopru_graph.serving.export import exported
        from fopru_graph.serving.handover import hand_over

        question = Question(prompt, system, messages or (), template)
        path = ctx.output_path(file or TARGETS[to])
        write_atomically(path, exported(hand_over(model, tokens, question, positions), to))
        return str(path)
