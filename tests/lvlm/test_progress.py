"""How far loading and encoding are: told in order, from begin to end, and nothing stays behind."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from transformers.utils import logging

from fopru_graph.errors import UserError
from fopru_graph.graph import Context, NodeProgress
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.lvlm.loading.presets import random_model
from fopru_graph.lvlm.progress import WeightsCounted
from fopru_graph.nodes.llm_generate import LLMGenerate
from fopru_graph.nodes.vision_encode import VisionEncode
from fopru_graph.values import Image, ModelHandle
from tests import tiny
from tests.lvlm.accelerator import move, simulated
from tests.lvlm.decoding.fake_cuda import FakeCuda
from tests.lvlm.loading.test_presets import small
from tests.lvlm.test_invariants import Stop, fingerprint


class Told(list):
    """What a progress callable was called with."""

    def __call__(self, done: int, count: int) -> None:
        self.append((done, count))

    def in_steps_of_one(self) -> bool:
        return self == [(done, len(self) - 1) for done in range(len(self))]


def stop_at(at: int):
    def progress(done: int, count: int) -> None:
        if done == at:
            raise Stop

    return progress


# -- encoding ---------------------------------------------------------------------------------------------------------


def test_every_layer_of_the_tower_is_told_and_the_features_are_the_same(row, family):
    images, told = [tiny.image(i, *row.sizes[i]) for i in range(2)], Told()
    without = family.encode_layers(images, ())
    before = fingerprint(family)
    features = family.encode_layers(images, (), progress=told)
    assert fingerprint(family) == before and family.progress is None
    assert told.in_steps_of_one() and told[-1][1] == family.run_layers > 1
    for ours, theirs in zip(features.tiles, without.tiles, strict=True):
        assert torch.equal(ours.features, theirs.features)


def test_an_encoding_that_progress_ends_leaves_nothing_behind(row, family):
    image = tiny.image(0, *row.sizes[0])
    family.encode([image])
    before = fingerprint(family)
    with pytest.raises(Stop):
        family.encode_layers([image], [0], progress=stop_at(1))
    assert fingerprint(family) == before and family.progress is None and not family.taps


def test_no_hook_sits_on_the_tower_where_nobody_listens(monkeypatch):
    family = tiny.llava()
    monkeypatch.setattr(torch.nn.Module, "register_forward_pre_hook", None)  # calling it would fail
    assert family.encode_layers([tiny.image()], ()).tiles
    with pytest.raises(TypeError):
        family.encode_layers([tiny.image()], (), progress=Told())


def test_pictures_of_two_sizes_run_through_the_tower_twice_and_are_counted_together():
    family, told = tiny.llava(vision_layers=3, vision_feature_layer=-2), Told()
    whole = tiny.image()
    family.encode_layers([whole, Image(whole.picture, "small", resolution=0.25)], (), progress=told)
    assert told == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]


def test_a_deeper_layer_that_is_recorded_is_counted_too():
    family, told = tiny.llava(vision_layers=6, vision_feature_layer=-3), Told()
    family.encode_layers([tiny.image()], [-1], progress=told)
    assert told.in_steps_of_one() and told[-1] == (6, 6)


def test_telling_lets_nobody_wait_for_the_device(monkeypatch):
    FakeCuda().install(monkeypatch)
    monkeypatch.setattr(captured, "free_memory", lambda _device: 2**30)
    family, told = tiny.llava(seed=82), []
    handle, picture = ModelHandle("tiny", family), tiny.image()

    def waits(ctx):
        device.waits.clear()
        features = VisionEncode().call({"model": handle, "image": picture}, ctx)
        asked = {"model": handle, "tokens": family.project(features, None), "prompt": "what?", "max_new_tokens": 4}
        assert LLMGenerate().call(asked, ctx).generation.loop == "static"
        return [wait.place for wait in device.waits]

    with simulated() as device:
        host = move(family.model)
        for _ in range(2):  # the second one captures the step
            waits(Context())
        silent = waits(Context())
        assert silent.count("fopru_graph.nodes.llm_generate.on_step") == 4, "once a token, for its text"
        assert waits(Context(emit=told.append)) == silent
    host()
    assert sum(isinstance(event, NodeProgress) for event in told) == family.run_layers + 1 + 4


# -- loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hook():
    """A hook that somebody else has set."""

    def theirs(make, args, options):
        theirs.bars += 1
        return make(*args, **options)

    theirs.bars = 0
    before = logging.set_tqdm_hook(theirs)
    yield theirs
    assert logging.set_tqdm_hook(before) is theirs, "it was not given back"


def test_the_weights_of_a_checkpoint_are_counted(hook):
    told = Told()
    family = load_model("demo", "cpu", progress=told).family
    assert told.in_steps_of_one() and 1 < told[-1][1] <= len(family.model.state_dict())
    assert hook.bars == 1, "whoever listens to the bars still does"


def test_an_exception_from_progress_ends_loading_as_it_is(hook):
    with pytest.raises(Stop):
        load_model("demo", "cpu", progress=stop_at(3))
    assert load_model("demo", "cpu").family


def test_a_load_that_fails_gives_the_hook_back(hook, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(UserError):
        load_model(str(tmp_path), "cpu", progress=Told())


def test_a_transformers_without_the_hook_loads_silently(monkeypatch):
    monkeypatch.delattr(logging, "set_tqdm_hook")
    told = Told()
    assert load_model("demo", "cpu", progress=told).family and not told


def test_two_loads_in_two_threads_are_each_told_their_own(hook):
    both = [Told(), Told()]
    threads = [threading.Thread(target=load_model, args=("demo", "cpu"), kwargs={"progress": told}) for told in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both[0] == both[1] and both[0].in_steps_of_one() and both[0]


def test_bars_of_other_threads_are_theirs(hook):
    told, items = Told(), [1, 2, 3]
    with WeightsCounted(told):
        thread = threading.Thread(target=lambda: list(logging.tqdm(items)))
        thread.start()
        thread.join()
        assert not told
        assert list(logging.tqdm(items, desc="Loading weights")) == items
        assert list(logging.tqdm(iter(items))) == items, "how many there are is not known"
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)] and hook.bars == 3


def test_a_hook_that_is_set_meanwhile_stays(hook):
    newer = SimpleNamespace()
    with WeightsCounted(Told()):
        logging.set_tqdm_hook(newer)
    assert logging.set_tqdm_hook(hook) is newer


def test_the_weights_of_a_random_model_are_counted():
    told, kind = Told(), "LlavaForConditionalGeneration"
    model = random_model(small(False), kind, torch.device("cpu"), torch.float32, "sdpa", told)
    assert told.in_steps_of_one() and told[-1][1] == len(list(model.parameters()))
