"""Card: the README.md of a bundle, what its network takes, gives, was trained on and how well it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vireid.deploy.bundle_config import BundleConfig
from vireid.deploy.runtimes import BATCHES
from vireid.evaluation.results import Results

RESULTS = "results.json"
TASK = "image-feature-extraction"  # as the Hugging Face Hub names what a model is for
LIMITS = """A similarity is not a proof of identity. Figures hold for pictures like those it was trained on; other
cameras, clothes and places do worse. Choose a threshold with `vireid calibrate` on people of your own cameras, and let
a person decide. Searching for people needs a lawful purpose and the right to process the pictures."""


def model_card(config: BundleConfig, runtimes: Mapping[str, Any], results: Results, own: str | None = None) -> str:
    """README.md of a bundle; `own` is the name of the file that defines a network of your own."""
    figures = results.markdown() if results.rows else ""
    served = "\n".join(
        f"| {name} | {about['version']} | {max(line['largest_difference'] for line in about['batches']):.1e} |"
        for name, about in runtimes.items()
    )
    method = f', method="{own}"' if own else ""
    code = f"\n- torch needs `{own}`, which defines the network; the runtimes below do not" if own else ""
    return f"""{front_matter(config, results)}# {config.method}: a bundle of vireid

Finds a person seen by a visible camera among the pictures of infrared cameras, and the other way round.

{facts(config)}
- trained on: {config.trained_on}{code}

```python
from vireid.deploy.extractor import FeatureExtractor

extract = FeatureExtractor("THIS FOLDER"{method})
vectors = extract(["one.jpg", "other.jpg"], modality="auto")  # (2, {config.dim}), L2-normalized
```

## How it was trained

{stamp_table(config)}

## How well it does

{figures or "Not evaluated yet: `vireid evaluate RUN`, then export again."}

## Runtimes beside torch

Largest difference from torch in a coordinate of the L2-normalized vector, at batches of {", ".join(map(str, BATCHES))}:

| runtime | version | difference |
|---|---|---|
{served or "| none exported | | |"}

## Limits and responsible use

{LIMITS} Weights follow
the terms of the data that they were trained on.
"""


def shipped_card(name: str, config: BundleConfig, about: str, limits: str, training: str, figures: str) -> str:
    """README.md of a model that comes with vireid; the texts say what for, what it cannot do, and the training data."""
    return f"""# {name}: a model that comes with vireid

{about}

{facts(config)}
- weights in half precision (float16), computed in single precision

```python
import vireid

vectors = vireid.Model.open("{name}").embed(["one.jpg", "other.jpg"])  # (2, {config.dim}), L2-normalized
```

## How it was trained

{training}

{stamp_table(config)}

`vireid models make {name} --root DIR` makes it again from plan.yaml.

## How well it does

Measured with these weights on the test people of the selection set, synthetic people of another seed. Real people,
cameras and places do worse.

{figures}

## Limits and responsible use

{limits}

{LIMITS}

## License

Apache-2.0, as vireid itself; NOTICE names the work that it builds on.
"""


def facts(config: BundleConfig) -> str:
    """What the network takes and gives, as a list."""
    inputs = f", and {', '.join(config.inputs)}" if config.inputs else ""
    return f"""- takes: pictures of one person each, visible or infrared, resized to {config.size[0]} x {config.size[1]}
  ({config.filter}){inputs}
- gives: {config.dim} numbers a picture (layer `{config.layer}`), compared by cosine
- {config.num_params:,} parameters; weights sha256 `{config.digest}`; written by vireid {config.vireid}"""


def stamp_table(config: BundleConfig) -> str:
    """The stamp of the training as a table."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in config.stamp.items())
    return f"| what | value |\n|---|---|\n{rows}"


def results_of(run: Path, digest: str) -> Results:
    """What results.json of the run says of these weights; no rows where it says nothing."""
    if not (run / RESULTS).is_file():
        return Results(())
    return Results(tuple(row for row in Results.load(run / RESULTS).rows if row.stamp.get("embedder") == digest[:8]))


def front_matter(config: BundleConfig, results: Results) -> str:
    """The head of a card that the Hugging Face Hub reads: library, task, tags, and the figures as fractions."""
    task = {"type": TASK, "name": "visible-infrared person re-identification"}
    measured = [
        {
            "task": task,
            "dataset": {"type": one.stamp.get("dataset", ""), "name": f"{one.protocol}, layer {one.stamp['layer']}"},
            "metrics": [
                {"type": name, "value": round(one.mean[column], 4)}
                for name, column in (("rank-1", "R1"), ("mAP", "mAP"))
            ],
        }
        for one in results.summaries
    ]
    name = f"{config.method}-{config.trained_on.dataset}"
    head = {
        "library_name": "vireid",
        "pipeline_tag": TASK,
        "tags": ["person-re-identification", "visible-infrared", "safetensors"],
        **({"model-index": [{"name": name, "results": measured}]} if measured else {}),
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
