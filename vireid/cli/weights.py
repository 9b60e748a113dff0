"""The verbs of public weights: list, show, get, check, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.options import DATA_HELP, Trial, complete_data, complete_method
from vireid.errors import ArgumentError

weights = typer.Typer(no_args_is_help=True, help="Public weights by name, and what a file of weights is.")


def complete_weights(incomplete: str) -> list[str]:
    """Names of public weights that begin with what was typed."""
    from vireid.layers.public_weights import PUBLIC

    return [name for name in PUBLIC if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="A name of `vireid weights list`.", autocompletion=complete_weights)]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A file, an address, a name, a run folder, a bundle or a model by name.")
]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings by name.")]


@weights.command("list")
def weights_list() -> None:
    """List the public weights that have a name: what they fit and what they are."""
    from vireid.layers.public_weights import ENTRIES

    width = max(len(entry.name) for entry in ENTRIES)
    for entry in ENTRIES:
        print(f"{entry.name:<{width}}  {entry.title}\n{'':<{width}}  fits {entry.fits}; {entry.about}")


@weights.command("show")
def weights_show(name: Name) -> None:
    """Show address, license, size, hash, pixel statistics and names of tensors of public weights."""
    show(name)


def show(name: str) -> None:
    """Print what is known of public weights."""
    from vireid.layers.public_weights import find

    for word, text in find(name).rows():
        print(f"{word:<9} {text}")


@weights.command("get")
def weights_get(
    name: Name,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept the license that is shown, without a question.")
    ] = False,
) -> None:
    """Show public weights with their license, and download them once it is accepted."""
    from vireid.layers.public_weights import find
    from vireid.layers.weights_source import fetch, kept

    show(name)
    entry = find(name)
    if kept(entry) is None and not entry.by_hand and not accept_license and sys.stdin.isatty():
        accept_license = typer.confirm(f"Accept this license ({entry.license}) and download?")
        if not accept_license:
            raise ArgumentError(f"the license was not accepted; nothing of {name} was downloaded")
    print(f"{'file':<9} {fetch(entry, accept_license)}")


@weights.command("check")
def weights_check(
    file: File,
    method: Annotated[
        str | None,
        typer.Argument(help="Try the network of this method alone.", autocompletion=complete_method),
    ] = None,
    settings: Settings = None,
) -> None:
    """Say what a file of weights is and which networks it fits; exit code 1 where it fits none."""
    from vireid.workflows.weights_check import check

    report = check(file, method, settings or ())
    print("\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)


@weights.command("import")
def weights_import(
    file: File,
    method: Annotated[str, typer.Argument(help="The method whose network it is.", autocompletion=complete_method)],
    settings: Settings = None,
    data: Annotated[str, typer.Option(help=f"What it was trained on. {DATA_HELP}", autocompletion=complete_data)] = ...,  # pyright: ignore[reportArgumentType]
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/DATA/METHOD/DATE-TIME by default.")] = None,
    trial: Trial = None,
) -> None:
    """Make a run folder of released weights: vireid weights import FILE agw --data sysu=PATH, then vireid evaluate."""
    from vireid.workflows.import_weights import import_weights

    print(f"wrote {import_weights(file, method, data, run, overrides=settings or (), trial=trial).path}")
