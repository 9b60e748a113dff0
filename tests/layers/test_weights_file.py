"""Files of weights: every layout that public checkpoints have, and files that are something else by their names."""

import argparse
import collections
import datetime
import io
import pickle
import re
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vireid.errors import WeightsError
from vireid.layers.weights import load_state
from vireid.layers.weights_file import WeightsFile, read

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(state[k].equal(v) for k, v in STATE.items())


def saved(folder: Path, content: Any, name: str = "some.pth") -> WeightsFile:
    torch.save(content, folder / name)
    return read(folder / name)


def refusal(path: Path, content: bytes | None = None) -> str:
    """The message about a file that holds no weights: one line, without torch's advice."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and "\x1b" not in message
    assert "weights_only" not in message and "safe_globals" not in message and "Weights only" not in message
    return message


@pytest.mark.parametrize(
    "wrapper", ["", "net", "state_dict", "model_state_dict", "model", "teacher", "ema_of_somebody"]
)
def test_wrappers(tmp_path: Path, wrapper: str) -> None:
    file = saved(tmp_path, {wrapper: STATE, "epoch": 3} if wrapper else {**STATE, "epoch": 3})
    assert same(file.tensors) and (file.wrapper, file.beside) == (wrapper, ("epoch",))
    assert same(load_state(f"file://{tmp_path}/some.pth"))


def test_one_of_two_state_dicts_is_not_guessed(tmp_path: Path) -> None:
    torch.save({"first": STATE, "second": STATE}, tmp_path / "w.pth")
    assert "expected tensors by name, alone or under net" in refusal(tmp_path / "w.pth")
    optimizer = {"state": {0: {"exp_avg": STATE["a.bias"]}}, "param_groups": [{"lr": 0.1}]}
    assert same(saved(tmp_path, {"weights": STATE, "optimizer": optimizer}).tensors)


def test_values_that_are_no_numbers_are_refused_by_the_name_of_their_tensor(tmp_path: Path) -> None:
    torch.save({**STATE, "b.weight": torch.tensor([1.0, torch.nan])}, tmp_path / "w.pth")
    assert "(NaN), first in b.weight, in 1 of 3 tensors" in refusal(tmp_path / "w.pth")
    assert "mask" in saved(tmp_path, {**STATE, "mask": torch.tensor([0, -torch.inf])}).tensors


def test_wrappers_in_wrappers_and_the_teacher_of_two(tmp_path: Path) -> None:
    student = {key: value + 1 for key, value in STATE.items()}
    file = saved(tmp_path, {"student": student, "teacher": {"state_dict": STATE}, "optimizer": {"lr": 0.1}})
    assert same(file.tensors) and file.wrapper == "teacher.state_dict"
    assert file.beside == ("student", "optimizer")
    assert "state dict under `teacher.state_dict`" in file.layout


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "module.backbone.", "embedder."]
)
def test_prefixes(tmp_path: Path, prefix: str) -> None:
    file = saved(tmp_path, {prefix + key: value for key, value in STATE.items()})
    assert same(file.tensors) and "".join(file.prefixes) == prefix and not file.left_out
    assert f"names behind `{prefix}`" in file.layout


def test_compiled_parts_of_a_network(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a._orig_mod.weight": STATE["a.weight"], "a.bias": STATE["a.bias"]})
    assert same(file.tensors)


def test_a_backbone_that_is_part_of_a_network_keeps_its_name(tmp_path: Path) -> None:
    names = {"backbone.layer1.weight", "bn_neck.weight"}
    assert saved(tmp_path, dict.fromkeys(names, torch.ones(1))).tensors.keys() == names
    headed = saved(tmp_path, dict.fromkeys(["backbone.layer1.weight", "heads.weight"], torch.ones(1)))
    assert headed.tensors.keys() == {"layer1.weight", "heads.weight"}


def test_the_query_encoder_of_momentum_contrast(tmp_path: Path) -> None:
    queries = {f"module.encoder_q.{key}": value for key, value in STATE.items()}
    keys = {f"module.encoder_k.{key}": value + 1 for key, value in STATE.items()}
    file = saved(tmp_path, {"state_dict": {**queries, **keys, "module.queue": torch.ones(4)}})
    assert same(file.tensors) and file.prefixes == ("module.", "encoder_q.")
    assert sorted(file.left_out) == sorted([*keys, "module.queue"])


def test_a_network_wins_over_its_method(tmp_path: Path) -> None:
    head = {"classifier.weight": torch.zeros(3), "a.bias": torch.zeros(2)}
    file = saved(tmp_path, {"format": 1, "method": {**{f"embedder.{k}": v for k, v in STATE.items()}, **head}})
    assert same({key: file.tensors[key] for key in STATE}) and "classifier.weight" in file.tensors
    assert file.left_out == ("a.bias",) and "vireid" in file.kind


BESIDE = {  # what training code keeps beside the tensors
    "scalar": np.float64(0.4),
    "scalar of numpy": np.float32(0.4),
    "switch": np.bool_(True),
    "curve": np.array([0.5, 0.7]),
    "counts": np.arange(3),
    "names": np.array(["a", "bc"]),
    "options": argparse.Namespace(lr=0.1, gpu="0", best=np.float64(1), out=Path("/runs/1")),
    "when": datetime.datetime(2026, 11, 24, 21, 4, tzinfo=datetime.UTC),
}


@pytest.mark.parametrize("old_numpy", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_figures_and_options_beside_the_tensors(tmp_path: Path, zipped: bool, old_numpy: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"net": STATE, **BESIDE}, buffer, _use_new_zipfile_serialization=zipped)
    content = buffer.getvalue()
    if old_numpy:  # the module of these functions in files of NumPy 1
        if zipped:
            content = renamed_in_zip(content, b"numpy._core.multiarray", b"numpy.core.multiarray")
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "best.t").write_bytes(content)
    file = read(tmp_path / "best.t")
    assert same(file.tensors) and file.beside == tuple(BESIDE)


def renamed_in_zip(content: bytes, old: bytes, new: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            archive.writestr(
                name, source.read(name).replace(old, new) if name.endswith("data.pkl") else source.read(name)
            )
    return target.getvalue()


def test_arrays_in_place_of_tensors(tmp_path: Path) -> None:
    assert same(saved(tmp_path, {"model": {key: value.numpy() for key, value in STATE.items()}}).tensors)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "some.pth")
    assert same(read(tmp_path / "some.pth").tensors) and read(tmp_path / "some.pth").kind == "safetensors file"


class Opened:
    """An object whose rebuilding would run code: it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    torch.save({"net": STATE, "mAP": np.float64(1), "extra": Opened(tmp_path / "ran")}, tmp_path / "some.pth")
    assert "open" in refusal(tmp_path / "some.pth") and not (tmp_path / "ran").exists()
    for content in (np.array([Opened(tmp_path / "ran")]), argparse.Namespace(x=Opened(tmp_path / "ran"))):
        torch.save({"net": STATE, "beside": content}, tmp_path / "some.pth")
        refusal(tmp_path / "some.pth")
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_named(tmp_path: Path, zipped: bool) -> None:
    torch.save({"net": STATE, "rate": Fraction(1, 2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "a.pth")
    assert "fractions.Fraction, which is not loaded" in message and "torch.save(network.state_dict()" in message
    torch.save({"net": STATE, "meters": collections.defaultdict(list, {"loss": [1.0]})}, tmp_path / "a.pth")
    assert "collections.defaultdict, which is not loaded" in refusal(tmp_path / "a.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>sign in</body></html>", "a web page .*open the address in a browser"),
        (b"\n  <html>\n", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS.*git lfs pull"),
        (b"\x08\x09\x12\x07pytorch\x1a\x03", "an ONNX graph"),
        (b"\x08\x0a:\xb4\x01", "an ONNX graph"),
        (b"", "an empty file"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x1f\x8b\x08\x00", "an archive: unpack it"),
        (b"Rar!\x1a\x07", "an archive"),
        (b"best.pth".ljust(257, b"\0") + b"ustar  \0", "an archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"Not Found", "a text, not weights"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"no archive\0", "cut off, damaged or of another program"),
        (pickle.dumps({"a": 1}, protocol=4), "cut off, damaged or of another program"),
        (b"PK\x03\x04 cut", "cut off"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, words: str) -> None:
    assert re.search(words, refusal(tmp_path / "w.pth", content))


def test_a_real_onnx_graph(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="extra: export")
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.pth")
    assert "ONNX" in refusal(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_archives_and_programs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("best/model.pth", "x")
    assert "ZIP archive that torch did not write; it holds best/model.pth" in refusal(tmp_path / "w.zip")
    traced = torch.jit.trace(nn.ReLU(), torch.ones(1))
    torch.jit.save(traced, tmp_path / "w.pt")
    assert "is a TorchScript program" in refusal(tmp_path / "w.pt")  # and no warning, which is an error in tests


def test_cut_files(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    assert "cut off" in refusal(tmp_path / "w.pth", (tmp_path / "w.pth").read_bytes()[:-100])
    save_file(STATE, tmp_path / "w.safetensors")
    cut = (tmp_path / "w.safetensors").read_bytes()[:-4]
    assert "not a readable safetensors file" in refusal(tmp_path / "w.safetensors", cut)
    assert "not a readable safetensors file" in refusal(tmp_path / "w.safetensors", b"\x10")


def test_files_without_tensors_say_what_they_hold(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    assert "holds no state dict" in refusal(tmp_path / "w.pth") and "it holds list" in refusal(tmp_path / "w.pth")
    torch.save({"epoch": 3, "optimizer": {"lr": 1}}, tmp_path / "w.pth")
    assert "it holds epoch, optimizer" in refusal(tmp_path / "w.pth")
