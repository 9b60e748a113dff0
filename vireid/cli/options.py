"""Options that commands of several kinds share, and how they speak to the user; imports no torch."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]


def note(text: str) -> None:
    """Print for the user on stderr, so that stdout holds the figures alone."""
    print(text, file=sys.stderr, flush=True)
