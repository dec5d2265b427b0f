"""Who may ask, what may be sent, and what answers say to a browser: each refusal that SECURITY.md promises."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace

import aiohttp
import pytest

from fopru_graph.errors import UserError
from fopru_graph.server.guard import HEADERS
from fopru_graph.server.settings import Limits, Settings
from tests.server.conftest import Answer, Client

TOKEN = "correct horse battery staple"
PATH = "/health"  # takes GET alone, so a POST that is not refused gets 405


def code(answer: Answer) -> str:
    """Why a request was refused; its error has all keys of OpenAI's."""
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


# Other sites


def test_a_request_of_this_machine_is_answered(server: Client) -> None:
    own = f"http://127.0.0.1:{server.port}"
    for headers in ({}, {"origin": own, "sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}):
        assert server.ask("GET", "/health", **headers).status == 200
    for host in ("localhost", "LOCALHOST:80", "[::1]:8188", "127.0.0.1"):
        assert server.ask("GET", "/health", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8188", "127.0.0.1.evil.example", "localhost@evil.example", "", "[", "10.0.0.1"],
)
def test_another_name_of_the_server_is_refused(server: Client, host: str) -> None:
    answer = server.ask("GET", "/health", host=host)
    assert (answer.status, code(answer)) == (403, "host")


def test_a_domain_that_was_pointed_here_is_refused_although_its_origin_fits(server: Client) -> None:
    answer = server.ask(
        "GET", "/health", host="evil.example", origin="http://evil.example", sec_fetch_site="same-origin"
    )
    assert (answer.status, code(answer)) == (403, "host")


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://localhost:9", "https://127.0.0.1", "file://", "http://127.0.0.1"],
)
def test_pages_of_other_origins_are_refused(server: Client, origin: str) -> None:
    for method in ("GET", "POST"):
        answer = server.ask(method, "/health", origin=origin, content_type="application/json")
        assert (answer.status, code(answer)) == (403, "origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_what_a_browser_says_of_the_asking_site_is_believed(server: Client, site: str) -> None:
    answer = server.ask("GET", "/health", sec_fetch_site=site)
    assert (answer.status, code(answer)) == (403, "site")


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_a_web_socket_of_another_site_is_refused(server: Client, headers: dict[str, str]) -> None:
    async def connect() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.address}/ws", headers=headers):
            pass

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(connect())
    assert refused.value.status == 403


def test_no_answer_lets_other_origins_read_it(server: Client) -> None:
    preflight = {"origin": f"http://127.0.0.1:{server.port}", "access_control_request_method": "POST"}
    answers = [
        server.ask("GET", "/health"),
        server.ask("GET", "/nowhere"),
        server.ask("GET", "/health", origin="http://evil.example"),
        server.ask("OPTIONS", PATH, **preflight),
        server.ask("OPTIONS", PATH, **preflight | {"origin": "http://evil.example"}),
    ]
    assert [answer.status for answer in answers] == [200, 404, 403, 405, 403]
    assert not any(name.lower().startswith("access-control") for answer in answers for name in answer.headers)


# Bodies


def test_only_json_is_read(server: Client) -> None:
    body = b'{"a": 1}'
    form = "multipart/form-data; boundary=x"
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        form,
        "application/jsonp",
        "application/json-seq",
        "",
    ):
        answer = server.ask("POST", PATH, body, content_type=kind)
        assert (answer.status, code(answer)) == (415, "content_type"), kind
    assert server.ask("POST", PATH, body, content_type="application/json; charset=utf-8").status == 405
    assert server.ask("POST", PATH, body).status == 415, "no type at all"
    assert server.ask("POST", PATH).status == 415, "no type and no body"


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_its_size(serve) -> None:
    client = serve(limits=Limits(body_bytes=1000))
    fits, large = b" " * 900, b" " * 1001
    assert client.ask("POST", PATH, fits, content_type="application/json").status == 405
    answer = client.ask("POST", PATH, large, content_type="application/json")
    assert (answer.status, code(answer)) == (413, "body_size")
    chunk = b"3e9\r\n" + large + b"\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.port), 60) as sent:
        sent.sendall(request("Transfer-Encoding: chunked") + chunk)
        assert b" 413 " in sent.recv(100)


def test_of_a_body_that_says_it_is_too_large_nothing_is_read(serve) -> None:
    client = serve(limits=Limits(body_bytes=1000))
    with socket.create_connection(("127.0.0.1", client.port), 60) as sent:
        sent.sendall(request("Content-Length: 1000000000"))
        assert b" 413 " in sent.recv(100)


def test_a_body_that_does_not_come_is_not_waited_for(serve) -> None:
    client = serve(limits=Limits(body_seconds=0.2))
    with socket.create_connection(("127.0.0.1", client.port), 60) as sent:
        sent.sendall(request("Content-Length: 100") + b"{")
        assert b" 408 " in sent.recv(100)


def test_a_body_that_comes_in_drops_is_not_waited_for_either(serve) -> None:
    client = serve(limits=Limits(body_seconds=0.5))
    with socket.create_connection(("127.0.0.1", client.port), 60) as sent:
        sent.settimeout(0.05)
        sent.sendall(request("Content-Length: 100000"))
        answered = b""
        for _ in range(1000):
            try:
                answered += sent.recv(100)
            except TimeoutError:
                sent.sendall(b" ")
            if answered:
                break
        assert b" 408 " in answered


def request(*headers: str) -> bytes:
    """The head of a POST."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# The token


def test_a_server_that_others_can_reach_has_a_token(settings: Settings) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "graph.example"):
        with pytest.raises(UserError, match="lets other machines in") as error:
            replace(settings, host=host)
        assert "--token" in (error.value.hint or "")
        assert replace(settings, host=host, token=TOKEN).is_local is False
    with pytest.raises(UserError, match="could be guessed"):
        replace(settings, token="short")
    for host in ("localhost", "127.0.0.1", "::1", "127.8.8.8"):
        assert replace(settings, host=host).is_local


def test_the_token_is_in_no_text_of_the_settings(settings: Settings) -> None:
    assert TOKEN not in repr(replace(settings, token=TOKEN))


def test_without_the_token_there_is_no_answer(serve) -> None:
    client = serve(token=TOKEN)
    wrong = ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer é"})
    for headers in (*wrong, {"cookie": "fopru_graph=wrong"}, {"cookie": f"fopru_graph={TOKEN}"}):
        for path in ("/health", "/v1/models", "/nowhere", "/health?token=wrong"):
            answer = client.ask("GET", path, **headers)
            assert (answer.status, code(answer)) == (401, "token"), (path, headers)
    answer = client.ask("POST", f"{PATH}?token=" + TOKEN.replace(" ", "%20"), b"{}", content_type="application/json")
    assert answer.status == 401, "an address is for a person's browser"
    assert client.ask("GET", "/health", authorization=f"Bearer {TOKEN}").status == 200
    foreign = client.ask("GET", "/health", authorization=f"Bearer {TOKEN}", origin="http://evil.example")
    assert foreign.status == 403, "the token does not stand for the other checks"


def test_a_browser_shows_the_token_once_in_the_address(serve) -> None:
    client = serve(token=TOKEN)
    answer = client.ask("GET", "//evil.example/../health?a=b&token=" + TOKEN.replace(" ", "+"))
    assert answer.status == 303
    assert answer.headers["Location"].startswith("/") and not answer.headers["Location"].startswith("//")
    answer = client.ask("GET", "/health?a=b&token=" + TOKEN.replace(" ", "+"))
    assert (answer.status, answer.headers["Location"]) == (303, "/health?a=b")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert client.ask("GET", "/health", cookie=cookie.partition(";")[0]).status == 200
    assert serve(token=TOKEN + "!").ask("GET", "/health", cookie=cookie.partition(";")[0]).status == 401


# Every answer


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/health", {}, 200), ("/nowhere", {}, 404), ("/health", {"host": "evil.example"}, 403), ("/ws", {}, 400)],
)
def test_every_answer_tells_browsers_what_it_may_do(
    server: Client, path: str, headers: dict[str, str], status: int
) -> None:
    answer = server.ask("GET", path, **headers)
    assert answer.status == status
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy and "*" not in policy


def test_names_that_were_given_are_the_servers_own(serve) -> None:
    client = serve(names=("Graph.Example",))
    assert client.ask("GET", "/health", host="graph.example", origin="https://graph.example").status == 200
    assert client.ask("GET", "/health", host="other.example").status == 403
