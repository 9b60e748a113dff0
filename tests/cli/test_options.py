"""Options that were renamed, and what is shown of the log."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vireid.cli.app import app
from vireid.cli.options import flag_with_value, renamed_options, show_log
from vireid.cli.search import FORMER_OPTIONS
from vireid.declaration import configured
from vireid.errors import SettingsError
from vireid.search.gallery import Filter
from vireid.search.identities import IdentityOptions
from vireid.server.settings import ServerSettings
from vireid.workflows.options import GroupingOptions
from vireid.workflows.service import forget_rows, token


def command(seen: list) -> typer.Typer:
    made = typer.Typer()

    def verb(
        words: Annotated[list[str] | None, typer.Argument()] = None,
        fps: float = 5.0,
        overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    ) -> None:
        seen.append((words or [], fps, overwrite))

    made.command(cls=renamed_options({"--rate": "--fps", "--again": "--overwrite"}))(verb)
    return made


@pytest.mark.parametrize("rate", [["--rate", "2"], ["--rate=2"]])
def test_a_former_name_works_with_a_warning(rate: list[str]) -> None:
    seen: list = []
    result = CliRunner().invoke(command(seen), [*rate, "--again"])
    assert result.exit_code == 0 and seen == [([], 2.0, True)]
    assert "warning: --rate is now called --fps" in result.stderr and "--again is now called" in result.stderr
    assert result.stdout == ""


def test_new_names_and_operands_are_left_alone() -> None:
    seen: list = []
    result = CliRunner().invoke(command(seen), ["--fps", "2", "--", "--rate"])
    assert result.exit_code == 0 and seen == [(["--rate"], 2.0, False)] and result.stderr == ""


def test_every_former_option_of_index_has_a_successor() -> None:
    text = CliRunner().invoke(app, ["index", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(new in text for new in FORMER_OPTIONS.values())
    assert not any(f"{former} " in text for former in FORMER_OPTIONS)


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("serve", "run", "--gallery", "g"), "--keep-days"),
        (("forget", "--gallery", "g"), "--older-than-days"),
        (("token", "desk", "--role", "search", "--file", "t.json"), "--days"),
    ],
)
def test_a_duration_that_is_not_a_number_of_days_above_0_is_refused(
    words: tuple[str, ...], option: str, days: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, option, days])
    assert result.exit_code == 2 and f"{option}: expected a number of days above 0, got" in result.stderr
    assert not any(tmp_path.iterdir())  # nothing was made before the option was checked


def test_the_same_durations_are_refused_in_python(tmp_path: Path) -> None:
    for days in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="`older_than_days`: expected a number of days above 0 or null"):
            forget_rows("g", Filter(), older_than_days=days, confirm=lambda rows: True)
        with pytest.raises(SettingsError, match="`days`: expected a number of days above 0 or null"):
            token("desk", role="search", file=tmp_path / "t.json", days=days)
        with pytest.raises(SettingsError, match="`retention_days`: expected a number of days above 0 or null"):
            configured(ServerSettings, None, {"retention_days": days})
    assert not any(tmp_path.iterdir())


def test_index_lists_all_refused_options() -> None:
    words = ["index", "run", "pictures", "--gallery", "g", "--rate", "0"]
    result = CliRunner().invoke(app, [*words, "--interval", "inf"])
    assert result.exit_code == 2 and "warning: --rate is now called --fps" in result.stderr
    assert "--fps: expected number > 0, got 0" in result.stderr
    assert "--interval: expected number >= 0, got inf" in result.stderr
    both = CliRunner().invoke(app, [*words[:5], "--boxes", "b", "--detector", "d"])
    assert both.exit_code == 2 and "or from --boxes FILE; give one of them" in both.stderr


def test_the_log_is_printed_plainly_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_log()
    show_log()
    logger = logging.getLogger("vireid.tests")
    logger.warning("%s rows have no time", 3)
    logger.info("indexed %d pictures", 7)
    logger.debug("nothing of interest")
    assert capsys.readouterr().err == "warning: 3 rows have no time\nindexed 7 pictures\n"


def test_a_flag_of_0_1_takes_its_value_with_a_warning(tmp_path: Path) -> None:
    seen: list = []
    made = typer.Typer()

    def verb(run: str, rerank: str | None = None, quiet: bool = False) -> None:
        seen.append((run, rerank, quiet))

    made.command(cls=flag_with_value("--rerank", "k-reciprocal", ("k-reciprocal", "other")))(verb)
    run = str(tmp_path)
    for words in ([run, "--rerank"], ["--rerank", run], [run, "--rerank", "--quiet"]):
        result = CliRunner().invoke(made, words)
        assert result.exit_code == 0 and "--rerank alone means --rerank k-reciprocal" in result.stderr
    result = CliRunner().invoke(made, ["--rerank", "other", run])
    assert result.exit_code == 0 and result.stderr == ""
    expected = [(run, "k-reciprocal", False)] * 2 + [(run, "k-reciprocal", True), (run, "other", False)]
    assert seen == expected
    assert CliRunner().invoke(app, ["evaluate", "--rerank", "k-recipocal", run]).exit_code == 2


def test_help_groups_the_verbs() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "TERM": "xterm"}).stdout
    groups = {
        "Search": ("index", "serve"),
        "Research": ("train", "report"),
        "Models": ("export",),
        "Administration": ("doctor",),
    }
    places = {group: text.index(f"─ {group} ") for group in groups}
    for group, verbs in groups.items():
        end = min((at for at in places.values() if at > places[group]), default=len(text))
        assert all(f"│ {verb} " in text[places[group] : end] for verb in verbs), text
    assert "--install-completion" in text
    assert sorted(places, key=places.__getitem__) == list(groups)


@pytest.mark.parametrize("words", [[], ["index"], ["search"], ["report"], ["compare"], ["evaluate"], ["serve"]])
def test_usage_names_an_argument_once_without_brackets_of_its_own(words: list[str]) -> None:
    usage = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout.split("Usage:")[1].split("\n")[0]
    assert "[[" not in usage and "[]" not in usage and usage.count("...") <= 1 and "former" not in usage, usage


@pytest.mark.parametrize(("verb", "advice"), [("train", "--resume"), ("index", "same command"), ("search", "")])
def test_an_interruption_names_what_continues_that_verb(
    verb: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*args: object, **words: object) -> None:
        raise KeyboardInterrupt

    for function in ("train.train_with", "service.index_pictures", "search.search_pictures"):
        monkeypatch.setattr(f"vireid.workflows.{function}", interrupted)
    needed = {"train": ["agw"]}.get(verb, [str(tmp_path), "--gallery", "g"])
    done = CliRunner().invoke(app, [verb, *needed])
    assert done.exit_code == 130 and done.stderr.startswith("Interrupted."), done.stderr
    assert advice in done.stderr and ("--resume" in done.stderr) == (verb == "train")


def test_identities_of_the_command_line_have_the_measured_prior() -> None:
    assert GroupingOptions().prior == IdentityOptions().prior


def test_completion_knows_methods_and_data_sets_without_torch() -> None:
    code = (
        "import sys\nfrom vireid.cli.app import app\nfrom typer.main import get_command\n"
        "from vireid.cli.options import complete_data, complete_method\n"
        "assert complete_method('caj') == ['cajl', 'cajl_plus'] and complete_data('sy') == ['sysu=']\n"
        "train = get_command(app).commands['train']\n"
        "one = {p.name: p for p in train.params}\n"
        "from typer import Context\n"
        "made = [c.value for c in one['method'].shell_complete(Context(train), 'mpa')]\n"
        "assert made == ['mpanet'], made\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
