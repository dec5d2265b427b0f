"""Building HTML so that text from files is always escaped: only what is `Markup` is taken as it is."""

from __future__ import annotations

import html


class Markup(str):
    """HTML that is safe already."""


def element(tag: str, *children: str | None, **attributes: str | None) -> Markup:
    """An element with its children; text is escaped, None left out. ``class_`` is written as ``class``."""
    inside = "".join(escape(child) for child in children if child is not None)
    return Markup(f"<{tag}{_attributes(attributes)}>{inside}</{tag}>")


def void(tag: str, **attributes: str | None) -> Markup:
    """An element that has no children."""
    return Markup(f"<{tag}{_attributes(attributes)}>")


def escape(text: str) -> Markup:
    """Text as HTML; markup as it is. Characters that no HTML may hold become a replacement character."""
    if isinstance(text, Markup):
        return text
    legal = "".join(c if c in "\n\t" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF) else "\ufffd" for c in text)
    return Markup(html.escape(legal))


def join(*parts: str | None) -> Markup:
    """Parts behind each other; text is escaped, None left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def _attributes(attributes: dict[str, str | None]) -> str:
    given = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    return "".join(f' {name}="{escape(str(value))}"' for name, value in given)
