"""What a target of `Model.set` leads to: the sockets that read its value."""

from __future__ import annotations

from fopru_graph.graph.check.expand import AnyModel, expand
from fopru_graph.graph.model import is_block
from fopru_graph.graph.sockets import Socket
from fopru_graph.graph.values import INPUTS, Ref


def sockets_of(model: AnyModel, target: str) -> list[Socket]:
    """The sockets that read the value of a target, those in sub-graphs too; none if there is no such target."""
    outer, key = model.place_of(target) if "." in target else (INPUTS, target)
    if outer in model.nodes and is_block(model.nodes[outer].type):
        model = model.copy()
        model.nodes[outer].inputs[key] = Ref(INPUTS, target)  # no name that a pipeline input can have
    elif outer in model.nodes:
        spec = model.registry.find(model.nodes[outer].type)
        return [spec.inputs[key]] if spec is not None and key in spec.inputs else []
    found: list[Socket] = []
    for entry in expand(model)[0].nodes.values():
        spec = model.registry.find(entry.type)
        names = [name for name, value in entry.inputs.items() if value == Ref(INPUTS, target)]
        found += [spec.inputs[name] for name in names if spec is not None and name in spec.inputs]
    return found
