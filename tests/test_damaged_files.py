"""Damaged files of JSON, YAML, arrays, SQLite and networks: each is an error that names the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_run import WORDS, make_run, write_people

from vireid.arrays_file import read_arrays
from vireid.data import datasets
from vireid.data.pose.vitpose import VitPose, statistics
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import PARITY
from vireid.deploy.export import export_bundle
from vireid.deploy.runtimes import open_runtime
from vireid.errors import CasesError, DataError, MarksError, RunError, SettingsError, VireidError, WatchError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.results import Results
from vireid.evaluation.rows import Metrics, Row
from vireid.ingest.boxes import about_written, write_boxes
from vireid.json_file import read_json
from vireid.layers import weights_file
from vireid.layers.embedder import load_embedder
from vireid.live.store import WatchStore, last_alarms
from vireid.methods import find
from vireid.search.cases import CaseStore
from vireid.search.marks import Mark, MarkStore
from vireid.training.key_values import Loader, Located, read_yaml
from vireid.training.log_file import read_log
from vireid.training.run_folder import RunFolder
from vireid.training.settings import resolve

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("run")
    return make_run(root / "run", write_people(root / "data", {"train": 2, "test": 2}))


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", DEEP.encode(), b"\xff", b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_names_the_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(RunError, match=r"a\.json is not readable as JSON \(.*\); train again"):
        read_json(tmp_path / "a.json", RunError, "train again")


@pytest.mark.parametrize("text", ["{", DEEP, "\\"])
def test_a_damaged_description_of_a_pose_model_names_the_file(tmp_path: Path, text: str) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name} is not readable as JSON .*; download the model again"):
            _ = VitPose(tmp_path) if name == "config.json" else statistics(tmp_path / name)


def test_json_may_have_a_mark_or_be_utf_16(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text('{"a": "é"}', encoding)
        assert read_json(tmp_path / "a.json", RunError, "") == {"a": "é"}


@pytest.mark.parametrize(
    "change", [{"recipes": []}, {"class": []}, {"settings": 1, "class": "vireid.methods.d2rl.D2RL"}]
)
def test_a_record_of_another_form_names_the_entry(run: RunFolder, tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({**run.record.plain(), **change}))
    with pytest.raises(RunError, match=rf"recipe\.json is not what vireid .* reads \({next(iter(change))}"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("runtimes", [None, [], {"onnxruntime": None}, {"onnxruntime": {"files": []}}])
def test_parity_of_another_form_is_an_error(run: RunFolder, tmp_path: Path, runtimes: Any) -> None:
    bundle = export_bundle(run, tmp_path / "bundle", onnx=False)
    (bundle.path / "embedder.onnx").touch()
    (bundle.path / PARITY).write_text(json.dumps({"runtimes": runtimes}))
    with pytest.raises(VireidError, match=r"parity\.json is damaged \(runtimes.*\); export the run again"):
        Bundle.open(bundle.path).compared("onnxruntime")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("mAP", float("nan"), r"rows\.0\.metrics\.mAP"), ("cmc", [0.5], "expected a CMC of 20 ranks or more")],
)
def test_results_with_figures_that_are_none_name_them(tmp_path: Path, name: str, value: Any, told: str) -> None:
    row = Row("sysu/all", 0, Metrics((0.5,) * 20, 0.4, 0.3, 10, 9), 10, {"method": "AGW"})
    content = json.loads(Results((row,)).save(tmp_path / "results.json").read_text())
    content["rows"][0]["metrics"][name] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"results\.json.*{told}"):
        Results.load(tmp_path / "results.json")


def test_a_log_that_was_cut_off_is_read_and_a_damaged_one_names_the_line(tmp_path: Path) -> None:
    line = json.dumps({"event": "step", "total": 10, "stage": 0, "epoch": 0})
    (tmp_path / "log.jsonl").write_text(f"{line}\n{line[:20]}")
    assert [record["total"] for record in read_log(tmp_path)] == [10]
    for wrong in ("{}", "[]", line[:20], DEEP, '{"event": "epoch", "total": 1}'):
        (tmp_path / "log.jsonl").write_text(f"{line}\n{wrong}\n{line}\n")
        with pytest.raises(RunError, match=r"log\.jsonl, line 2 is not a record of a training"):
            read_log(tmp_path)


@pytest.mark.parametrize(
    "head", [b"# vireid boxes 1 {\n", b"# vireid boxes 1 \xff\n", b"# vireid boxes 1 []\n", b"\xff\xfe"]
)
def test_boxes_with_a_damaged_first_line_say_so(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.csv"
    write_boxes(path, [], {"video": "a.mp4"})
    assert about_written(path) == {"video": "a.mp4"}
    path.write_bytes(head)
    with pytest.raises(VireidError, match=r"a\.csv, line 1 was not written by vireid"):
        about_written(path)


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [Loader, Located])
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("b: !!int abc", "expected a int"),
        ("b: !!bool maybe", "expected a bool"),
        ("b: " + "9" * 5000, "expected a int"),
        ("b: !!map [1]", "expected names and values"),
        ("b: &x [*x]", r"\*x refers to itself"),
        ("b: &x {c: *x}", r"\*x refers to itself"),
        ("b: " + "[" * 3000, "this is nested too deeply"),
        ("? [b, c]\n: 1", "a name is one word"),
    ],
)
def test_yaml_that_is_no_plain_data_names_the_line(tmp_path: Path, loader: type[Loader], line: str, told: str) -> None:
    (tmp_path / "a.yaml").write_text(f"a: 1\n{line}\n")
    with pytest.raises(SettingsError, match=rf"a\.yaml line 2: {told}"):
        read_yaml(tmp_path / "a.yaml", loader)


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_what_is_no_npz_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3))
    whole = path.read_bytes()
    assert read_arrays(path)["a"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "objects.npz", a=np.array([None], dtype=object))
    np.save(tmp_path / "one.npy", np.arange(3))
    packed = bytearray(whole)
    packed[8] = packed[whole.index(b"PK\x01\x02") + 10] = 77  # of a kind of compression that nobody knows
    for wrong in (
        b"",
        whole[:40],
        bytes(packed),
        *(p.read_bytes() for p in (tmp_path / "objects.npz", tmp_path / "one.npy")),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"not a whole \.npz file of numbers and texts"):
            read_arrays(path)


@pytest.mark.parametrize(
    "change",
    [{"pid": np.array(1)}, {"split": np.zeros(16, "M8[s]")}, {"path": np.array([b"\xff"] * 16)},
     {"vectors": np.zeros((3, 4))}, {"about": np.array('{"format": "vireid embeddings 1", "root": null}')}],
)  # fmt: skip
def test_embeddings_of_another_form_name_the_file(
    run: RunFolder, tmp_path: Path, change: dict[str, np.ndarray]
) -> None:
    table = datasets.load(str(run.record.source.data)).where("test")
    path = Embeddings(np.zeros((len(table), 4), np.float32), table, {}).save(tmp_path / "e.npz")
    arrays: dict[str, Any] = {**read_arrays(path), **change}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"e\.npz is not an embeddings file that vireid wrote \(.*\); embed again"):
        Embeddings.load(path)


# --- SQLite -----------------------------------------------------------------------------------------------------------


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        for statement in statements:
            base.execute(statement)


def marks(path: Path) -> None:
    with closing(MarkStore(path)) as store:
        store.put([Mark("0" * 64, "a", True, "desk", 1.0)])
        store.of()


def cases(path: Path) -> None:
    with closing(CaseStore(path)) as store:
        if not store.all():
            store.add("n", "", "desk", 1.0, "{}", [b"picture"])
        store.digests()


def alarms(path: Path) -> None:
    event = {"id": "1", "person": "p", "camera": "gate", "time_s": 5.0, "row": "r"}
    with closing(WatchStore(path)) as store:
        store.raise_alarm(event, ["webhook"], 60, 1.0)
        store.alarms()
        store.due("webhook", 10.0)
        store.progress("gate", "x")
    last_alarms(path, 5)


@pytest.mark.parametrize(
    ("use", "error", "statements"),
    [
        (marks, MarksError, ["update marks set query = x'ff00'"]),
        (marks, MarksError, ["drop table marks", "create table marks (x)"]),
        (cases, CasesError, ["update cases set request = 'x'"]),
        (cases, CasesError, ["update cases set at = 'x'"]),
        (cases, CasesError, ["update pictures set data = null"]),
        (alarms, WatchError, ["update alarms set event = 'x'"]),
        (alarms, WatchError, ["update alarms set event = null"]),
        (alarms, WatchError, ["drop table deliveries", "create table deliveries (x)"]),
        (alarms, WatchError, ["drop table progress", "create table progress (x)"]),
    ],
)
def test_a_store_with_values_of_another_kind_is_named(
    use: Callable[[Path], None], error: type[VireidError], statements: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "store.sqlite"
    use(path)
    changed(path, *statements)
    with pytest.raises(error, match=r"store\.sqlite cannot be used as the file of .*; put a good copy in its place"):
        use(path)
        if use is marks:
            MarkStore(path).of()


@pytest.mark.parametrize(("use", "error"), [(marks, MarksError), (cases, CasesError), (alarms, WatchError)])
def test_a_file_that_is_no_store_is_named(
    use: Callable[[Path], None], error: type[VireidError], tmp_path: Path
) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database at all " * 200)
    with pytest.raises(error, match=r"store\.sqlite cannot be used as the file of"):
        use(tmp_path / "store.sqlite")


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"width": -1}}, "the settings in its header build no"),
        ({"settings": {"unknown": 1}}, "the settings in its header build no"),
        ({"deployment": {"size": None}}, r"its header is damaged \(deployment\.size"),
        ({"deployment": {"size": [48, 0]}}, r"its header is damaged \(deployment\.size"),
        ({"deployment": {"filter": "nearest"}}, r"its header is damaged \(deployment\.filter"),
        ({"deployment": 5}, r"its header is damaged \(deployment"),
    ],
)
def test_a_damaged_header_of_a_network_names_the_file(
    run: RunFolder, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    file = run.path / "embedder.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["embedder"])
    for name, value in change.items():
        about[name] = {**about[name], **value} if isinstance(value, dict) else value
    save_file(load_file(file), tmp_path / "e.safetensors", {"embedder": json.dumps(about)})
    with pytest.raises(VireidError, match=rf"e\.safetensors: {told}"):
        load_embedder(tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    "change", [{"method": None}, {"method": {"a": 1}}, {"reported": True}, {"reported": {"average": None}}]
)
def test_a_checkpoint_with_values_of_other_kinds_is_named(run: RunFolder, change: dict[str, Any]) -> None:
    settings = resolve(find("agw"), "manifest", WORDS)[1]
    method = find("agw")(run.record.num_pids, run.record.camids, settings)
    run.save({"method": method.state_dict(), "reported": None})
    assert not run.finished and run.load(method) is method
    run.save({"method": method.state_dict(), "reported": None, **change})
    with pytest.raises(RunError, match=r"last\.pt does not fit this AGW"):
        run.load(method)
    (run.path / "last.pt").unlink()


def test_tensors_that_fill_no_network_are_left_aside(tmp_path: Path) -> None:
    other = {
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "long": np.ones(2, np.longdouble),
    }
    torch.save({"w": torch.ones(2), **other}, tmp_path / "w.pth")
    assert list(weights_file.read(tmp_path / "w.pth").tensors) == ["w"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("data", [b"", b"\x08\x08" + b"\xff" * 40, b"<!DOCTYPE html>"])
def test_a_graph_that_a_runtime_cannot_read_is_named(tmp_path: Path, runtime: str, data: bytes) -> None:
    pytest.importorskip(runtime, reason="extra: export or openvino")
    (tmp_path / "e.onnx").write_bytes(data)
    with pytest.raises(VireidError, match=rf"e\.onnx cannot be read by {runtime} \(.*\); copy it again"):
        open_runtime(runtime, tmp_path / "e.onnx", (), "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_with_values_that_are_no_numbers_is_refused(run: RunFolder, tmp_path: Path, value: float) -> None:
    file = run.path / "embedder.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    save_file({**tensors, name: torch.full_like(tensors[name], value)}, tmp_path / "e.safetensors", metadata)
    with pytest.raises(VireidError, match=rf"e\.safetensors holds values that are not finite numbers, first in {name}"):
        load_embedder(tmp_path / "e.safetensors")
