"""Where and how the model runs: the options of every command that loads one. Imports nothing heavy, as `options`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fopru_graph.graph import Graph

OPTION_OF = {"device": "--device", "dtype": "--dtype", "attention": "--attn"}  # by the input of LoadModel


@dataclass(frozen=True)
class ModelOptions:
    """Where and how the model runs; None leaves what the pipeline says."""

    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps; sets it in every LoadModel",
            autocompletion=lambda: ["auto", "cpu", "cuda", "mps"],
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, float32, bfloat16 or float16, likewise",
            autocompletion=lambda: ["auto", "float32", "bfloat16", "float16"],
        ),
    ] = None
    attention: Annotated[
        str | None,
        typer.Option(
            "--attn",
            help="sdpa, eager or flash_attention_2, likewise",
            autocompletion=lambda: ["sdpa", "eager", "flash_attention_2"],
        ),
    ] = None

    @property
    def given(self) -> dict[str, str]:
        """The options that were given, by the inputs of LoadModel."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def apply(self, graph: Graph) -> None:
        """Set the options that were given in every LoadModel node of ``graph``, those in sub-graphs too.

        Raises:
            PipelineError: there is no such node.
        """
        from fopru_graph.graph import PipelineError, Problem

        models = graph.of_type("LoadModel")
        if not models:
            flags = ", ".join(OPTION_OF[key] for key in self.given)
            message, hint = f"{flags}: the pipeline has no LoadModel node", "leave the option out"
            raise PipelineError([Problem("no-model", message, hint=hint)], graph.file)
        for name in models:
            for key, value in self.given.items():
                graph.set(f"{name}.{key}", value)
