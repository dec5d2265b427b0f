"""What a model is asked, written in its chat template: a question, what comes before it, and where pictures stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fopru_graph.errors import UserError, first_line

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family

MARKER = "<image>"
_PROBE = "a question"
_PLAIN_TEMPLATE = "USER: {} ASSISTANT:"  # LLaVA-1.5's, for checkpoints without a chat template
_IMAGE_PARTS = ("image", "video")
_EXAMPLE = 'a turn is {role: user, content: "…"}, or its content a list of {type: image} and {type: text, text: "…"}'


@dataclass(frozen=True)
class Question:
    """What is asked: the last turn of a chat, which is the user's, and the turns before it.

    Args:
        text: the question; empty if the last of ``messages`` is the user's.
        system: what the model is told first.
        messages: earlier turns as transformers' templates take them, each with a role and a content: a text, or a list
            of parts ``{"type": "image"}`` and ``{"type": "text", "text": …}``.
        template: ``chat`` writes all of it in the checkpoint's chat template; ``none`` takes ``text`` as it is.

    In all texts ``<image>`` marks where a picture stands.

    Raises:
        UserError: nothing is asked, ``template`` is none and there is more than a text, or a turn is malformed.
    """

    text: str = ""
    system: str = ""
    messages: Sequence[Mapping[str, Any]] = ()
    template: Literal["chat", "none"] = "chat"

    def __post_init__(self) -> None:
        for number, message in enumerate(self.messages):
            _check_turn(f"messages[{number}]", message)
        if self.template == "none" and (self.system or self.messages):
            raise UserError(
                "system and messages are written by a chat template, and template is none",
                "write them into the prompt, or use template: chat",
            )
        if not self.text and (not self.messages or self.messages[-1]["role"] != "user"):
            raise UserError(
                "nothing is asked: the prompt is empty" + (f", and {_last(self.messages)}" if self.messages else ""),
                "give a prompt, or end messages with a turn of the user",
            )

    def turns(self) -> list[tuple[str, list[str | None]]]:
        """Every turn's role and pieces: its texts as they are, and None for each picture."""
        before = [("system", [self.system])] if self.system else []
        turns = [(message["role"], _pieces(message["content"])) for message in self.messages]
        return before + turns + ([("user", _pieces(self.text))] if self.text else [])

    @property
    def last(self) -> str:
        """The text of the last turn."""
        return "".join(MARKER if piece is None else piece for piece in self.turns()[-1][1])

    def pictures(self, family: Family) -> int:
        """How many pictures the turns name. Text that is taken as it is may also hold the model's own placeholders."""
        named = sum(pieces.count(None) for _, pieces in self.turns())
        verbatim = self.template == "none" and family.placeholder != MARKER
        return named + (self.text.count(family.placeholder) if verbatim else 0)


def as_question(asked: str | Question) -> Question:
    """A text is a question without anything before it."""
    return asked if isinstance(asked, Question) else Question(asked)


def distribute_images(family: Family, questions: Sequence[Question], images: int) -> list[int]:
    """The number of images of each question.

    It is the number of pictures that it names. If no question names any, the only one takes all images, or each of
    several takes one.

    Raises:
        UserError: the numbers of images and questions or named pictures differ, or a chat or a text that is taken as it
            is names none.
    """
    named = [question.pictures(family) for question in questions]
    if sum(named) == images:
        return named
    if not any(named):
        for question in questions:
            if question.messages or question.template == "none":
                where = "turn of messages" if question.messages else f"{MARKER} in a prompt with template: none"
                raise UserError(
                    f"there are {images} image(s), and no {where} says where they stand",
                    f"write {MARKER} where each stands" + (", or a part {type: image}" if question.messages else ""),
                )
        if len(questions) == 1:
            return [images]
        if images == len(questions):
            return [1] * images
    raise UserError(
        f"{images} image(s) do not fit {len(questions)} prompt(s) with {sum(named)} {MARKER} marker(s)",
        f"write one {MARKER} in the prompts for every image, in the images' order",
    )


