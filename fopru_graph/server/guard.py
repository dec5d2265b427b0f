"""What stands before every route: who may ask, what may be sent, and what every answer says to a browser.

A browser lends any page that it shows the way to this machine. So a request counts only if it calls the server by a
name of its own (a page whose domain was pointed here does not), and comes from a page of the server, or from none.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from fopru_graph.server.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[web.StreamResponse]])  # a method, too

_COOKIE = "fopru_graph"
_JSON = "application/json"
# Scripts of the canvas are put together at run time. Nothing may be asked of, or sent to, another machine.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; connect-src 'self' blob: data:; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'; base-uri 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def accepts(*types: str) -> Callable[[_Handler], _Handler]:
    """For the handler of a route that takes bodies of other types than JSON: ``@accepts("multipart/form-data")``.

    The body is whole before the handler is called: ``await request.read()`` gives it, ``request.post`` does not.
    """

    def marked(handler: _Handler) -> _Handler:
        handler.accepted_types = types  # type: ignore[attr-defined]
        return handler

    return marked


def of_own_page(handler: _Handler) -> _Handler:
    """For the handler of a route that our canvas posts to without saying what it sends.

    From a page of the server any type is taken, which its ``Origin`` proves; from anyone else only JSON.
    """
    handler.of_own_page = True  # type: ignore[attr-defined]
    return handler


def refused(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that says in OpenAI's form why there is no other."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def install(app: web.Application, settings: Settings) -> None:
    """Put the guard before all routes of an application, those that are added later included."""
    app.middlewares.append(_Guard(settings).middleware)
    app.on_response_prepare.append(_add_headers)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)  # a handler may have said something stricter


class _Guard:
    def __init__(self, settings: Settings) -> None:
        self._limits, self._hosts = settings.limits, settings.hosts
        self._token = settings.token
        self._cookie = hashlib.sha256(f"cookie of {settings.token}".encode(errors="surrogateescape")).hexdigest()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request, or hand it on with its body read."""
        try:
            refusal = self._foreign(request) or self._unknown(request) or await self._unreadable(request)
            return await handler(request) if refusal is None else refusal
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kept = {key: value for key, value in error.headers.items() if key != hdrs.CONTENT_TYPE}
            return refused(error.status, f"{request.method} {request.path}: {error.reason}", "http", kept)
        except ConnectionError:  # the client is gone
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)  # for who runs the server; it holds paths, so nobody else sees it
            return refused(500, "the server failed; it has written why on its terminal", "internal")

    def _foreign(self, request: web.Request) -> web.Response | None:
        """Why a request may be another site's, if it may."""
        host = request.headers.get(hdrs.HOST, "")
        if _name_of(host) not in self._hosts:
            return refused(403, f"this server is not called {_short(host)}; --allow-host adds a name", "host")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():  # none in `null`
            return refused(403, f"pages of {_short(origin)} may not use this server", "origin")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return refused(403, "another site's page asked for this; open the address yourself", "site")
        return None

    def _unknown(self, request: web.Request) -> web.StreamResponse | None:
        """What to answer to someone who has not shown the token; None to who has."""
        if self._token is None:
            return None
        kind, _, shown = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if kind == "Bearer" and _equal(shown, self._token):
            return None
        if _equal(request.cookies.get(_COOKIE, ""), self._cookie):
            return None
        if request.method == hdrs.METH_GET and _equal(request.query.get("token", ""), self._token):
            return self._with_cookie(request)
        challenge: dict[str, str] = {hdrs.WWW_AUTHENTICATE: "Bearer"}
        return refused(
            401, "show the token: Authorization: Bearer TOKEN, or open /?token=TOKEN once", "token", challenge
        )

    def _with_cookie(self, request: web.Request) -> web.StreamResponse:
        """Let a browser remember that it has shown the token, and take the token out of its address bar."""
        rest = request.rel_url.with_query([(key, text) for key, text in request.query.items() if key != "token"])
        answer = web.Response(status=303, headers={hdrs.LOCATION: "/" + str(rest).lstrip("/")})
        answer.set_cookie(_COOKIE, self._cookie, httponly=True, samesite="Strict", path="/")
        return answer

    async def _unreadable(self, request: web.Request) -> web.Response | None:
        """Why a body is refused, if it is; one that is not is in memory afterwards."""
        if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
            return None
        handler = request.match_info.handler
        accepted = getattr(handler, "accepted_types", (_JSON,))
        own = hdrs.ORIGIN in request.headers and getattr(handler, "of_own_page", False)  # `_foreign` has compared it
        typed = hdrs.CONTENT_TYPE in request.headers
        if (request.method == hdrs.METH_POST or request.can_read_body) and not (
            own or (typed and request.content_type in accepted)
        ):
            return refused(415, f"the body's Content-Type must be {' or '.join(accepted)}", "content_type")
        most = self._limits.body_bytes
        try:
            if (request.content_length or 0) > most:
                raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=request.content_length or 0)
            await asyncio.wait_for(request.read(), self._limits.body_seconds)
        except web.HTTPRequestEntityTooLarge:
            return refused(413, f"the body is larger than {most} bytes", "body_size", {hdrs.CONNECTION: "close"})
        except TimeoutError:
            return refused(408, "the body took too long", "body_time", {hdrs.CONNECTION: "close"})
        return None


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and without the brackets of IPv6; empty if it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _equal(shown: str, secret: str) -> bool:
    """Whether a text is the secret, in a time that tells nothing of how alike they are."""
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), secret.encode(errors="surrogateescape"))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
