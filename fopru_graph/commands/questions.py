"""From ``IMAGE…`` on a command line to questions about pictures: files, samples, folders, patterns, JSON lines.

No picture is opened here: one that is missing from a JSONL file, or broken, is found when its question is asked.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.paths import local_path

DEMO = "demo:"
SUFFIXES = frozenset((".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
LINES = (".jsonl", ".ndjson")  # files of questions
_SHOWN = 3  # broken lines that a message quotes
_TAKEN = "give pictures, demo:NAME, a folder, a quoted pattern such as 'photos/*.jpg', or a JSONL file"
_LINE = 'a line is e.g. {"image": "photo.jpg", "prompt": "what is this ?"}, with "id" if you want one'


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a picture: a path, or ``demo:NAME``. The ``id`` is that of no other question of its list."""

    id: str
    image: str
    prompt: str


def read_questions(arguments: Sequence[str], prompt: str | None = None) -> list[Question]:
    """The questions that the arguments name, in their order.

    * A picture, ``demo:NAME`` or a ``file://`` address is one question. ``~`` is the home folder.
    * A folder stands for the pictures in it and in its sub-folders, in the order of their names. What is hidden or does
      not end like a picture is left out.
    * A pattern (``*``, ``?``, ``[…]``, ``**``) stands for the files that match, in the order of their names.
    * A JSONL file holds a question a line: ``image``, relative to the file, ``prompt`` and ``id``; other keys are
      ignored. A line without a prompt is asked ``prompt``.

    A question's id is that of its line, else its picture as it is named; further ones of the same picture get `` #2``.

    Raises:
        UserError: an argument names nothing, a folder or pattern no picture; lines of a file are broken (they are
            named by file and line), two have one id, or there is no prompt for a picture.
    """
    questions: list[Question] = []
    for argument in arguments:
        questions += _questions_of(argument, prompt)
    return list(_with_own_ids(questions))


def _questions_of(argument: str, prompt: str | None) -> Iterable[Question]:
    if argument.startswith(DEMO):
        _check_sample(argument)
        return [_question(argument, prompt)]
    path = path_of(argument)
    if os.path.isdir(path):
        if not (pictures := sorted(_pictures_in(path))):
            raise UserError(
                f"the folder '{argument}' holds no picture", f"pictures end in {', '.join(sorted(SUFFIXES))}"
            )
        return [_question(picture, prompt) for picture in pictures]
    if os.path.lexists(path):
        return _of_file(path, prompt)
    if glob.has_magic(path):
        if not (found := sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match))):
            raise UserError(f"no file matches '{argument}'", _TAKEN)
        return [question for match in found for question in _of_file(match, prompt)]
    raise UserError(f"there is no file '{argument}'", _TAKEN)


def path_of(text: str, folder: str = "") -> str:
    """The path that a text of a file in ``folder`` names; an address stays one, and is refused when it is read."""
    path = local_path(text)
    return path if "://" in path else os.path.join(folder, path)


def _check_sample(argument: str) -> None:
    from fopru_graph.graph.errors import hint_choices
    from fopru_graph.lvlm.inputs.images import samples

    if argument.removeprefix(DEMO) not in samples():
        raise UserError(
            f"there is no sample picture '{argument}'", hint_choices(argument, [f"{DEMO}{name}" for name in samples()])
        )


def _pictures_in(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(place, name)


def _question(image: str, prompt: str | None) -> Question:
    if not prompt:
        raise UserError(f"nothing is asked about '{image}'", "add --prompt TEXT")
    return Question(image, image, prompt)


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _of_file(path: str, prompt: str | None) -> list[Question]:
    if not path.lower().endswith(LINES):
        return [_question(path, prompt)]
    questions: list[Question] = []
    wrong: list[str] = []
    places: dict[str, int] = {}  # the line of each id
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            question, named = _of_line(line, os.path.dirname(path), prompt)
            if named and places.setdefault(question.id, number) != number:
                raise ValueError(f"the id '{question.id}' is that of line {places[question.id]} too")
            questions.append(question)
        except (ValueError, RecursionError) as error:
            wrong.append(f"{path}:{number}: {error}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more lines" if len(wrong) > _SHOWN else ""
        raise UserError("; ".join(wrong[:_SHOWN]) + more, _LINE)
    if not questions:
        raise UserError(f"'{path}' holds no question", _LINE)
    return questions


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: this is no UTF-8", "save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror or error}", "check its permissions") from error


def _of_line(line: str, folder: str, prompt: str | None) -> tuple[Question, bool]:
    """A line's question, and whether it has an id of its own; a ValueError says what is wrong with it."""
    try:
        given: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"this is no JSON ({error})") from error
    if not isinstance(given, dict):
        raise ValueError(f"this is a {type(given).__name__}, not an object")
    image, asked, key = given.get("image"), given.get("prompt"), given.get("id")
    if not isinstance(image, str) or not image:
        raise ValueError("there is no image" if image is None else "image is no path")
    if asked is None:
        asked = prompt
    if not isinstance(asked, str) or not asked.strip():
        raise ValueError("there is no prompt, and no --prompt" if asked is None else "prompt is no text")
    if isinstance(key, bool) or not isinstance(key, str | int | None):
        raise ValueError("id is neither a text nor a whole number")
    path = image if image.startswith(DEMO) else path_of(image, folder)
    return Question(image if key is None else str(key), path, asked), key is not None


def _with_own_ids(questions: Sequence[Question]) -> Iterator[Question]:
    """The questions with ids that differ: the later ones of several get a number."""
    taken: set[str] = set()
    times: dict[str, int] = {}
    for question in questions:
        name = question.id
        while name in taken:
            times[question.id] = times.get(question.id, 1) + 1
            name = f"{question.id} #{times[question.id]}"
        taken.add(name)
        yield question if name == question.id else replace(question, id=name)
