"""The dataset for FiftyOne, read back by its documented form, and the card that the Hugging Face Hub reads.

FiftyOne itself brings a database server and is not installed here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call, error_of
from small_run import make_run, write_people

from vireid.deploy.export import export_bundle
from vireid.evaluation.queries import read_queries
from vireid.evaluation.results import Results
from vireid.workflows.run import Run

PROTOCOL = "manifest/infrared-to-visible"
FIELD = "manifest_infrared_to_visible"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("fiftyone")
    data = write_people(folder / "data", {"train": 2, "test": 3})
    opened = Run.open(make_run(folder / "run", data).path)
    opened.evaluate(protocols=(PROTOCOL,), pictures=0, device="cpu", progress=False)
    return opened


def test_what_is_written_for_fiftyone_is_read_back(run: Run, tmp_path: Path) -> None:
    for _ in range(2):  # an earlier export is replaced
        done = call("export", run.path, "--fiftyone", tmp_path / "set")
        assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "set/metadata.json").read_text("utf-8"))
    samples = json.loads((tmp_path / "set/samples.json").read_text("utf-8"))["samples"]
    assert about["media_type"] == "image" and "version" not in about and about["info"]["method"] == "AGW"
    embeddings = next(iter(run.embed(device="cpu", progress=False).values()))
    assert len(samples) == len(embeddings) == 24
    for row, sample in enumerate(samples):
        table = embeddings.table
        assert Path(sample["filepath"]).is_file() and sample["filepath"].endswith(table.path[row])
        assert (sample["person"]["label"], sample["tags"]) == (str(table.pid[row]), ["test"])
        assert {sample[name]["_cls"] for name in ("person", "camera", "modality")} == {"Classification"}
        assert sample["frame"] == table.extras["frame"][row]
        np.testing.assert_array_equal(np.array(sample["embedding"], np.float32), embeddings.vectors[row])
    infrared = [sample for sample in samples if sample["modality"]["label"] == "infrared"]
    mean = np.mean([sample[f"AP_{FIELD}"] for sample in infrared])
    assert mean == pytest.approx(Results.load(run.path / "results.json").mean["mAP"], abs=1e-6)
    paths = {sample["filepath"] for sample in samples}
    assert all(len(s[f"nearest_{FIELD}"]) == 10 and set(s[f"nearest_{FIELD}"]) <= paths for s in infrared)
    first = next(read_queries(run.path / "queries.csv"))
    (query,) = [sample for sample in samples if sample["filepath"].endswith(first["query"])]
    assert query[f"first_rank_{FIELD}"] == int(first["first_rank"])
    assert not any(f"AP_{FIELD}" in sample for sample in samples if sample not in infrared)


def test_a_folder_of_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    message = error_of(call("export", run.path, "--fiftyone", tmp_path), 2)
    assert "holds letter.txt, which is not of a FiftyOne dataset" in message and len(list(tmp_path.iterdir())) == 1


def test_the_hugging_face_hub_reads_the_card(run: Run, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    bundle = export_bundle(run.folder, tmp_path / "bundle", onnx=False)
    card = hub.ModelCard.load(bundle.path / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("vireid", "image-feature-extraction")
    measured = {one.metric_type: one.metric_value for one in card.data.eval_results}
    mean = Results.load(run.path / "results.json").mean
    assert measured == {"rank-1": round(mean["R1"], 4), "mAP": round(mean["mAP"], 4)}
    assert card.data.eval_results[0].dataset_type == "manifest" and card.text.strip().startswith("# AGW: a bundle")
