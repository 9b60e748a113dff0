"""The verbs of the models that come with vireid: list, show, make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.options import Device, Quiet

shipped = typer.Typer(no_args_is_help=True, help="The models that come with vireid.")
Name = Annotated[str, typer.Argument(help="As `vireid models list` names it.")]


@shipped.command("list")
def models_list() -> None:
    """Name the models that come with this version, and what each is for."""
    from vireid import models

    for name in models.names():
        print(f"{name:<10}  {models.summary_of(name)}")


@shipped.command("show")
def models_show(name: Name) -> None:
    """Print the card of a model: what it is for, how it was trained, figures, limits, license."""
    from vireid import models

    print(models.card_of(name))


@shipped.command("make")
def models_make(
    name: Name,
    root: Annotated[Path, typer.Option(help="Folder of pictures and training.")] = Path("runs/models"),
    run: Annotated[Path | None, typer.Option("--from", help="A finished run in place of the training.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder of the bundle; ROOT/NAME by default.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Make a model again by its plan: draw its synthetic people, train, calibrate, write the bundle."""
    from vireid.workflows.shipped import make_model

    bundle = make_model(name, root, run=run, to=to, device=device, progress=not quiet)
    print(f"wrote {bundle.path}")
