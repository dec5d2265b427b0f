"""Pictures that a page sends, and files that it looks at. What it sends is drawn anew; what it gets cannot be run."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

from aiohttp import hdrs, web

from fopru_graph.errors import UserError
from fopru_graph.server.canvas.known_files import KnownFiles
from fopru_graph.server.canvas.multipart import file_name, parts_of
from fopru_graph.server.folders import PLACES, Folders, Refused, inside, read
from fopru_graph.server.guard import accepts, refused
from fopru_graph.server.settings import Limits

MOST_UPLOADS = 1000
_STEM = 60  # characters of a file's name that are kept
_INERT = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".txt": "text/plain", ".json": "text/plain",
}  # fmt: skip
# A file may hold anything, so nothing in it is run, and nothing is loaded for it.
_STRICT = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; sandbox; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=0",
}


class FileRoutes:
    """Handlers of the routes of files."""

    def __init__(self, folders: Callable[[], Folders], known: Callable[[], KnownFiles], limits: Limits) -> None:
        self._folders, self._known, self._limits = folders, known, limits

    async def view(self, request: web.Request) -> web.Response:
        """``GET /view?filename=&type=&subfolder=``: a file of ``input``, ``output`` or ``temp``."""
        query = request.query
        place, subfolder = query.get("type", "output"), query.get("subfolder", "")
        if place not in PLACES:
            return refused(400, "type is input, output or temp", "file")
        name = query.get("filename", "")
        try:
            if place == "input" and (picture := await asyncio.to_thread(self._known().picture, name)) is not None:
                return web.Response(body=picture, content_type="image/png", headers=_STRICT)
            path = inside(self._folders().place(place), *([subfolder] if subfolder else []), name)
            content = await asyncio.to_thread(read, path, 4 * self._limits.body_bytes)
        except Refused as error:
            return refused(400, error.message, "file")
        except (OSError, UserError):
            return refused(404, "there is no such file", "file")
        kind = _INERT.get(path.suffix.lower())
        headers = dict(_STRICT)
        if kind is None:
            headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{path.name}"'
        return web.Response(body=content, content_type=kind or "application/octet-stream", headers=headers)

    @accepts("multipart/form-data")
    async def upload(self, request: web.Request) -> web.Response:
        """``POST /upload/image``: a form with the field ``image``; the file is called otherwise than the page says."""
        try:
            body = await request.read()
            fields = parts_of(body, request.headers[hdrs.CONTENT_TYPE])
            content = fields["image"]
        except (ValueError, KeyError):
            return refused(400, "the form has no field image with a picture", "upload")
        try:
            name = await asyncio.to_thread(self._keep, content, file_name(body))
        except UserError as error:
            return refused(400, error.message + (f" ({error.hint})" if error.hint else ""), "upload")
        return web.json_response({"name": name, "subfolder": "", "type": "input"})

    def _keep(self, content: bytes, called: str) -> str:
        """Draw a picture anew, and keep it; returns its name.

        Raises:
            UserError: it is none, or too large, or there are too many.
        """
        from fopru_graph.lvlm.inputs.images import decode_image

        folder = self._folders().place("input")
        picture = decode_image(content, "the upload").picture
        if picture.width * picture.height > self._limits.pixels:
            raise UserError(f"the picture has more than {self._limits.pixels} pixels", "scale it down first")
        if len(os.listdir(folder)) >= MOST_UPLOADS:
            raise UserError(f"there are {MOST_UPLOADS} uploads already", f"remove some from {folder.name}")
        stream = io.BytesIO()
        picture.save(stream, "PNG", compress_level=3)
        path = inside(folder, _clean(called, stream.getvalue()))
        _write_once(path, stream.getvalue())
        return path.name


def _clean(called: str, content: bytes) -> str:
    """The name of an upload: what it was called, as far as that is harmless, and a digest: none replaces another."""
    stem = re.sub(r"[^\w-]+", "_", Path(re.split(r"[/\\]", called)[-1]).stem).strip("_")[:_STEM]
    return f"{stem or 'picture'}-{hashlib.sha256(content).hexdigest()[:8]}.png"


def _write_once(path: Path, content: bytes) -> None:
    from fopru_graph.graph.files import write_atomically

    if not path.exists():
        write_atomically(path, content)
