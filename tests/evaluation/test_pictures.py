"""What an evaluation shows of its samples: kept tokens, whatever the pipeline, and the encoder's attention."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from fopru_graph import values
from fopru_graph.evaluation.pictures import picture_values, write_attention, write_picture
from fopru_graph.graph import Graph
from fopru_graph.lvlm.families.attention_profile import attention_profile
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.pictures.overlay import KEPT, LEFT, caption
from fopru_graph.pipeline_model import PipelineModel
from tests import tiny
from tests.lvlm.zoo import ZOO

SIGN = "demo:street-sign"


@pytest.fixture(scope="module")
def loaded():
    return {}


def asked(file, loaded, count=1, **settings):
    graph = Graph.load(f"pipelines/{file}.yaml")
    for target, value in settings.items():
        graph.set(target.replace("__", "."), value)
    model = PipelineModel(graph, loaded)
    pictures = [(f"{SIGN}#{n}", load_image(SIGN).picture) for n in range(count)]
    answered = model.answer("what does the text say ?", pictures, 8)
    return model, answered


@pytest.mark.parametrize(
    ("file", "kept", "final", "scored"),
    [
        ("baseline", 256, 256, False),
        ("fopru_rank", 64, 64, True),
        ("fopru_row", 64, 64, True),
        ("fastv", 256, 64, False),
        ("fopru_fastv", 128, 64, True),
    ],
)
def test_what_is_shown_is_what_the_language_model_got(file, kept, final, scored, loaded, tmp_path):
    settings = {"prune__ratio": 0.25} if file in ("fopru_rank", "fopru_row") else {}
    model, answered = asked(file, loaded, **settings)
    shown = picture_values(model.last_run())
    assert [len(index) for index in shown.selection.indices] == [kept] and shown.selection.counts == (256,)
    assert sum(len(rows) for rows in shown.generation.kept) == final
    assert (shown.significance is not None) == scored
    if kept < 256:
        best = shown.significance.scores[0]
        rows = best.view(16, 16).sum(1).topk(4).indices if file == "fopru_row" else None
        expected = best.topk(kept).indices if rows is None else (rows[:, None] * 16 + torch.arange(16)).flatten()
        assert set(shown.selection.indices[0].tolist()) == set(expected.tolist())
    write_picture(tmp_path, 3, shown, SIGN, "what?", answered.text)
    facts = json.loads((tmp_path / "pictures" / "3.json").read_text())
    tokens = {"encoded": 256, "kept": kept, "final": final}
    assert facts == {"source": SIGN, "question": "what?", "answer": answered.text} | tokens
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"3.png", "3.json"}
    assert caption(LEFT if final < kept else KEPT, np.arange(256) < final).endswith(f"({100 * final / 256:.3g} %)")
    with PIL.Image.open(tmp_path / "pictures" / "3.png") as picture:
        panels = 2 + scored + (final < kept)
        assert picture.width == pytest.approx(panels * 448, rel=0.1)


@pytest.mark.parametrize("file", sorted(path.stem for path in Path("pipelines").glob("*.yaml")))
def test_every_shipped_pipeline_shows_as_many_tokens_as_it_counts(file, loaded, tmp_path):
    model, answered = asked(file, loaded)
    shown = picture_values(model.last_run())
    counted = answered.report["visual_tokens"]
    assert sum(map(len, shown.selection.indices)) == counted["kept"]
    assert all(len(index.unique()) == len(index) for index in shown.selection.indices)
    assert sum(len(rows) for rows in shown.generation.kept) == counted["final"]
    write_picture(tmp_path, 0, shown, SIGN, "what?", answered.text)
    facts = json.loads((tmp_path / "pictures" / "0.json").read_text())
    assert {name: facts[name] for name in ("encoded", "kept", "final")} == {
        name: counted[name] for name in ("encoded", "kept", "final")
    }


@pytest.mark.parametrize(("file", "sizes"), [("spatial_pool", {4}), ("tome", None)])
def test_pooled_tokens_know_their_areas(file, sizes, loaded):
    model, answered = asked(file, loaded)
    shown = picture_values(model.last_run())
    (areas,), (indices,) = shown.selection.areas, shown.selection.indices
    assert set(areas.tolist()) == set(indices.tolist()) and len(areas) == 256
    assert (areas[indices] == indices).all(), "a merged token has the place of one of its own"
    assert sizes is None or set(areas.unique(return_counts=True)[1].tolist()) == sizes


def test_what_drops_tokens_has_no_areas(loaded):
    model, _ = asked("prumerge", loaded)
    assert picture_values(model.last_run()).selection.areas == ()


def test_every_picture_of_a_question_is_shown(loaded, tmp_path):
    model, answered = asked("fopru_fastv", loaded, count=2)
    shown = picture_values(model.last_run())
    assert [len(index) for index in shown.selection.indices] == [128, 128]
    write_picture(tmp_path, 0, shown, SIGN, "which?", answered.text)
    assert json.loads((tmp_path / "pictures" / "0.json").read_text())["encoded"] == 512


class Result:
    """A run with given values: node name to what comes in by name of node, and its outputs."""

    def __init__(self, **nodes):
        from types import SimpleNamespace

        from fopru_graph.graph import Ref

        self.by_node = {name: {"output": made} for name, (_, made) in nodes.items()}
        steps = {name: {source: Ref(source, "output") for source in given} for name, (given, _) in nodes.items()}
        self.plan = SimpleNamespace(steps={name: SimpleNamespace(inputs=inputs) for name, inputs in steps.items()})


@pytest.fixture(scope="module")
def pieces():
    from fopru_graph.lvlm.decoding.generate import generate

    family = tiny.llava()
    features = family.encode([tiny.image()])
    tokens = family.project(features, None)
    return family, features, tokens, generate(family, tokens, ["x"], max_new_tokens=1)


def test_features_are_those_that_were_projected_and_scores_fit_them(pieces):
    _, features, tokens, generation = pieces
    other = tiny.llava(grid=(2, 2)).encode([tiny.image()])
    scores = values.Significance((torch.ones(16),), ((4, 4),), ("toy",))
    few = values.Significance((torch.ones(4),), ((2, 2),), ("toy",))
    result = Result(
        encode=((), other),
        score=(("encode",), few),
        pool=(("encode",), features),
        project=(("pool",), tokens),
        generate=(("project",), generation),
    )
    shown = picture_values(result)
    assert shown.features is features and shown.significance is None and shown.generation is generation
    result = Result(
        encode=((), features),
        score=(("encode",), scores),
        project=(("encode",), tokens),
        generate=(("project",), generation),
        another=(("encode",), other),
    )
    shown = picture_values(result)
    assert shown.features is features and shown.significance is scores


def test_a_blind_model_is_shown_to_see_nothing(pieces, tmp_path):
    from dataclasses import replace

    _, features, tokens, generation = pieces
    nothing = replace(tokens, embeddings=(tokens.embeddings[0][:0],), origin=(tokens.origin[0][:0],))
    blind = replace(generation, projected=0, visual_per_layer=(0,) * 5, kept=(generation.kept[0][:0],))
    result = Result(
        encode=((), features),
        project=(("encode",), tokens),
        blind=(("project",), nothing),
        generate=(("blind",), blind),
    )
    shown = picture_values(result)
    assert shown.features is features and [len(index) for index in shown.selection.indices] == [0]
    write_picture(tmp_path, 0, shown, "s", "q", "a")
    assert json.loads((tmp_path / "pictures" / "0.json").read_text())["kept"] == 0


def test_rows_that_stand_for_no_patch_are_not_shown_and_packing_counts():
    from fopru_graph.lvlm.decoding.generate import generate

    family = ZOO["llava_next"].build("sdpa")
    features = family.encode([tiny.image(0, 90, 50)])
    tokens = family.project(features, None)
    generation = generate(family, tokens, ["x"], max_new_tokens=1)
    shown = picture_values(
        Result(encode=((), features), project=(("encode",), tokens), generate=(("project",), generation))
    )
    real = int((tokens.origin[0][:, 0] >= 0).sum())
    assert sum(map(len, shown.selection.indices)) == real == sum(features.counts) == generation.encoded


def test_a_run_without_tokens_of_ours_shows_nothing(pieces):
    _, features, tokens, generation = pieces
    assert picture_values(Result(stock=((), generation))) is None
    assert picture_values(Result(encode=((), features), project=(("encode",), tokens))) is None


def test_attention_as_a_file(loaded, tmp_path):
    model, _ = asked("baseline", loaded)
    pictures = [(name, load_image(name).picture) for name in (SIGN, "demo:bank-corner")]
    path = tmp_path / "attention.json"
    write_attention(model.handle, pictures, path)
    assert [one.name for one in tmp_path.iterdir()] == ["attention.json"]
    data = json.loads(path.read_text())
    assert (data["model"], data["layers"], data["read_layer"]) == ("demo", 6, 4)
    assert [one["source"] for one in data["pictures"]] == [SIGN, "demo:bank-corner"]
    profile = attention_profile(model.handle.family, load_image(SIGN))
    first = data["pictures"][0]
    assert first["grid"] == [16, 16] and list(first["maps"]) == ["0", "3", "4", "5"]
    for layer, scores in first["maps"].items():
        assert np.allclose(scores, profile.received[int(layer)].view(16, 16), rtol=1e-4)
        assert all(len(repr(value).lstrip("0.").replace(".", "").partition("e")[0]) <= 5 for value in scores[0])
    assert [len(curve) for curve in first["curves"]] == [21] * 6
    best = profile.received[4].double().sort(descending=True).values
    assert first["curves"][4][5] == pytest.approx(float(best[:64].sum() / best.sum()), rel=1e-4)
    needed = 1 + int((best.cumsum(0) / best.sum() < 0.8).sum())
    assert first["tokens_for_80"][4] == pytest.approx(needed / 256, abs=1e-5)
    assert needed / 256 < 0.25  # the paper's observation, on the bundled model


def test_layers_with_windows_are_null(tmp_path):
    family = ZOO["qwen2_5_vl"].build("sdpa")
    path = tmp_path / "attention.json"
    write_attention(values.ModelHandle("tiny", family), [("noise", tiny.image(0, 160, 120).picture)], path)
    (one,) = json.loads(path.read_text())["pictures"]
    whole = sorted(family.tower.fullatt_block_indexes)
    assert [layer for layer, curve in enumerate(one["curves"]) if curve is not None] == whole
    assert [layer for layer, share in enumerate(one["tokens_for_80"]) if share is not None] == whole
    assert set(map(int, one["maps"])) <= set(whole)
    assert Path(path).stat().st_size > 0


def test_attention_of_no_picture_is_refused(pieces, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_attention(values.ModelHandle("tiny", pieces[0]), [], tmp_path / "attention.json")
