"""Where weights come from: names, addresses, hashes, licenses; nothing is downloaded from outside this machine."""

import hashlib
import io
import sys
import typing
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from pydantic import ValidationError

from vireid.errors import ArgumentError, MissingPackage, WeightsError
from vireid.layers import public_weights
from vireid.layers.backbones.choice import BackboneName, BackboneSettings, full_name
from vireid.layers.public_weights import ENTRIES, PUBLIC, PublicWeights
from vireid.layers.weights import load_state
from vireid.layers.weights_source import digits_of, fetch, how_to_get, kept

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(state[k].equal(v) for k, v in STATE.items())


def named_by_hash(folder: Path) -> tuple[Path, bytes]:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    content = buffer.getvalue()
    return folder / f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth", content


def entry(monkeypatch: pytest.MonkeyPatch, address: str, **words: typing.Any) -> PublicWeights:
    """Public weights called `some` at an address."""
    texts = dict.fromkeys(("title", "about", "fits", "keys"), "of a test")
    made = PublicWeights(name="some", address=address, license="MIT", **texts, **words)
    monkeypatch.setitem(PUBLIC, "some", made)
    return made


class Served:
    """Stands for the network: answers every address with `content` and keeps what was requested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> None:
        self.content, self.requested = content, list[str]()
        monkeypatch.setattr("urllib.request.urlopen", self.answer)

    def answer(self, address: str, timeout: float) -> io.BytesIO:
        self.requested.append(address)
        if isinstance(self.content, Exception):
            raise self.content
        return io.BytesIO(self.content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_missing_file_names_the_alternatives(tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError, match=r"no weights at .*none.pth: expected a .pth or .safetensors file.*imagenet"
    ):
        load_state(tmp_path / "none.pth")


def test_hash_in_the_name_is_checked(tmp_path: Path) -> None:
    path, content = named_by_hash(tmp_path)
    path.write_bytes(content)
    assert same(load_state(path))
    wrong = tmp_path / "resnet50-00000000.pth"
    wrong.write_bytes(content)
    with pytest.raises(WeightsError, match="should begin with 00000000, it begins with " + path.stem[-8:]):
        load_state(wrong)


def test_an_address_is_downloaded_once(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = named_by_hash(tmp_path)
    address = f"https://example.org/models/{path.name}"
    served = Served(monkeypatch, content)
    assert same(load_state(address)) and same(load_state(address))
    assert served.requested == [address] and [p.name for p in hub.iterdir()] == [path.name]


def test_failed_downloads_leave_nothing(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = named_by_hash(tmp_path)
    address = f"https://example.org/{path.name}"
    for answer, words in (
        (content[:-1], "is damaged"),
        (b"<html>please sign in</html>", "answered with a web page"),
        (URLError("no route"), r"could not download.*no route.*copy the file to"),
    ):
        Served(monkeypatch, answer)
        with pytest.raises(WeightsError, match=words):
            load_state(address)
        assert list(hub.iterdir()) == []


def test_a_name_is_downloaded_after_its_license_was_accepted(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = named_by_hash(tmp_path)
    served = Served(monkeypatch, content)
    some = entry(monkeypatch, "https://example.org/w.pth", sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(WeightsError, match=r"some is not on this machine; `vireid weights get some` shows its license"):
        load_state("some")
    with pytest.raises(ArgumentError, match=r"under this license: MIT.*accept_license=True"):
        fetch(some)
    assert not served.requested and kept(some) is None
    assert fetch(some, accept_license=True) == hub / "w.pth" == kept(some)
    assert same(load_state("some")) and fetch(some) == hub / "w.pth" and len(served.requested) == 1
    (hub / "w.pth").write_bytes(content + b"more")
    with pytest.raises(WeightsError, match="is damaged or another file"):
        load_state("some")


def test_a_download_with_another_hash_than_the_entry_is_not_kept(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Served(monkeypatch, named_by_hash(tmp_path)[1])
    with pytest.raises(WeightsError, match="should begin with 0000"):
        fetch(entry(monkeypatch, "https://example.org/w.pth", sha256="0000"), accept_license=True)
    assert list(hub.iterdir()) == []


def test_a_page_for_a_browser_is_never_requested(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(monkeypatch, b"")
    some = entry(monkeypatch, "https://drive.google.com/file/d/x", by_hand=True)
    for call in (lambda: load_state("some"), lambda: fetch(some, accept_license=True)):
        with pytest.raises(WeightsError, match="a page for a browser: download the file there, then give its path"):
            call()
    assert not served.requested


def test_hub_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected hf://org/repo/file, got hf://org/repo"):
        load_state("hf://org/repo")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackage, match=r"pip install 'vireid\[hub\]'"):
        load_state("hf://org/repo/file.safetensors")


def test_a_file_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_public_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('no code of the package is run')")
    torch.save(STATE, folder / "some.pth")
    monkeypatch.syspath_prepend(tmp_path)
    some = entry(monkeypatch, "package:some_public_model/some.pth")
    assert same(load_state("some")) and fetch(some) == folder / "some.pth"
    (folder / "some.pth").unlink()
    with pytest.raises(MissingPackage, match=r"package some-public-model: pip install 'vireid\[weights\]'"):
        load_state("some")
    with pytest.raises(MissingPackage, match="come with the package not-there"):
        load_state("package:not_there/some.pth")


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_backbone_has_weights_of_imagenet() -> None:
    for name in typing.get_args(BackboneName):
        assert full_name("imagenet", BackboneSettings(backbone=name)) in PUBLIC
    assert full_name("imagenet", None) == "imagenet" and full_name("imagenet-vit", BackboneSettings()) == "imagenet-vit"


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.name)
def test_entries_are_whole(one: PublicWeights) -> None:
    shown = dict(one.rows())
    assert all(shown.values()) and shown["license"] == one.license
    assert ("address not verified" in shown["address"]) != one.verified
    assert digits_of(one.file_name) in one.sha256  # digits in the name of a file are those of its sha256
    assert one.address.startswith(("https://", "hf://", "package:")) and (
        "drive.google" not in one.address or one.by_hand
    )
    assert how_to_get(one)
    if one.verified:
        assert one.size_bytes and len(one.sha256) == 64


def test_the_list_has_no_name_twice_and_knows_close_names() -> None:
    assert len(PUBLIC) == len(ENTRIES)
    with pytest.raises(ArgumentError, match=r"no public weights are called 'imagnet'; did you mean imagenet"):
        public_weights.find("imagnet")
    assert public_weights.find("agw-sysu").by_hand


def test_other_pixel_statistics_are_shown() -> None:
    assert "0.3525" in dict(PUBLIC["lup-r50"].rows())["pixels"]
    assert "take ImageNet's" in dict(PUBLIC["imagenet-vit"].rows())["pixels"]
    assert "take ImageNet's" not in dict(PUBLIC["imagenet"].rows())["pixels"]


def test_a_wrong_hash_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        entry(monkeypatch, "https://example.org/w.pth", sha256="not hexadecimal")
