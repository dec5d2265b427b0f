"""A pipeline that uses all that a prompt cannot hold: a sub-graph, inputs, a disabled node, comments, positions."""

from __future__ import annotations

from pathlib import Path

from fopru_graph.graph import Graph

SIGN = """
format: 1
name: sign
inputs:
  model: {type: ModelHandle}
  image: {type: Image}
  ratio: {type: float, default: 0.5}
nodes:
  encode:       {type: VisionEncode, inputs: {model: $inputs.model, image: $inputs.image}}
  significance: {type: Significance, inputs: {features: $encode}}
  prune:        {type: RankPrune, inputs: {significance: $significance, ratio: $inputs.ratio}}
outputs: {features: $encode, selection: $prune, significance: $significance}
"""
WHOLE = """
format: 1
name: whole
description: "All of it; $$ and ümläuts."
inputs:
  image:  {type: path, default: demo:street-sign}
  prompt: {type: str, default: $$5 for what ?}
  ratio:  {type: float, default: 0.25}
  spare:  {type: int, default: 3}
nodes:
  model:    {type: LoadModel, cache: memory, comment: the demo}
  image:    {type: LoadImage, inputs: {path: $inputs.image}}
  sign:     {type: ./sign.yaml, inputs: {model: $model, image: $image, ratio: $inputs.ratio}}
  reorder:  {type: Reorder, enabled: false, inputs: {selection: $sign.selection}}
  project:  {type: Project, inputs: {model: $model, features: $sign.features, selection: $reorder}}
  first:    {type: FastVPrune, inputs: {layer: 2, ratio: $inputs.ratio}}
  second:   {type: FastVPrune, inputs: {layer: 3, ratio: 0.5}}
  generate:
    type: LLMGenerate
    inputs: {model: $model, tokens: $project, prompt: $inputs.prompt, pruners: [$first, $second], stop: ["$$", b], max_new_tokens: 4}
  save:     {type: SaveText, inputs: {text: $generate.text}}
outputs: {text: $generate.text, kept: $sign.selection}
ui: {canvas: {model: [3, 4.5]}, other: [1, "$$"]}
"""  # noqa: E501


def whole(folder: Path) -> Graph:
    """The pipeline, from files in this folder."""
    (folder / "sign.yaml").write_text(SIGN, encoding="utf-8")
    (folder / "whole.yaml").write_text(WHOLE, encoding="utf-8")
    return Graph.load(folder / "whole.yaml")
