"""Settings of `vireid watch`: which cameras are read and which people in them become rows. Imports no torch.

    detector: nanodet                   # the default; or a folder with weights, or a name of the Hub
    defaults: {fps: 5}                  # of every camera
    cameras:
      gate: {address: "rtsp://${CAMERA_USER}:${CAMERA_PASSWORD}@10.0.0.11/stream1", modality: visible}
      hall: {address: http://10.0.0.12/video.mjpg}
      desk: {address: /dev/video0}
      dock: {address: recordings/dock.ts}        # a file that grows
      ramp: {address: incoming/ramp, whole: true}  # a folder that pictures come into

${NAME} stands for an environment variable, so that no password lies in the file. Paths are relative to the file.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, ValidationError

from vireid.declaration import Count, NonNegative, Positive, Share, faults_of, settings
from vireid.errors import SettingsError
from vireid.ingest.video_settings import DETECTOR, PERSON, TrackerName
from vireid.training.key_values import Given, Located, read_yaml
from vireid.types import ModalityOrAuto

T = TypeVar("T")
Kind = Literal["rtsp", "http", "device", "folder", "file"]
SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
VIDEO_SUFFIX = re.compile(r"\.\w{2,4}$")
VARIABLE = re.compile(r"\$\{(\w+)\}")
DEVICES = "/dev/"


def whole_address(text: str) -> str:
    """An address that can be taken apart; ValueError for one like `rtsp://[::1` or `rtsp://gate:x`."""
    try:
        _ = urlsplit(text).port
    except ValueError as error:
        raise ValueError(f"{error}; expected an address such as rtsp://10.0.0.11:554/stream1") from None
    return text


Address = Annotated[str, AfterValidator(whole_address)]


@settings
class Camera:
    """One camera: where its frames come from, and which people in them become rows."""

    address: Address
    """rtsp://, rtsps://, http:// or https://, a device (/dev/video0), a video file that grows, or a folder."""
    modality: ModalityOrAuto = "auto"
    """What the camera sees; auto decides from each picture."""
    clock: Literal["stream", "machine"] = "stream"
    """Whose time is taken: the stream's where it has one (RTCP), or that of this machine."""
    start: str = ""
    """File: its first moment, 2026-11-24T21:04:11+01:00; by default from its name, or what the file says."""
    boxes: Path | None = None
    """File: people's boxes, a CSV or MOT file, in place of a detector."""
    whole: bool = False
    """Every picture shows one person and becomes a row as it is: a camera with a detector of its own."""
    tracker: TrackerName = "bytetrack"
    """The tracker that joins detected boxes of one person."""
    fps: Positive = 5.0
    """Frames per second that the detector sees."""
    min_height: NonNegative = 40.0
    """Minimum height of a box in pixels."""
    margin: NonNegative = 0.05
    """Part of a box's width and height that is added on each side."""
    interval_s: NonNegative = 1.0
    """Seconds between two rows of a track; without a tracker, between two frames."""
    double_after: Count = 8
    """Rows of a track after which the interval doubles, again and again, while the person stays."""
    stall_s: Positive = 10.0
    """Seconds without a frame after which a stream counts as cut."""
    max_queue: Count = 16
    """Frames that wait for the detector; of a stream the oldest are dropped and counted, a file waits."""

    @property
    def kind(self) -> Kind:
        """What stands at the address."""
        scheme = urlsplit(self.address).scheme.lower()
        if scheme in SCHEMES:
            return SCHEMES[scheme]
        if self.address.startswith(DEVICES):
            return "device"
        path = Path(self.address)
        return "folder" if path.is_dir() or not (path.is_file() or VIDEO_SUFFIX.search(path.name)) else "file"

    @property
    def waits(self) -> bool:
        """Whether frames can be read later, so that none has to be dropped."""
        return self.kind in ("folder", "file")

    @property
    def shown(self) -> str:
        """The address without user and password."""
        return without_password(self.address)


