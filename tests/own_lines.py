"""How many lines of code a method has to itself: what its pipeline reaches in `nodes/` and `pruning/`, and no other's.

A line counts if it holds code: no docstring, comment, blank line or import. Parameters with their descriptions are the
documentation of a node's inputs, so a signature counts as one line. What is shared by methods counts for none of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from fopru_graph.graph import Graph

Definition = tuple[str, str]  # module, name
FOLDERS = {"fopru_graph.nodes": Path("nodes"), "fopru_graph.pruning": Path("fopru_graph/pruning")}
Scope = ast.Module | ast.ClassDef | ast.FunctionDef


@cache
def definitions() -> dict[Definition, ast.stmt]:
    """Every function, class and constant of the modules that make methods."""
    found: dict[Definition, ast.stmt] = {}
    for package, folder in FOLDERS.items():
        for file in folder.glob("*.py"):
            for statement in ast.parse(file.read_text(encoding="utf-8")).body:
                for name in _names(statement):
                    found[f"{package}.{file.stem}", name] = statement
    return found


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.ImportFrom):  # at the top: known here by another module's name
        return [alias.asname or alias.name for alias in statement.names]
    return []


def reached(definition: Definition) -> set[Definition]:
    """A definition and all that it uses, however indirectly."""
    found: set[Definition] = set()
    stack = [definition]
    while stack:
        module, name = current = stack.pop()
        statement = definitions().get(current)
        if statement is None or current in found:
            continue
        if isinstance(statement, ast.ImportFrom):
            stack += [
                (statement.module or "", alias.name) for alias in statement.names if name in (alias.name, alias.asname)
            ]
            continue
        found.add(current)
        for part in ast.walk(statement):
            if isinstance(part, ast.Name):
                stack.append((module, part.id))
            elif isinstance(part, ast.ImportFrom):
                stack += [(part.module or "", alias.name) for alias in part.names]
    return found


def of_pipeline(graph: Graph) -> set[Definition]:
    """All that the nodes of a pipeline use."""
    classes = {name: (module, name) for module, name in definitions() if module.startswith("fopru_graph.nodes.")}
    return set().union(*(reached(classes[entry.type]) for entry in graph.nodes.values()))


def code_lines(statement: ast.stmt) -> int:
    """Lines with code; see above."""
    return len(set(_lines(statement)))


def _lines(part: ast.AST) -> Iterator[int]:
    if isinstance(part, ast.Import | ast.ImportFrom):
        return
    if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str):
        return
    if isinstance(part, ast.FunctionDef | ast.ClassDef):
        yield part.lineno
        yield from (decorator.lineno for decorator in part.decorator_list)
        for statement in part.body:
            yield from _lines(statement)
        return
    if hasattr(part, "lineno"):
        yield part.lineno
        yield part.end_lineno
    for child in ast.iter_child_nodes(part):
        yield from _lines(child)


def own_lines(graphs: Mapping[str, Graph], sources: Mapping[str, str]) -> dict[str, dict[Definition, int]]:
    """For each pipeline what none of another source uses, with the lines of each."""
    used = {name: of_pipeline(graph) for name, graph in graphs.items()}
    own: dict[str, dict[Definition, int]] = {}
    for name in graphs:
        others = set().union(*(used[other] for other in graphs if sources[other] != sources[name]))
        own[name] = {known: code_lines(definitions()[known]) for known in sorted(used[name] - others)}
    return own
