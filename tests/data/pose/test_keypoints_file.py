"""`vireid data pose`: what it writes, what it does not do again, what it refuses; SPOT by the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call, error_of
from PIL import Image
from torch import Tensor

from vireid.data import datasets
from vireid.data.pose import keypoints_file as pose
from vireid.data.pose.heatmaps import template
from vireid.data.pose.keypoints_file import write_poses
from vireid.data.pose.sources import Pictures
from vireid.errors import DataError


class Corner:
    """An estimator that finds every point at (3, 5) of its crop, and counts the pictures it was shown."""

    size = (20, 10)

    def __init__(self) -> None:
        self.shown, self.stop_after = 0, 10**9

    def __call__(self, images: Tensor) -> Tensor:
        if self.shown >= self.stop_after:
            raise KeyboardInterrupt
        self.shown += len(images)
        return torch.tensor([3.0, 5.0, 0.5]).expand(len(images), 17, 3).clone()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = ["path,pid,modality,split"]
    for row in range(8):
        Image.fromarray(np.full((64, 32, 3), 20 * row, dtype=np.uint8)).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png,{row // 4},{('visible', 'infrared')[row % 2]},{'train' if row < 4 else 'test'}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch) -> Corner:
    estimator = Corner()
    monkeypatch.setattr(pose, "open_source", lambda *_: (Pictures(estimator, 2), "corner 1"))
    return estimator


@pytest.fixture(autouse=True)
def shown_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vireid")


def write(data: Path, **options: object) -> Path:
    shared = {"batch_size": 2, "progress": False}
    return write_poses(f"manifest={data / 'manifest.csv'}", "corner", **{**shared, **options})  # pyright: ignore


def test_poses_are_read_with_the_data(data: Path, corner: Corner, caplog) -> None:
    assert write(data) == data / "keypoints.npz"
    assert "8 pictures, 100.0 % of the points seen, 0 without" in caplog.text
    points = datasets.load(f"manifest={data / 'manifest.csv'}").extras["keypoints"]
    # a picture of 64 x 32 stands in the crop of 20 x 10 as 16 x 8, from (1, 2) on
    np.testing.assert_allclose(points, np.broadcast_to([4 * 2.5 - 0.5, 4 * 3.5 - 0.5, 0.5], (8, 17, 3)), rtol=1e-6)
    assert corner.shown == 8 and not list(data.glob("*.part.npz")) + list(data.glob(".*.partial"))


def test_nothing_is_done_twice(data: Path, corner: Corner, caplog) -> None:
    write(data)
    assert "up to date" not in caplog.text
    write(data)
    assert "up to date" in caplog.text and corner.shown == 8
    Image.fromarray(np.full((64, 32, 3), 255, dtype=np.uint8)).save(data / "3.png")  # changed
    with (data / "manifest.csv").open("a") as file:
        file.write("\n8.png,1,visible,test")
    Image.fromarray(np.zeros((64, 32, 3), dtype=np.uint8)).save(data / "8.png")  # new
    write(data)
    assert corner.shown == 10 and len(np.load(data / "keypoints.npz")["path"]) == 9


def test_a_stopped_run_goes_on(data: Path, corner: Corner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pose, "SAVE_S", 0.0)
    corner.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        write(data)
    assert not (data / "keypoints.npz").exists()
    assert np.load(data / "keypoints.part.npz")["path"].tolist() == ["0.png", "1.png", "2.png", "3.png"]
    corner.stop_after = 10**9
    write(data)
    assert corner.shown == 8 and not (data / "keypoints.part.npz").exists()
    assert len(np.load(data / "keypoints.npz")["path"]) == 8


def test_work_of_another_is_not_written_over(data: Path, corner: Corner, caplog) -> None:
    np.savez(data / "keypoints.npz", path=["0.png"], keypoints=np.ones((1, 17, 3)))  # as a data set brings it
    before = (data / "keypoints.npz").read_bytes()
    with pytest.raises(DataError, match="written by something else; give another --out, or --replace"):
        write(data)
    assert (data / "keypoints.npz").read_bytes() == before and corner.shown == 0
    assert write(data, out=data / "mine.npz") == data / "mine.npz"
    assert f"once it lies at {data / 'keypoints.npz'}" in caplog.text
    write(data, replace=True)
    assert corner.shown == 16 and np.load(data / "keypoints.npz")["keypoints"].shape == (8, 17, 3)
    (data / "keypoints.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="expected arrays `path`"):  # the loader says so already
        write(data, replace=True)


def test_by_the_command_line(data: Path, caplog) -> None:
    manifest = f"manifest={data / 'manifest.csv'}"
    tree = data / "openpose"
    tree.mkdir()
    points = np.arange(54, dtype=float).tolist()
    for row in range(7):
        (tree / f"{row}_keypoints.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": points}]}))
    message = error_of(call("data", "pose", manifest, "--estimator", f"openpose:{tree}", "--quiet"), 1)
    assert "gives no pose for 1 of 8 pictures: 7.png" in message and not (data / "keypoints.npz").exists()
    done = call("data", "pose", manifest, "--estimator", f"openpose:{tree}", "--missing", "zeros", "--quiet")
    assert done.exit_code == 0 and f"wrote {data / 'keypoints.npz'}" in done.stdout, done.output
    assert "1 without a pose" in caplog.text
    stored = datasets.load(manifest).extras["keypoints"]
    assert not stored[7].any() and stored[0, 0].tolist() == [0, 1, 2] and stored[0, 5].tolist() == [15, 16, 17]
    message = error_of(call("data", "pose", manifest, "--estimator", "template", "--quiet"), 1)
    assert "was written by openpose" in message
    done = call("data", "pose", manifest, "--estimator", "template", "--replace", "--quiet")
    assert done.exit_code == 0
    np.testing.assert_allclose(datasets.load(manifest).extras["keypoints"][3], template((64, 32)), rtol=1e-6)
    own = data / "own.npz"
    np.savez(own, **{f"{row}.png": np.full((17, 3), row / 10) for row in range(8)})
    done = call("data", "pose", manifest, "--estimator", f"arrays:{own}", "--replace", "--quiet")
    assert done.exit_code == 0
    np.testing.assert_allclose(datasets.load(manifest).extras["keypoints"][5], np.full((17, 3), 0.5))
    for word in ("none", "vitpose", "template:x", "mediapipe:x"):
        assert "--estimator is vitpose:FOLDER" in error_of(call("data", "pose", manifest, "--estimator", word), 2)
    assert "expected config.json" in error_of(call("data", "pose", manifest, "--estimator", f"vitpose:{data}"), 2)
    assert "no ONNX file at" in error_of(call("data", "pose", manifest, "--estimator", "rtmpose:none.onnx"), 2)
    assert "--out is a .npz" in error_of(call("data", "pose", manifest, "--estimator", "template", "--out", "a.txt"), 2)


def test_spot_says_what_it_needs(data: Path) -> None:
    manifest, run = f"manifest={data / 'manifest.csv'}", data / "run"
    words = ("width=4", "blocks=[1,1,1,1]", "size=[64,32]", "epochs=1", "sampler.pids=1", "sampler.images=2",
             "relation=[4,4,4,4]", "parts=2")  # fmt: skip
    message = error_of(call("train", "spot", "--data", manifest, "--run", run, "--device", "cpu", "--quiet", *words), 1)
    assert "4 of 4 pictures have none (there is no keypoints.npz in" in message and "vireid data pose DATA" in message
    assert not run.exists()  # nothing is left that would have to be cleared away
    assert "missing=zeros" in message and "missing=template" in message
    body = ("missing=template", *words)
    done = call("train", "spot", "--data", manifest, "--run", data / "body", "--device", "cpu", "--quiet", *body)
    assert done.exit_code == 0, done.output
    done = call("evaluate", data / "body", "--pictures", 0, "--quiet", "--flip", "--format", "json")
    assert done.exit_code == 0, done.output
    assert {row["stamp"]["pose"] for row in json.loads(done.stdout)} == {"template for 4 of 4 images"}
    # poses that come later make the stored embeddings out of date
    call("embed", data / "body", "--quiet")
    assert "up to date" in call("embed", data / "body", "--quiet").stderr
    assert call("data", "pose", manifest, "--estimator", "template", "--quiet").exit_code == 0
    assert "wrote" in call("embed", data / "body", "--quiet").stderr
