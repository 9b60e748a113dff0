"""cameras.yaml and the watch-list: what they say, and what is wrong with them by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vireid.errors import SettingsError
from vireid.live.settings import Camera, read_cameras
from vireid.live.watchlist import read_watchlist


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_cameras_have_defaults_variables_and_paths_of_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
    (tmp_path / "in/ramp").mkdir(parents=True)
    cameras = read_cameras(written(tmp_path / "cameras.yaml", """
detector: detector
min_score: 0.5
defaults: {fps: 2, modality: infrared}
cameras:
  gate: {address: "rtsp://desk:${CAMERA_PASSWORD}@10.0.0.11/1", modality: visible}
  hall: {address: "http://10.0.0.12/video.mjpg", clock: machine}
  desk: {address: /dev/video0}
  dock: {address: in/dock.ts, boxes: dock.csv}
  ramp: {address: in/ramp, whole: true}
"""))  # fmt: skip
    assert (cameras.detector, cameras.folder, cameras.min_score, cameras.label) == ("detector", tmp_path, 0.5, "person")
    by_name = cameras.by_name
    assert [one.kind for one in by_name.values()] == ["rtsp", "http", "device", "file", "folder"]
    assert [one.waits for one in by_name.values()] == [False, False, False, True, True]
    gate = by_name["gate"]
    assert (gate.fps, gate.modality, by_name["hall"].modality) == (2.0, "visible", "infrared")
    assert gate.address == "rtsp://desk:s3cret@10.0.0.11/1" and gate.shown == "rtsp://10.0.0.11/1"
    assert by_name["dock"].address == str(tmp_path / "in/dock.ts") and by_name["dock"].boxes == tmp_path / "dock.csv"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("cameras: {}", ["`cameras` is empty"]),
        ("detector: d", ["`cameras` has no default: give cameras=(names and values)"]),
        ("- a", ["holds a list, expected names and values"]),
        ("cameras:\n  a: {address: x.ts, colour: 1}", ["`cameras.a.colour` is unknown; known are address, "]),
        (
            "detector: d\ncameras:\n  a: {adress: x}",
            ["`cameras.a.address` has no default", "line 3: `cameras.a.adress` is unknown; did you mean"],
        ),
        (
            "detector: d\ncameras:\n  a:\n    address: x.ts\n    fps: 0\n    clock: sun",
            ["line 6: `cameras.a.clock`: expected stream or", "line 5: `cameras.a.fps`: expected number > 0, got 0"],
        ),
        ("cameras:\n  a: {address: rtsp://x/1, boxes: b.csv}", ["`cameras.a.boxes`: boxes from a file belong to a"]),
        ("cameras:\n  a/b: {address: x.ts, whole: true}", ["`cameras.a/b`: the name of a camera"]),
        ("cameras:\n  a: rtsp://x/1", ["line 2: `cameras.a` holds the fields of a camera, got rtsp://x/1"]),
        ("cameras:\n  a: {address: '${NO_SUCH_NAME}', whole: true}", ["line 2: ${NO_SUCH_NAME}: there is no"]),
    ],
)
def test_faults_of_cameras_are_named_with_their_line(tmp_path: Path, text: str, faults: list[str]) -> None:
    path = written(tmp_path / "cameras.yaml", text)
    with pytest.raises(SettingsError) as error:
        read_cameras(path)
    assert len(error.value.faults) == len(faults)
    for fault, expected in zip(error.value.faults, faults, strict=True):
        assert expected in fault and fault.startswith(str(path))


def test_address_is_shown_without_password() -> None:
    assert Camera(address="https://a:b@c:8080/d?e=f").shown == "https://c:8080/d?e=f"


PERSON = "purpose: missing, until: 2026-12-01, false_alarms_per_day: 1"


def test_watchlist_is_read_with_its_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALARM_SECRET", "0123456789abcdef")
    listed = read_watchlist(written(tmp_path / "list.yaml", f"""
persons:
  anna: {{{PERSON}, pictures: [a.jpg], rows: [gate/1], cameras: [hall]}}
rows_per_day: 500
webhook: {{url: "https://desk.example/alarms", secret: "${{ALARM_SECRET}}"}}
mqtt: {{host: broker}}
"""))  # fmt: skip
    anna = listed.persons["anna"]
    assert (anna.pictures, anna.rows, anna.cameras) == ((tmp_path / "a.jpg",), ("gate/1",), ("hall",))
    assert listed.webhook and listed.mqtt and (listed.webhook.secret, listed.mqtt.port) == ("0123456789abcdef", 1883)
    assert (listed.rows_per_day, listed.quiet_s) == (500, 60.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("persons: {}", "`persons` is empty"),
        (f"persons:\n  a: {{{PERSON}}}", "`persons.a`: give `pictures`, or `rows`"),
        ("persons:\n  a: {until: 2026-12-01, false_alarms_per_day: 1, rows: [r]}", "`persons.a.purpose` has no"),
        (f"persons:\n  a: {{{PERSON.replace('2026-12-01', 'soon')}, rows: [r]}}", "until: time is like"),
        (f"persons:\n  a: {{{PERSON.replace(': 1', ': 0')}, rows: [r]}}", "line 2: `persons.a.false_alarms_per_day`"),
        (f"persons:\n  a: {{{PERSON}, rows: [r]}}\nwebhook: {{url: ftp://x, secret: 0123456789abcdef}}", "begins with"),
        (f"persons:\n  a: {{{PERSON}, rows: [r]}}\nwebhook: {{url: http://x, secret: short}}", "`webhook.secret`"),
    ],
)  # fmt: skip
def test_faults_of_a_watchlist_are_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_watchlist(written(tmp_path / "list.yaml", text))
    assert len(error.value.faults) == 1 and fault in error.value.faults[0]
