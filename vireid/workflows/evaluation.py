"""`vireid embed`, `evaluate` and `results`: from a run folder to vectors, figures, ranked pictures and one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vireid import methods
from vireid.data import datasets
from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError, RunError
from vireid.evaluation.comparison import Comparison
from vireid.evaluation.embed import BATCH, Embeddings, embed_layers
from vireid.evaluation.evaluate import Rerank, Similarity, evaluate, ranked_rows, refined
from vireid.evaluation.frozen import MADE_FROM, embedder_digest, fingerprint, image_filter, image_size
from vireid.evaluation.open_set import evaluate_open_set
from vireid.evaluation.refine import RefinedBy
from vireid.evaluation.results import NAME, Results
from vireid.figures.ranked import choose_queries, ranked_list
from vireid.layers.embedder import Embedder
from vireid.system import choose_device, replacing
from vireid.training.record import REFINER, Run
from vireid.workflows.training import test_rows, training_splits

RESULTS, TABLE, OPEN_SET = "results.json", "table.md", "open_set.json"
OWN = ("run", "embedder", "data", "images")  # entries of the stamp that differ between the runs of one experiment


def embed_run(
    run: Path | str,
    data: str | None = None,
    *,
    trial: int | None = None,
    flip: bool = False,
    split: str = "test",
    batch_size: int = BATCH,
    device: str = "auto",
    method: str | None = None,
    cross: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Path]:
    """Write RUN/embeddings/LAYER.npz for the images of a split and return the files by layer, the deployed one first.

    Files that are up to date (same embedder, pictures and options) are left alone. `data` is by default what the run
    was trained on; anything else needs `cross`, which is stamped. `method` is the file of a method of one's own whose
    network is not one of vireid's: only then is code of the user's run. Raises RunError and DataError.
    """
    opened = embedding_run(Run.open(run))
    if opened.path != Path(run):
        say(f"{run} refines the embeddings of {opened.path}")
    table = data_of(opened, data, trial, cross)
    own, rows = belongs(opened, table), test_rows(table, split)
    stamp, made_from = run_stamp(opened, rows, own), fingerprint(opened, rows, flip)
    folder, suffix = opened.path / "embeddings", file_suffix(rows, own, split, flip)
    if files := up_to_date(folder, suffix, made_from):
        say(f"embeddings of {len(rows)} images are up to date: {folder}")
        return files
    found = embed_layers(
        embedder_of(opened, method).to(choose_device(device)),
        rows,
        image_size(opened),
        flip=flip,
        batch_size=batch_size,
        filter=image_filter(opened),
        progress=progress,
    )
    note = f"{made_from} {' '.join(found)}"
    for name, embeddings in found.items():
        stamped = replace(embeddings, stamp={**stamp, **embeddings.stamp, MADE_FROM: note})
        files[name] = stamped.save(folder / f"{name}{suffix}.npz")
        say(f"wrote {files[name]} ({len(rows)} x {embeddings.vectors.shape[1]})")
    return files


def embedding_run(run: Run) -> Run:
    """The run whose embedder embeds: the run itself, or the base of one that refines; RunError where that changed."""
    base = run.about.get("base")
    if base is None:
        return run
    hint = f"To refine another run: vireid evaluate RUN --refine {run.path}"
    if "file" in base:
        raise RunError(
            f"{run.path} was trained on a file of embeddings ({base['path']}), which embeds no picture. {hint}"
        )
    if not Path(base["path"]).is_dir():
        raise RunError(f"{run.path} refines the run {base['path']}, which is not there any more. {hint}")
    opened = Run.open(base["path"])
    if embedder_digest(opened) != base["embedder"]:
        raise RunError(
            f"{run.path} was trained on the embeddings of {base['path']} when its embedder was {base['embedder']}; "
            f"it is {embedder_digest(opened)} now: train again. {hint}"
        )
    return opened


def refine_step(
    run: Run, refine: Path | str | None, strict: bool, layer: str | None, cross: bool, device: str
) -> RefinedBy | None:
    """What refines the run's embeddings: its own refiner, or that of the run `refine`; RunError where it is unfit."""
    if "base" in run.about and refine is not None:
        raise RunError(f"{run.path} refines by itself; to refine with another run evaluate {run.about['base']['path']}")
    by = run if "base" in run.about else None if refine is None else Run.open(refine)
    if by is None:
        if strict:
            raise ArgumentError("--strict belongs to refinement: pass --refine RUN too, or evaluate a run that refines")
        return None
    if layer is not None:
        raise ArgumentError(
            "what is refined is the deployed layer, which the refiner was trained on; leave --layer out"
        )
    refiner = by.refiner(choose_device(device))
    for name in ("dataset", "partition", "data"):
        if run.about[name] != by.about[name] and not cross:
            raise RunError(
                f"{by.path} was trained on {name} {by.about[name]!r}, {run.path} on {run.about[name]!r}: the people "
                "that one is tested on may be those that the other was trained on. Refine with a run on the same "
                "training rows, or pass --cross, which is stamped"
            )
    return RefinedBy(refiner, strict)


