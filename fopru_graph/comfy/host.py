"""What we ask of the ComfyUI that we run in. All names of its modules stand here, so that a change there has one place.

Each service may be missing or work otherwise in another version: then a run goes on without it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fopru_graph.graph import Cancelled

Folder = Literal["input", "output", "temp"]
log = logging.getLogger("fopru_graph")


def api() -> Any:
    """The module of its node API, third version."""
    return importlib.import_module("comfy_api.latest")


def known(make: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call ``make`` with the options that it knows: another version has more of them or fewer."""
    names = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values()):
        options = {name: value for name, value in options.items() if name in names}
    return make(*given, **options)


# -- folders ----------------------------------------------------------------------------------------------------------


def folder(name: Folder) -> Path:
    """Its folder of uploads, of results, or of what is thrown away at the next start."""
    try:
        found = getattr(importlib.import_module("folder_paths"), f"get_{name}_directory")()
    except (ImportError, AttributeError):
        found = Path(tempfile.gettempdir()) / "fopru_graph" / name
    return Path(found)


def model_folders(kinds: tuple[str, ...]) -> list[Path]:
    """The folders of models of these kinds: below its ``models``, and those of its extra paths."""
    found = []
    with contextlib.suppress(ImportError, AttributeError):
        paths = importlib.import_module("folder_paths")
        for kind in kinds:
            found.append(Path(paths.models_dir) / kind)
            with contextlib.suppress(KeyError):  # no extra path of this kind
                found += map(Path, paths.get_folder_paths(kind))
    return list(dict.fromkeys(found))


def metadata_wanted() -> bool:
    """Whether pictures may carry their workflow: its user can switch that off."""
    with contextlib.suppress(ImportError, AttributeError):
        return not importlib.import_module("comfy.cli_args").args.disable_metadata
    return True


# -- a run ------------------------------------------------------------------------------------------------------------


def interrupted() -> bool:
    """Whether its user pressed Stop."""
    with contextlib.suppress(ImportError, AttributeError):
        return bool(importlib.import_module("comfy.model_management").processing_interrupted())
    return False


def interruption() -> type[BaseException]:
    """The exception that ends a run as interrupted, not as failed."""
    with contextlib.suppress(ImportError, AttributeError):
        raised = importlib.import_module("comfy.model_management").InterruptProcessingException
        if isinstance(raised, type) and issubclass(raised, BaseException):
            return raised
    return Cancelled


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ComfyUI takes the exception for a full memory, after which it unloads its models."""
    with contextlib.suppress(ImportError, AttributeError):
        management = importlib.import_module("comfy.model_management")
        if hasattr(management, "is_oom"):
            return bool(management.is_oom(error))
        return isinstance(error, management.OOM_EXCEPTION)
    return False


def report_progress(node: str, done: int, count: int) -> None:
    """Show that ``done`` of ``count`` steps of a node are done."""
    with _optional("progress"):
        state = importlib.import_module("comfy_execution.progress").get_progress_state()
        state.update_progress(node, float(done), float(count))


def report_text(node: str, text: str) -> None:
    """Show a text on a node, in place of the last one."""
    with _optional("texts"):
        importlib.import_module("server").PromptServer.instance.send_progress_text(text, node)


@contextlib.contextmanager
def _optional(what: str) -> Any:
    try:
        yield
    except Exception as error:  # whatever another version raises: a display never costs the answer
        if what not in _missing:
            _missing.add(what)
            log.warning("this ComfyUI shows no %s of our nodes: %s", what, error)


_missing: set[str] = set()
