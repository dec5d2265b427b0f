"""Data sets of the hub, through a stand-in for the package ``datasets``: no test has a network.

The last test takes the package itself, which `make extras` installs, and a folder that has the name of a data set.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import RecordError
from fopru_graph.evaluation.tasks import get_task
from tests.evaluation.datafiles import png, pope_row


class Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class List:
    def __init__(self, feature: Image) -> None:
        self.feature = feature


class Table:
    """What is used of ``datasets.Dataset``."""

    def __init__(self, rows, features=None, cache="/cache/name/default/0.0.0/abc123/name-test.arrow") -> None:
        self.rows, self.column_names = rows, list(rows[0])
        self.features = features or {name: Image() if name == "image" else None for name in rows[0]}
        self.cache_files = [{"filename": cache}]
        self.cache = cache

    def select_columns(self, names):
        rows = [{name: row[name] for name in names} for row in self.rows]
        return Table(rows, {name: self.features[name] for name in names}, self.cache)

    def cast_column(self, name, feature):
        return Table(self.rows, self.features | {name: feature}, self.cache)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, str):
            return [row[key] for row in self.rows]
        pictures = (getattr(feature, "feature", feature) for feature in self.features.values())
        assert not any(isinstance(feature, Image) and feature.decode for feature in pictures)
        return dict(self.rows[key])


@pytest.fixture
def hub(monkeypatch):
    """The tables there are, by name, config and split; every request is noted."""
    tables, asked = {}, []

    def load_dataset(name, config=None, split=None, **options):
        assert not options, "above all no token"
        asked.append((name, config, split))
        if (name, config, split) not in tables:
            raise ConnectionError(f"Couldn't reach '{name}'\nand more")
        return tables[name, config, split]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, Image=Image))
    return SimpleNamespace(tables=tables, asked=asked)


def row(number=0, **changes):
    return pope_row(number, image={"bytes": png((number, 0, 0)), "path": None}, image_source="coco", **changes)


@pytest.mark.parametrize("name", ["lmms-lab/POPE", "lmms-lab-encoder/POPE"])
def test_both_names_of_a_data_set_are_tried(hub, name):
    hub.tables[name, None, "test"] = Table([row(i) for i in range(4)])
    records = get_task("pope").open(None, 3)
    assert len(records) == 3 and hub.asked[0][0] == "lmms-lab/POPE"
    assert [records.images(i, records.read(i))[0][1].getpixel((0, 0))[0] for i in (2, 0, 1)] == [2, 0, 1]
    assert records.fingerprint == f"hub:{name}@abc123:default:test"
    assert "image_source" not in records.read(0)


def test_the_splits_and_configs_asked_for(hub):
    for task in ("ai2d", "scienceqa", "mmmu", "gqa", "ocrbench", "textvqa", "textvqa_ocr"):
        with pytest.raises(UserError):
            get_task(task).open(None, None)
    assert [one for one in hub.asked if one[0].startswith(("lmms-lab/", "echo840/"))] == [
        ("lmms-lab/ai2d", None, "test"),
        ("lmms-lab/ScienceQA", "ScienceQA-IMG", "test"),
        ("lmms-lab/MMMU", None, "validation"),
        ("lmms-lab/GQA", "testdev_balanced_instructions", "testdev"),
        ("echo840/OCRBench", None, "test"),
        ("lmms-lab/textvqa", None, "validation"),
        ("lmms-lab/textvqa", None, "validation"),
    ]


def test_pictures_of_gqa_are_joined_by_their_id(hub):
    asked = [{"question": "q", "answer": "a", "imageId": key} for key in ("n2", "n1", "n2")]
    shown = [{"id": f"n{i}", "image": {"bytes": png((i, 0, 0))}} for i in range(3)]
    hub.tables["lmms-lab/GQA", "testdev_balanced_instructions", "testdev"] = Table(asked)
    hub.tables["lmms-lab/GQA", "testdev_balanced_images", "testdev"] = Table(shown)
    records = get_task("gqa").open(None, None)
    assert [records.images(i, records.read(i))[0][1].getpixel((0, 0))[0] for i in range(3)] == [2, 1, 2]
    assert "testdev_balanced_images" in records.fingerprint


@pytest.mark.parametrize(("offline", "hint"), [("1", "HF_HUB_OFFLINE is set"), ("", "check the network")])
def test_no_data_set_gives_one_clear_error(hub, monkeypatch, offline, hint):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError) as caught:
        get_task("pope").open(None, None)
    assert "lmms-lab/POPE: Couldn't reach" in caught.value.message and "and more" not in caught.value.message
    assert hint in caught.value.hint and "--data pope=PATH" in caught.value.hint


def test_a_missing_package_is_named_with_both_ways_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError) as caught:
        get_task("pope").open(None, None)
    assert "datasets" in caught.value.message
    assert "pip install datasets" in caught.value.hint and "--data pope=PATH" in caught.value.hint


def test_a_damaged_cache_is_an_error_of_its_row(hub, monkeypatch):
    hub.tables["lmms-lab/POPE", None, "test"] = Table([row(0)])
    records = get_task("pope").open(None, None)
    monkeypatch.setattr(Table, "__getitem__", lambda _table, _key: int("damaged"))
    with pytest.raises(RecordError, match=r"^lmms-lab/POPE \(test\) row 1: cannot be read: invalid literal"):
        records.read(0)


def test_a_missing_column_is_named(hub):
    hub.tables["lmms-lab/POPE", None, "test"] = Table([{"question": "q", "anwser": "yes", "image": {}}])
    with pytest.raises(UserError, match="lacks 'answer'"):
        get_task("pope").open(None, None)


def test_lists_of_pictures_are_not_decoded_and_rows_are_chosen_by_a_column(hub):
    kinds = ("video", "image", "image")
    options = {"choice_a": "x", "choice_b": "y", "choice_c": "z", "choice_d": "w", "answer": "B"}
    pictures = [[{"bytes": png((i, 0, 0)), "path": None}] for i in range(3)]
    rows = [{"question": str(i), "data_type": kinds[i], "image": pictures[i], **options} for i in range(3)]
    hub.tables["lmms-lab/SEED-Bench", None, "test"] = Table(
        rows, {n: List(Image()) if n == "image" else None for n in rows[0]}
    )
    records = get_task("seedbench").open(None, None)
    assert [records.read(i)["question"] for i in range(len(records))] == ["1", "2"]
    assert [records.images(i, records.read(i))[0][1].getpixel((0, 0))[0] for i in range(2)] == [1, 2]


def test_every_expression_of_a_data_set_is_a_record(hub):
    rows = [
        {"answer": ["a", "b"], "bbox": [0, 0, 2, 2], "image": {"bytes": png("red"), "path": None}},
        {"answer": ["c"], "bbox": [0, 0, 1, 1], "image": {"bytes": png("blue"), "path": None}},
    ]
    hub.tables["lmms-lab/RefCOCOg", None, "test"] = Table(rows)
    records = get_task("refcocog_test").open(None, None)
    assert [records.read(i)["expression"] for i in range(len(records))] == ["a", "b", "c"]
    assert records.images(2, records.read(2))[0][1].getpixel((0, 0)) == (0, 0, 255)


def test_the_package_itself_reads_a_data_set_as_the_stand_in_does(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lmms-lab" / "POPE" / "data"
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_list([row(i) for i in range(3)]).cast_column("image", datasets.Image())
    made.to_parquet(str(folder / "test-00000-of-00001.parquet"))
    records = get_task("pope").open(None, 2)
    assert len(records) == 2 and records.fingerprint.startswith("hub:lmms-lab/POPE@")
    assert [records.images(i, records.read(i))[0][1].getpixel((0, 0))[0] for i in (1, 0)] == [1, 0]
