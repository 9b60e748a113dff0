"""Options that commands of several kinds share, and how they speak to the user; imports no torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]


def note(text: str) -> None:
    """Print for the user on stderr, so that stdout holds the figures alone."""
    print(text, file=sys.stderr, flush=True)


class Stderr(logging.Handler):
    """Prints what the modules log for the user: the message alone, warnings with the word before it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        note(f"warning: {text}" if record.levelno >= logging.WARNING else text)


def show_log() -> None:
    """Show what vireid's modules log at level INFO and above."""
    logger = logging.getLogger("vireid")
    if not any(isinstance(handler, Stderr) for handler in logger.handlers):
        logger.addHandler(Stderr())
    logger.setLevel(logging.INFO)


def renamed_options(names: Mapping[str, str]) -> type[TyperCommand]:
    """A class of commands (`app.command(cls=...)`) that accept former names of options, {former: new}.

    A former name works as the new one does and prints a warning on stderr; `--help` shows the new names alone.
    """

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            words, operands = args, list[str]()
            if "--" in args:
                words, operands = args[: args.index("--")], args[args.index("--") :]
            current = []
            for word in words:
                name, equals, value = word.partition("=")
                if name in names:
                    note(f"warning: {name} is now called {names[name]}; the former name will be removed")
                    word = names[name] + equals + value
                current.append(word)
            return super().parse_args(ctx, current + operands)

    return Command
