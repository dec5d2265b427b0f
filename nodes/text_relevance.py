from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class TextRelevance(Node):
    """Score projected visual tokens (ProjectAll) by their cosine to the question, 0 to 1 over each image (CDPruner).

    CDPruner (arXiv 2506.10967) asks CLIP's text encoder. Checkpoints of language models have none: the mean of the
    question's embeddings (EncodePrompt) stands for it, as in OpenVINO GenAI (`visual_language/cdpruner/`), which takes
    that of the chat template too. CDPruner negates CLIP's cosines; these are not negated. Where all tokens are equally
    relevant, each has 1, not 0 / 0.
    """

    attention_work = "none"

    def run(self, features: values.VisionFeatures, question: values.PromptEmbeddings) -> values.Significance:
        from fopru_graph.pruning.relevance import text_relevance

        scores = []
        for image in dict.fromkeys(tile.image for tile in features.tiles):
            tiles = [tile.features for tile in features.tiles if tile.image == image]
            scores += text_relevance(tiles, question.of_image(image).to(tiles[0].device))
        return values.Significance.of(features, scores, "relevance")
