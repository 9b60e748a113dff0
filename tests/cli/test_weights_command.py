"""`vireid weights` on the command line: the list, the license before a download, the check of a file."""

from pathlib import Path

import pytest
import torch
from command_line import call, error_of
from released import write_released

from vireid.cli import weights
from vireid.layers import weights_source
from vireid.layers.public_weights import ENTRIES


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of checkpoints; any request to the network fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was started")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "hub" / "checkpoints"


class Terminal:
    """Stands for standard input of a terminal, on which a question is answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
        self.questions = list[str]()
        monkeypatch.setattr(weights, "sys", self)
        monkeypatch.setattr(weights.typer, "confirm", self.confirm)
        self.answer, self.stdin = answer, self

    def isatty(self) -> bool:
        return True

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answer


def test_list_and_show() -> None:
    result = call("weights", "list")
    assert result.exit_code == 0 and all(entry.name in result.stdout for entry in ENTRIES)
    result = call("weights", "show", "imagenet")
    for words in ("license", "BSD-3-Clause", "sha256", "begins with 19c8e357", "address not verified", "mean 0.485"):
        assert words in result.stdout
    assert "did you mean agw-sysu" in error_of(call("weights", "show", "agw-sysy"), 2)


def test_without_a_terminal_the_license_is_accepted_by_an_option(hub: Path) -> None:
    result = call("weights", "get", "imagenet")
    assert "BSD-3-Clause" in result.stdout  # it is shown first
    assert "give --accept-license" in error_of(result, 2)


def test_the_question_shows_the_license(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, answer=False)
    assert "nothing of imagenet was downloaded" in error_of(call("weights", "get", "imagenet"), 2)
    assert len(terminal.questions) == 1 and "BSD-3-Clause" in terminal.questions[0]


@pytest.mark.parametrize("way", ["option", "answer"])
def test_an_accepted_license_downloads(way: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(address: str, sha256: str = "") -> Path:
        hub.mkdir(parents=True)
        (hub / "w.pth").write_bytes(address.encode())
        return hub / "w.pth"

    monkeypatch.setattr(weights_source, "download", download)
    monkeypatch.setattr(weights_source, "check_hash", lambda *_: None)
    if way == "answer":
        Terminal(monkeypatch, answer=True)
    result = call("weights", "get", "imagenet", *(["--accept-license"] if way == "option" else []))
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].endswith(str(hub / "w.pth"))


def test_a_file_that_is_here_needs_no_license_again(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.mkdir(parents=True)
    (hub / "resnet50-19c8e357.pth").touch()
    assert "is damaged or another file" in error_of(call("weights", "get", "imagenet"), 1)
    monkeypatch.setattr(weights_source, "check_hash", lambda *_: None)
    assert call("weights", "get", "imagenet").exit_code == 0


def test_a_page_for_a_browser(hub: Path) -> None:
    result = call("weights", "get", "agw-sysu")
    assert "SYSU-MM01" in result.stdout and "download the file there" in error_of(result, 1)


def test_check_says_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"<!DOCTYPE html><html><body>sign in</body></html>")
    assert "a web page" in error_of(call("weights", "check", tmp_path / "w.pth"), 1)
    write_released(tmp_path / "best.t", "module.")
    result = call("weights", "check", tmp_path / "best.t", "agw", "width=4")
    assert result.exit_code == 0 and "fits      agw: the whole network" in result.stdout
    result = call("weights", "check", tmp_path / "best.t", "agw")
    assert result.exit_code == 1 and "should have shape" in result.stdout
