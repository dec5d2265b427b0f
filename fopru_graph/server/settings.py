"""What a server is told when it starts. Nothing that reaches it by network changes any of it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph

PORT = 8188
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANY = ("0.0.0.0", "::")
_LEAST_TOKEN = 16  # characters


def state_folder() -> Path:
    """Where servers keep their files unless they are told another place."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base, "fopru-graph", "serve")


@dataclass(frozen=True)
class Limits:
    """What requests may take.

    Attributes:
        body_bytes: of a request's body.
        body_seconds: until a body is whole.
        pictures: of a question.
        pixels: of all pictures of a question together.
        waiting: requests that wait for the model or are answered by it; more are refused until one is done.
        fetch_seconds: for a picture that is fetched from its address.
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    pictures: int = 16
    pixels: int = 40_000_000
    waiting: int = 64
    fetch_seconds: float = 10.0


@dataclass(frozen=True)
class Settings:
    """What a server is told when it starts.

    Attributes:
        pipelines: what is served, by name.
        folder: where it keeps its files; it writes nowhere else.
        host: address to listen on.
        port: likewise; 0 for any that is free.
        token: what every request has to show; required where other machines can reach the server.
        names: further names that the server is called by, as ``graph.example.org`` behind a proxy.
        batch_size: questions that are answered together.
        batch_seconds: how long a question waits for others to be answered with.
        fetch_pictures: whether pictures are fetched from the http addresses that requests give.
        canvas: whether ComfyUI's frontend is served, if it is installed.
        limits: what requests may take.

    Raises:
        UserError: other machines could reach the server and there is no token, or the token is short.
    """

    pipelines: Mapping[str, Graph]
    folder: Path = field(default_factory=state_folder)
    host: str = "127.0.0.1"
    port: int = PORT
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    batch_size: int = 8
    batch_seconds: float = 0.005
    fetch_pictures: bool = False
    canvas: bool = True
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.token is None and not self.is_local:
            raise UserError(
                f"--host {self.host} lets other machines in, so they have to show a token",
                "add --token TEXT, or leave --host out and let a proxy with TLS reach the server",
            )
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            raise UserError(
                f"the token has {len(self.token)} characters, so it could be guessed", f"give {_LEAST_TOKEN} or more"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str]:
        """What the server may be called in a request, without port; anything else is another site's name for it."""
        listening = () if self.host in _ANY else (self.host,)
        return frozenset(name.lower() for name in (*_LOOPBACK, *listening, *self.names))
