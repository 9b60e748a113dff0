"""vireid on the command line: one sub-command per verb, and how errors reach the user. `--help` imports no torch."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vireid.cli import models, research, search, upkeep
from vireid.cli.data import data
from vireid.cli.options import note, show_log
from vireid.cli.shipped import shipped
from vireid.cli.weights import weights
from vireid.errors import VireidError
from vireid.own_files import own_error

DEBUG = "--debug"
INTERRUPTED = 130  # exit code of a program that the user stopped
RESUME = {  # what to do after an interruption, by verb
    "train": " To continue the training: vireid train --resume --run RUN.",
    "index": " To continue, run the same command again.",
    "reindex": " To continue, run the same command again.",
    "compare": " To continue, run the same command again.",
}
MEMORY = "; lower the batch (sampler.pids, sampler.images, --batch-size) or size=[height,width], or use a smaller width"


class Verbs(TyperGroup):
    """Sub-commands whose errors for the user become one message on stderr and the error's exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[DEBUG] = DEBUG in args  # it may stand anywhere
        return super().parse_args(ctx, [arg for arg in args if arg != DEBUG])

    def invoke(self, ctx: Any) -> Any:
        show_log()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are not text
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note(f"Interrupted.{RESUME.get(ctx.invoked_subcommand, '')}")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe, `head` say, has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            message = message_of(error)
            if message is None or ctx.meta[DEBUG]:
                raise
            note(f"error: {message}")
            raise typer.Exit(error.exit_code if isinstance(error, VireidError) else 1) from None


def message_of(error: BaseException) -> str | None:
    """What to tell the user: of a VireidError, of the machine, of the user's own file; None for a fault of vireid."""
    if isinstance(error, VireidError):
        return str(error)
    if isinstance(error, RuntimeError) and "OutOfMemory" in type(error).__name__:  # torch's, which is not imported here
        return f"the device is out of memory ({str(error).partition(chr(10))[0]}){MEMORY}"
    if isinstance(error, MemoryError):
        return f"this machine is out of memory ({error or 'the size is not known'}){MEMORY}"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    own = own_error(error)
    return own and f"{own} ({DEBUG} shows the traceback)"


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=f"Visible-infrared person re-identification. Add {DEBUG} to any command to see where an error comes from.",
)


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from vireid.version import __version__

        print(__version__)
        raise typer.Exit


def doctor() -> None:
    """Print what this machine offers vireid, and for everything that is missing the command that installs it."""
    from vireid.workflows.doctor import examine

    report = examine()
    print("\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)


search.add_to(app)
research.add_to(app)
app.add_typer(data, name="data", rich_help_panel="Research")
models.add_to(app)
app.add_typer(shipped, name="models", rich_help_panel="Models")
app.add_typer(weights, name="weights", rich_help_panel="Models")
upkeep.add_to(app)
search.add_administration_to(app)
app.command(rich_help_panel="Administration")(doctor)


def main() -> None:
    """The entry point of the `vireid` program."""
    app(prog_name="vireid")
