from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="project")
class ProjectAll(Node):
    """Project all visual tokens, for methods that choose in the language model's space (DivPrune, CDPruner).

    Wire scorers, pruners and Project to the output; Project then only takes the tokens that are kept.
    """

    attention_work = "projector"

    def run(self, model: values.ModelHandle, features: values.VisionFeatures) -> values.VisionFeatures:
        return model.family.projected(features)
