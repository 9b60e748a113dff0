"""What `weights check` says of a file, and released checkpoints that are imported, evaluated and reported."""

from pathlib import Path

import pytest
import torch
from released import write_released
from small_run import make_run, write_people

import vireid
from vireid.errors import ArgumentError, RunError, SettingsError, WeightsError
from vireid.layers.two_stream import TwoStream
from vireid.layers.two_stream_weights import load_two_stream
from vireid.workflows.import_weights import import_weights
from vireid.workflows.run import Run
from vireid.workflows.weights_check import backbone_fit, check

WIDTH = ("width=4", "size=[48,24]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "data", {"train": 3, "test": 2})


def text(report: object) -> str:
    return "\n".join(report.lines())  # pyright: ignore[reportAttributeAccessIssue]


def test_a_released_checkpoint_is_described(tmp_path: Path) -> None:
    write_released(tmp_path / "best.t", "module.")
    report = check(tmp_path / "best.t", "agw", WIDTH)
    assert report.ok and report.fits[0].whole
    said = text(report)
    assert "state dict under `net`, names behind `module.`" in said and "1025 with" in said
    assert "cmc, mAP, epoch ..." in said and f"sha256    {report.sha256}" in said
    assert "fits      agw: the whole network; 630 tensors not used: " in said


def test_a_network_of_another_width_says_what_differs(tmp_path: Path) -> None:
    write_released(tmp_path / "best.t")
    report = check(tmp_path / "best.t", "cajl", ("width=8",))
    assert not report.ok and "visible.conv1.weight should have shape (8, 3, 7, 7), the file has (4, 3, 7, 7)" in text(
        report
    )
    report = check(tmp_path / "best.t", "agw", ("width=4", "blocks=[1,1,1,1]"))
    assert report.ok and any("layer1.1.conv1" in name for name in report.fits[0].unused)
    with pytest.raises(SettingsError, match="widht"):
        check(tmp_path / "best.t", "agw", ("widht=4",))


def test_every_network_is_tried(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(1)}, tmp_path / "other.pth")
    report = check(tmp_path / "other.pth", "agw")
    assert not report.ok and "of no known kind" in text(report) and "a.weight" in text(report)
    with torch.device("meta"):
        names = {name: tensor.shape for name, tensor in TwoStream(attention=False).state_dict().items()}
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in names.items()}, tmp_path / "own.pth")
    fits = {fit.network: fit for fit in check(tmp_path / "own.pth").fits}
    assert not any("agw" in network for network in fits)  # its network has attention
    report = check(tmp_path / "own.pth", "agw", ("attention=false",))
    assert report.ok and report.fits[0].whole and not report.fits[0].unused


def test_a_backbone_is_recognized_and_its_classifier_is_left_over() -> None:
    with torch.device("meta"):
        network = TwoStream(backbone="resnet50-ibn-b")
    prefix = "trunk."
    state = {k.removeprefix(prefix): v for k, v in network.state_dict().items() if k.startswith("trunk.layer")}
    state |= {k.removeprefix("visible."): v for k, v in network.state_dict().items() if k.startswith("visible.")}
    fit = backbone_fit("resnet50-ibn-b", {**state, "fc.weight": torch.empty(1, device="meta")})
    assert not fit.why_not and fit.unused == ("fc.weight",) and not fit.whole
    assert "missing" in backbone_fit("resnet50", state).why_not
    assert backbone_fit("vit-small", state).why_not == "other names"


def test_a_run_says_that_it_fits_its_method(data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data)
    report = check(run.path, "agw", ("width=4", "blocks=[1,1,1,1]", "attention=false"))
    assert report.ok and report.fits[0].whole and report.file.kind == "safetensors file"


@pytest.mark.parametrize("method", ["agw", "cajl"])
def test_released_weights_are_evaluated(method: str, data: Path, tmp_path: Path) -> None:
    state = write_released(tmp_path / "sysu.t")
    run = import_weights(tmp_path / "sysu.t", method, f"manifest={data}", tmp_path / "run", overrides=WIDTH)
    scores = run.evaluate(progress=False, pictures=0)
    # the same figures from the network by itself, filled from the names of the released code
    network = TwoStream(width=4).eval()
    load_two_stream(network, state)
    rows = vireid.load(f"manifest={data}").where("test")
    use = run.record.deployment
    vectors = vireid.embed(network, rows, use.size, filter=use.filter, progress=False)
    for row in scores.rows:
        alone = vireid.evaluate(vectors, vireid.protocol(row.protocol, rows), similarity=use.similarity)
        again = next(other for other in alone.rows if other.trial == row.trial)
        assert row.metrics.mAP == pytest.approx(again.metrics.mAP, abs=1e-9) and 0 < row.metrics.mAP < 1
    stamp = scores.rows[0].stamp
    assert stamp["checkpoint"] == "as released, not trained here" and stamp["init"].startswith("sysu.t (sha256 ")
    page = run.report().read_text(encoding="utf-8")
    assert f"vireid weights import sysu.t {method} --data" in page and "as released" in page


def test_what_is_not_imported(data: Path, tmp_path: Path) -> None:
    state = write_released(tmp_path / "sysu.t")
    with pytest.raises(WeightsError, match="should have shape"):
        import_weights(tmp_path / "sysu.t", "agw", f"manifest={data}", tmp_path / "run")
    prefix = "base_resnet.base."
    torch.save({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, tmp_path / "start.pth")
    with pytest.raises(WeightsError, match=r"fills the backbone of agw alone.*vireid train agw --weights"):
        import_weights(tmp_path / "start.pth", "agw", f"manifest={data}", tmp_path / "run", overrides=WIDTH)
    assert not (tmp_path / "run").exists()
    run = import_weights(tmp_path / "sysu.t", "agw", f"manifest={data}", tmp_path / "run", overrides=WIDTH)
    with pytest.raises(RunError, match="already holds a run"):
        import_weights(tmp_path / "sysu.t", "agw", f"manifest={data}", tmp_path / "run", overrides=WIDTH)
    with pytest.raises(ArgumentError):
        import_weights("nothing.t", "agw", f"manifest={data}", tmp_path / "other", overrides=WIDTH)
    assert Run.open(run.path).embedder().settings.width == 4
