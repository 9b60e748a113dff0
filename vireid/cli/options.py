"""Options that commands of several kinds share, and how they speak to the user; imports no torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from vireid import methods, models
from vireid.data.datasets import names
from vireid.errors import ArgumentError

Form = Literal["table", "md", "csv", "json", "latex"]
DATA_HELP = f"NAME=PATH with NAME {', '.join(names())} or ./your_file.py, or a bare PATH."
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `vireid train` wrote.")]
RunOrModel = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="A run folder that `vireid train` wrote; else --model is used."),
]
Trial = Annotated[
    int | None, typer.Option(help="Which split of the identities, where the data has several (RegDB: 0 to 9).")
]
OwnMethod = Annotated[
    str | None,
    typer.Option("--method", help="Python file of your own method, where the run records none; its code is executed."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"A model that comes with vireid ({', '.join(models.names())}), a run folder or a bundle; "
        f"{models.DEFAULT} by default.",
    ),
]
To = Annotated[Path | None, typer.Option(help="With --model: output folder; runs/DATASET/MODEL by default.")]
GalleryUrl = Annotated[str, typer.Option(help="The gallery: a folder (PATH or lance:PATH) or milvus:URI.")]
Files = Annotated[
    Path | None, typer.Option(help="Folder of thumbnails, marks and the audit log; GALLERY.files by default.")
]
OutForm = Annotated[Form, typer.Option("--format", help="How the figures are printed.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]


def complete_method(incomplete: str) -> list[str]:
    """Names of methods that begin with what was typed."""
    return [name for name in methods.names() if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Names of data sets that begin with what was typed, with the sign before the path."""
    return [f"{name}=" for name in names() if name.startswith(incomplete)]


def chosen_model(former: Path | None, model: str | None) -> str | Path:
    """The model of `--model`, or the default one; `former` is a run or bundle in the place where 0.1 had it."""
    if former is None:
        return model or models.DEFAULT
    if model is not None:
        raise ArgumentError(f"the model is named twice, {former} and --model {model}; leave {former} out")
    note(f"warning: the model is now given as --model {former}; the former form will be removed")
    return former


def run_or_model(run: Path | None, model: str | None, to: Path | None) -> tuple[Path | None, str]:
    """The run folder that a verb works on, in its place or by `--model`; None where it is another model, the second."""
    if run is not None and model is not None:
        raise ArgumentError(f"name the run {run} or --model {model}, not both")
    if model not in models.names() and model is not None and (Path(model) / "recipe.json").is_file():
        run = Path(model)
    if run is not None and to is not None:
        raise ArgumentError(f"--to belongs to --model; what is made of a run goes into {run}")
    return run, model or models.DEFAULT


def holds_model(path: Path) -> bool:
    """Whether a folder is a run or a bundle, and so not a source of pictures."""
    return any((path / name).is_file() for name in ("recipe.json", models.CONFIG))


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


def show(results: Any, form: Form) -> None:
    """Print results on stdout."""
    if form == "table":
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            print(results.markdown())
            return
        console.print(results)
        return
    writers = {"md": results.markdown, "csv": results.csv, "json": results.json, "latex": results.latex}
    print(writers[form]())


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


class WithoutHidden(TyperCommand):
    """A command whose usage line leaves out arguments of former versions, whose metavar is empty."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece for piece in super().collect_usage_pieces(ctx) if piece.strip("[].")]


def flag_with_value(name: str, value: str, values: Sequence[str]) -> type[TyperCommand]:
    """A class of commands that accept the option `name` without one of its `values`, as version 0.1 did.

    It then means `value`, and a warning is printed on stderr.
    """

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if name in args:
                at = args.index(name) + 1
                if at == len(args) or args[at].startswith("-") or looks_like_a_run(args[at], values):
                    note(f"warning: {name} alone means {name} {value}; write the value, it will be required")
                    args = [*args[:at], value, *args[at:]]
            return super().parse_args(ctx, args)

    return Command


def looks_like_a_run(word: str, values: Sequence[str]) -> bool:
    """Whether a word is the folder RUN and not a value that was mistyped."""
    return word not in values and Path(word).is_dir()
