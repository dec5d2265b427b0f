from __future__ import annotations

from torch.nn.functional import normalize

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class TextSimilarity(Node):
    """Score visual tokens by how alike they are to the question's tokens, before the language model."""

    def run(
        self, model: values.ModelHandle, features: values.VisionFeatures, prompt: values.PromptEmbeddings
    ) -> values.Significance:
        tokens = model.family.project(features, None)
        scores: list = [None] * len(features.tiles)
        for image, (embeddings, origin) in enumerate(zip(tokens.embeddings, tokens.origin, strict=True)):
            text = prompt.of_image(image).to(embeddings)
            alike = (normalize(embeddings, dim=-1) @ normalize(text, dim=-1).T).amax(1).float()
            for tile in origin[:, 0].unique().tolist():
                if tile >= 0:
                    scores[tile] = alike[(origin[:, 0] == tile).to(alike.device)]
        return values.Significance.of(features, scores, "text")
