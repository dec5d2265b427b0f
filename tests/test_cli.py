"""The command line: exit codes, JSON, located errors, lightness."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fopru_graph.demo
from fopru_graph.cli import app
from fopru_graph.commands.arguments import apply_set
from fopru_graph.commands.run import interrupt_cancels
from fopru_graph.graph import Cancelled, CancelToken, Context, Executor, Graph, Ref
from fopru_graph.graph.errors import errors_of
from fopru_graph.pictures.kept import read_metadata

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"
SAMPLES = Path(fopru_graph.demo.__file__).parent / "samples"
COMBINED = str(PIPELINES / "fopru_fastv.yaml")


def invoke(*arguments: str):
    """Run in this process: stdout and stderr apart, the exit code."""
    return CliRunner().invoke(app, list(arguments))


def test_run_json_has_the_promised_keys_and_the_right_answer(tmp_path):
    result = invoke("run", COMBINED, "--json", "--out", str(tmp_path))
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert list(data) == [
        *("pipeline", "outputs", "visual_tokens", "ttft_ms", "tpot_ms", "new_tokens"),
        *("kv_bytes", "peak_memory_bytes", "device", "dtype", "nodes", "generations", "warnings"),
    ]
    assert list(data["generations"]) == ["generate"]
    for key, figure in data["generations"]["generate"].items():
        assert data[key] == figure
    assert data["outputs"]["text"] == "stop"
    tokens = data["visual_tokens"]
    assert (tokens["encoded"], tokens["kept"], tokens["final"], tokens["layer_average"]) == (256, 128, 64, 96.0)
    assert set(data["nodes"]["encode"]) == {"ms", "cached"}
    assert (tmp_path / "kept.png").is_file() and (tmp_path / "run.json").is_file()


def test_run_streams_the_answer_to_stdout_and_the_figures_to_stderr(tmp_path):
    result = invoke("run", COMBINED, "--out", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout == "stop\n"
    for word in ("encoded", "final", "TTFT", "TPOT", "significance", "kept.png"):
        assert word in result.stderr


def test_set_changes_inputs_and_node_inputs(tmp_path):
    settings = ["prune.ratio=0.25", "image=demo:taxi-rank", "prompt=what colour is the star?"]
    options = [part for setting in settings for part in ("--set", setting)]
    result = invoke("run", COMBINED, "--json", "--out", str(tmp_path), *options)
    data = json.loads(result.stdout)
    assert data["outputs"]["text"] == "white"
    assert data["visual_tokens"]["kept"] == 64


def test_a_batch_can_be_set(tmp_path):
    questions = "prompt:=[what does the text say ?, what colour is the circle ?]"
    result = invoke("run", COMBINED, "--json", "--out", str(tmp_path), "--set", "generate." + questions)
    assert result.exit_code == 1  # two prompts, one image
    assert "do not fit" in json.loads(result.stdout)["error"]["message"]


def test_texts_that_are_not_streamed_are_printed(tmp_path):
    text = Path(COMBINED).read_text().replace("image: $image}", "image: [$image, $image]}")
    (tmp_path / "two.yaml").write_text(text)
    questions = "generate.prompt:=[what does the text say ?, what colour is the circle ?]"
    result = invoke("run", str(tmp_path / "two.yaml"), "--out", str(tmp_path), "--set", questions)
    assert result.exit_code == 0
    assert result.stdout == "stop\nred\n"


@pytest.mark.parametrize(
    "text",
    [
        "is it: {red} # really?",
        "[INST] what is it? [/INST]",
        '"quoted"',
        "null",
        "0.5",
        "$node",
        " blanks ",
        "",
        "a=b",
        "=",
    ],
)
@pytest.mark.parametrize("target", ["prompt", "generate.prompt", "sub.prompt", "sub/generate.prompt"])
def test_a_text_is_taken_as_it_is_typed(target, text, tmp_path):
    graph = Graph.load(COMBINED)
    graph.folder = PIPELINES
    graph.add("./fopru_rank.yaml", "sub")
    apply_set(graph, f"{target}={text}")
    assert errors_of(graph.problems()) == []
    name, key = ("sub/generate", "prompt") if "sub" in target else ("generate", "prompt")
    given = graph.flat().node(name).inputs[key]
    assert (graph.inputs["prompt"].default if isinstance(given, Ref) else given) == text


def test_after_a_colon_a_text_is_yaml(tmp_path):
    graph = Graph.load(COMBINED)
    for typed, value in (
        ('prompt:="a\\tb"', "a\tb"),
        ("generate.prompt:=[a, b]", ["a", "b"]),
        ("model.revision:=null", None),
    ):
        apply_set(graph, typed)
        assert graph.written(typed.partition(":")[0]) == value
    apply_set(graph, "prune.ratio:=0.5")
    apply_set(graph, "prune.tokens=null")
    assert (graph.written("prune.ratio"), graph.written("prune.tokens")) == (0.5, None)
    assert errors_of(graph.problems()) == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("prune.ratoi=1", "did you mean 'ratio'"),
        ("prun.ratio=1", "did you mean 'prune'"),
        ("imge=x", "did you mean 'image'"),
        ("prune.ratio=2", "ratio"),
        ("prune.ratio='0.5'", "ratio"),
        ("prune.ratio=[", "quote"),
        ("prune.ratio", "there is no ="),
    ],
)
def test_a_bad_set_is_refused_before_anything_runs(setting, says):
    result = invoke("run", COMBINED, "--set", setting)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"image": "demo:street-sing"}, "street-sign"),
        ({"model": "no-model"}, "neither a folder nor a hub name"),
        ({"fastv.layer": "9"}, "layers 0 … 5"),
        ({"prompt": "<image><image>"}, "do not fit"),
    ],
)
def test_a_failing_node_is_exit_1_with_its_name_line_and_a_hint(settings, says, tmp_path):
    options = [part for item in settings.items() for part in ("--set", "=".join(item))]
    result = invoke("run", COMBINED, "--out", str(tmp_path), *options)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "fopru_fastv.yaml:" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("file", ["../out.png", "/tmp/out.png", "..png/x.png", "out.txt", ".png"])
def test_a_picture_stays_in_the_output_folder(file, tmp_path):
    result = invoke("run", COMBINED, "--out", str(tmp_path), "--set", f"picture.file={file}")
    assert result.exit_code == 2
    assert "picture.file" in result.stderr


def test_a_picture_is_titled_by_its_pipeline_and_drawn_anew_for_another(tmp_path):
    """Both runs have the same keys, so that all else comes from the cache."""
    options = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    pictures = []
    for name in ("mine", "yours", "yours"):
        text = Path(COMBINED).read_text().replace("name: fopru_fastv", f"name: {name}")
        (tmp_path / f"{name}.yaml").write_text(text)
        assert invoke("run", str(tmp_path / f"{name}.yaml"), *options).exit_code == 0
        pictures.append((tmp_path / "out" / "kept.png").read_bytes())
        assert read_metadata(tmp_path / "out" / "kept.png")["pipeline"] == name
    assert pictures[0] != pictures[1] == pictures[2]


def test_to_runs_only_what_is_needed(tmp_path):
    result = invoke("run", COMBINED, "--json", "--out", str(tmp_path), "--to", "reorder")
    data = json.loads(result.stdout)
    assert set(data["nodes"]) == {"model", "image", "encode", "significance", "stage_ratio", "prune", "reorder"}
    assert data["visual_tokens"] is None and data["ttft_ms"] is None


@pytest.mark.parametrize("more", [[], ["--explain"], ["--json"]])
def test_an_unknown_target_is_exit_2_before_anything_runs(more, tmp_path):
    result = invoke("run", COMBINED, "--out", str(tmp_path), "--to", "reordr", *more)
    assert result.exit_code == 2
    assert "reorder" in result.stderr
    assert ("problems" in result.stdout) == ("--json" in more)


def test_an_input_without_a_default_must_be_set(tmp_path):
    (tmp_path / "ask.yaml").write_text(Path(COMBINED).read_text().replace(", default: demo:street-sign", ""))
    options = ["--json", "--out", str(tmp_path)]
    assert invoke("validate", str(tmp_path / "ask.yaml")).exit_code == 0
    missing = invoke("run", str(tmp_path / "ask.yaml"), *options)
    assert missing.exit_code == 2
    assert json.loads(missing.stdout)["error"]["problems"][0]["input"] == "image"
    assert invoke("run", str(tmp_path / "ask.yaml"), *options, "--set", "image=demo:zoo-gate").exit_code == 0


def test_explain_tells_what_would_run_and_runs_nothing(tmp_path):
    result = invoke("run", COMBINED, "--explain", "--json")
    steps = json.loads(result.stdout)
    assert steps["encode"]["action"] == "run" and len(steps["encode"]["key"]) == 64
    assert invoke("run", COMBINED, "--explain").exit_code == 0


def test_the_disk_cache_spares_the_encoder_and_changes_nothing(tmp_path):
    options = ["--json", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    first = json.loads(invoke("run", COMBINED, *options).stdout)
    second = json.loads(invoke("run", COMBINED, *options, "--set", "prompt=what colour is the circle ?").stdout)
    assert not first["nodes"]["encode"]["cached"] and second["nodes"]["encode"]["cached"]
    assert second["outputs"]["text"] == "red"
    assert second["ttft_ms"] is None
    reused = json.loads(invoke("run", COMBINED, "--explain", "--json", "--cache", str(tmp_path / "cache")).stdout)
    assert reused["encode"]["action"] == "reuse"


def test_a_cache_is_listed_and_cleared(tmp_path):
    cache = ["--cache", str(tmp_path / "cache")]
    invoke("run", COMBINED, "--out", str(tmp_path / "out"), *cache)
    listed = json.loads(invoke("cache", "list", *cache, "--json").stdout)
    [entry] = listed["entries"]
    assert entry["bytes"] == listed["bytes"] > 10_000 and entry["used"].startswith("20")
    assert entry["key"][:12] in invoke("cache", "list", *cache).stdout
    assert json.loads(invoke("cache", "clear", *cache, "--json").stdout)["removed"] == 1
    assert invoke("cache", "clear", *cache).stdout.startswith("removed 0 entries")
    assert list((tmp_path / "cache").iterdir()) == []
    small = invoke("run", COMBINED, "--json", "--out", str(tmp_path / "out"), *cache, "--cache-gb", "0.0001")
    assert small.exit_code == 0 and "the cache may have 100000" in json.loads(small.stdout)["warnings"][0]
    missing = invoke("cache", "list", "--cache", str(tmp_path / "nowhere"))
    assert missing.exit_code == 2 and "there is no folder" in missing.stderr


def test_a_record_can_be_run_again(tmp_path):
    invoke("run", COMBINED, "--out", str(tmp_path), "--set", "prompt=what colour is the square ?")
    result = invoke("run", str(tmp_path / "run.json"), "--json", "--out", str(tmp_path / "again"))
    assert json.loads(result.stdout)["outputs"]["text"] == "blue"


def test_a_record_whose_picture_changed_says_so_on_stderr_and_in_the_json(tmp_path):
    picture = tmp_path / "picture.png"
    for name, text, warned in (("street-sign", "stop", False), ("taxi-rank", "taxi", True)):
        shutil.copy(SAMPLES / f"{name}.png", picture)
        file = tmp_path / "out" / "run.json" if warned else COMBINED
        sets = [] if warned else ["--set", f"image={picture}"]
        result = invoke("run", str(file), "--json", "--out", str(tmp_path / "out"), *sets)
        data = json.loads(result.stdout)
        assert (result.exit_code, data["outputs"]["text"]) == (0, text)
        message = f"image: the content of path '{picture}' has changed since the record"
        assert data["warnings"] == [message] * warned and result.stderr == f"warning: {message}\n" * warned


def test_a_record_made_with_nodes_of_one_s_own_says_which(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shout.py").write_text(
        'from fopru_graph.graph import Node, node\n\n@node(category="toy")\nclass Shout(Node):\n'
        '    """Louder."""\n\n    def run(self, text: str) -> str:\n        return text.upper()\n'
    )
    (tmp_path / "a.yaml").write_text(
        "format: 1\nnodes: {shout: {type: Shout, inputs: {text: hello}}}\noutputs: {text: $shout}\n"
    )
    nodes = ["--nodes", str(tmp_path / "mine")]
    assert invoke("run", str(tmp_path / "a.yaml"), "--out", str(tmp_path), *nodes).stdout == "HELLO\n"
    result = invoke("run", str(tmp_path / "run.json"), "--out", str(tmp_path), "--json")
    assert result.exit_code == 2
    [problem] = json.loads(result.stdout)["error"]["problems"]
    assert problem["hint"] == f"give the nodes of the recorded run: --nodes {tmp_path / 'mine'}"
    assert invoke("run", str(tmp_path / "run.json"), "--out", str(tmp_path), *nodes).stdout == "HELLO\n"


BROKEN = """\
format: 1
name: ten mistakes
colour: red
inputs:
  image: {type: picture, default: demo:street-sign}
