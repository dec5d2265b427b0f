from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="project")
class Project(Node):
    """Project the selected visual tokens, or all of them without a selection; dropped ones are never projected."""

    def run(
        self, model: values.ModelHandle, features: values.VisionFeatures, selection: values.Selection | None = None
    ) -> values.VisualTokens:
        tokens = model.family.project(features, selection)
        return tokens if selection is None else replace(tokens, scores_finite=selection.scores_finite)
