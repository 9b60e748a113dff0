"""Options of the workflows: declared once, for Python and for the command line. Imports no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from vireid.declaration import Count, Days, Index, Integer, NonNegative, Number, Positive, Range, Share, settings
from vireid.ingest.video_settings import Rows, VideoSettings
from vireid.training.options import LoopOptions
from vireid.types import Backend, Language, Modality, ModalityOrAuto, Role, Similarity

if TYPE_CHECKING:
    from vireid.images import GrayRule

FigureName = Literal[
    "cmc", "histograms", "projection", "cameras", "error-rates", "attention", "training", "samples"
]  # in the order of a report
FigureFormat = Literal["png", "svg", "pdf"]
Port = Annotated[Integer, Field(ge=0, le=65535)]


@settings
class TrainOptions(LoopOptions):
    """How a training is run; what it learns is in the settings of its method."""

    trial: Index | None = None
    """Split of the identities, where the data set has several (RegDB: 0 to 9)."""
    weights: str | None = None
    """Initial weights: imagenet (of the backbone), a name, a file, an address, a run folder or a model."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    config: Path | None = None
    """Settings as a YAML file; key=value words win."""
    select: Literal["last", "heldout", "test"] = "last"
    """Which epoch is reported: last, or best on heldout or test."""
    holdout: Index = 0
    """Number of people held out, with --select heldout."""


@settings
class AdaptOptions:
    """How a model is fine-tuned on unlabeled crops."""

    modality: ModalityOrAuto = "auto"
    """Modality of crops whose list has none."""
    share: Share = 0.5
    """Share of the pairs that is trained on: the most similar ones."""
    epochs: Count = 6
    """Epochs of training."""
    mix: Share = 0.5
    """Share of the trained weights in the result; the rest are those of the model."""
    seed: Index = 0
    """Seed of all random draws."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    batch_size: Count = 64
    """Crops per forward pass."""
    progress: bool = True
    """Show progress bars."""


@settings
class RunOptions:
    """Which pictures a run is used on, and how they are embedded."""

    data: Any = None  # str, Path or Table; a Table would import numpy here
    """NAME=PATH with NAME of a data set or ./your_file.py, or a bare PATH; by default what the run was trained on."""
    trial: Index | None = None
    """Split of the identities, where the data set has several (RegDB: 0 to 9)."""
    cross: bool = False
    """Allow a data set that the run was not trained on; stamped on the figures."""
    flip: bool = False
    """Average with the mirrored image; stamped on the figures."""
    batch_size: Count = 64
    """Images per forward pass."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    method: str | Path | type | None = None
    """Python file of your own method, where the run records none; its code is executed."""
    progress: bool = True
    """Show progress bars."""


@settings
class EmbedOptions(RunOptions):
    """Which pictures are embedded, and how."""

    split: str = "test"
    """test (with query and gallery), train or val."""
    layer: str = "all"
    """all, deployed, or a layer by name (neck, pooled, ...)."""
    backend: Backend = "auto"
    """What computes the vectors; auto takes the fastest runtime for the deployed layer, and torch for others."""

    @property
    def named_layer(self) -> str | None:
        """`layer`, None for the deployed one."""
        return None if self.layer == "deployed" else self.layer


@settings
class EvaluateOptions(RunOptions):
    """Under which protocols and conditions a run is evaluated; what differs from the defaults stands in the stamp."""

    protocols: tuple[str, ...] = ()
    """Protocol by name, repeatable; by default all that the data can serve."""
    draw: str | None = None
    """SYSU-MM01: whose draw of the gallery, official or agw."""
    layer: str | None = None
    """Layer of the embedder (neck, pooled, ...) or all; by default the deployed one."""
    refine: str | Path | None = None
    """A run of a refining method (nformer), which changes the embeddings of every trial; stamped on the figures."""
    strict: bool = False
    """With --refine: images that a query ignores are not its neighbors either."""
    rerank: Literal["k-reciprocal", "local-shortest-path"] | None = None
    """Re-rank the similarities; stamped on the figures."""
    k1: Count = 20
    """k-reciprocal: neighbors."""
    k2: Count = 6
    """k-reciprocal: neighbors that a vector is averaged over."""
    similarity: Similarity | None = None
    """Similarity by which vectors are compared; by default that of the run's recipe."""
    center: bool = False
    """Take the mean of each modality of the tested images out of their vectors first; stamped on the figures."""
    ignore: tuple[str, ...] = ()
    """Manifest: column whose equal value is ignored, repeatable."""
    open_set: bool = False
    """Also open-set rank 1, at false-alarm rates of 1 % and 10 % (open_set.json)."""
    hog: bool = False
    """Add HOG to the table: a descriptor without training, which a network must beat."""
    pictures: Index = 8
    """Queries in a picture of ranked lists; 0 draws none."""
    queries: tuple[str, ...] = ()
    """Also draw ranked lists of this query: its path within the data; repeatable."""
    worst: bool = False
    """Also draw ranked lists of the queries with the lowest average precision."""
    best: bool = False
    """Also draw ranked lists of the queries with the highest average precision."""
    random: bool = False
    """Also draw ranked lists of randomly chosen queries."""
    lang: Language = "en"
    """Language of the pictures."""


