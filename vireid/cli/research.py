"""The verbs of research: train, embed, evaluate, figures, report, compare, results, explain, methods, demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.from_settings import takes
from vireid.cli.options import (
    DATA_HELP,
    Form,
    Model,
    OutForm,
    Quiet,
    RunOrModel,
    To,
    complete_data,
    complete_method,
    flag_with_value,
    run_or_model,
    show,
)
from vireid.errors import ArgumentError
from vireid.types import Language
from vireid.workflows.options import CompareOptions, EmbedOptions, EvaluateOptions, FigureOptions, TrainOptions

PROTOCOL = {"protocols": "--protocol"}


@takes(TrainOptions)
def train(
    method: Annotated[
        str | None,
        typer.Argument(
            help="A method by name (`vireid methods`), ./your_file.py, or a model that comes with vireid.",
            autocompletion=complete_method,
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings by name.")] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP, autocompletion=complete_data)] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/DATA/METHOD/DATE-TIME by default.")] = None,
    evaluate: Annotated[bool, typer.Option(help="Evaluate at the end and print the table.")] = True,
    form: OutForm = "table",
    *,
    options: TrainOptions,
) -> None:
    """Train a method: vireid train agw --data sysu=PATH --weights imagenet epochs=60.

    On several GPUs: torchrun --nproc-per-node=2 -m -- vireid train ... (without the second -- torchrun takes --run).
    """
    from vireid.workflows.train import train_with

    words = list(settings or ())
    if method is not None and "=" in method and options.resume:  # `vireid train --resume --run RUN epochs=120`
        method, words = None, [method, *words]
    finished = train_with(method, data, run, options, words)
    if os.environ.get("RANK", "0") != "0":
        return
    if evaluate:
        show(finished.evaluate(device=options.device, progress=options.progress), form)
    print(f"wrote {finished.path}")


@takes(EmbedOptions)
def embed(run: RunOrModel = None, model: Model = None, to: To = None, *, options: EmbedOptions) -> None:
    """Write RUN/embeddings/LAYER.npz, unless it is up to date. Without RUN, --model embeds --data."""
    from vireid.workflows.model_use import embed_with
    from vireid.workflows.run import Run

    run, name = run_or_model(run, model, to)
    files = embed_with(name, options, to) if run is None else Run.open(run).embed_files(options)
    for path, embeddings in files.items():
        print(f"{embeddings.stamp['layer']}: {len(embeddings)} x {embeddings.vectors.shape[1]} in {path}")


@takes(EvaluateOptions, names=PROTOCOL)
def evaluate(
    run: RunOrModel = None, model: Model = None, to: To = None, form: OutForm = "table", *, options: EvaluateOptions
) -> None:
    """Evaluate a run, or --model on --data; writes results.json, table.md and pictures of ranked lists."""
    from vireid.workflows.model_use import evaluate_with
    from vireid.workflows.run import Run

    run, name = run_or_model(run, model, to)
    show(evaluate_with(name, options, to) if run is None else Run.open(run).evaluate(options), form)


@takes(FigureOptions, names={"formats": "--format"})
def figures(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders that were evaluated.")],
    to: Annotated[Path, typer.Option(help="Folder for curves of several runs.")] = Path("runs/figures"),
    *,
    options: FigureOptions,
) -> None:
    """Draw figures into RUN/figures: CMC, similarities, t-SNE, cameras, error rates, attention, training curves."""
    from vireid.workflows.draw import draw_figures

    for file in draw_figures(runs, to, options):
        print(file)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders that were evaluated.")],
    to: Annotated[
        Path | None, typer.Option(help="File to write; RUN/report.html by default, for several runs runs/report.html.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of the page; zh writes report.zh.html.")] = "en",
) -> None:
    """Write an HTML report about one or more runs: results, figures, hardest queries, cost, how to repeat them."""
    from vireid.workflows import draw

    print(f"wrote {draw.report(runs, to, lang)}")


@takes(CompareOptions)
def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METHOD|KEY=VALUE", help="Methods, and settings of all of them; run folders with --transfer."
        ),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP + " Repeatable.")] = None,
    transfer: Annotated[
        bool,
        typer.Option("--transfer", help="Train nothing: test run folders on the data of all, or on --data."),
    ] = False,
    plan: Annotated[Path | None, typer.Option(help="YAML file: methods, their settings, seeds, protocols.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings per method, one per seed; 3 by default.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Protocol by name, repeatable.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Output folder; a stopped comparison resumes. runs/compare or runs/transfer by default."),
    ] = None,
    form: OutForm = "table",
    *,
    options: CompareOptions,
) -> None:
    """Train methods with several seeds, evaluate and rank them: vireid compare agw cajl --data sysu=PATH."""
    from vireid.workflows.compare import compare_runs
    from vireid.workflows.compare_plan import Plan

    if transfer:
        if any(value is not None for value in (plan, seeds, options.rows)) or options.jobs > 1:
            raise ArgumentError("--transfer trains nothing; leave --plan, --seeds, --jobs and --rows out")
        from vireid.workflows.transfer import transfer as tested

        chosen = {"protocols": tuple(protocol or ()), "trial": options.trial, "device": options.device}
        show(tested(words or (), data or (), run or "runs/transfer", **chosen), form)
        return
    if not data:
        raise ArgumentError("name the data to compare on with --data NAME=PATH")
    names = [word for word in words or () if "=" not in word]
    if plan is None and not names:
        raise ArgumentError("name the methods to compare, or a file with --plan; `vireid methods` lists them")
    whole = (Plan.read(plan) if plan else Plan(methods={})).only(names)
    changes = {"seeds": seeds, "protocols": tuple(protocol) if protocol else None}
    whole = whole.model_copy(update={key: value for key, value in changes.items() if value is not None})
    settings = [word for word in words or () if "=" in word]
    show(compare_runs(whole, data, run or Path("runs/compare"), settings, options), form)


def results(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders that were evaluated.")],
    paired: Annotated[
        bool, typer.Option("--paired", help="Test each method against the first one on the same queries.")
    ] = False,
    column: Annotated[
        list[str] | None, typer.Option(help="With --format latex: R1, R5, R10, R20, mAP or mINP, repeatable.")
    ] = None,
    form: OutForm = "table",
) -> None:
    """Print the results of several runs side by side; RegDB's splits are averaged.

    With --format latex as a table for a paper: seeds are averaged, the best is bold, the second one underlined.
    """
    from vireid.workflows.paired import paired_of
    from vireid.workflows.side_by_side import results_of

    if column and (form != "latex" or paired):
        raise ArgumentError(
            "--column chooses the columns of a table for a paper; it takes --format latex and no --paired"
        )
    if column:
        print(results_of(runs).latex(column))
        return
    show(paired_of(runs) if paired else results_of(runs), form)


def explain(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN|KEY=VALUE",
            help="A run that was evaluated, and another one or a published figure: R1=69.88 mAP=66.89 flip=averaged. "
            "A pattern in quotes, 'runs/agw-*', stands for the mean of its runs.",
        ),
    ],
    first: Annotated[int, typer.Option(min=1, help="Line of the first run's table.")] = 1,
    second: Annotated[int, typer.Option(min=1, help="Line of the second run's table.")] = 1,
    form: OutForm = "table",
) -> None:
    """Explain why two results differ: how many points each difference in protocol is worth, on the stored vectors.

    Keys of a published figure: R1 to R20, mAP, mINP in percent, name, protocol, and entries of the stamp.
    """
    from vireid.workflows.explain import explained

    show(explained(words, first, second), form)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Method whose settings are shown: a name or ./your_file.py.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="The data set whose recipe is shown.")] = "sysu",
) -> None:
    """List the methods, or the settings of one with defaults, types and meaning."""
    from vireid.cli.methods import print_settings
    from vireid.workflows import method_list

    if name is None:
        summaries = method_list.summaries()
        for method, summary in summaries.items():
            print(f"{method:<{max(map(len, summaries))}}  {summary}")
        return
    print_settings(method_list.settings(name, dataset))


def demo(
    root: Annotated[Path, typer.Option(help="Folder for data and runs.")] = Path("runs/demo"), quiet: Quiet = False
) -> None:
    """Make data, train AGW, CAJL and contrast from ImageNet weights, and compare them with chance and HOG."""
    from vireid.workflows.demo import run_demo

    table: Form = "table"
    show(run_demo(root, progress=not quiet), table)


def add_to(app: typer.Typer) -> None:
    """Make these functions sub-commands."""
    rerank = flag_with_value("--rerank", "k-reciprocal", ("k-reciprocal", "local-shortest-path"))
    for verb in (train, embed, evaluate, figures, report, compare, results, explain, methods, demo):
        kind = rerank if verb is evaluate else None
        app.command(verb.__name__, cls=kind, rich_help_panel="Research")(verb)
