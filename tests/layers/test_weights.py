"""Weights: kinds of files and addresses, hashes, errors that say what to do. Nothing is downloaded."""

import hashlib
import io
import sys
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vireid.errors import MissingPackage
from vireid.layers import weights
from vireid.layers.backbones.choice import BackboneName, BackboneSettings, full_name
from vireid.layers.weights import fill, load_state

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(found[k].equal(v) for k, v in STATE.items())


@pytest.mark.parametrize("wrap", [None, "net", "state_dict", "model"])
def test_torch_files(tmp_path: Path, wrap: str | None) -> None:
    path = tmp_path / "some.pth"
    torch.save({wrap: STATE, "epoch": 3} if wrap else STATE, path)
    assert same(load_state(path)) and same(load_state(f"file://{path}"))


def test_safetensors_and_parallel_names(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "some.safetensors")
    assert same(load_state(tmp_path / "some.safetensors"))
    torch.save({"module." + k: v for k, v in STATE.items()}, tmp_path / "parallel.pth")
    assert same(load_state(tmp_path / "parallel.pth"))


def test_missing_file_names_the_alternatives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights at .*none.pth: expected a .pth or .safetensors file.*imagenet"):
        load_state(tmp_path / "none.pth")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a torch file of plain tensors"):
        load_state(broken)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_state(tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_state(tmp_path / "cut.safetensors")


def test_a_pickled_object_is_not_executed(tmp_path: Path) -> None:
    torch.save(Path("x"), tmp_path / "object.pth")
    with pytest.raises(ValueError, match="not a torch file of plain tensors"):
        load_state(tmp_path / "object.pth")


def named_by_hash(folder: Path) -> tuple[Path, bytes]:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    content = buffer.getvalue()
    return folder / f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth", content


def test_hash_in_the_name_is_checked(tmp_path: Path) -> None:
    path, content = named_by_hash(tmp_path)
    path.write_bytes(content)
    assert same(load_state(path))
    wrong = tmp_path / "resnet50-00000000.pth"
    wrong.write_bytes(content)
    with pytest.raises(ValueError, match="should begin with 00000000, it begins with " + path.stem[-8:]):
        load_state(wrong)


class Answer(io.BytesIO):
    """Stands for an HTTP answer."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_download_is_kept_and_used_again(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = named_by_hash(tmp_path)
    asked: list[str] = []

    def answer(address: str, timeout: float) -> Answer:
        asked.append(address)
        return Answer(content)

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setitem(weights.NAMED, "imagenet", f"https://example.org/models/{path.name}")
    assert same(load_state("imagenet")) and same(load_state("imagenet"))
    assert asked == [f"https://example.org/models/{path.name}"]
    assert [p.name for p in hub.iterdir()] == [path.name]


def test_failed_downloads_leave_nothing(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = named_by_hash(tmp_path)
    address = f"https://example.org/{path.name}"
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: Answer(content[:-1]))
    with pytest.raises(ValueError, match="is damaged"):
        load_state(address)

    def offline(address: str, timeout: float) -> Answer:
        raise weights.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(ValueError, match=r"could not download.*no route.*copy the file to"):
        load_state(address)
    assert list(hub.iterdir()) == []


def test_named_weights_carry_their_hash() -> None:
    assert weights.NAMED["imagenet"].endswith("/resnet50-19c8e357.pth")
    assert weights.NAMED["imagenet-vit"].endswith("/jx_vit_base_p16_224-80ecf9dd.pth")


def test_hub_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected hf://org/repo/file, got hf://org/repo"):
        load_state("hf://org/repo")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        load_state("hf://org/repo/file.safetensors")


def test_fill_is_strict_and_reports_what_is_left() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 2)})
    assert fill(module, {**STATE, "b": torch.zeros(1)}) == ["b"]
    assert same(module.state_dict())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(ValueError) as error:
        fill(module, {"a.weight": torch.zeros(3, 2)})
    assert "a.bias (2,) is missing" in str(error.value)
    assert "a.weight should have shape (2, 3), the file has (3, 2)" in str(error.value)
    assert all(v.equal(before[k]) for k, v in module.state_dict().items())


def test_a_file_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_public_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('no code of the package is run')")
    torch.save(STATE, folder / "some.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(weights.NAMED, "some", "package:some_public_model/some.pth")
    assert same(load_state("some"))
    (folder / "some.pth").unlink()
    with pytest.raises(MissingPackage, match=r"package some-public-model: pip install 'vireid\[weights\]'"):
        load_state("some")
    with pytest.raises(MissingPackage, match="come with the package not-there"):
        load_state("package:not_there/some.pth")


def test_every_backbone_has_weights_of_imagenet() -> None:
    for name in typing.get_args(BackboneName):
        assert full_name("imagenet", BackboneSettings(backbone=name)) in weights.NAMED
    assert full_name("imagenet", None) == "imagenet" and full_name("imagenet-vit", BackboneSettings()) == "imagenet-vit"
