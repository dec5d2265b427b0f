from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="project")
class Project(Node):
    """Project the selected visual tokens, or all of them without a selection; dropped ones are never projected."""

    def run(
        self, model: values.ModelHandle, features: values.VisionFeatures, selection: values.Selection | None = None
    ) -> values.VisualTokens:
        return model.family.project(features, selection)