nodes:
  image:  {type: LoadImage, inputs: {path: 5}}
  model:  {type: LoadModle}
  encode: {type: VisionEncode, inputs: {model: $modle, image: $image}}
  loop:   {type: Reorder, inputs: {selection: $loop}}
  prune:  {type: RankPrune, inputs: {significance: $image}}
  late:   {type: FastVPrune, inputs: {ratio: 2}}
  later:  {type: FastVPrune, inputs: {layr: 2}}
outputs: {text: $prune.txt}
"""
TEN = [
    ("unknown-key", 3),
    ("bad-value", 5),
    ("bad-value", 7),
    ("unknown-type", 8),
    ("unknown-node", 9),
    ("cycle", 10),
    ("type-mismatch", 11),
    ("out-of-range", 12),
    ("unknown-input", 13),
    ("unknown-output", 14),
]


def test_validate_json_lists_all_problems_with_the_promised_keys(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    result = invoke("validate", str(path), "--json")
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert all(list(p) == ["code", "severity", "node", "input", "line", "message", "hint"] for p in problems)
    assert [(p["code"], p["line"]) for p in problems if p["severity"] == "error"] == TEN
    hints = {p["code"]: p["hint"] for p in problems if p["code"] != "bad-value"}
    assert all(hints[code] for code in ("unknown-type", "unknown-node", "cycle", "type-mismatch", "unknown-input"))
    shown = invoke("validate", str(path))
    assert shown.exit_code == 2 and "loop -> loop" in shown.stderr


def test_validate_a_good_file():
    result = invoke("validate", COMBINED)
    assert result.exit_code == 0 and "valid" in result.stdout
    assert json.loads(invoke("validate", COMBINED, "--json").stdout) == {"problems": []}


def test_missing_file_is_exit_2():
    assert invoke("validate", "nowhere.yaml").exit_code == 2
    assert invoke("run", "nowhere.yaml").exit_code == 2
    assert invoke("run", "nowhere.json").exit_code == 2


def test_a_json_that_is_no_pipeline_is_exit_2_and_says_what_it_can_be(tmp_path):
    (tmp_path / "run.json").write_text('{"a": 1}')
    result = invoke("run", str(tmp_path / "run.json"))
    assert result.exit_code == 2
    assert all(words in result.stderr for words in ("run.json of an earlier run", "Save (API)", "workflow"))


def test_a_checkpoint_without_safetensors_is_exit_1_in_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    result = invoke("run", COMBINED, "--set", f"model={tmp_path}", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "no safetensors in the folder (only pytorch_model.bin)" in result.stderr
    assert "Traceback" not in result.stderr


def test_nodes_lists_and_describes():
    assert "RankPrune" in invoke("nodes").stdout
    shown = invoke("nodes", "RankPrune").stdout
    assert "ratio" in shown and "Selection" in shown
    data = json.loads(invoke("nodes", "LLMGenerate", "--json").stdout)
    assert data["inputs"]["prompt"]["required"] and data["outputs"]["text"] == "str | list[str]"
    missing = invoke("nodes", "RnkPrune")
    assert missing.exit_code == 2 and "RankPrune" in missing.stderr


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg"])
def test_draw(form, tmp_path):
    result = invoke("draw", COMBINED, "--format", form)
    assert result.exit_code == 0 and "FastVPrune" in result.stdout
    path = tmp_path / "drawing"
    assert invoke("draw", COMBINED, "--format", form, "-o", str(path)).exit_code == 0
    assert path.read_text().strip() == result.stdout.strip()


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.svg", b"<svg"), ("a.PNG", b"\x89PNG"), ("a.dot", b"digraph"), ("a.gv", b"digraph"), ("a.mmd", b"flowchart")],
)
def test_a_drawing_is_of_the_kind_that_its_name_says(name, begins, tmp_path):
    assert invoke("draw", COMBINED, "-o", str(tmp_path / name)).exit_code == 0
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "gif"], "choose mermaid, dot, svg, png"),
        (["-o", "a.jpg"], "no format goes by .jpg"),
        (["-o", "a.png", "--format", "svg"], "does not fit the name a.png"),
        (["--format", "png"], "-o pipeline.png"),
    ],
)
def test_a_drawing_that_nobody_can_mean_is_exit_2(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = invoke("draw", COMBINED, *options)
    assert refused.exit_code == 2 and says in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_schema_is_json():
    result = invoke("schema")
    assert result.exit_code == 0, result.output
    assert "RankPrune" in json.dumps(json.loads(result.stdout))


def test_doctor_finds_this_installation_well():
    result = invoke("doctor", "--json")
    findings = json.loads(result.stdout)
    assert [f for f in findings if not f["ok"]] == []
    assert result.exit_code == 0


OWN_NODE = '''
import torch
from fopru_graph import Node, node, values


@node(category="score")
class KeyNorm(Node):
    """Score visual tokens by the length of their keys."""

    def run(self, features: values.VisionFeatures) -> values.Significance:
        scores = tuple(t.attention.key[:, t.attention.prefix:].norm(dim=-1).mean(0) for t in features.tiles)
        return values.Significance(scores, tuple(t.grid for t in features.tiles), ("key norm",) * len(scores))
'''


def test_a_node_of_ones_own_is_one_short_file(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "key_norm.py").write_text(OWN_NODE)
    text = Path(COMBINED).read_text().replace("type: Significance", "type: KeyNorm")
    (tmp_path / "mine.yaml").write_text(text)
    without = invoke("validate", str(tmp_path / "mine.yaml"))
    assert without.exit_code == 2 and "KeyNorm" in without.stderr
    result = invoke(
        "run", str(tmp_path / "mine.yaml"), "--nodes", str(tmp_path / "mine"), "--json", "--out", str(tmp_path)
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["visual_tokens"]["final"] == 64


def test_a_pack_that_fails_to_load_is_told_and_its_nodes_are_refused_with_the_reason(tmp_path):
    (tmp_path / "pack.py").write_text(OWN_NODE + "\n1 / 0\n")
    line = len((tmp_path / "pack.py").read_text().splitlines())
    (tmp_path / "mine.yaml").write_text(Path(COMBINED).read_text().replace("type: Significance", "type: KeyNorm"))
    told = invoke("validate", COMBINED, "--nodes", str(tmp_path / "pack.py"))
    assert told.exit_code == 0 and f"pack.py:{line} failed to load: ZeroDivisionError" in told.stderr
    refused = invoke("validate", str(tmp_path / "mine.yaml"), "--nodes", str(tmp_path / "pack.py"), "--json")
    assert refused.exit_code == 2
    assert "pack-failed" in [problem["code"] for problem in json.loads(refused.stdout)["problems"]]


def test_a_failing_pack_of_the_environment_is_told_once_however_many_pipelines_there_are(tmp_path, monkeypatch):
    (tmp_path / "pack.py").write_text("\n1 / 0\n")
    monkeypatch.setenv("FOPRU_GRAPH_NODES", str(tmp_path / "pack.py"))
    files = [str(PIPELINES / name) for name in ("baseline.yaml", "fopru_rank.yaml")]
    options = ["--task", "scenes", "--limit", "1", "--out", str(tmp_path)]
    told = invoke("eval", *files, *options, "--set", "generate.max_new_tokens=1")
    assert told.exit_code == 0
    assert told.stderr.count(f"{tmp_path / 'pack.py'}:2 failed to load: ZeroDivisionError") == 1
    assert told.stderr.count("failed to load") == 1


@pytest.mark.parametrize("option", ["--cache", "--out"])
def test_a_folder_that_cannot_be_used_is_one_sentence(option, tmp_path):
    (tmp_path / "file").write_text("")
    done = python("-m", "fopru_graph.cli", "run", COMBINED, "--out", str(tmp_path), option, str(tmp_path / "file"))
    assert done.returncode == 1
    assert "cannot be" in done.stderr and "hint" in done.stderr and "Traceback" not in done.stderr


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
    )


@pytest.mark.parametrize(
    "code",
    [
        "import fopru_graph",
        "from fopru_graph import Graph",
        "import fopru_graph.values, fopru_graph.nodes.llm_generate",
        "from fopru_graph.cli import app; app(['--help'], standalone_mode=False)",
        f"from fopru_graph.cli import app; app(['validate', {COMBINED!r}], standalone_mode=False)",
        "from fopru_graph.cli import app; app(['nodes'], standalone_mode=False)",
        f"from fopru_graph.cli import app; app(['draw', {COMBINED!r}], standalone_mode=False)",
    ],
)
def test_light_commands_import_no_torch(code):
    done = python("-c", code + "\nimport sys; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)) and 7)")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_with_130_and_leaves_a_record(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom fopru_graph import Node, node, Context\n"
        "@node(category='flow')\nclass Slow(Node):\n    'Wait to be stopped.'\n"
        "    def run(self, ctx: Context) -> str:\n"
        "        print('waiting', flush=True)\n"
        "        while True:\n            time.sleep(0.02); ctx.check_cancelled()\n"
    )
    (tmp_path / "slow.yaml").write_text("format: 1\nnodes:\n  slow: {type: Slow}\noutputs: {text: $slow}\n")
    command = [sys.executable, "-m", "fopru_graph.cli", "run", "slow.yaml", "--nodes", "slow.py", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("waiting" in line for line in iter(process.stderr.readline, ""))
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(printed)["error"]["message"] == "cancelled"
    assert "cancelled" in errors and "Traceback" not in errors
    assert json.loads((tmp_path / "fopru-out" / "run.json").read_text())["status"] == "cancelled"


def test_ctrl_c_ends_at_once_what_cannot_be_asked(tmp_path):
    """Such as loading a model; the run ends as one that was asked, without a traceback."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom fopru_graph import Node, node, Context\n"
        "@node(category='load')\nclass Slow(Node):\n    'Sleep.'\n"
        "    def run(self, ctx: Context) -> str:\n"
        "        with ctx.abruptly():\n            print('loading', flush=True)\n            time.sleep(600)\n"
    )
    (tmp_path / "slow.yaml").write_text("format: 1\nnodes:\n  slow: {type: Slow}\noutputs: {text: $slow}\n")
    command = [sys.executable, "-m", "fopru_graph.cli", "run", "slow.yaml", "--nodes", "slow.py", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("loading" in line for line in iter(process.stderr.readline, ""))
    os.kill(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(printed)["error"]["message"] == "cancelled" and "Traceback" not in errors
    assert json.loads((tmp_path / "fopru-out" / "run.json").read_text())["status"] == "cancelled"


@pytest.mark.parametrize("what", ["model_identity", "load_model"])
def test_loading_a_model_ends_at_the_first_ctrl_c(what, monkeypatch):
    token = CancelToken()

    def load(*_):
        assert token.abrupt
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)

    monkeypatch.setattr(f"fopru_graph.lvlm.loading.load.{what}", load)
    with pytest.raises(Cancelled) as ended, interrupt_cancels(token):
        Executor().run(Graph.load(COMBINED), cancel=token)
    assert ended.value.record.status == "cancelled" and not token.abrupt


def test_another_keyboard_interrupt_is_not_taken_for_a_request_to_stop():
    with pytest.raises(KeyboardInterrupt), Context().abruptly():
        raise KeyboardInterrupt
