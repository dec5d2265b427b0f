from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph.graph import Context, Node, OutputFile, node
from fopru_graph.graph.files import write_atomically


@node(category="show", output=True)
class SaveText(Node):
    """Write a text (one line a text, for a list) to a file in the output folder."""

    def run(
        self,
        ctx: Context,
        text: str | list[str],
        file: Annotated[
            str, OutputFile(), Field(pattern=r"^\w[\w.-]*$", description="name in the output folder")
        ] = "answer.txt",
    ) -> str:
        path = ctx.output_path(file)
        write_atomically(path, ("\n".join([text] if isinstance(text, str) else text) + "\n").encode())
        return str(path)
