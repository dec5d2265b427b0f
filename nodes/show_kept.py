from __future__ import annotations

from pathlib import Path
from typing import Annotated

import PIL.Image
from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Node, OutputFile, node

_KEY = "fopru-graph"  # PNG metadata that holds the cache key of the picture's inputs
_PIPELINE = "pipeline"  # and the name in its title, which no key holds


@node(category="show", output=True)
class ShowKept(Node):
    """Draw kept patches clear, dropped ones dimmed, the significance heat map beside them.

    The output is the path of the PNG, or the picture itself where the run has no output folder.
    """

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
    ) -> str | PIL.Image.Image:
        import torch

        from fopru_graph.pictures.kept import kept_picture, save_png

        if selection is None and generation is not None and not generation.projected:  # Blind: nothing was selected
            nothing = torch.empty(0, dtype=torch.int64)
            selection = values.Selection((nothing,) * len(features.tiles), features.counts)
        pairs = zip(generation.prompts, generation.texts, strict=True) if generation is not None else ()
        answers = "   ·   ".join(f"{prompt}  →  {text}" for prompt, text in pairs)
        title = ":  ".join(filter(None, (ctx.pipeline, answers)))
        picture = kept_picture(features, selection, generation, significance, title)
        if ctx.out is None:
            return picture
        path = ctx.output_path(file)
        save_png(picture, path, {_KEY: ctx.key, _PIPELINE: ctx.pipeline})
        return str(path)

    def done(self, ctx: Context, output: str | PIL.Image.Image, file: str = "kept.png") -> bool:
        """Whether the file holds a picture of the same inputs already, by the cache key in its metadata."""
        from fopru_graph.pictures.kept import read_metadata

        if ctx.out is None or not isinstance(output, str):
            return ctx.out is None and not isinstance(output, str)
        drawn = read_metadata(output)
        same = (drawn.get(_KEY), drawn.get(_PIPELINE)) == (ctx.key, ctx.pipeline)
        return Path(output) == ctx.output_path(file) and same
