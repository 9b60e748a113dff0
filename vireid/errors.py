"""Errors that are meant for the user: VireidError and its kinds.

A message says what was expected, what came, what to do, and which file and line. The command line prints the message of
a VireidError and leaves with its `exit_code`; the server answers with its `http_status`. Any other exception is a fault
of vireid: the command line shows its traceback and the server logs it and answers 500.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

USAGE = 2  # exit code of a command that was called wrongly, as of the shell's own commands


class VireidError(Exception):
    """What every error for the user derives from."""

    exit_code: ClassVar[int] = 1
    http_status: int = 422
    public: ClassVar[str] = ""
    """What a client of the service gets in place of a message that names files of the server; that one is logged."""


class ArgumentError(VireidError, ValueError):
    """An argument is out of range, or does not fit the others."""

    exit_code = USAGE


class SettingsError(VireidError, ValueError):
    """One or more settings are wrong; `faults` lists each of them in a sentence."""

    exit_code = USAGE

    def __init__(self, faults: list[str] | tuple[str, ...]) -> None:
        self.faults = list(faults)
        count = "1 setting is" if len(self.faults) == 1 else f"{len(self.faults)} settings are"
        super().__init__("\n".join([f"{count} wrong:", *(f"  - {fault}" for fault in self.faults)]))


class MissingPackage(VireidError, ModuleNotFoundError):
    """A package of an extra is not installed; the message holds the line that installs it."""


class OwnFileError(VireidError):
    """The user's own Python file, a method or a data set, failed; the message begins with that file and line."""


class DiskFull(VireidError, OSError):
    """A file did not fit on the disk; nothing partial was left and the former file is untouched."""

    http_status = 507
    public = "the disk of the server is full or a quota is reached; nothing partial was left"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} could not be written: the disk is full or a quota is reached. Nothing partial was left and the "
            "former file, if any, is untouched; free some space and start the command again."
        )


# --- data and training ------------------------------------------------------------------------------------------------


class DataError(VireidError, ValueError):
    """Files or rows of a data set are not what is expected."""


class RunError(VireidError, ValueError):
    """A run folder is missing, foreign, unfinished or of another training."""


class WeightsError(VireidError, ValueError):
    """A file of weights is missing, damaged, of another network or not of this kind at all."""


class RunsFailed(VireidError, ValueError):
    """Some runs of a comparison failed; the table of the others is written."""


# --- pictures and videos ----------------------------------------------------------------------------------------------


class PictureError(VireidError, ValueError):
    """A picture cannot be read, or is of a kind that training never saw."""


class PictureTooLarge(PictureError):
    """A picture has more bytes or pixels than are read."""

    http_status = 413


class VideoError(PictureError):
    """A video cannot be read, or not to its end."""


class BoxesError(VireidError, ValueError):
    """A file of boxes cannot be read."""


class SourceError(VireidError, ValueError):
    """What was given to index is not a folder, list or video that can be indexed."""


class DetectorError(VireidError, ValueError):
    """A folder holds no detector that can be used."""


class TrackerError(VireidError, ValueError):
    """A tracker is not available."""


class PoseError(VireidError, ValueError):
    """A network needs poses and none are given, or the other way round."""


# --- deployment and search --------------------------------------------------------------------------------------------


class BundleError(VireidError, ValueError):
    """A bundle is missing, damaged or cannot be made."""


class CalibrationError(VireidError, ValueError):
    """A calibration is missing, belongs to another embedder, or its data cannot support what is requested."""


class GalleryError(VireidError, ValueError):
    """A record, filter, vector or gallery is not what is expected."""


class RowMissing(GalleryError):
    """A row that a request names is not in the gallery."""

    http_status = 404


class GalleryDamaged(GalleryError):
    """Files of a gallery are cut off, missing or foreign."""

    http_status = 503
    public = "files of this gallery are damaged, missing or not readable; the server's log has the reason"


class MarksError(VireidError, ValueError):
    """The file of marks is damaged or cannot be written."""

    http_status = 503
    public = "the file of marks cannot be used; the server's log has the reason"


class CasesError(VireidError, ValueError):
    """The file of cases is damaged or cannot be written."""

    http_status = 503
    public = "the file of cases cannot be used; the server's log has the reason"


class BackupError(VireidError, ValueError):
    """A backup is damaged or cannot be put where it was requested."""


class RefinerError(VireidError, ValueError):
    """A refiner does not belong to what is searched with."""


class SearchError(VireidError, ValueError):
    """A search cannot be made as requested."""


class AuditError(VireidError, ValueError):
    """The audit log was changed, or cannot be written."""


class ParallelError(VireidError, ValueError):
    """Ray, a gallery or a number of workers cannot be used in this way."""


# --- the service ------------------------------------------------------------------------------------------------------


class UploadError(VireidError, ValueError):
    """An uploaded picture is refused; `http_status` says why: 413 too large, 415 not a picture that can be read."""

    def __init__(self, message: str, http_status: int = 415) -> None:
        super().__init__(message)
        self.http_status = http_status


class AccessError(VireidError, ValueError):
    """Tokens are missing, damaged or do not allow this."""

    http_status = 503


class ServiceError(VireidError, ValueError):
    """The service cannot be started in this way."""


class RequestError(VireidError):
    """A service refused a request of vireid.Client or did not answer; `http_status` is that of the answer, else 0."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message)
        self.http_status = http_status


class WatchError(VireidError, ValueError):
    """Cameras cannot be watched in this way."""


class AlarmsError(WatchError):
    """The file of alarms is damaged or cannot be written."""

    http_status = 503
    public = "the file of alarms cannot be used; the server's log has the reason"


class DeliveryError(VireidError, ValueError):
    """An event of an alarm was not acknowledged; it is sent again."""
