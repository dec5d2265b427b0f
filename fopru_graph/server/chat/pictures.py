"""The pictures of a request: in the address itself, or, if the server was told to, fetched from it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from fopru_graph.server.chat.schemas import BadRequest
from fopru_graph.server.settings import Settings

if TYPE_CHECKING:
    import PIL.Image

    Identified: TypeAlias = tuple[str, PIL.Image.Image]  # a digest of the pixels, and the picture

_DATA = re.compile(r"data:[\w.+/-]*(;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)
_CODE = "invalid_image_url"


async def load_pictures(urls: Sequence[str], settings: Settings) -> list[Identified]:
    """The pictures at the addresses, as RGB and upright, each with a digest of its pixels.

    Raises:
        BadRequest: one cannot be had or decoded, or they are too many or too large.
    """
    limits = settings.limits
    if len(urls) > limits.pictures:
        raise _refused(f"{len(urls)} pictures are more than the {limits.pictures} that a question may have")
    pictures: list[Identified] = []
    pixels = 0
    for number, url in enumerate(urls, 1):
        content = _content_of(url, number) if url[:5].lower() == "data:" else await _fetched(url, number, settings)
        pictures.append(await asyncio.to_thread(_decoded, content, number))
        width, height = pictures[-1][1].size
        pixels += width * height
        if pixels > limits.pixels:
            raise _refused(f"the pictures have more than {limits.pixels} pixels together", "scale them down first")
    return pictures


def _refused(message: str, hint: str | None = None) -> BadRequest:
    return BadRequest(message, hint, "messages", _CODE)


def _content_of(url: str, number: int) -> bytes:
    """The bytes in a ``data:`` address."""
    start = _DATA.match(url[:200])
    if start is None:
        raise _refused(f"picture {number}: the address is not data:image/png;base64,…", "encode the file as base64")
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"picture {number} is no base64: {error}", "encode the file as base64") from error


def _decoded(content: bytes, number: int) -> Identified:
    from fopru_graph.errors import UserError
    from fopru_graph.lvlm.inputs.images import decode_image
    from fopru_graph.lvlm.inputs.pictures import digest

    try:
        image = decode_image(content, f"picture {number}")
    except UserError as error:
        raise _refused(error.message, error.hint) from error
    return digest(image), image.picture


async def _fetched(url: str, number: int, settings: Settings) -> bytes:
    """The bytes behind an address of the public Internet."""
    if not settings.fetch_pictures:
        raise _refused(
            f"picture {number} is an address, and this server fetches none",
            "send the picture itself, as data:image/png;base64,…",
        )
    limits = settings.limits
    timeout = aiohttp.ClientTimeout(total=limits.fetch_seconds)
    connector = aiohttp.TCPConnector(resolver=_PublicResolver(), use_dns_cache=False, force_close=True)
    try:
        check_address(url)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise _refused(f"picture {number}: its address answers {response.status}", "redirects are not followed")
            content = bytearray()
            async for part in response.content.iter_chunked(2**16):
                content += part
                if len(content) > limits.body_bytes:
                    raise _refused(f"picture {number} is larger than {limits.body_bytes} bytes", "send a smaller one")
            return bytes(content)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:  # which, would tell of the network here
        raise _refused(f"picture {number} cannot be fetched", "send it as data:image/png;base64,…") from error
    finally:
        await connector.close()


def check_address(url: str) -> None:
    """Refuse what is no plain web address, and numbers that are no address of the public Internet.

    Raises:
        ValueError: so it is.
    """
    from yarl import URL

    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or parsed.host is None or parsed.user is not None:
        raise ValueError("no plain web address")
    try:
        number = ipaddress.ip_address(parsed.host)
    except ValueError:
        return  # a name, which the resolver judges
    if not is_public(str(number)):
        raise ValueError("not public")


def is_public(address: str) -> bool:
    """Whether a number is an address of the public Internet: not of this machine, its network or its cloud."""
    number = ipaddress.ip_address(address)
    inner = getattr(number, "ipv4_mapped", None) or getattr(number, "sixtofour", None) or number
    return inner.is_global and not inner.is_multicast


class _PublicResolver(AbstractResolver):
    """Looks names up, and connects to what it found there or not at all: a second look-up could say something else."""

    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not found or not all(is_public(each["host"]) for each in found):
            raise OSError("not public")
        return found

    async def close(self) -> None:
        await self._inner.close()