@settings
class FigureOptions(RunOptions):
    """Which figures are drawn of a run, of which pictures, and how they are saved."""

    only: tuple[FigureName, ...] = ()
    """Draw only these, repeatable: cmc, histograms, projection, cameras, error-rates, attention, training, samples."""
    formats: tuple[FigureFormat, ...] = ("png",)
    """File format, repeatable: png, svg, pdf."""
    projection: Literal["tsne", "umap"] = "tsne"
    """How embeddings are laid out in the plane; umap needs umap-learn."""
    lang: Language = "en"
    """Language of the labels."""


@settings
class CompareOptions:
    """How the runs of a comparison are made."""

    rows: Path | None = None
    """Folder of finished rows: what it holds is not trained again, and new rows are added."""
    jobs: Count = 1
    """Trainings that run at the same time and share the cores."""
    trial: Index | None = None
    """Split of the identities, where the data set has several (RegDB: 0 to 9)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@settings
class TransferOptions:
    """Under which protocols runs are tested on the data of others, and on what device."""

    protocols: tuple[str, ...] = ()
    """Protocol by name, repeatable; by default the main one of each data set."""
    trial: Index | None = None
    """Split of the identities, where the data set has several (RegDB: 0 to 9); by default that of the run."""
    batch_size: Count = 64
    """Images per forward pass."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    progress: bool = True
    """Show progress bars."""


@settings
class IndexOptions(VideoSettings):
    """What is indexed, from where its time and modality come, and what computes the vectors."""

    files: Path | None = None
    """Thumbnails, marks, audit log; PATH.files by default."""
    modality: ModalityOrAuto = "auto"
    """Modality of pictures whose list has none."""
    file_time: bool = False
    """Take the time of a file as the time of its picture."""
    overwrite: bool = False
    """Replace rows that are in the gallery."""
    thermal_range: Range | None = None
    """Gray values LOW (black) and HIGH (white) for pictures of more than 8 bits; default: percentiles."""
    start: str = ""
    """Start time of a video, 2026-11-24T21:04:11+01:00."""
    rows: Rows = "crops"
    """Videos: a row for each crop, or for each track."""
    backend: Backend = "auto"
    """What computes the vectors."""
    batch_size: Count = 64
    """Images per forward pass."""
    pose: str | None = None
    """For a network that takes heat maps (SPOT): vitpose:FOLDER, rtmpose:FILE.onnx, template, zeros."""
    method: str | None = None
    """Python file of your own method, where the run records none; its code is executed."""
    workers: Count | None = None
    """Processes that share the work, by Ray."""
    ray: str | None = None
    """A cluster of Ray: auto, or HOST:PORT."""

    @property
    def gray(self) -> GrayRule | None:
        """The fixed range as a rule; None where none is given."""
        from vireid.images import GrayRule  # which imports numpy

        return None if self.thermal_range is None else GrayRule(*self.thermal_range)

    @property
    def videos(self) -> VideoSettings:
        """The settings of videos."""
        return VideoSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(VideoSettings)})


@settings
class WatchOptions:
    """Who is looked for in live cameras, how long, and what computes the vectors."""

    files: Path | None = None
    """Thumbnails, alarms, audit log; PATH.files by default."""
    watchlist: Path | None = None
    """YAML file of the people who raise an alarm."""
    seconds: Positive | None = None
    """Stop after this time."""
    status_s: Positive = 10.0
    """Seconds between two status lines."""
    backend: Backend = "auto"
    """What computes the vectors."""
    batch_size: Count = 64
    """Images per forward pass."""
    device: str = "auto"
    """Device of the network and the detector: auto, cpu, cuda or cuda:N."""
    pose: str | None = None
    """For a network that takes heat maps (SPOT): vitpose:FOLDER, rtmpose:FILE.onnx, template, zeros."""
    method: str | None = None
    """Python file of your own method, where the run records none; its code is executed."""


