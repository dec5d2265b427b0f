"""How the program starts and ends, whatever the command: one exit code, one form of error, never a bare traceback."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fopru_graph.errors import Caution, UserError
from fopru_graph.terminal.console import show_failure, show_warning
from fopru_graph.terminal.stdout import stdout

_UsageError: Any
(_UsageError,) = typer.BadParameter.__bases__  # click's, or the copy that typer has of it


@contextmanager
def _noting_usage_errors() -> Iterator[None]:
    """Typer shows them; they are also what ``--json`` prints."""
    try:
        yield
    except _UsageError as error:
        stdout.note_error(error.format_message(), f"see {error.ctx.command_path} --help" if error.ctx else None)
        raise


@contextmanager
def _showing_cautions() -> Iterator[None]:
    """Show `Caution` like the program's own messages, without the file and line of a Python warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Caution)
        show = warnings.showwarning

        def show_caution(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, Caution):
                show_warning(str(message))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = show_caution
        yield


class Command(TyperCommand):
    """A command, during which nothing but its results goes to stdout."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the command's arguments; where the shell asks how to go on, nothing on the line is judged yet."""
        if extra.get("resilient_parsing"):
            for parameter in self.params:
                parameter.callback = None
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        with stdout.only_results():
            return super().invoke(ctx)


class Program(TyperGroup):
    """All commands."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Read the arguments before the command's name."""
        with _noting_usage_errors():
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's arguments and run it."""
        with _noting_usage_errors():
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the program and exit."""
        arguments = sys.argv[1:] if args is None else list(args)
        if not standalone_mode:
            return super().main(arguments, *rest, standalone_mode=False, **extra)
        with _showing_cautions(), stdout.opened(as_json="--json" in arguments):
            code = stdout.finish(self._code(arguments, *rest, **extra))
            if stdout.failure is not None and not stdout.was_cut:
                reason = stdout.failure.strerror or stdout.failure
                show_failure(f"stdout cannot be written: {reason}", "make room, or send the output elsewhere")
        sys.exit(code)

    def _code(self, *args: Any, **extra: Any) -> int:
        try:
            super().main(*args, standalone_mode=True, **extra)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except UserError as error:
            show_failure(error.message, error.hint)
        except Exception as error:
            traceback.print_exc()
            stdout.note_error(f"unexpected {type(error).__name__}: {error}", "please report it with its traceback")
        return 1
