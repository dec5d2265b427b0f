"""What stdout holds: results, verbatim, in any encoding, full, closed or in a pipe; and errors of one form."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.cli import app
from fopru_graph.terminal.stdout import Stdout, Stream
from tests.test_cli import COMBINED, PIPELINES, invoke, python

TEXT = "2001:db8::ab:cd :cat: [bold]x[/] [x]\ta→ü😀 \\"
PACK = '''
import os, sys
from fopru_graph import Context, Node, node
from fopru_graph.errors import UserError
print("imported")


@node(category="flow")
class Say(Node):
    """Say a text, and print on the way."""

    def run(self, ctx: Context, text: str) -> str:
        print("printed")
        os.system("echo from a child")
        for letter in text:
            ctx.text(letter)
        return text

    def fingerprint(self, text: str) -> str:
        print("fingerprinted")
        return text


@node(category="flow")
class Fail(Node):
    """Fail."""

    def run(self, text: str) -> str:
        raise UserError("it is broken :cat: [red]", "mend it")
'''
KEYS = ["message", "hint", "location", "node", "raised_at", "problems"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pack.py").write_text(PACK)
    text = json.dumps(TEXT, ensure_ascii=False)
    (tmp_path / "say.yaml").write_text(
        f"format: 1\nnodes:\n  a: {{type: Say, inputs: {{text: {text}}}}}\noutputs: {{text: $a}}\n"
    )
    failing = "format: 1\nnodes:\n  a: {type: Fail, inputs: {text: x}}\noutputs: {text: $a}\n"
    (tmp_path / "fail.yaml").write_text(failing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PIPELINES.parent))
    return tmp_path


RUN = ("-m", "fopru_graph.cli", "run", "say.yaml", "--nodes", "pack.py")


def test_an_answer_is_printed_as_it_is(folder):
    done = python(*RUN, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, TEXT + "\n")
    for word in ("imported", "printed", "from a child", "fingerprinted", "fopru-out/run.json"):
        assert word in done.stderr


def test_json_is_pure_whatever_nodes_and_their_children_print(folder):
    done = python(*RUN, "--json", encoding="utf-8")
    assert json.loads(done.stdout)["outputs"]["text"] == TEXT
    validated = invoke("validate", "say.yaml", "--nodes", "pack.py", "--json")
    assert json.loads(validated.stdout) == {"problems": []} and "imported" in validated.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_stdout_of_another_encoding_gets_the_answer_with_escapes(folder, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    options = {"env": environment, "encoding": encoding, "errors": "strict"}
    done = python(*RUN, **options)
    assert (done.returncode, done.stdout) == (0, TEXT.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    as_json = python(*RUN, "--json", **options)
    assert json.loads(as_json.stdout)["outputs"]["text"] == TEXT
    assert "Traceback" not in done.stderr + as_json.stderr


class Narrow(io.TextIOWrapper):
    """A stdout of one encoding, in this process."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("arguments", [
    ["nodes"], ["nodes", "--json"], ["nodes", "RankPrune"], ["schema"], ["models"], ["models", "--json"], ["tasks"],
    ["draw", COMBINED], ["validate", COMBINED], ["run", COMBINED, "--explain", "--json"], ["--help"], ["run", "--help"],
])  # fmt: skip
def test_every_table_and_schema_can_be_printed_in_ascii(arguments, monkeypatch):
    stream = Narrow("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as end:
        app(arguments)
    stream.flush()
    shown = stream.buffer.getvalue().decode("ascii")
    assert (end.value.code, bool(shown.strip())) == (0, True)
    if "--json" in arguments or arguments == ["schema"]:
        json.loads(shown)


class Full(io.StringIO):
    """A stdout that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_a_stream_that_failed_is_still_one_of_text():
    """A library that asks by writing bytes whether they are taken remembers the answer for later commands."""
    stream = Stream(Full(errno.ENOSPC))
    stream.write("lost")
    assert stream.failure is not None
    with pytest.raises(TypeError, match="must be str"):
        stream.write(b"")


@pytest.mark.parametrize(
    "arguments", [["nodes"], ["nodes", "--json"], ["schema"], ["--help"], ["run", "nowhere.yaml", "--json"]]
)
def test_a_full_stdout_is_one_sentence_and_a_closed_pipe_none(arguments, monkeypatch, capsys):
    for number in (errno.ENOSPC, errno.EPIPE):
        monkeypatch.setattr(sys, "stdout", Full(number))
        with pytest.raises(SystemExit) as end:
            app(arguments)
        said = capsys.readouterr().err
        assert end.value.code in (1, 2)
        assert ("stdout cannot be written: No space left on device" in said) == (number == errno.ENOSPC)
        assert "Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_on_a_full_stdout_is_one_sentence_and_keeps_its_record(folder, more):
    with open("/dev/full", "w") as full:
        command = [sys.executable, *RUN, *more]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "error: stdout cannot be written: No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert json.loads((folder / "fopru-out" / "run.json").read_text())["outputs"]["text"] == TEXT


def test_a_closed_pipe_and_a_closed_stdout_are_quiet(folder):
    command = f"{sys.executable} -m fopru_graph.cli nodes --json"
    for shell in (f"{command} | head -c 1", f"{command} >&-"):
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert done.stderr == ""


def test_a_full_or_closed_stderr_costs_no_answer(folder):
    for redirect in ("2>/dev/full", "2>&-"):
        command = ["bash", "-c", f"{shlex.join([sys.executable, *RUN])} {redirect}"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, TEXT + "\n", "")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
    (["run", COMBINED, "--set", "prune.ratoi=1"], 2, "ratoi"),
    (["run", COMBINED, "--set", "prune.ratio"], 2, "there is no ="),
    (["run", COMBINED, "--to", "nothing"], 2, "nothing"),
    (["run", COMBINED, "--nonsense"], 2, "--nonsense"),
    (["run"], 2, "Missing argument"),
    (["eval", COMBINED, "--task", "nonsense"], 2, "nonsense"),
    (["eval", COMBINED, "--task", "scenes", "--limit", "x"], 2, "--limit"),
    (["eval", COMBINED, "--task", "scenes", "--ratio", "7"], 2, "7"),
    (["bench"], 2, "name pipeline files"),
    (["sweep", COMBINED, "--task", "scenes", "--executor", "x"], 2, "--executor x"),
    (["report", "nowhere"], 2, "nowhere"),
    (["nodes", "Nonsense"], 2, "Nonsense"),
    (["nonsense"], 2, "nonsense"),
    (["run", "fail.yaml", "--nodes", "pack.py"], 1, "it is broken :cat: [red]"),
])  # fmt: skip
def test_every_failure_with_json_is_one_object_of_one_form(folder, arguments, code, says):
    result = invoke(*arguments, "--json")
    assert result.exit_code == code
    error = json.loads(result.stdout)["error"]
    assert list(error) == KEYS
    assert says in error["message"]
    assert "Traceback" not in result.stderr
    assert says.split()[0] in result.stderr
    without = invoke(*arguments)
    assert (without.exit_code, without.stdout) == (code, "")


def test_an_error_object_says_where(folder):
    failed = json.loads(invoke("run", "fail.yaml", "--nodes", "pack.py", "--json").stdout)["error"]
    assert (failed["location"], failed["node"], failed["hint"]) == ("fail.yaml:3", "a", "mend it")
    (folder / "bad.yaml").write_text("format: 1\nnodes:\n  a: {type: SaveTxt}\n  b: {type: Swich}\n")
    bad = json.loads(invoke("run", "bad.yaml", "--json").stdout)["error"]
    assert (bad["location"], bad["node"]) == ("bad.yaml:3", "a")
    assert [problem["line"] for problem in bad["problems"] if problem["severity"] == "error"][:2] == [3, 4]


def test_what_a_node_of_ones_own_raises_is_told_with_its_file_and_line(folder):
    """The line of the user's code, not that of the library that it called; none where a node explains itself."""
    (folder / "mine").mkdir()
    lines = [
        "import json",
        "from fopru_graph import Node, node",
        "def helper(text: str) -> str:",
        "    return json.loads(text)",
        "@node(category='score')",
        "class KeyNorm(Node):",
        "    'Fail.'",
        "    def run(self) -> str:",
        "        return helper('{')",
    ]
    (folder / "mine" / "key_norm.py").write_text("\n".join(lines) + "\n")
    (folder / "own.yaml").write_text("format: 1\nnodes:\n  a: {type: KeyNorm}\noutputs: {text: $a}\n")
    at = str(Path("mine", "key_norm.py"))
    result = invoke("run", "own.yaml", "--nodes", "mine", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["raised_at"], error["location"]) == (1, f"{at}:4", "own.yaml:3")
    assert f"raised at {at}:4" in error["message"] and f"raised at {at}:4" in result.stderr
    assert "JSONDecodeError" in error["message"] and "Traceback" not in result.stderr
    assert f"raised at {at}:4" in json.loads((folder / "fopru-out" / "run.json").read_text())["error"]
    explained = json.loads(invoke("run", "fail.yaml", "--nodes", "pack.py", "--json").stdout)["error"]
    assert explained["raised_at"] is None


def test_what_a_node_that_ships_raises_has_no_line_of_ours(folder, monkeypatch):
    monkeypatch.setattr("fopru_graph.lvlm.inputs.images.load_image", lambda path: 1 / 0)
    (folder / "own.yaml").write_text("format: 1\nnodes:\n  a: {type: LoadImage, inputs: {path: x}}\noutputs: {b: $a}\n")
    error = json.loads(invoke("run", "own.yaml", "--json").stdout)["error"]
    assert "ZeroDivisionError" in error["message"] and error["raised_at"] is None


def test_a_defect_of_the_program_is_an_error_object_too(folder, monkeypatch):
    monkeypatch.setattr("fopru_graph.commands.doctor.examine", lambda: 1 / 0)
    result = invoke("doctor", "--json")
    assert result.exit_code == 1 and "Traceback" in result.stderr
    assert json.loads(result.stdout)["error"]["message"] == "unexpected ZeroDivisionError: division by zero"


def test_an_interrupt_is_an_error_object_too(folder, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fopru_graph.commands.doctor.examine", interrupt)
    result = invoke("doctor", "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["message"]) == (130, "interrupted")


def test_nothing_is_left_behind_in_a_process_that_goes_on(folder, capsys):
    before = sys.stdout
    assert invoke("run", "fail.yaml", "--nodes", "pack.py").exit_code == 1
    assert sys.stdout is before
    print("still here")
    assert capsys.readouterr().out == "still here\n"
    assert Stdout().failure is None


def test_paths_and_messages_are_printed_as_they_are(folder):
    out = folder / ":cat: [bold]\tx"
    done = invoke("run", "say.yaml", "--nodes", "pack.py", "--out", str(out))
    assert f"record {out}/run.json\n" in done.stderr
    failed = invoke("run", "fail.yaml", "--nodes", "pack.py")
    assert "it is broken :cat: [red]" in failed.stderr
    refused = invoke("run", COMBINED, "--set", "picture.:cat:[b]=x")
    assert ":cat:[b]" in refused.stderr


def test_a_caution_is_a_message_without_the_place_in_the_source(tmp_path):
    (tmp_path / "warn.py").write_text(
        "import warnings\n\nfrom fopru_graph.errors import Caution\nfrom fopru_graph.graph import Node, node\n\n\n"
        '@node(category="toy")\nclass Warn(Node):\n    """Warn."""\n\n    def run(self, text: str) -> str:\n'
        '        warnings.warn("mind the gap", Caution, stacklevel=2)\n        return text\n'
    )
    (tmp_path / "a.yaml").write_text(
        "format: 1\nnodes: {warn: {type: Warn, inputs: {text: hello}}}\noutputs: {t: $warn}\n"
    )
    result = invoke(
        "run", str(tmp_path / "a.yaml"), "--out", str(tmp_path / "out"), "--nodes", str(tmp_path / "warn.py")
    )
    assert result.stdout == "hello\n"
    assert "warning: mind the gap\n" in result.stderr and "warn.py" not in result.stderr