@settings
class QueryOptions:
    """Which hits of one search are wanted, and what computes the vectors."""

    k: Count = 10
    """Number of hits."""
    modality: ModalityOrAuto = "auto"
    """Modality of the pictures; auto decides from each picture."""
    only: Modality | None = None
    """Search pictures of this modality only."""
    cameras: tuple[str, ...] = ()
    """Search this camera only, repeatable."""
    false_match_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Report matches at this rate of false matches per comparison, for example 0.001."""
    prior: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Probability that a crop shows the person before it is compared; by default one of all tracks searched."""
    per_track: bool = False
    """Only the most similar hit of each track."""
    rerank: Literal["k-reciprocal", "center"] | None = None
    """Re-rank the best hits: by common neighbors, or by vectors less the mean of their modality."""
    visits: bool = False
    """Report when the person passed which camera: all matching tracks, grouped into visits."""
    gap_s: Positive = 1800.0
    """Visits: seconds without a passage after which a new visit begins."""
    join_s: NonNegative = 10.0
    """Visits: two tracks of one camera at most this many seconds apart are one passage."""
    files: Path | None = None
    """Thumbnails and audit log; PATH.files by default."""
    pose: str | None = None
    """For a network that takes heat maps (SPOT): vitpose:FOLDER, rtmpose:FILE.onnx, template, zeros."""
    thermal_range: Range | None = None
    """Gray values LOW (black) and HIGH (white) of query pictures of more than 8 bits; default: those of the gallery."""
    backend: Backend = "auto"
    """What computes the vectors."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    method: str | None = None
    """Python file of your own method, where the run records none; its code is executed."""


@settings
class GroupingOptions:
    """Which tracks are grouped by person, and how readily."""

    cameras: tuple[str, ...] = ()
    """Tracks of this camera only, repeatable."""
    after: str = ""
    """Rows from this time on, 2026-11-24T21:04:11+01:00."""
    before: str = ""
    """Rows before this time."""
    prior: Annotated[Number, Field(gt=0, lt=1)] = 0.2  # PRIOR of search/identities.py, which imports scipy
    """Probability that two tracks show one person before they are compared; lower gives smaller groups."""
    score: bool = False
    """Also ID-F1 and HOTA against the column `pid` of the rows."""
    files: Path | None = None
    """Thumbnails and audit log; PATH.files by default."""


@settings
class ServeOptions:
    """Who may reach the search service, how long rows are kept, and what computes the vectors."""

    files: Path | None = None
    """Thumbnails, marks, audit log; PATH.files by default."""
    host: str = "127.0.0.1"
    """Address to listen on; any address other than this machine's own needs --tokens."""
    port: Port = 8000
    """Port to listen on; 0 takes a free one."""
    names: tuple[str, ...] = ()
    """Host name that the service answers to, repeatable."""
    tokens: Path | None = None
    """File of the tokens that allow access; see `vireid token`."""
    keep_days: Days | None = None
    """Delete rows and marks older than this, every hour."""
    purpose: bool = False
    """Require a purpose for every search."""
    certificate: Path | None = None
    """TLS certificate (PEM)."""
    key: Path | None = None
    """Key of the certificate (PEM)."""
    behind_tls: bool = False
    """Browsers reach the service through a proxy with https."""
    proxies: tuple[str, ...] = ()
    """Address of a trusted proxy, whose X-Forwarded-For names the client; repeatable."""
    access_log: Path | None = None
    """Append a line of JSON for each request, without pictures and queries; - is standard output."""
    detector: str | Path | None = None
    """Find the people in uploaded pictures: nanodet (default), a folder or a Hub name as for index; or none."""
    refine: Path | None = None
    """Offer re-ranking by this NFormer run, trained on the same base run."""
    pose: str | None = None
    """For a network that takes heat maps (SPOT): vitpose:FOLDER, rtmpose:FILE.onnx, template, zeros."""
    backend: Backend = "auto"
    """What computes the vectors."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    method: str | None = None
    """Python file of your own method, where the run records none; its code is executed."""


@settings
class ForgetOptions:
    """Where the files of an archive lie, and which of its rows are too old to be kept."""

    files: Path | None = None
    """Thumbnails, marks, audit log; PATH.files by default."""
    older_than_days: Days | None = None
    """Delete rows and marks that are older than this."""


@settings
class TokenOptions:
    """What a token allows, for how long, and where its digest is kept."""

    role: Role | None = None
    """search, ingest (add only), monitor (metrics only) or admin."""
    file: Path = Path("tokens.json")
    """File of tokens, which holds their digests."""
    days: Days | None = None
    """Days until it expires; by default it does not."""
    galleries: tuple[str, ...] = ()
    """Gallery of the service that it may use, by name, repeatable; by default all."""
    revoke: bool = False
    """Revoke the token of this name."""
