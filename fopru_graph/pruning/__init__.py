"""The mathematics of visual-token pruning: pure tensor functions, no models and no files.

Shapes in every docstring: N visual tokens of one tile on a grid (h, w), K of them kept, H heads, P prefix tokens
(CLS), d head size; B prompts of L tokens in the language model. A ratio is always the share *kept*, in (0, 1].
"""