def refined_stamp(run: Run, rows: Table, own: bool, refine: Path | str | None) -> dict[str, str]:
    """What a refiner adds to the stamp of the vectors it is given: the refining run's own, or which run refines."""
    by = run if refine is None else Run.open(refine)
    with (by.path / REFINER).open("rb") as file:
        stamp = {"refiner": hashlib.file_digest(file, "sha256").hexdigest()[:8]}
    if refine is None:
        return {**run_stamp(run, rows, own), **stamp}
    base = by.about["base"]
    if base["embedder"] != embedder_digest(run):
        stamp["refiner trained on"] = f"embeddings of {base['method']} {base['embedder']}"
    if by.about["data"] != run.about["data"]:
        stamp["refiner trained on people of"] = _named(by.about["dataset"], by.about["partition"])
    return stamp


def embedder_of(run: Run, method: str | None) -> Embedder:
    """The run's embedder from its file, or built by the method that the user names and filled from the checkpoint."""
    if method is None:
        return run.embedder()
    about = run.about
    built = methods.find(method)(about["num_pids"], tuple(about["camids"]), **about["settings"])
    return run.load(built).eval().embedder


def up_to_date(folder: Path, suffix: str, made_from: str) -> dict[str, Path]:
    """The files of all layers, the deployed one first, if each was made from just this; nothing otherwise."""
    there = {path.name.removesuffix(f"{suffix}.npz"): path for path in folder.glob(f"*{suffix}.npz")}
    notes = {name: Embeddings.load(path).stamp.get(MADE_FROM, "") for name, path in there.items() if "@" not in name}
    for note in notes.values():
        digest, *layers = note.split()
        if digest == made_from and all(notes.get(layer) == note for layer in layers):
            return {layer: there[layer] for layer in layers}
    return {}


