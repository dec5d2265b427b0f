"""Packed weights: the same answers, no weight held twice, and a choice that follows from a measurement alone."""

from __future__ import annotations

import copy
import io
import pickle
import weakref

import pytest
import torch
from torch.nn.functional import linear

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.loading import load, packed
from fopru_graph.lvlm.loading.load import load_model, model_identity
from fopru_graph.lvlm.loading.packed import PackedLinear, pack, worth_packing
from fopru_graph.nodes.rank_prune import RankPrune
from tests import tiny
from tests.lvlm.loading.test_load import edit
from tests.lvlm.loading.test_presets import small
from tests.lvlm.test_matrix import BATCHES, STEPS, pictures, run, tokens_of
from tests.lvlm.zoo import ZOO, stock_answer

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def packed_layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, PackedLinear)]


# -- what a packed model computes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_packed_weights_answer_as_plain_ones_do(name):
    """Pruned at both places, and stock ``generate`` on the same model; logits to 1e-4."""
    row = ZOO[name]
    prompts, count = BATCHES["batch of two sizes"]
    images = pictures(row, count)

    def answers(family):
        pruned = run(family, tokens_of(family, images, RankPrune, 0.5), prompts, [(row.first, 0.5)])
        whole, logits = run(family, tokens_of(family, images, None, 1.0), prompts, [])
        ids, stock = stock_answer(row, family, prompts, images, STEPS)
        assert [*map(list, whole.token_ids)] == ids and (logits - stock).abs().max() < 1e-4
        return (pruned[0].token_ids, pruned[0].kv_lengths, whole.token_ids), torch.stack([pruned[1], logits])

    family = row.build("sdpa")
    expected, wanted = answers(family)
    sizes = family.model_sizes()
    pack(family.model)
    assert len(packed_layers(family.tower)) > 4 and len(packed_layers(family.layers)) > 4 * len(family.layers)
    found, logits = answers(family)
    assert found == expected
    assert (logits - wanted).abs().max() < 1e-4
    assert family.model_sizes() == sizes
    assert (str(family.dtype), str(family.device)) == ("torch.float32", "cpu")


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_bfloat16_answers_alike_in_every_loop(loop):
    def first_logits(packs):
        family, logits = tiny.llava(dtype=torch.bfloat16), []
        if packs:
            pack(family.model)
        tokens = family.project(family.encode([tiny.image()]), None)
        generate(family, tokens, ["hello"], [], 1, loop=loop, on_step=lambda _, step: logits.append(step.float()))
        return logits[0]

    plain = first_logits(False)
    assert (first_logits(True) - plain).abs().max() < 0.03 * plain.abs().max()  # eight steps of bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_shape_and_layout(dtype, bias):
    layer = torch.nn.Linear(24, 40, bias=bias).to(dtype).requires_grad_(False)
    whole = torch.nn.Sequential(copy.deepcopy(layer))
    pack(whole)
    wide = torch.randn(3, 5, 48).to(dtype)
    inputs = [wide[..., :24], wide[:0, :, :24], wide[0, 0, 24:], wide[:1, :1, ::2], wide[..., :24].transpose(0, 1)]
    for given in inputs:
        found, expected = whole(given), layer(given)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert torch.allclose(found, expected, rtol=0.02, atol=1e-6 if dtype == torch.float32 else 0.02)


def test_gradients_and_wrong_types_are_as_before():
    layer = torch.nn.Linear(8, 6).requires_grad_(False)
    whole = torch.nn.Sequential(copy.deepcopy(layer))
    pack(whole)
    given = torch.randn(2, 8, requires_grad=True)
    (found,), (expected,) = (torch.autograd.grad(one(given).square().sum(), given) for one in (whole, layer))
    assert torch.allclose(found, expected)
    with pytest.raises(RuntimeError, match="dtype"):
        whole(torch.zeros(2, 8, dtype=torch.bfloat16))


# -- what is packed, and what becomes of the weights ------------------------------------------------------------------


def test_weights_are_there_once():
    family = tiny.llava()
    layers = [module for module in family.model.modules() if type(module) is torch.nn.Linear]
    before = [weakref.ref(layer.weight) for layer in layers]
    needed = sum(weight.nbytes for weight in family.model.parameters())
    pack(family.model)
    assert before and not any(weight() is not None for weight in before)
    assert all(isinstance(layer, PackedLinear) for layer in layers)
    assert sum(weight.numel() * weight.element_size() for weight in family.model.parameters()) == needed


def test_what_is_not_packed_leaves_the_checkpoints_file(folder):
    family = load_model(str(folder), "cpu").family
    before = {weight.data_ptr() for weight in family.model.parameters()}
    pack(family.model)
    assert not before & {weight.data_ptr() for weight in family.model.parameters() if not weight.is_mkldnn}


def test_an_output_head_that_is_the_embeddings_stays_one():
    family = ZOO["qwen2_vl"].build("sdpa")
    table = family.model.get_input_embeddings().weight
    family.model.lm_head.weight = table
    pack(family.model)
    head = family.model.lm_head
    assert type(head) is torch.nn.Linear and head.weight is table and not table.is_mkldnn
    assert packed_layers(family.layers) and family.embed(torch.tensor([[5]])).isfinite().all()


