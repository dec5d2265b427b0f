"""The bundled model knows nothing but the scenes that the demo draws; whoever shows it a photograph is told so."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable

from fopru_graph import values
from fopru_graph.lvlm.inputs.images import load_image, samples

_MODEL = "demo"
_DRAWN = ("demo:", "scenes/")  # how the bundled samples and the pictures of the task `scenes` are called
_told: weakref.WeakSet[object] = weakref.WeakSet()


def unknown_to_demo(model: values.ModelHandle, pictures: Iterable[object]) -> str | None:
    """What to tell a user who shows the demo model something else than its scenes, once for each loaded model.

    Of a picture that bears another name, a copy of a bundled sample for example, the pixels decide. None for other
    models, and where it was told before.
    """
    if model.name != _MODEL or model.family in _told:
        return None
    if all(map(_is_scene, pictures)):
        return None
    _told.add(model.family)
    return (
        "the demo model only knows drawn scenes: what it says of other pictures shows that the pipeline runs, and no "
        "more; give it a real model (--set model=…)"
    )


def _is_scene(picture: object) -> bool:
    if not isinstance(picture, values.Image):
        return False  # a video
    if picture.source.startswith(_DRAWN):
        return True
    return (picture.picture.size, picture.picture.tobytes()) in _sample_pixels()


@functools.cache
def _sample_pixels() -> frozenset[tuple[tuple[int, int], bytes]]:
    pictures = (load_image(f"demo:{name}").picture for name in samples())
    return frozenset((picture.size, picture.tobytes()) for picture in pictures)