def evaluate_run(
    run: Path | str,
    protocols: Sequence[str] = (),
    data: str | None = None,
    *,
    trial: int | None = None,
    draw: str | None = None,
    layer: str | None = None,
    flip: bool = False,
    refine: Path | str | None = None,
    strict: bool = False,
    rerank: Rerank | None = None,
    similarity: Similarity | None = None,
    ignore: Sequence[str] = (),
    method: str | None = None,
    cross: bool = False,
    batch_size: int = BATCH,
    device: str = "auto",
    open_set: bool = False,
    pictures: int = 8,
    lang: Literal["en", "zh"] = "en",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Results:
    """Evaluate a run and write RUN/results.json, table.md and figures/ranked-PROTOCOL.png; returns what was measured.

    `protocols` are all of the data set by default, of which those that the data cannot serve are left out with a note;
    `layer` is the deployed one by default, a name, or "all"; `rerank` is KReciprocal() for instance; `similarity` is by
    default that of the run's recipe; `method` as in `embed_run`. results.json keeps earlier figures of the same
    embedder and images. With `open_set` RUN/open_set.json holds rank 1 at fixed false-alarm rates. `pictures` is the
    number of queries in each picture, 0 for none.

    `refine` is the folder of a run that refines (NFormer), whose refiner then changes the embeddings of every trial;
    a run that refines by itself does so on those of its base. `strict`: images that are ignored for a query are not its
    neighbors either. Raises RunError, DataError, ValueError.
    """
    opened = Run.open(run)
    table = data_of(opened, data, trial, cross)
    steps = refine_step(opened, refine, strict, layer, cross, device)
    if open_set and (rerank is not None or steps is not None):
        raise ArgumentError("open-set figures are of plain similarities; leave --rerank, --refine or --open-set out")
    chosen = choose_protocols(table, protocols, draw, ignore)
    shared = {"batch_size": batch_size, "device": device, "method": method, "cross": cross, "progress": progress}
    files = embed_run(run, data, trial=trial, flip=flip, say=say, **shared)
    compared: Similarity = similarity or opened.about["recipes"][-1]["similarity"]
    own, rows = belongs(opened, table), test_rows(table)
    layers = choose_layers(files, layer)
    vectors = {name: strip(replace(Embeddings.load(files[name]), table=rows)) for name in layers}
    if steps is not None:
        added = refined_stamp(opened, rows, own, refine)
        vectors = {name: replace(v, stamp={**v.stamp, **added}) for name, v in vectors.items()}
    measured: list[Results] = []
    drawn: list[Protocol] = []
    reasons: list[str] = []
    for protocol in chosen:
        try:
            found = [evaluate(v, protocol, steps, rerank, similarity=compared) for v in vectors.values()]
        except DataError as error:
            if protocols:
                raise
            reasons.append(f"left out {protocol.name}: {error}")
            continue
        measured += found
        drawn.append(protocol)
    if not measured:
        raise DataError("no protocol fits this data:\n" + "\n".join(reasons))
    for reason in reasons:
        say(reason)
    results = measured[0]
    for more in measured[1:]:
        results += more
    write_results(opened, results, say)
    if open_set:
        write_open_set(opened.path, vectors[layers[0]], drawn, compared, say)
    if pictures:
        for protocol in drawn:
            first = vectors[layers[0]]
            suffix = file_suffix(rows, own, "test", False) + ("" if refine is None else "@refined")
            say(draw_ranked(opened, first, protocol, compared, pictures, lang, suffix, steps))
    return results


def results_of(runs: Sequence[Path | str]) -> Results:
    """The results of several runs as one table, each line named by its method (and folder where that is not enough).

    Runs that differ in their partition alone (RegDB's ten splits) are averaged. Raises DataError, RunError.
    """
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise ArgumentError("give at least one run folder")
    paths = [str(run.path.resolve()) for run in opened]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise ArgumentError(f"{', '.join(sorted(twice))} is given twice; name each run once")
    kinds = [(r.about["method"], r.about["partition"], r.about["seed"], r.about["dataset"]) for r in opened]
    rows = []
    for run, kind in zip(opened, kinds, strict=True):
        name = str(run.about["method"])
        name += f" ({run.path.name})" if kinds.count(kind) > 1 else ""
        for row in Results.load(run.path / RESULTS).rows:
            own = (*OWN, "refiner") if "base" in run.about else OWN
            kept = {key: value for key, value in row.stamp.items() if key not in own}
            rows.append(replace(row, stamp={**kept, NAME: name}))
    return Results(tuple(rows))


def formatted(results: Results | Comparison, form: Literal["md", "csv", "json", "latex"]) -> str:
    """The table as text."""
    writers = {"md": results.markdown, "csv": results.csv, "json": results.json, "latex": results.latex}
    return writers[form]()


# --- what a run may be evaluated on -----------------------------------------------------------------------------------


def data_of(run: Run, data: str | None, trial: int | None, cross: bool) -> Table:
    """The table a run is evaluated on; RunError where it is not the data it was trained on and `cross` is not asked."""
    about, recorded = run.about, run.about.get("source", {})
    if data is None and "data" not in recorded:
        raise RunError(f"{run.path} does not say where its data lie; pass --data {about['dataset']}=PATH")
    name, path = datasets.split_spec(data or datasets.recorded_spec(recorded["data"], recorded.get("sha256")))
    if trial is None and datasets.find(name).name == about["dataset"]:
        trial = recorded.get("trial")
    table = datasets.load(f"{name}={path}", **({} if trial is None else {"trial": trial}))
    trained, came = (about["dataset"], about["partition"]), (table.dataset, table.partition)
    if cross:
        return table
    if trained != came:
        raise RunError(
            f"{run.path} was trained on {_named(*trained)}, this data is {_named(*came)}, whose test people may have "
            "been trained on. Evaluate on the run's own data (leave --data and --trial out), or pass --cross, which is "
            "stamped on the figures"
        )
    if not belongs(run, table):
        raise RunError(
            f"{run.path} was trained on {_named(*trained)} with training rows {about['data']}, those of {path} are "
            f"{training_fingerprint(table, about)}: another release or a changed list. Evaluate on the run's own data "
            f"({recorded.get('data', 'unknown')}), or pass --cross, which is stamped"
        )
    return table


def belongs(run: Run, table: Table) -> bool:
    """Whether a table is the one that the run was trained on."""
    same = (run.about["dataset"], run.about["partition"]) == (table.dataset, table.partition)
    return same and training_fingerprint(table, run.about) == run.about["data"]


def training_fingerprint(table: Table, about: dict[str, Any]) -> str:
    """The fingerprint of the rows that a run would have been trained on, had it been given this table."""
    rows = table.where(tuple(about.get("trained_on", training_splits(table))))
    return rows[~np.isin(rows.pid, about.get("held_out_pids", []))].fingerprint


def _named(dataset: str, partition: str) -> str:
    return partition if partition.startswith(dataset) else f"{dataset} {partition}".strip()


def run_stamp(run: Run, rows: Table, own: bool) -> dict[str, str]:
    """The run's stamp with what the embeddings are of; other data than the run's `own` is named as such."""
    stamp = run.stamp
    trained_on = _named(stamp.pop("dataset"), stamp.pop("partition", ""))
    if not own:
        stamp["trained on"] = f"{trained_on}, not on this data"
    stamp |= {"dataset": rows.dataset, **({"partition": rows.partition} if rows.partition else {})}
    return {**stamp, "embedder": embedder_digest(embedding_run(run)), "images": rows.fingerprint}


def file_suffix(rows: Table, own: bool, split: str, flip: bool) -> str:
    """What tells files of one layer apart: nothing for the test images of the run's own data."""
    parts = [split] if split != "test" else []
    parts += [] if own else [f"{rows.dataset}-{rows.fingerprint[:6]}"]
    return "".join(f"@{part}" for part in [*parts, *(["flip"] if flip else [])])


# --- what is measured -------------------------------------------------------------------------------------------------


def choose_protocols(table: Table, names: Sequence[str], draw: str | None, ignore: Sequence[str]) -> list[Protocol]:
    """The protocols by name, or all; `draw` names a draw of the gallery, `ignore` lists a manifest's rules."""
    wanted = list(names) or list(datasets.protocols_for(table))
    if draw is not None:
        wanted = datasets.find(table.dataset).drawn(names, draw)
    return [datasets.protocol(name, table, list(ignore) or None) for name in dict.fromkeys(wanted)]


def choose_layers(files: dict[str, Path], layer: str | None) -> list[str]:
    names = list(files)
    if layer in (None, "all"):
        return names if layer else names[:1]
    if layer not in files:
        raise ArgumentError(f"the embedder has no layer {layer!r}; it has {', '.join(names)} (or all)")
    return [layer]


def strip(embeddings: Embeddings) -> Embeddings:
    """Without the entry of the stamp that is for up-to-date checks alone."""
    return replace(embeddings, stamp={k: v for k, v in embeddings.stamp.items() if k != MADE_FROM})


def write_results(run: Run, results: Results, say: Callable[[str], None]) -> None:
    """results.json and table.md: these figures, and earlier ones of the same networks and images under other stamps."""
    kept, folder = Results(()), run.path
    if (folder / RESULTS).exists():
        stamp, groups = results.rows[0].stamp, {row.group for row in results.rows}
        fresh = [
            row
            for row in Results.load(folder / RESULTS).rows
            if row.stamp.get("embedder") == stamp["embedder"] and row.group not in groups
            and not ("base" in run.about and row.stamp.get("refiner") != stamp["refiner"])
            and (row.stamp.get("dataset") != stamp["dataset"] or row.stamp.get("images") == stamp["images"])
        ]  # fmt: skip
        kept = Results(tuple(fresh))
    everything = results + kept
    say(f"wrote {everything.save(folder / RESULTS)}")
    with replacing(folder / TABLE) as partial:
        partial.write_text(everything.markdown(), encoding="utf-8")
    say(f"wrote {folder / TABLE}")


def write_open_set(
    folder: Path,
    embeddings: Embeddings,
    protocols: Sequence[Protocol],
    similarity: Similarity,
    say: Callable[[str], None],
) -> None:
    """open_set.json: rank 1 at fixed false-alarm rates for each trial of each protocol; the means are told."""
    rows = []
    for protocol in protocols:
        try:
            trials = evaluate_open_set(embeddings, protocol, similarity)
        except ValueError as error:
            say(f"no open-set figures for {protocol.name}: {error}")
            continue
        rows.append({
            "protocol": protocol.name,
            "stamp": {**embeddings.stamp, **protocol.stamp, "similarity": similarity},
            "trials": [asdict(trial) for trial in trials],
        })  # fmt: skip
        means = np.mean([trial.tpir for trial in trials], axis=0)
        told = ", ".join(f"{m:.2%} at {r:g} false alarms" for m, r in zip(means, trials[0].rates, strict=True))
        say(f"{protocol.name}, open set: rank 1 {told} ({trials[0].num_present} searches)")
    with replacing(folder / OPEN_SET) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {folder / OPEN_SET}")


def draw_ranked(
    run: Run,
    embeddings: Embeddings,
    protocol: Protocol,
    similarity: Similarity,
    count: int,
    lang: Literal["en", "zh"],
    suffix: str = "",
    refine: RefinedBy | None = None,
) -> str:
    """Write the ranked lists of trial 0 and return the line that says so."""
    embeddings = embeddings if refine is None else refined(embeddings, protocol, refine)
    queries = np.asarray(protocol.trials(embeddings.table)[0][0])
    ranked = ranked_rows(embeddings, protocol, similarity=similarity)
    places = choose_queries(embeddings.table, queries, ranked, count)
    queries, ranked = queries[places], ranked[places]
    values = similarities(embeddings.vectors, queries, ranked, similarity)
    stamp = {"protocol": protocol.name, "trial": "0", **embeddings.stamp, **protocol.stamp, "rerank": "none"}
    stamp["refine"] = "none" if refine is None else refine.stamp
    name = "ranked-" + protocol.name.replace("/", "-").replace(":", "-") + f"{suffix}.png"
    title = f"{run.about['method']}  {protocol.name}"
    drawn = ranked_list(
        embeddings.table, queries, ranked, values, run.path / "figures" / name, title=title, stamp=stamp, lang=lang
    )
    return f"wrote {drawn.path}" + (f" ({drawn.note})" if drawn.note else "")


def similarities(vectors: np.ndarray, queries: np.ndarray, ranked: np.ndarray, similarity: Similarity) -> np.ndarray:
    """(Q, k) similarity of each query to the images of its list; 0 where the list holds none (-1)."""
    query, gallery = vectors[queries][:, None], vectors[np.maximum(ranked, 0)]  # (Q, 1, D), (Q, k, D)
    if similarity == "euclidean":
        found = -np.square(query - gallery).sum(2)
    else:
        norms = np.linalg.norm(query, axis=2) * np.linalg.norm(gallery, axis=2)
        found = (query * gallery).sum(2) / np.maximum(norms, np.finfo(np.float32).tiny)
    return np.where(ranked >= 0, found, 0.0)
