"""Your own data: a CSV or Parquet manifest, or a folder tree, and the protocols over them.

CSV, also with semicolons or tabs: a header and one line per picture, with these columns in any order; every further
column becomes an extra.

    path       relative to the manifest's folder (or absolute)
    pid        integer in plain digits
    modality   visible (also 0, rgb, vis) or infrared (also 1, ir, nir, thermal)
    split      train, val, test, or query and gallery
    camid      optional integer; without it there is one camera per modality, 1 visible and 2 infrared
    thermal_low, thermal_high     optional range of a camera's gray values of more than 8 bits: black and white

Folder tree: ROOT/{train,val,test,query,gallery}/{visible,infrared}/PID/*.jpg, in any capitals. A camera may stand in
the file name as `c3_` (at its start or after an underscore), a frame as `f120`; either all names have it or none.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from vireid.data.dataset import Dataset, Fault, closest
from vireid.data.datasets.files import attach_keypoints, existing_folder, folders, pictures_in, some
from vireid.data.datasets.ignore import IgnoreRule, any_of, same, same_pid_and_camera
from vireid.data.gray_columns import gray_columns
from vireid.data.protocol import Protocol, Trial, ignore_nothing
from vireid.data.table import COLUMNS, Table, table_from_columns
from vireid.errors import ArgumentError, DataError
from vireid.table_file import SUFFIXES as TEXT_SUFFIXES
from vireid.table_file import ListedFiles, file_path, integer, is_digits, nearest, number, read_table
from vireid.types import INFRARED, MODALITIES, MODALITY_WORDS, VISIBLE

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test", "query", "gallery")
REQUIRED = ("path", "pid", "modality", "split")
DEFAULT_CAMID = {VISIBLE: 1, INFRARED: 2}
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
FILE_NAMES = tuple(f"manifest{suffix}" for suffix in SUFFIXES)
INTEGER = "an integer in plain digits of at most 64 bits"
BLANK = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")  # cells without a value, in a column of numbers


def load(root: Path | str) -> Table:
    """One row per line of a manifest (a file, or the manifest.csv of a folder) or per picture of a folder tree.

    Raises DataError for an unknown or missing column, a bad value (with line numbers), a path listed twice, and an
    identity whose training pictures are of one modality only, unless all training pictures are visible.
    """
    path = Path(root).expanduser()
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise DataError(f"the manifest {path} does not exist; give the path of a CSV, TSV or Parquet file")
        table = _from_lines(path)
    elif path.is_file():
        raise DataError(f"the manifest {path} is of another kind than {', '.join(SUFFIXES)}; save it as CSV in UTF-8")
    else:
        folder = existing_folder(path, "manifest")
        listed = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
        table = _from_lines(listed[0]) if listed else _from_tree(folder)
    _check_training_modalities(table)
    return attach_keypoints(table)


def _read_text(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, cells of each line, and the number of each line in the file."""
    table = read_table(path, DataError)
    lines = list(table.lines())
    if not lines:
        raise DataError(f"{path}: expected a header ({', '.join(REQUIRED)}) and lines, came the header alone")
    return table.header, [cells for _, cells in lines], [line for line, _ in lines]


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise DataError(f"{path}: a Parquet manifest needs `pip install pyarrow`; or save it as CSV") from None
    try:
        columns = parquet.read_table(path).to_pydict()
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    lines = [["" if cell is None else str(cell) for cell in line] for line in zip(*columns.values(), strict=True)]
    if not lines:
        raise DataError(f"{path} has no rows; expected one per picture")
    return list(columns), lines, list(range(1, len(lines) + 1))


def _from_lines(path: Path) -> Table:
    header, lines, numbers = (_read_parquet if path.suffix.lower() == ".parquet" else _read_text)(path)
    _check_header(path, header)
    cells = {name: [line[i] for line in lines] for i, name in enumerate(header)}
    faults: list[str] = []

    def parse(name: str, read: Callable[[str], object], expected: str) -> list:
        values, wrong = [], []
        for text, line in zip(cells[name], numbers, strict=True):
            try:
                values.append(read(text))
            except (ValueError, KeyError):
                wrong.append((line, text))
        if wrong:
            shown = some([f"{line} ({text!r})" for line, text in wrong])
            faults.append(f"`{name}` must be {expected}; not so in lines {shown}")
        return values

    columns: dict[str, object] = {
        "path": parse("path", file_path, "a path relative to the manifest"),
        "pid": parse("pid", integer, INTEGER),
        "modality": parse("modality", lambda text: MODALITY_WORDS[text.lower()], "visible or infrared"),
        "split": parse("split", lambda text: SPLITS[SPLITS.index(text.lower())], "one of " + ", ".join(SPLITS)),
    }
    if "camid" in cells:
        columns["camid"] = parse("camid", integer, INTEGER)
    if faults:
        raise DataError(f"{path}: " + "; ".join(faults) + ". Correct these lines")
    if "camid" not in cells:
        columns["camid"] = [DEFAULT_CAMID[m] for m in columns["modality"]]  # pyright: ignore
    _check_duplicates(path, columns["path"], numbers)  # pyright: ignore[reportArgumentType]
    columns |= gray_columns(path, cells, columns["camid"], numbers)  # pyright: ignore[reportArgumentType]
    for name in header:
        if name not in columns:
            columns[name] = _typed(cells[name])
    return table_from_columns(path.parent, columns, "manifest")


