from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, OutputFile, node

_KEY = "fopru-graph"  # PNG metadata that holds the cache key of the picture's inputs
_PIPELINE = "pipeline"  # and the name in its title, which no key holds


@node(category="show", output=True)
class ShowKept(Node):
    """Write a PNG: kept patches clear, dropped ones dimmed, the significance heat map beside them."""

    def run(
        self,
        ctx: Context,
        features: values.VisionFeatures,
        generation: values.Generation | None = None,
        selection: values.Selection | None = None,
        significance: values.Significance | None = None,
        file: Annotated[
            str,
            OutputFile(),
            Field(pattern=r"^\w[\w.-]*\.png$", description="name of the PNG in the output folder"),
        ] = "kept.png",
    ) -> str:
        import torch

        from fopru_graph.pictures.kept import kept_picture, save_png

        if selection is None and generation is not None and not generation.projected:  # Blind: nothing was selected
            nothing = torch.empty(0, dtype=torch.int64)
            selection = values.Selection((nothing,) * len(features.tiles), features.counts)
        path = ctx.output_path(file)
        pairs = zip(generation.prompts, generation.texts, strict=True) if generation is not None else ()
        answers = "   ·   ".join(f"{prompt}  →  {text}" for prompt, text in pairs)
        title = ":  ".join(filter(None, (ctx.pipeline, answers)))
        of = {_KEY: ctx.key, _PIPELINE: ctx.pipeline}
        save_png(kept_picture(features, selection, generation, significance, title), path, of)
        return str(path)

    def done(self, ctx: Context, output: str, file: str = "kept.png") -> bool:
        """Whether the file holds a picture of the same inputs already, by the cache key in its metadata."""
        from fopru_graph.pictures.kept import read_metadata

        drawn = read_metadata(output)
        same = (drawn.get(_KEY), drawn.get(_PIPELINE)) == (ctx.key, ctx.pipeline)
        return Path(output) == ctx.output_path(file) and same