@settings
class WatchSettings:
    """All cameras, and the detector that they share."""

    cameras: Mapping[str, Any]
    """Cameras by name, each with the fields of a camera; the name becomes that of the rows."""
    defaults: Mapping[str, Any] | None = None
    """Fields that all cameras have, unless they say otherwise."""
    detector: str | None = None
    """What finds people: nanodet (default), a folder with weights of RT-DETRv2 or D-FINE, or a Hub name."""
    min_score: Share | None = None
    """Lowest score of a detected box, 0 to 1; by default 0.6 for nanodet and 0.3 for others."""
    label: str = PERSON
    """The detector's name for people."""


@dataclasses.dataclass(frozen=True)
class Cameras:
    """What a file of cameras holds."""

    by_name: dict[str, Camera]
    detector: str
    min_score: float | None
    label: str
    folder: Path
    """That of the file, at which a relative path of a detector begins."""


def read_cameras(path: Path) -> Cameras:
    """The cameras of a YAML file; SettingsError names every fault with its line."""
    faults: list[str] = []
    watch = checked(WatchSettings, read_yaml(path, Located), "", path, faults)
    if watch is None:
        raise SettingsError(faults)
    cameras: dict[str, Camera] = {}
    for name, given in watch.cameras.items():
        words = {**(watch.defaults or {}), **given} if isinstance(given, dict) else given
        if not name.strip() or "/" in name:
            faults.append(f"{path}: `cameras.{name}`: the name of a camera is not empty and has no /")
        elif camera := checked(Camera, words, f"cameras.{name}", path, faults):
            cameras[name] = _placed(camera, path.parent)
            faults += _conflicts(f"{path}: `cameras.{name}", cameras[name])
    if not watch.cameras:
        faults.append(f"{path}: `cameras` is empty; give at least one, e.g. gate: {{address: rtsp://10.0.0.11/1}}")
    if faults:
        raise SettingsError(faults)
    return Cameras(cameras, watch.detector or DETECTOR, watch.min_score, watch.label, path.parent)


def checked(kind: type[T], given: Any, name: str, path: Path, faults: list[str]) -> T | None:
    """An object of a settings class from located YAML; None where there are faults, which are added with their line."""
    if not isinstance(given, dict):
        where = given.where if isinstance(given, Given) else f"{path}: "
        faults.append(f"{where}`{name}` holds the fields of a {kind.__name__.lower()}, got {given}")
        return None
    places = {key: value.where if isinstance(value, Given) else f"{path}: " for key, value in given.items()}
    before = len(faults)
    words = {key: _plain(value, faults) for key, value in given.items()}
    try:
        return kind(**words) if len(faults) == before else None
    except ValidationError as error:
        prefix = f"{name}." if name else ""
        known = "known are " + ", ".join(one.name for one in dataclasses.fields(cast(Any, kind)))
        for field, fault in faults_of(error, kind, words, prefix).items():
            faults.append(
                places.get(field, f"{path}: ") + fault.replace("`vireid methods NAME` lists every setting", known)
            )
        return None


def without_password(address: str) -> str:
    """An address as it may be shown.

    >>> without_password("rtsp://desk:secret@10.0.0.11:554/stream1"), without_password("a/b.ts")
    ('rtsp://10.0.0.11:554/stream1', 'a/b.ts')
    """
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _plain(value: Any, faults: list[str]) -> Any:
    """A value without its place, and with environment variables in place of ${NAME}."""
    if not isinstance(value, Given):
        return value  # names and values, which are checked by themselves
    if not isinstance(value.value, str):
        return value.value
    for name in VARIABLE.findall(value.value):
        if name not in os.environ:
            faults.append(f"{value.where}${{{name}}}: there is no environment variable of this name; set it")
    return VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value.value)


def _placed(camera: Camera, folder: Path) -> Camera:
    """A camera whose relative paths begin at this folder; absolute, for rows keep them, and others look there."""
    boxes = None if camera.boxes is None else folder / camera.boxes
    address = os.path.abspath(folder / camera.address) if camera.kind in ("folder", "file") else camera.address
    return dataclasses.replace(camera, address=address, boxes=boxes)


def _conflicts(where: str, camera: Camera) -> list[str]:
    faults = []
    if sum((camera.boxes is not None, camera.whole)) > 1:
        faults.append(f"{where}`: `boxes` and `whole` exclude each other; keep one")
    if camera.boxes is not None and camera.kind != "file":
        faults.append(f"{where}.boxes`: boxes from a file belong to a video file, and {camera.shown} is none")
    return faults
