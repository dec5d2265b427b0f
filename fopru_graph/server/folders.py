"""The server's folder, and names in it that come from outside: each is one plain name, and nothing leads out of it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock, Timeout

from fopru_graph.errors import UserError

Place = Literal["input", "output", "temp"]
PLACES: tuple[Place, ...] = get_args(Place)

_NAME = re.compile(r"\w[\w .()+,=@-]{0,199}")  # no separator, no dot in front, nothing that a shell or a drive reads
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # what Windows opens in any folder


class Refused(UserError):
    """A name that leads somewhere else, or that is none."""


class Folders:
    """What the server keeps: ``input`` (uploads), ``output`` and ``temp`` (of runs), ``workflows``, and the queue.

    Only its user can look into it. While an object of this class is open no other server uses the folder.

    Raises:
        UserError: another server has it, or it cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workflows = root / "workflows"
        self.queue = root / "queue.sqlite"
        self.settings = root / "settings.json"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (*map(self.place, PLACES), self.workflows):
                folder.mkdir(exist_ok=True, mode=0o700)
            self._lock = FileLock(root / "lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another server uses {root}", "give this one another --data FOLDER") from None
        except OSError as error:
            raise UserError(f"{root} cannot be written: {error.strerror}", "give another --data FOLDER") from None

    def place(self, name: Place) -> Path:
        """One of the three folders of files."""
        return self.root / name

    def close(self) -> None:
        """Let another server use the folder."""
        self._lock.release()


def is_plain(name: str) -> bool:
    """Whether a text is the name of a file, on whatever system, and cannot lead anywhere."""
    return bool(_NAME.fullmatch(name)) and not name.endswith((".", " ")) and not _DEVICE.fullmatch(name)


def inside(folder: Path, *names: str) -> Path:
    """The path of something in a folder, or in folders in it, that need not be there.

    Raises:
        Refused: a name is none, or the path leads out of the folder, through a link for instance.
    """
    for name in names:
        if not is_plain(name):
            raise Refused(f"{name[:80]!r} is no name of a file here", "use letters, digits, spaces and ._()-")
    path = folder.joinpath(*names)
    real = os.path.realpath(path)
    if not names or real != os.path.join(os.path.realpath(folder), *names):
        raise Refused(f"{'/'.join(names)[:80]!r} leads out of its folder", "put the file itself there")
    return path


def read(path: Path, most: int) -> bytes:
    """The content of a regular file that is no link.

    Raises:
        OSError: there is none, or it is larger than ``most`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as stream:
        if not path.is_file() or os.fstat(descriptor).st_size > most:
            raise OSError(f"{path.name} is no file, or a large one")
        return stream.read()


def keep_newest(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder until ``most`` are left."""
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    for _, path in sorted(found, reverse=True)[most:]:
        with contextlib.suppress(OSError):
            os.unlink(path)
