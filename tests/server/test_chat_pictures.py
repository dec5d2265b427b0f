"""The pictures of a request: decoded or refused, and fetched from the public Internet alone, if at all."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import threading
from collections.abc import Iterator
from dataclasses import replace

import PIL.Image
import pytest

from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.server.chat import pictures
from fopru_graph.server.chat.pictures import check_address, is_public, load_pictures
from fopru_graph.server.chat.schemas import BadRequest
from fopru_graph.server.settings import Limits, Settings
from tests.server.asking import SIGN, TAXI, data_url


def loaded(settings: Settings, *urls: str) -> list[PIL.Image.Image]:
    return [picture for _, picture in asyncio.run(load_pictures(urls, settings))]


def refusal(settings: Settings, *urls: str) -> str:
    with pytest.raises(BadRequest) as error:
        loaded(settings, *urls)
    assert (error.value.param, error.value.code) == ("messages", "invalid_image_url")
    return error.value.message


def encoded(picture: PIL.Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


# In the address itself


@pytest.mark.parametrize("head", ["data:image/png", "DATA:IMAGE/PNG", "data:", "data:image/jpeg;name=a.jpg"])
def test_a_picture_in_its_address_is_decoded_whatever_it_is_called(settings: Settings, head: str) -> None:
    (picture,) = loaded(settings, f"{head};base64,{data_url(SIGN).partition(',')[2]}")
    assert picture.tobytes() == SIGN.tobytes()


def test_a_picture_has_the_identity_of_its_pixels(settings: Settings) -> None:
    urls = [data_url(SIGN), data_url(TAXI), "data:;base64," + base64.b64encode(encoded(SIGN, "BMP")).decode()]
    first, other, again = (key for key, _ in asyncio.run(load_pictures(urls, settings)))
    assert first == again != other


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png,abc", "is not data:image/png;base64"),
        ("data:image/png;base64,a b c", "no base64"),
        ("data:image/png;base64,é", "no base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:text/html;base64,PGh0bWw+PC9odG1sPg==", "picture 1"),
        ("data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=", "picture 1"),
    ],
)
def test_what_is_no_picture_is_refused(settings: Settings, url: str, says: str) -> None:
    assert says in refusal(settings, url)


def test_a_damaged_picture_is_refused(settings: Settings) -> None:
    half = base64.b64encode(encoded(SIGN, "PNG")[:-200]).decode()
    assert "picture 2" in refusal(settings, data_url(TAXI), f"data:image/png;base64,{half}")


def test_pictures_are_not_too_many_and_not_too_large(settings: Settings) -> None:
    few = replace(settings, limits=Limits(pictures=2))
    assert len(loaded(few, *[data_url(SIGN)] * 2)) == 2
    assert "3 pictures" in refusal(few, *[data_url(SIGN)] * 3)
    size = SIGN.width * SIGN.height
    assert len(loaded(replace(settings, limits=Limits(pixels=size * 2)), *[data_url(SIGN)] * 2)) == 2
    assert "pixels together" in refusal(replace(settings, limits=Limits(pixels=size * 2 - 1)), *[data_url(SIGN)] * 2)
    bomb = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    assert "too large" in refusal(settings, "data:image/png;base64," + base64.b64encode(bomb.getvalue()).decode())


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "file:///etc/passwd", "demo:street-sign", "ftp://example.org/a.png", ""]
)
def test_no_file_of_the_machine_is_read(settings: Settings, url: str) -> None:
    assert "fetches none" in refusal(settings, url)
    assert "cannot be fetched" in refusal(replace(settings, fetch_pictures=True), url)


# Behind the address


class Site(http.server.BaseHTTPRequestHandler):
    """A site with a picture, one that never ends, one that comes slowly, and a redirect."""

    def do_GET(self) -> None:
        content = encoded(SIGN, "PNG")
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/sign.png")
            self.end_headers()
            return
        self.send_response(200 if self.path != "/gone" else 404)
        self.end_headers()
        if self.path == "/slow":
            self.server.gate.wait(60)  # type: ignore[attr-defined]
        self.wfile.write(content * (100 if self.path == "/large" else 1))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.gate = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.gate.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetching(settings: Settings) -> Settings:
    return replace(settings, fetch_pictures=True, limits=Limits(fetch_seconds=5, body_bytes=200_000))


def test_addresses_are_not_fetched_unless_the_server_was_told_to(settings: Settings, site: str) -> None:
    assert "fetches none" in refusal(settings, f"{site}/sign.png")


def test_nothing_is_fetched_from_this_machine_under_any_name(fetching: Settings, site: str) -> None:
    port = site.rpartition(":")[2]
    names = ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]")
    for name in names:
        assert "cannot be fetched" in refusal(fetching, f"http://{name}:{port}/sign.png"), name


def test_a_fetched_picture_is_the_picture(fetching: Settings, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "is_public", lambda address: True)
    port = site.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        (picture,) = loaded(fetching, f"http://{host}:{port}/sign.png")
        assert picture.tobytes() == load_image("demo:street-sign").picture.tobytes()
    assert "answers 302" in refusal(fetching, f"{site}/moved"), "it might lead to this machine"
    assert "answers 404" in refusal(fetching, f"{site}/gone")
    assert "larger than 200000 bytes" in refusal(fetching, f"{site}/large")
    hurried = replace(fetching, limits=Limits(fetch_seconds=0.2))
    assert "cannot be fetched" in refusal(hurried, f"{site}/slow")


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1"]
    + ["::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "2002:7f00:1::", "ff02::1", "255.255.255.255"],
)
def test_addresses_of_no_public_network(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("93.184.215.14") and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    check_address("https://example.org/a.png")
    for url in ("https://me:secret@example.org/a.png", "https:///a.png", "gopher://example.org", "http://10.0.0.1/"):
        with pytest.raises(ValueError, match=r"no plain web address|not public|host"):
            check_address(url)