def _typed(cells: Sequence[str]) -> np.ndarray:
    """int64 or float64 (a blank is NaN) where that tells apart all that the texts do, else strings (a blank is "")."""
    blank = [cell.lower() in BLANK for cell in cells]
    texts = {cell for cell, no_value in zip(cells, blank, strict=True) if not no_value}
    try:
        numbers = {text: number(text) for text in texts}
    except ValueError:
        return np.array(cells, dtype=np.str_)
    if not any(blank):
        with contextlib.suppress(ValueError):
            return np.array([integer(cell) for cell in cells], dtype=np.int64)
    if len({Decimal(text) for text in texts}) > len(set(numbers.values())):  # nanoseconds of today, for one
        return np.array(["" if no_value else c for c, no_value in zip(cells, blank, strict=True)], dtype=np.str_)
    return np.array([np.nan if no_value else numbers[c] for c, no_value in zip(cells, blank, strict=True)])


def _check_header(path: Path, header: list[str]) -> None:
    faults = [f"column `{name}` stands twice" for name, times in Counter(header).items() if name and times > 1]
    missing = [name for name in REQUIRED if name not in header]
    others = [name for name in header if name not in (*REQUIRED, "camid")]
    if "" in header:
        faults.append("a column has no name (the index of pandas? to_csv(index=False)): remove it")
    for name in missing:
        near = nearest(name, others)
        faults.append(f"column `{name}` is missing" + (f" (is it `{near}`? rename it)" if near else ""))
    if "camid" not in header:  # a misspelled camera would silently become one camera per modality
        alike = [other for other in others if nearest("camid", [other], 0.6) or other.lower() == "camera"]
        faults += [f"column `{name}` looks like `camid`: rename it, or remove it" for name in alike]
    if "keypoints" in header:
        faults.append("column `keypoints` is taken: poses come from keypoints.npz beside the manifest; rename it")
    if faults:
        raise DataError(f"{path}: expected columns {', '.join(REQUIRED)} and optionally camid; " + "; ".join(faults))


def _check_duplicates(path: Path, paths: list[str], numbers: list[int]) -> None:
    listed = ListedFiles(path.parent)
    firsts = ((name, line, listed.first_line(name, line)) for name, line in zip(paths, numbers, strict=True))
    twice = [f"{line} ({name}, first in {first})" for name, line, first in firsts if first != line]
    if twice:
        raise DataError(f"{path}: a picture may be listed once; again in lines {some(twice)}. Remove these lines")


def _check_training_modalities(table: Table) -> None:
    train = table.where("train")
    if (train.modality == VISIBLE).all():
        return  # trained on with pseudo_infrared=true
    for modality in (VISIBLE, INFRARED):
        only = np.setdiff1d(train.pid[train.modality == modality], train.pid[train.modality == 1 - modality])
        if len(only):
            raise DataError(
                f"training needs visible and infrared pictures of every identity; {len(only)} have "
                f"{MODALITIES[modality]} ones only: pid {some(only)}. Add their {MODALITIES[1 - modality]} pictures, "
                "or take these rows out of the train split"
            )


