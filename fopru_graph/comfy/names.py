"""Names of nodes for those that a canvas knows by number."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.values import NAME


class Names:
    """New names, each given once: the id where it can be a name, otherwise the node's type in snake case."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self.known: dict[str, str] = {}  # what was given, by id

    def of(self, identity: str, type_name: str) -> str:
        """The name of the node with this id, with ``_2`` … if it is taken."""
        if identity not in self.known:
            text = identity.replace(":", "_").replace("/", "_")
            base = text if NAME.fullmatch(text) else snake_case(type_name)
            names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
            self.known[identity] = next(name for name in names if name not in self._taken)
            self._taken.add(self.known[identity])
        return self.known[identity]
