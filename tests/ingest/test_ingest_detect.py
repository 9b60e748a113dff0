"""Detectors of transformers from a folder, with tiny random weights, and trackers on boxes that walk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from vireid.errors import DetectorError
from vireid.ingest.detect import (
    SHIPPED,
    Detector,
    Shipped,
    TransformersDetector,
    located,
    open_detector,
    weights_digest,
)

transformers = pytest.importorskip("transformers", reason="needs the extra `detect`")

LABELS = {0: "car", 1: "Person"}


def save_detector(folder: Path, kind: str, labels: dict[int, str] = LABELS) -> Path:
    """A network of 2 classes, 20 boxes and 64 x 64 pixels."""
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    torch.manual_seed(0)
    small = {
        "encoder_hidden_dim": 16, "feat_strides": [8, 16, 32], "encoder_layers": 1, "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2, "d_model": 16, "num_queries": 20, "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 16, "decoder_attention_heads": 2, "decoder_layers": 2, "num_denoising": 0,
        "id2label": labels, "label2id": {name: number for number, name in labels.items()},
    }  # fmt: skip
    if kind == "rt_detr_v2":
        backbone = transformers.RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.RTDetrV2Config(backbone_config=backbone, encoder_in_channels=[16, 24, 32], **small)
        model = transformers.RTDetrV2ForObjectDetection(config)
    else:
        backbone = transformers.HGNetV2Config(
            stem_channels=[3, 8, 8], stage_in_channels=[8, 16, 24, 32], stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[16, 24, 32, 40], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
            embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.DFineConfig(
            backbone_config=backbone, encoder_in_channels=[24, 32, 40], decoder_n_points=[2, 2, 2], **small
        )
        model = transformers.DFineForObjectDetection(config)
    model.save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["rt_detr_v2", "d_fine"])
def test_people_of_each_frame_in_its_pixels(tmp_path: Path, kind: str) -> None:
    folder = save_detector(tmp_path / kind, kind)
    frames = list(np.random.RandomState(0).randint(0, 256, (3, 90, 160, 3), dtype=np.uint8))
    count = 0
    for number, label in LABELS.items():
        detector = TransformersDetector(folder, 0.0, label, "cpu")
        inputs = detector.processor(images=frames, return_tensors="pt")
        with torch.no_grad():
            all_scores = detector.model(**inputs).logits.sigmoid()  # (3, 20, 2)
        found = detector(frames)
        for (boxes, scores), one in zip(found, all_scores, strict=True):
            assert boxes.dtype == scores.dtype == np.float32 and boxes.shape == (len(scores), 4)
            assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= 160).all() and (boxes[:, [1, 3]] <= 90).all()
            best = one.flatten().topk(20)  # of both labels together, from which one is taken
            np.testing.assert_allclose(scores, best.values[best.indices % 2 == number], rtol=1e-5)
            count += len(scores)
        [(boxes, scores)] = detector(frames[1:2])
        np.testing.assert_allclose(boxes, found[1][0], atol=1e-2)
        np.testing.assert_allclose(scores, found[1][1], rtol=1e-4)
        detector.min_score = float(all_scores.max()) - 1e-6
        assert sum(len(scores) for _, scores in detector(frames)) == int(
            all_scores.max() == all_scores[..., number].max()
        )
    assert count == 3 * 20


def test_a_folder_that_is_no_detector_of_people_is_told(tmp_path: Path) -> None:
    cars = save_detector(tmp_path / "cars", "rt_detr_v2", {0: "car", 1: "truck"})
    with pytest.raises(DetectorError, match="finds car, truck, and nothing called 'person'"):
        TransformersDetector(cars)
    assert TransformersDetector(cars, label="Truck", device="cpu").label == 1
    with pytest.raises(DetectorError, match=r"no detector in .*absent: expected config\.json"):
        TransformersDetector(tmp_path / "absent")
    state = (cars / "model.safetensors").rename(tmp_path / "kept")
    torch.save({}, cars / "pytorch_model.bin")
    with pytest.raises(DetectorError, match=r"model\.safetensors; download"):
        TransformersDetector(cars)
    (cars / "model.safetensors").write_bytes(state.read_bytes())
    config = (cars / "config.json").read_text()
    (cars / "config.json").write_text(config.replace('"rt_detr_v2"', '"bert"'))
    with pytest.raises(DetectorError, match="transformers can open"):
        TransformersDetector(cars)


def in_cache(cache: Path, repository: str, commit: str, folder: Path, ref: str = "main") -> Path:
    """A folder as a revision in the cache of huggingface_hub; its snapshot."""
    stored = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, stored / "snapshots" / commit)
    (stored / "refs").mkdir(exist_ok=True)
    (stored / "refs" / ref).write_text(commit)
    return stored / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub, which is offline."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_name_of_the_hub_is_opened_from_the_cache_where_it_is_offline(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = [np.random.RandomState(0).randint(0, 256, (90, 160, 3), dtype=np.uint8)]
    fine = save_detector(tmp_path / "fine", "d_fine")
    kept = in_cache(cache, "org/dfine", "1" * 40, fine)
    other = in_cache(cache, "org/dfine", "2" * 40, save_detector(tmp_path / "v2", "rt_detr_v2"), "v2")
    assert located("org/dfine") == kept and located("org/dfine@v2") == located(f"org/dfine@{'2' * 40}") == other
    [(boxes, scores)] = open_detector("org/dfine", 0.0, "Person", "cpu")(frame)
    [(same_boxes, same_scores)] = TransformersDetector(fine, 0.0, "Person", "cpu")(frame)
    assert len(boxes) > 0 and boxes.tolist() == same_boxes.tolist() and scores.tolist() == same_scores.tolist()
    assert weights_digest("org/dfine") == weights_digest(fine) != weights_digest("org/dfine@v2")
    with pytest.raises(
        DetectorError, match=r"no folder org/absent; it is not in the cache .* the Hub cannot be reached"
    ):
        located("org/absent")
    with pytest.raises(DetectorError, match=r"could not be fetched.*hf download"):
        located("org/a..b")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(fine, tmp_path / "org/dfine")
    assert located("org/dfine") == tmp_path / "org/dfine"  # a path that exists comes first
    assert located("dfine", tmp_path / "org") == tmp_path / "org/dfine"
    assert located("org/dfine", tmp_path / "elsewhere") == kept


def test_what_the_hub_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors

    asked: list[tuple[str, object, list[str]]] = []
    answer: list[Exception | Path] = []

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        if isinstance(answer[-1], Exception):
            raise answer[-1]
        return str(answer[-1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.test"))
    for error, words in (
        (errors.RepositoryNotFoundError("no", response=response), "the Hub has no org/net that this machine may read"),
        (errors.GatedRepoError("no", response=response), "accept it on the repository's page"),
        (errors.RevisionNotFoundError("no", response=response), "org/net has no revision v9 on the Hub; leave @v9 out"),
        (errors.LocalEntryNotFoundError("no"), "hf download org/net --local-dir detector"),
        (errors.HfHubHTTPError("status 500", response=response), "could not be fetched from the Hub: status 500"),
    ):
        answer.append(error)
        with pytest.raises(DetectorError, match=words):
            located("org/net@v9")
    answer.append(save_detector(tmp_path / "net", "rt_detr_v2"))
    assert located("org/net") == tmp_path / "net"
    assert [one[:2] for one in asked[-2:]] == [("org/net", "v9"), ("org/net", None)]
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "config.json", "pytorch_model.bin", "x.py"]
    taken = [name for name in names if any(fnmatch(name, pattern) for pattern in asked[-1][2])]
    assert taken == names[:3]
    (tmp_path / "net/model.safetensors").rename(tmp_path / "net/pytorch_model.bin")
    with pytest.raises(DetectorError, match=r"org/net on the Hub has no weights as model\.safetensors, and pickled"):
        located("org/net")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DetectorError, match=r"no folder org/net, .* pip install 'vireid\[hub\]'"):
        located("org/net")


def test_a_detector_that_is_shipped_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in frames]

    opened: list[float] = []

    def make(min_score: float) -> Detector:
        opened.append(min_score)
        return nobody

    weights = tmp_path / "small.onnx"
    weights.write_bytes(b"first")
    monkeypatch.setitem(SHIPPED, "small", Shipped(make, 0.7, weights))
    assert open_detector("small", 0.5, device="cpu") is nobody and open_detector("small") is nobody
    assert opened == [0.5, 0.7]
    first = weights_digest("small")
    weights.write_bytes(b"second")
    weights_digest.cache_clear()
    assert weights_digest("small") != first
    with pytest.raises(DetectorError, match=r"no detector in .*smal: .*small, which comes with .*did you mean small\?"):
        located("smal")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(save_detector(tmp_path / "fine", "d_fine"), tmp_path / "small")
    assert located("small") == "small" and located("./small") == tmp_path / "small"


@pytest.mark.parametrize("name", ["bytetrack", "sort", "ocsort"])
@pytest.mark.parametrize("rate", [5.0, 10.0])
def test_two_who_cross_keep_their_tracks(name: str, rate: float) -> None:
    pytest.importorskip("trackers", reason="needs the extra `video`")
    from vireid.ingest.track import PackageTracker

    def follow() -> list[list[int]]:
        tracker, found = PackageTracker(name, rate), []  # type: ignore[arg-type]
        for number in range(30):
            at = number / rate
            boxes = np.array([[10 + 60 * at, 50, 50 + 60 * at, 150], [400 - 70 * at, 40, 440 - 70 * at, 140]])
            shown = slice(0, 2) if number not in (14, 15) else slice(0, 1)  # the second one is hidden for a while
            numbers = tracker(at, boxes[shown][::-1].astype(np.float32), np.full(len(boxes[shown]), 0.9, np.float32))
            found.append(numbers[::-1].tolist())
        assert tracker(99.0, np.zeros((0, 4), np.float32), np.zeros(0, np.float32)).tolist() == []
        return found

    found = follow()
    assert found == follow()
    first, second = ({line[person] for line in found[5:] if len(line) > person} - {-1} for person in range(2))
    assert len(first) == len(second) == 1 and first != second
    assert all(-1 not in line for line in found[5:14])


def test_an_unknown_tracker_is_told() -> None:
    from vireid.errors import TrackerError
    from vireid.ingest.track import PackageTracker

    with pytest.raises(TrackerError, match="bytetrack, sort, ocsort, none"):
        PackageTracker("botsort", 5)  # type: ignore[arg-type]


def test_a_video_is_detected_once_and_the_same_in_every_run(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra `video`")
    from filmed import film, steps

    from vireid.ingest.segments import Segment, Source, segments_of
    from vireid.ingest.video_settings import VideoSettings

    film(tmp_path / "a.mp4", steps(12))
    folder = save_detector(tmp_path / "detector", "rt_detr_v2")
    gray = [np.full((144, 176, 3), 90, np.uint8)]
    label = max(LABELS.values(), key=lambda one: len(TransformersDetector(folder, 0.0, one, "cpu")(gray)[0][1]))
    settings = VideoSettings(
        folder, label=label, tracker="none", fps=2, interval_s=0.5, min_score=0.0, min_height=1, device="cpu"
    )  # fmt: skip
    given = Source("a.mp4", ("a.mp4",), tmp_path / "a.mp4", "gate", 100.0)

    def seen(segment: Segment) -> list[tuple[str, float, bytes]]:
        return [(crop.id, crop.time_s, crop.open().tobytes()) for crop in segment.crops()]

    [segment] = segments_of(given, settings, tmp_path / "boxes")
    found = seen(segment)
    assert len(found) > 3 and {time_s for _, time_s, _ in found} == {100.0, 100.5, 101.0}
    [file] = (tmp_path / "boxes").iterdir()
    written = file.read_bytes()
    assert seen(segment) == found
    [other] = segments_of(given, settings, tmp_path / "other")
    assert seen(other) == found and (tmp_path / "other" / file.name).read_bytes() == written
    [slower] = segments_of(
        given, VideoSettings(folder, label=label, tracker="none", fps=1, device="cpu"), tmp_path / "boxes"
    )
    film(tmp_path / "b.mp4", steps(13))
    [elsewhere] = segments_of(Source("b", ("b",), tmp_path / "b.mp4", "gate"), settings, tmp_path / "boxes")
    assert len({segment.key(), slower.key(), elsewhere.key()}) == 3