def _from_tree(root: Path) -> Table:
    columns: dict[str, list] = {name: [] for name in ("path", "pid", "modality", "split")}
    for split, folder in _split_folders(root):
        for modality, kind in _modality_folders(folder):
            for person in folders(kind):
                if not is_digits(person.name):
                    raise DataError(
                        f"{kind}: expected one folder per identity named by its number, came {person.name!r}; "
                        "rename it, or write a CSV manifest"
                    )
                names = pictures_in(person.path)
                inside = Path(person.path).relative_to(root).as_posix()
                columns["path"] += [f"{inside}/{name}" for name in names]
                columns["pid"] += [int(person.name)] * len(names)
                columns["modality"] += [modality] * len(names)
                columns["split"] += [split] * len(names)
    if not columns["path"]:
        raise DataError(
            f"{root}: no {' or '.join(FILE_NAMES)} and no picture ROOT/SPLIT/MODALITY/PID/*.jpg with SPLIT one of "
            f"{', '.join(SPLITS)} and MODALITY visible or infrared; see docs/learn/add-a-dataset.md"
        )
    camid = _from_names(root, columns["path"], "c", "camera")
    frame = _from_names(root, columns["path"], "f", "frame")
    columns["camid"] = camid or [DEFAULT_CAMID[m] for m in columns["modality"]]
    return table_from_columns(root, columns | ({"frame": frame} if frame else {}), "manifest")


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """The split and the folder of each part of a tree, in the order of SPLITS; DataError for a part of another name."""
    parts: dict[str, Path] = {}
    for entry in folders(root):
        name, path = entry.name.lower(), Path(entry.path)
        if name in parts:
            raise DataError(f"{root}: {parts[name].name} and {entry.name} are one split; join them in one folder")
        if name in SPLITS:
            parts[name] = path
            if entry.name != name:
                log.info("%s is read as the split %s", path, name)
        elif any(_modality_of(inner.name) is not None for inner in folders(path)):
            raise DataError(
                f"{root}: a split is called {', '.join(SPLITS)}, came the folder {entry.name!r}"
                f"{closest(name, SPLITS)}; rename it, or move it elsewhere"
            )
    return [(split, parts[split]) for split in SPLITS if split in parts]


def _modality_folders(split: Path) -> list[tuple[int, Path]]:
    """The modality and the folder of each part of a split, visible first; DataError for a part of another name."""
    parts = []
    for entry in folders(split):
        if (modality := _modality_of(entry.name)) is not None:
            parts.append((modality, Path(entry.path)))
        elif any(is_digits(inner.name) for inner in folders(entry.path)):
            raise DataError(
                f"{split}: the pictures of a modality lie in `visible` or `infrared`, came {entry.name!r}; rename it"
            )
    return sorted(parts)


def _modality_of(folder: str) -> int | None:
    """The modality that a folder's name says; None for another name and for a number, which is a person's."""
    return None if is_digits(folder) else MODALITY_WORDS.get(folder.lower())


def _from_names(root: Path, paths: list[str], letter: str, meaning: str) -> list[int]:
    """The number after this letter in every file name, or [] if no name has one."""
    mark = re.compile(rf"(?:^|_){letter}([0-9]+)(?=[_.]|s[0-9])")  # `c3_`, `_c3.jpg`, and Market's `c3s1`
    matches = [mark.search(path.rpartition("/")[2]) for path in paths]
    without = [path for path, match in zip(paths, matches, strict=True) if match is None]
    if without and len(without) < len(paths):
        raise DataError(
            f"{root}: the {meaning} ({letter}NUMBER) stands in some file names and not in {len(without)} others: "
            f"{some(without, 3)}. Name it in all or in none"
        )
    return [int(match[1]) for match in matches if match]


def _rows(table: Table, split: str, modality: int | None) -> np.ndarray:
    keep = table.split == split
    if modality is not None:
        keep = keep & (table.modality == modality)
    return np.flatnonzero(keep)


def _trials(query: int | None, gallery: int | None) -> Callable[[Table], list[Trial]]:
    """Query and gallery splits where the table has them, else the test split for both; None takes both modalities."""

    def trials(table: Table) -> list[Trial]:
        own = np.isin(("query", "gallery"), table.split)
        if own.any() and not own.all():
            have, lack = ("query", "gallery") if own[0] else ("gallery", "query")
            raise DataError(f"the table has a {have} split and no {lack} split; give both, or only `test`")
        splits = ("query", "gallery") if own.all() else ("test", "test")
        rows = _rows(table, splits[0], query), _rows(table, splits[1], gallery)
        for name, split, modality, chosen in zip(("query", "gallery"), splits, (query, gallery), rows, strict=True):
            if not len(chosen):
                kind = "" if modality is None else MODALITIES[modality] + " "
                raise DataError(f"no {name}: the table has no {kind}picture in split `{split}`; add some, or turn "
                                "the direction round")  # fmt: skip
        return [rows]

    return trials


def _ignore(ignore: Iterable[str]) -> dict[str, IgnoreRule]:
    if isinstance(ignore, str):
        ignore = (ignore,)
    rules: dict[str, IgnoreRule] = {}
    for word in ignore:
        if word == "same-pid-and-camera":
            rules[word] = same_pid_and_camera
        elif word.removeprefix("same:"):
            rules[word.removeprefix("same:")] = same(word.removeprefix("same:"))
        else:
            raise ArgumentError("an ignore rule is none, same-pid-and-camera or the name of a column, came ''")
    if "none" in rules:
        if len(rules) > 1:
            raise ArgumentError(f"ignore rule `none` stands alone; came {', '.join(rules)}")
        rules.clear()
    return rules


