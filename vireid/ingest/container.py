"""Containers: which files are opened as videos, and what a file is that cannot be.

Only FFmpeg's readers in FORMATS are used, from files of this machine: a playlist would name other files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vireid.errors import MissingPackage, VideoError

RAW_SUFFIXES = (".h264", ".264", ".avc", ".h265", ".265", ".hevc")  # reported by name, see _raw
SUFFIXES = (
    ".mp4", ".mkv", ".avi", ".mov", ".ts", ".m2ts", ".mts", ".webm", ".m4v", ".mpg", ".mpeg", ".vob", ".flv", ".3gp",
    ".wmv", ".asf", ".dav", *RAW_SUFFIXES,
)  # fmt: skip
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,dhav"  # FFmpeg's names
READ = "MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, FLV, ASF (WMV) and DHAV (.dav)"
RAW = {"h264": "H.264", "hevc": "H.265", "mpegvideo": "MPEG video", "m4v": "MPEG-4 video", "mjpeg": "JPEG pictures"}
CUT = (
    "its index is missing: it is cut off, or still being written. Wait for the end of the recording, or copy it again "
    "from the recorder"
)
LOCAL = {"protocol_whitelist": "file"}


def open_container(path: Path) -> Any:
    """PyAV's container of a file, with at least one stream of pictures; VideoError says what the file is else."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingPackage("videos need the package av: pip install 'vireid[video]'", name="av") from error
    if not path.is_file():
        raise VideoError(f"{path}: there is no such file")
    options = {**LOCAL, "format_whitelist": FORMATS}
    try:  # `file:` so that no name is taken for an address
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeEncodeError) as error:
        raise VideoError(f"{path} cannot be read as a video: {_what_it_is(av, path, error)}") from error
    if container.streams.video:
        return container
    sound = len(container.streams)
    container.close()
    what = "holds no pictures (sound alone?); leave it out" if sound else f"cannot be read as a video: {CUT}"
    raise VideoError(f"{path} {what}")


def reason(error: Exception) -> str:
    """FFmpeg's words."""
    return str(getattr(error, "strerror", None) or error)


def _what_it_is(av: Any, path: Path, error: Exception) -> str:
    if not path.stat().st_size:
        return "the file is empty; is it still being written?"
    if raw := _raw(av, path):
        return (
            f"it holds raw {RAW[raw]} without a container, so its frames have no times. Write it into one with the "
            f"camera's frame rate: ffmpeg -framerate 25 -f {raw} -i {path} -crf 15 NEW.mp4"
        )
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free"):
        return f"{CUT} ({reason(error)})"
    return (
        f"{reason(error)}. The containers that are read are {READ}; if a player shows this file, write it "
        f"into one of them: ffmpeg -i {path} NEW.mp4"
    )


def _raw(av: Any, path: Path) -> str:
    """FFmpeg's name of the raw stream that a file holds, "" where it is none."""
    options = {**LOCAL, "format_whitelist": ",".join(RAW)}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            name = container.format.name
            return name if name in RAW and container.streams.video[0].width else ""
    except (av.error.FFmpegError, UnicodeEncodeError, IndexError):
        return ""