def test_other_kinds_of_layers_stay_and_hooks_too():
    class Quantised(torch.nn.Linear):
        pass

    calls = []
    model = torch.nn.Sequential(Quantised(4, 4), torch.nn.Linear(4, 4), torch.nn.MultiheadAttention(4, 2))
    model[1].register_forward_hook(lambda *_: calls.append(1))
    pack(model)
    assert packed_layers(model) == ["1"] and isinstance(model[1], torch.nn.Linear)
    model[1](torch.zeros(1, 4))
    assert calls == [1]


@pytest.mark.parametrize(
    "misuse",
    [
        copy.deepcopy,
        pickle.dumps,
        lambda model: torch.save(model.state_dict(), io.BytesIO()),
        lambda model: model.to("meta"),
        lambda model: torch.nn.Sequential(torch.nn.Linear(4, 4)).load_state_dict(model.state_dict()),
    ],
)
def test_a_packed_model_is_not_copied_or_moved_in_silence(misuse):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    pack(model)
    with pytest.raises((RuntimeError, NotImplementedError)):
        misuse(model)


# -- when -------------------------------------------------------------------------------------------------------------

WIDE, NARROW = ({"text_config": {"hidden_size": width}} for width in (768, 256))


def answered(monkeypatch, seconds):
    """What is decided where products take ``seconds[packed, rows]``."""
    monkeypatch.setattr(packed, "_seconds", lambda way: seconds[way.func is not linear, len(way.args[0])])
    packed._faster.cache_clear()
    try:
        return worth_packing(WIDE, "float32")
    finally:
        packed._faster.cache_clear()


@pytest.mark.parametrize(
    ("many", "single", "worth"),
    [(0.45, 1.1, True), (1.0, 0.6, True), (0.75, 0.6, True), (1.0, 1.0, False), (0.95, 1.2, False), (0.9, 0.95, False)],
)
def test_the_faster_way_is_taken(monkeypatch, many, single, worth):
    """On processors where MKL is slow, where oneDNN lays weights out in each call, and where neither is so."""
    seconds = {(False, 128): 1.0, (True, 128): many, (False, 1): 1.0, (True, 1): single}
    assert answered(monkeypatch, seconds) is worth


def test_a_torch_without_the_operations_or_with_others_packs_nothing(monkeypatch):
    seconds = {(False, 128): 1.0, (True, 128): 0.1, (False, 1): 1.0, (True, 1): 0.1}
    assert answered(monkeypatch, seconds)
    monkeypatch.setattr(packed, "_product", lambda rows, weight, *_: rows @ weight.to_dense())  # without transposing
    assert not answered(monkeypatch, seconds)

    def unsupported(*_):
        raise RuntimeError("mkldnn: the device does not support bf16")

    for operation in ("_product", "_reorder"):
        for broken in (None, unsupported):
            monkeypatch.undo()
            monkeypatch.setattr(packed, operation, broken)
            assert not answered(monkeypatch, seconds)


def test_measuring_leaves_threads_and_seeds_alone(monkeypatch):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    packed._faster.__wrapped__("bfloat16")
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_narrow_models_and_other_types_are_not_even_measured(monkeypatch):
    monkeypatch.setattr(packed, "_faster", lambda _: pytest.fail("measured"))
    for config, weight_type in ((NARROW, "float32"), (NARROW, "bfloat16"), (WIDE, "float16"), (WIDE, "auto")):
        assert not worth_packing(config, weight_type)
    for name in ("demo", "random:llava-cpu"):
        assert model_identity(name, "cpu", packed="never")["packed"] is False
    assert model_identity("demo", "cpu")["packed"] is False
    monkeypatch.setattr(packed, "_faster", lambda _: True)
    assert worth_packing(WIDE, "float32") and worth_packing({"text_config": {}}, "bfloat16")


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(load, "worth_packing", lambda *_: True)


def test_a_checkpoint_is_packed_where_that_is_faster_and_the_identity_says_so(folder, always, monkeypatch):
    name = str(folder)
    assert packed_layers(load_model(name, "cpu").family.model) and model_identity(name, "cpu")["packed"] is True
    for options in ({"packed": "never"}, {"device_map": "sequential"}):
        assert not packed_layers(load_model(name, "cpu", **options).family.model)
        assert model_identity(name, "cpu", **options)["packed"] is False
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    assert model_identity(name, "cpu")["packed"] is False
    assert model_identity("demo", "cpu", quantization="8bit")["packed"] is False
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert model_identity("random:llava-cpu", "cuda")["packed"] is False


def test_a_random_model_is_packed_likewise(always, monkeypatch):
    monkeypatch.setattr(load, "preset_config", lambda _: small(False))
    assert packed_layers(load_model("random:llava-cpu", "cpu").family.model)
    assert not packed_layers(load_model("random:llava-cpu", "cpu", packed="never").family.model)