def protocols_with(ignore: Iterable[str] = ()) -> dict[str, Protocol]:
    """The protocols over a manifest, by name.

    `ignore` lists what does not count for a query: `same-pid-and-camera`, or a column's name (also `same:COLUMN`): the
    images that share the query's value there, of any person. Several add up; none is the default. The rules are
    part of the name: `manifest/visible-to-infrared/ignore-frame+same-pid-and-camera`. CMC is over images. `mixed` asks
    with all images in all images; a picture never finds itself.
    """
    rules = _ignore(ignore)
    suffix = "/ignore-" + "+".join(rules) if rules else ""
    by_name = {}
    pairs = {
        "visible-to-infrared": (VISIBLE, INFRARED),
        "infrared-to-visible": (INFRARED, VISIBLE),
        "mixed": (None, None),
    }
    for direction, (query, gallery) in pairs.items():
        own = {"the same picture": same("path")} if direction == "mixed" else {}
        active = {**own, **rules}
        words = [word if word in own or word == "same-pid-and-camera" else f"same {word}" for word in active]
        stamp = {"draw": "none (all images)", "shots": "all"} | {
            "queries": f"all {'images' if query is None else MODALITIES[query] + ' images'} of query, else test",
            "ignored": ", ".join(words) or "nothing",
            "cmc": "over images",
        }
        name, rule = f"manifest/{direction}{suffix}", any_of(tuple(active.values())) if active else ignore_nothing
        by_name[name] = Protocol(name, _trials(query, gallery), rule, False, stamp)
    return by_name


def _check(table: Table) -> list[Fault]:
    """A column that ties a query to simultaneous gallery pictures of the same person gives the answer away."""
    faults = []
    test = table[~np.isin(table.split, ("train", "val"))]
    if "frame" in table.extras and len(test):
        seen: dict[tuple, set[int]] = defaultdict(set)
        for pid, frame, modality in zip(test.pid, test.extras["frame"].tolist(), test.modality, strict=True):
            if frame != "" and frame == frame:
                seen[int(pid), frame].add(int(modality))
        both = sum(len(modalities) == 2 for modalities in seen.values())
        if both:
            faults.append(
                Fault(
                    "warning",
                    f"{both} test pictures have a twin of the same person and the same `frame` in the other modality",
                    "unless that is wanted, evaluate with `ignore=frame`: manifest/visible-to-infrared/ignore-frame",
                )
            )
    return faults


class Manifest(Dataset):
    """Your own data: a manifest or a folder tree."""

    layout = "a CSV, TSV or Parquet file, a folder with manifest.csv, or folders train/visible/PID/*.jpg and so on"
    load = staticmethod(load)
    protocols = protocols_with()

    def recognizes(self, root: Path) -> int:
        if root.is_file():
            return 2 * (root.suffix.lower() in SUFFIXES)
        if any((root / name).is_file() for name in FILE_NAMES):
            return 2
        splits = [entry.path for entry in folders(root) if entry.name.lower() in SPLITS]
        return int(any(_modality_of(entry.name) is not None for split in splits for entry in folders(split)))

    def check(self, table: Table, synthetic: bool) -> list[Fault]:
        return _check(table)

    def ignore_rules(self, table: Table, words: Sequence[str]) -> dict[str, IgnoreRule]:
        rules = _ignore(words)
        for word in words:
            column = word.removeprefix("same:")
            if word not in ("none", "same-pid-and-camera") and column not in (*COLUMNS, *table.extras):
                have = [*COLUMNS, *table.extras, "same-pid-and-camera"]
                raise DataError(f"ignore rule {word!r} needs a column `{column}`{closest(column, have)}; "
                                f"there are {', '.join(have[:-1])}")  # fmt: skip
        return rules

    def protocol(self, name: str, table: Table, ignore: Sequence[str]) -> Protocol:
        stem, mark, words = name.partition("/ignore-")
        rules = words.split("+") if mark else []
        rules += [word for word in ignore if word not in rules]
        self.ignore_rules(table, rules)
        known = protocols_with(rules)
        by_stem = {key.partition("/ignore-")[0]: protocol for key, protocol in known.items()}
        if stem not in by_stem:
            near, have = closest(stem, by_stem), ", ".join(by_stem)
            raise ArgumentError(f"no protocol is called {name!r}{near}; a manifest has {have}")
        return by_stem[stem]
