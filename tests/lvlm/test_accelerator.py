"""From pixels to the first token on a simulated accelerator: no tensor on the wrong side, no hidden wait."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.decoding import generate as generating
from fopru_graph.lvlm.decoding.captured import CapturedRunner
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.contextual_merge import ContextualMerge
from fopru_graph.nodes.dart_prune import DartPrune
from fopru_graph.nodes.drop_similar import DropSimilar
from fopru_graph.nodes.fastv_prune import FastVPrune
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.priortr_prune import PriorTRPrune
from fopru_graph.nodes.promote_anchors import PromoteAnchors
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.schedule import Schedule
from fopru_graph.nodes.significance import Significance as Scorer
from fopru_graph.nodes.sparse_vlm_prune import SparseVLMPrune
from fopru_graph.nodes.v2drop_prune import V2DropPrune
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.pruning.rows import row_prune
from fopru_graph.pruning.select import rank_prune
from fopru_graph.values import InLLMPruner, Significance, Tile, TileAttention, Video, VisionFeatures
from tests import tiny
from tests.lvlm.accelerator import DeviceTensor, move, on_host, simulated
from tests.lvlm.decoding.fake_cuda import FakeCuda
from tests.lvlm.zoo import ZOO

FILM = Video(tuple(tiny.image(i, 112, 112).picture for i in range(4)), "film")
FAMILIES = {name: (row.build, row.sizes, row.first) for name, row in ZOO.items()} | {
    text: (lambda attention, text=text: tiny.llava(text, kv_heads=1, attention=attention), ((48, 40),), 2)
    for text in ("mistral", "qwen2", "qwen3")
}
TOKEN = "fopru_graph.lvlm.decoding.sampling.all_finished"  # reads the first token
# What the host must know of the scores: docs/performance.md names them.
NEWLINES = "fopru_graph.lvlm.families.llava_next.project"
MARKUP = "fopru_graph.lvlm.inputs.token_ids._kept"
OURS = {
    **dict.fromkeys(("llava_next", "llava_onevision"), {NEWLINES}),
    **dict.fromkeys(("mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"), {MARKUP}),
}
# Families whose stock encoder or forward waits, in code of transformers.
STOCK = {"idefics3", "smolvlm", "llava_onevision", "mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}


FILM = Video(tuple(tiny.image(i, 112, 112).picture for i in range(4)), "film")
MASS = "fopru_graph.pruning.cumulative.cumulative_select"  # how many tokens hold the mass


def takes_videos(family):
    try:
        family.encode([FILM])
    except UserError:
        return False
    return True


class FirstToken(Exception):
    """Ends the answer when the first token is known."""


def first_token(family, images, prompts, pruner, first):
    """The ids and logits of the first token, by a whole pipeline; ``pruner`` is a node and its inputs."""
    found = []

    def end(ids, logits):
        found.extend((ids, logits.clone()))
        raise FirstToken

    features = family.encode(images)
    node, inputs = pruner
    selection = Reorder()(selection=node()(significance=Scorer()(features=features), **inputs))
    tokens = family.project(features, selection)
    with pytest.raises(FirstToken):
        generating.generate(
            family, tokens, prompts, [InLLMPruner(last_token_attention, first, 0.5)], max_new_tokens=4, on_step=end
        )
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_but_what_is_named_waits_for_the_device_before_the_first_token(name):
    build, sizes, first = FAMILIES[name]
    family = build("sdpa")
    family.model.generation_config.eos_token_id = [7, 9]
    pictures = [tiny.image(i, *sizes[i % len(sizes)]) for i in range(2)]
    cases = [
        (pictures, ["what?", "a longer question"], (RankPrune, {"ratio": 0.5}), set()),
        (pictures, ["<image> or <image>?"], (RowPrune, {"ratio": 0.5}), set()),
        ([FILM] if takes_videos(family) else pictures[:1], ["what?"], (MassPrune, {"mass": 0.5}), {MASS}),
    ]
    for images, prompts, pruner, more in cases:
        expected = first_token(family, images, prompts, pruner, first)
        with simulated() as device:
            host = move(family.model)
            found = first_token(family, images, prompts, pruner, first)
        host()
        assert all(isinstance(value, DeviceTensor) for value in found)
        assert all(torch.equal(on_host(value), known) for value, known in zip(found, expected, strict=True))
        ours = [wait for wait in device.waits if wait.place.startswith("fopru_graph")]
        assert {wait.place for wait in ours} <= {TOKEN} | more | OURS.get(name, set()), ours
        assert all([wait.place for wait in ours].count(place) == 1 for place in {TOKEN} | more)
        stock = {wait.place for wait in device.waits} - {wait.place for wait in ours}
        assert not stock or name in STOCK, stock


@pytest.mark.parametrize("node", [DartPrune, FastVPrune, PriorTRPrune, SparseVLMPrune, V2DropPrune])
@pytest.mark.parametrize("name", ["llava", "paligemma"])
def test_chains_of_cuts_wait_for_nothing_but_the_first_token(name, node):
    family = ZOO[name].build("sdpa")
    cuts = Schedule()(pruner=node()(), layers=[0.25, 0.75], ratio=0.25)
    images, prompts = [tiny.image(i, 64, 64) for i in range(2)], ["what?", "a longer question"]

    def answer():
        tokens = family.project(family.encode(images), None)
        return generating.generate(family, tokens, prompts, cuts, max_new_tokens=1)

    expected = answer()
    with simulated() as device:
        host = move(family.model)
        found = answer()
    host()
    assert found.token_ids == expected.token_ids and found.visual_per_layer == expected.visual_per_layer
    ours = {wait.place for wait in device.waits if wait.place.startswith("fopru_graph")}
    assert ours & {TOKEN} and not {place for place in ours if "pruning" in place or "kept" in place}, ours


def test_a_prompt_that_is_computed_in_a_steps_buffers_waits_for_nothing_else(monkeypatch):
    FakeCuda().install(monkeypatch)
    monkeypatch.setattr(captured, "free_memory", lambda _device: 2**30)
    family = tiny.llava(seed=82)
    images = [tiny.image()]
    with simulated() as device:
        host = move(family.model)
        tokens = family.project(family.encode(images), None)
        generating.generate(family, tokens, ["what?"], max_new_tokens=3)
        (step,) = family.steps.values()
        device.waits.clear()
        features = family.encode(images)
        selection = Reorder()(selection=RankPrune()(significance=Scorer()(features=features), ratio=0.5))
        runner = CapturedRunner(family, build_prompt(family, ["which?"], family.project(features, selection)), [], 2)
        runner.prefill()
        assert not device.waits
        assert [keys.values.data_ptr() for keys, _ in runner.filled()] == [k.values.data_ptr() for k, _ in step.caches]
    host()


BAD = {
    "reads a value": lambda there, here: bool(there.sum() > 0),
    "from the device": lambda there, here: there.tolist(),
    "to the device": lambda there, here: here.to(there.device),
    "copies values to the device": lambda there, here: torch.tensor([1], device=there.device),
    "takes a mask": lambda there, here: there[there > 0],
    "makes a shape": lambda there, here: there.nonzero(),
    "from the host": lambda there, here: there[here.long()],
}


@pytest.mark.parametrize("what", BAD)
def test_the_simulated_device_notices(what):
    with simulated() as device:
        there = DeviceTensor(torch.ones(3))
        BAD[what](there, torch.zeros(3))
        assert what in device.waits[0].what
        device.waits.clear()
        there[0] = 2.0  # a number, a pinned copy and an index of the device's are fine
        there[torch.zeros(3).long().pin_memory().to(there.device, non_blocking=True)].sum()
        assert not device.waits
        with pytest.raises(RuntimeError, match="mixes the device and a host tensor"):
            there + torch.zeros(3)


def test_a_budget_over_an_image_waits_once_for_all_its_tiles():
    scores = [torch.rand(4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    grids, direction, images = ((2, 2),) * 3, ("columns",) * 3, (0, 0, 0)
    for prune in (rank_prune, row_prune):
        expected = prune(Significance(tuple(scores), grids, direction, images), 0.5, None, "image").indices
        with simulated() as device:
            there = tuple(map(DeviceTensor, scores))
            found = prune(Significance(there, grids, direction, images), 0.5, None, "image").indices
        assert len(device.waits) == 1
        assert all(torch.equal(on_host(one), known) for one, known in zip(found, expected, strict=True))


def encoded(device=lambda tensor: tensor):
    """Features and scores of three tiles, of which two have one size."""
    random = torch.Generator().manual_seed(0)
    tiles, scores = [], []
    for image, (high, wide) in enumerate(((4, 5), (4, 5), (3, 3))):
        features, key = (
            torch.randn(high * wide, 6, generator=random),
            torch.randn(2, 1 + high * wide, 4, generator=random),
        )
        attention = TileAttention(device(key), device(key), 0.5, 1, has_cls=True)
        tiles.append(Tile(device(features), (high, wide), image, attention))
        scores.append(device(torch.rand(high * wide, generator=random)))
    return Significance(tuple(scores), ((4, 5), (4, 5), (3, 3)), ("x",) * 3), VisionFeatures(tuple(tiles), ())


def hiprune(scores, features, budgets):
    promoted = PromoteAnchors()(significance=scores, anchors=scores, budget=budgets.part)
    return RankPrune()(significance=promoted, budget=budgets.whole)


def visionzip(scores, features, budgets):
    dominant = RankPrune()(significance=scores, budget=budgets.part)
    return ContextualMerge()(features=features, selection=dominant, budget=budgets.whole).selection


def vispruner(scores, features, budgets):
    important = RankPrune()(significance=scores, budget=budgets.part)
    return DropSimilar()(features=features, significance=scores, budget=budgets.whole, start=important)


@pytest.mark.parametrize("method", [hiprune, visionzip, vispruner])
def test_bricks_that_share_a_budget_wait_for_nothing(method):
    scores, features = encoded()
    budgets = Budget()(features=features, ratio=0.5, share=0.6)
    expected = method(scores, features, budgets).indices
    with simulated() as device:
        found = method(*encoded(DeviceTensor), budgets).indices
    assert not device.waits
    assert all(torch.equal(on_host(kept), known) for kept, known in zip(found, expected, strict=True))
