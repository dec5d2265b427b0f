"""Calls of a node's own functions: the inputs each asks for, and coroutines run to their end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fopru_graph.graph.errors import Cancelled


def settle(value: Any) -> Any:
    """The value itself, or what an awaitable comes to."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        try:
            return await value
        except asyncio.CancelledError as error:  # no ordinary exception: it would pass by every handler of the run
            raise Cancelled from error

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # A notebook's thread already runs a loop, which cannot be entered a second time.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def accepts(hook: Callable[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The inputs that the hook names (all of them with ``**``), or None when one that it needs is not there."""
    chosen: dict[str, Any] = {}
    for name, parameter in inspect.signature(hook).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return {**inputs}
        if name in inputs:
            chosen[name] = inputs[name]
        elif parameter.default is parameter.empty:
            return None
    return chosen