def chat_text(family: Family, asked: str | Question, images: int, part: str = "image") -> str:
    """The question in the checkpoint's chat template, with one placeholder per image; its text is kept as it is.

    Images of a question that names none come first in the user's first turn. ``part`` is what the template calls an
    image: image or video.

    Raises:
        UserError: the chat template fails, or the checkpoint has none and there is more than one turn.
    """
    question = as_question(asked)
    placeholder = (part == "video" and family.video_placeholder) or family.placeholder
    if question.template == "none":
        return question.text.replace(MARKER, placeholder)
    turns = question.turns()
    first = 0 if any(None in pieces for _, pieces in turns) else images
    if family.processor.chat_template or family.processor.tokenizer.chat_template:
        asked_first = next((turn for turn, (role, _) in enumerate(turns) if role == "user"), 0)
        takes_parts = _takes_parts(family.processor)
        messages = []
        for turn, (role, pieces) in enumerate(turns):
            ahead = first if turn == asked_first else 0
            content = _parts(pieces, ahead, part) if takes_parts else _plain(pieces, ahead, placeholder, family)
            messages.append({"role": role, "content": content})
        return _rendered(family.processor, messages)
    if len(turns) > 1:
        raise UserError(
            "the checkpoint has no chat template, so that it takes one question, without system and messages",
            "write the chat as the model was trained on it into the prompt, with template: none",
        )
    plain = _plain(turns[0][1], first, placeholder, family)
    return family.template(plain) or _PLAIN_TEMPLATE.format(plain)


def _check_turn(where: str, message: Any) -> None:
    """Refuse a turn that no template could write, naming the place."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UserError(f"{where} is no turn of a chat: {message!r}"[:200], _EXAMPLE)
    content = message.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple):
        raise UserError(f"{where}.content is {content!r}, neither a text nor a list of parts"[:200], _EXAMPLE)
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not (kind == "text" and isinstance(part.get("text"), str)) and kind not in _IMAGE_PARTS:
            raise UserError(f"{where}.content[{number}] is {part!r}, neither an image nor a text"[:200], _EXAMPLE)
        if extra := sorted(set(part) - {"type", "text"}):
            raise UserError(
                f"{where}.content[{number}] has {extra[0]!r}: a part only says where a picture stands",
                "give the pictures themselves to VisionEncode, in the order of the parts",
            )


def _last(messages: Sequence[Mapping[str, Any]]) -> str:
    return f"the last of {len(messages)} messages is of {messages[-1]['role']!r}"


def _pieces(content: str | Sequence[Mapping[str, str]]) -> list[str | None]:
    """A turn's content in order: its texts, and None for each picture."""
    if isinstance(content, str):
        first, *others = content.split(MARKER)
        spread = [first, *(piece for other in others for piece in (None, other))]
        return [piece for piece in spread if piece != ""]
    pieces = [_pieces(part["text"]) if part["type"] == "text" else [None] for part in content]
    return [piece for part in pieces for piece in part]


def _parts(pieces: Sequence[str | None], first: int, part: str) -> list[dict[str, str]]:
    """A turn's content for templates that take lists of parts, ``first`` pictures before everything."""
    written = [{"type": part} if piece is None else {"type": "text", "text": piece} for piece in pieces]
    return [{"type": part}] * first + written


def _plain(pieces: Sequence[str | None], first: int, placeholder: str, family: Family) -> str:
    """A turn's content as one text."""
    return (placeholder + family.after_image) * first + "".join(
        placeholder if piece is None else piece for piece in pieces
    )


def _takes_parts(processor: Any) -> bool:
    """Whether the chat template writes lists of parts; those of text models fail on one, drop it or write its repr."""
    try:
        written = _rendered(processor, [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}])
    except UserError:
        return False
    return _PROBE in written and not re.search(r"""["']type["']: ?["']text["']""", written)


def _rendered(processor: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """A chat in the template of the processor, or of its tokenizer.

    Raises:
        UserError: the template fails; it is a program, and what it raises is its author's choice.
    """
    writer = processor if processor.chat_template else processor.tokenizer
    try:
        text: str = writer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        roles = ", ".join(message["role"] for message in messages)
        what = "a question" if roles == "user" else f"turns of {roles}"
        raise UserError(
            f"the checkpoint's chat template fails on {what}: {first_line(error)}",
            "mend chat_template.jinja (or chat_template in tokenizer_config.json) of the checkpoint"
            + ("" if roles == "user" else ", or leave out what it does not take"),
        ) from error
    return text
