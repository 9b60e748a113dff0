"""Files from the outside world, changed at random: each is read, or refused by an error for the user; nothing else.

VIREID_FUZZ=1000 pytest tests/test_hostile_files.py    tries that many changes of each file, in place of 25
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regdb_files import write_lists
from safetensors.torch import save
from scipy.io import savemat
from small_run import make_run, write_people

from vireid.data import datasets
from vireid.data.datasets.files import read_ids, read_pairs
from vireid.data.datasets.sysu import permutations
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.errors import VireidError
from vireid.ingest.boxes import videos_in
from vireid.ingest.sources import crops_of
from vireid.ingest.times import seconds
from vireid.layers import weights_file
from vireid.live.settings import read_cameras
from vireid.search.marks import MarkStore
from vireid.server.auth import Tokens
from vireid.training.run_folder import RunFolder
from vireid.workflows.compare_plan import Plan

EXAMPLES = int(os.environ.get("VIREID_FUZZ", "25"))
PIECES = [  # what breaks readers: ends of values, of lines and of texts, numbers that are none, depth
    b"", b"\0", b"\xff", b"\n", b"\r", b",", b";", b"\t", b'"', b"'", b"|", b"#", b"=", b":", b"{", b"}", b"[" * 3000,
    b"-1", b"nan", b"inf", b"1e999", b"1_0", b"0x10", b"9" * 30, b"9" * 5000, "²".encode(), "１".encode(), b"../",
    b"\\", b"\xef\xbb\xbf", b"\xff\xfe", "\ud800".encode("utf-8", "surrogatepass"), b"%s", b"true", b"null", b" ",
    b"&a [*a, *a]", b"!!python/object:os.system",
]  # fmt: skip
Change = tuple[float, int, bytes]  # where in the file, how many bytes go, and what comes in their place
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES) | st.binary(max_size=8)), max_size=4
)
HEAD = "time,left,top,right,bottom,track,score\n0.5,40,30,90,130,a,0.9\n"


def changed(content: bytes, changes: list[Change]) -> bytes:
    for share, count, piece in changes:
        at = round(share * len(content))
        content = content[:at] + piece + content[at + count :]
    return content


def archived(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def matlab() -> bytes:
    cells = np.empty(6, dtype=object)
    cells[:] = [np.array([[1, 2], [2, 1]])] * 6
    file = io.BytesIO()
    savemat(file, {"rand_perm_cam": cells})
    return file.getvalue()


STATE = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}
TABLE = "path,pid,camid,modality,split,frame\na.png,1,1,visible,test,4\nb.png,1,2,ir,test,5\n"
LIST = "path,camera,time,modality,tags,id\na.png,gate,2026-11-24T21:04:11Z,auto,x|y,1\nb.png,hall,1795550400,ir,,2\n"
CAMERAS = "cameras:\n  gate: {address: 'rtsp://10.0.0.7/1', modality: infrared, whole: true}\n"
PLAN = "seeds: 2\nmethods:\n  agw: {settings: {width: 16, size: [96, 48]}, seeds: 1}\n"
TOKEN = {"name": "desk", "role": "search", "sha256": "0" * 64, "until": None}

FILES: dict[str, tuple[bytes, Callable[[Path], Any]]] = {  # by name of the file: what it holds, and its reader
    "list.csv": (LIST.encode(), lambda path: list(crops_of(path))),
    "manifest.csv": (TABLE.encode(), lambda path: datasets.load(f"manifest={path}")),
    "manifest-16.csv": (TABLE.replace(",", ";").encode("utf-16"), lambda path: datasets.load(f"manifest={path}")),
    "boxes.csv": (HEAD.encode(), videos_in),
    "named.csv": (f"video,{HEAD.replace(chr(10) + '0', chr(10) + 'a.mp4,0')}".encode(), videos_in),
    "mot.txt": (b"6,1,40,30,50,100,1,-1,-1,-1\n7,-1,4.5,3e1,50,100,0.3\n", videos_in),
    "ids.txt": (b"1,2,3\n", lambda path: read_ids(path, "identities")),
    "pairs.txt": (b"Visible/1/male_back_v_00100_1.bmp 0\n", lambda path: read_pairs(path, "pictures")),
    "cameras.yaml": (CAMERAS.encode(), read_cameras),
    "plan.yaml": (PLAN.encode(), Plan.read),
    "tokens.json": (json.dumps({"format": "vireid tokens 1", "tokens": [TOKEN]}).encode(), lambda p: Tokens(p).all()),
    "time.txt": (b"2026-11-24T21:04:11+01:00", lambda path: seconds(path.read_text("latin-1"), "here")),
    "weights.pth": (archived({"net": STATE, "mAP": np.float64(0.5)}), weights_file.read),
    "old.pth": (archived({"net": STATE}, _use_new_zipfile_serialization=False), weights_file.read),
    "weights.safetensors": (save(STATE), weights_file.read),
    "marks.sqlite": (b"", lambda path: MarkStore(path).of()),
}


def outcome(path: Path, content: bytes, read: Callable[[Path], Any]) -> str:
    """`read` or `refused`; every other exception is raised."""
    path.write_bytes(content)
    path.chmod(0o600)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries may warn of what they then refuse
            read(path)
    except VireidError as error:
        assert str(error)
        return "refused"
    return "read"


BOUNDED = settings(
    max_examples=EXAMPLES, database=None, derandomize=EXAMPLES == 25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    content, read = FILES[name]
    counts = {"read": 0, "refused": 0}
    assert outcome(tmp_path / name, content, read) == "read"

    @BOUNDED
    @given(CHANGES)
    def try_one(changes: list[Change]) -> None:
        counts[outcome(tmp_path / name, changed(content, changes), read)] += 1

    try_one()
    print(name, counts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RegDB and SYSU's draw, a run and its bundle."""
    root = tmp_path_factory.mktemp("folders")
    write_lists(root / "regdb", people=4, trials=1, pictures=2)
    (root / "sysu/exp").mkdir(parents=True)
    (root / "sysu/exp/rand_perm_cam.mat").write_bytes(matlab())
    run = make_run(root / "run", write_people(root / "data", {"train": 2, "test": 2}))
    export_bundle(run, root / "bundle", onnx=False)
    return root


READERS: dict[str, Callable[[Path], Any]] = {  # by file, which is in a folder with others
    "regdb/idx/train_visible_1.txt": lambda root: datasets.load(f"regdb={root / 'regdb'}", trial=0),
    "sysu/exp/rand_perm_cam.mat": lambda root: permutations(root / "sysu"),
    "run/recipe.json": lambda root: RunFolder.open(root / "run").embedder(),
    "run/embedder.safetensors": lambda root: RunFolder.open(root / "run").embedder(),
    "bundle/config.json": lambda root: Bundle.open(root / "bundle"),
}


@pytest.mark.parametrize("name", list(READERS))
def test_a_folder_with_a_changed_file_is_read_or_refused(name: str, folders: Path) -> None:
    path, read = folders / name, READERS[name]
    content = path.read_bytes()
    counts = {"read": 0, "refused": 0}

    @BOUNDED
    @given(CHANGES)
    def try_one(changes: list[Change]) -> None:
        counts[outcome(path, changed(content, changes), lambda _: read(folders))] += 1

    try:
        try_one()
    finally:
        path.write_bytes(content)
    print(name, counts)


def test_identities_of_thousands_of_digits_are_refused(tmp_path: Path) -> None:
    for name in ("ids.txt", "pairs.txt"):
        content, read = FILES[name]
        assert outcome(tmp_path / name, content.rstrip(b"\n") + b"9" * 5000, read) == "refused"
