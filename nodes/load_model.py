from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Advanced, Context, InputPath, Node, node


@node(category="load")
class LoadModel(Node):
    """Load a vision-language model from the package (`demo`), a folder, or a hub name."""

    def run(
        self,
        ctx: Context,
        name: Annotated[
            str,
            InputPath(or_name=True, kind="model"),
            Field(description="demo, a folder, or e.g. llava-hf/llava-1.5-7b-hf"),
        ] = "demo",
        device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N, mps")] = "auto",
        dtype: Annotated[
            Literal["auto", "float32", "bfloat16", "float16"],
            Field(
                description="auto: the checkpoint's own on a GPU; on a CPU bfloat16 for half precision if it computes "
                "that natively, else float32"
            ),
        ] = "auto",
        attention: Annotated[
            Literal["sdpa", "eager", "flash_attention_2"],
            Advanced(),
            Field(description="attention kernel of every layer"),
        ] = "sdpa",
        device_map: Annotated[
            Literal["auto", "balanced", "sequential"] | None,
            Advanced(),
            Field(description="spread the layers over all devices"),
        ] = None,
        revision: Annotated[str | None, Advanced(), Field(description="branch, tag or commit on the hub")] = None,
        quantization: Annotated[
            Literal["4bit", "8bit"] | None, Advanced(), Field(description="weights in fewer bits, through bitsandbytes")
        ] = None,
        packed: Annotated[
            Literal["auto", "never"],
            Advanced(),
            Field(description="on a CPU, keep weights in oneDNN's layout; auto: of wide models, where it is faster"),
        ] = "auto",
    ) -> values.ModelHandle:
        from fopru_graph.lvlm.loading.load import load_model

        def loaded(done: int, count: int) -> None:
            ctx.check_cancelled()
            ctx.progress(done, count, "weights")

        with ctx.abruptly():
            return load_model(name, device, dtype, attention, device_map, revision, quantization, packed, loaded)

    def fingerprint(
        self,
        name: str = "demo",
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "sdpa",
        device_map: str | None = None,
        revision: str | None = None,
        quantization: str | None = None,
        packed: str = "auto",
    ) -> dict[str, Any]:
        """The checkpoint by content, and what ``auto`` means here."""
        from fopru_graph.lvlm.loading.load import model_identity

        return model_identity(name, device, dtype, attention, device_map, revision, quantization, packed)
