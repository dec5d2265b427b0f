"""How nodes look on the canvas: their names, links and outputs, and the links of the shipped pipelines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import PIL.Image
import pytest
from pydantic import Field

from fopru_graph import values
from fopru_graph.comfy.plan import PICTURES, NodePlan, link_type, plan_of, plans
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, Node, Outputs, Ref, Registry, node
from fopru_graph.graph.shipped import shipped_pipelines

PLANS = plans(Registry.default())


def test_a_node_is_called_by_its_type_and_answers_if_it_makes_a_text():
    prune = PLANS["FopruRankPrune"]
    assert (prune.type, prune.title, prune.category) == ("FopruRankPrune", "RankPrune (FoPru)", "fopru/prune")
    answering = {name for name, plan in PLANS.items() if plan.answers}
    assert answering == {"FopruLLMGenerate", "FopruStockGenerate"}
    assert [slot.name for slot in prune.widgets] == ["ratio", "tokens", "over"]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (values.VisionFeatures, "FOPRU_VISION_FEATURES"),
        (list[values.InLLMPruner], "FOPRU_IN_LLM_PRUNER"),
        (list[values.Image | values.Video] | None, "FOPRU_IMAGE"),
        (PIL.Image.Image, "IMAGE"),
        (Annotated[float, Field(gt=0)], "FLOAT"),
        (Literal["a", "b"], "STRING"),
        (bool, "BOOLEAN"),
        (list[int], "INT"),
        (Any, "*"),
        (dict[str, Any], "FOPRU_DICT"),
    ],
)
def test_the_type_of_links_follows_from_the_class(annotation, expected):
    assert link_type(annotation) == expected


class TwoTexts(Outputs):
    """What a node gives."""

    text: str
    score: float | None


def test_an_output_is_called_as_declared_and_a_single_one_by_what_it_is():
    @node(category="toy")
    class Talk(Node):
        """Two outputs."""

        def run(self) -> TwoTexts:
            return TwoTexts("", None)

    talk = plan_of(Talk.spec)
    assert [(out.name, out.type, out.output) for out in talk.outputs] == [
        ("text", "STRING", "text"), ("score", "FLOAT", "score"),
    ]  # fmt: skip
    assert talk.answers
    assert (talk.index("score"), talk.index("text")) == (1, 0)
    single = {name: plan.outputs[0] for name, plan in PLANS.items() if len(plan.outputs) == 1}
    assert (single["FopruProject"].name, single["FopruSaveText"].name) == ("visual_tokens", "path")
    assert (single["FopruStageRatio"].name, single["FopruSwitch"].name) == ("stage_ratio", "output")
    assert {out.output for out in single.values()} == {"output"}
    assert PLANS["FopruProject"].index(None) == 0


# -- the node that only a canvas has ----------------------------------------------------------------------------------


def test_pictures_gathers_links_to_a_list_and_gives_it_as_it_is():
    (slot,), (out,) = PICTURES.slots, PICTURES.outputs
    assert (slot.growing, slot.types, out.type) == (True, ("FOPRU_IMAGE", "IMAGE"), "FOPRU_IMAGE")
    assert PLANS["FopruPictures"] is PICTURES
    assert Registry.default().find("Pictures") is None
    given = [values.Image(PIL.Image.new("RGB", (2, 2)), source) for source in "ab"]
    assert PICTURES.spec.cls()(pictures=given) == given


def test_a_node_type_of_its_name_is_refused():
    @node(category="toy")
    class Pictures(Node):
        """In the way."""

        def run(self) -> str:
            return ""

    registry = Registry()
    registry.add(Pictures)
    with pytest.raises(UserError, match="has a node Pictures already"):
        plans(registry)


# -- links of the shipped pipelines -----------------------------------------------------------------------------------


def plan_and_nodes(name: str) -> tuple[Graph, dict[str, NodePlan]]:
    graph = Graph.load(name).flat()
    return graph, {entry.name: PLANS[f"Fopru{entry.type}"] for entry in graph.nodes.values()}


@pytest.mark.parametrize("name", sorted(shipped_pipelines()))
def test_every_link_of_a_shipped_pipeline_fits_on_the_canvas(name):
    graph, found = plan_and_nodes(name)
    seen = 0
    for entry in graph.nodes.values():
        for key, value in entry.inputs.items():
            for ref in value if isinstance(value, list) else [value]:
                if isinstance(ref, Ref) and ref.node in found:
                    plan = found[ref.node]
                    out = plan.outputs[plan.index(ref.output)].type
                    takes = found[entry.name].slot(key).types
                    assert out in takes or "*" in (out, *takes), f"{ref} ({out}) does not fit {entry.name}.{key}"
                    seen += 1
    assert seen >= len(graph.nodes) - 1
