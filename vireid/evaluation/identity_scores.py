"""How well groups of pictures are people: ID-F1 and HOTA over all cameras, by the package reid-hota (NIST).

ID-F1: Ristani, Solera, Zou, Cucchiara, Tomasi: Performance Measures and a Data Set for Multi-Target, Multi-Camera
Tracking, ECCV 2016 Workshops. HOTA: Luiten, Osep, Dendorfer, Torr, Geiger, Leal-Taixe, Leibe: HOTA: A Higher Order
Metric for Evaluating Multi-Object Tracking, IJCV 129, 2021. Labels are matched once over all cameras. Pictures are
given, so detection and localization are perfect, and both measure the grouping alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy

from vireid.errors import MissingPackage

SIDE = 10  # of the box that stands for a picture
PLACES = ("x1", "y1", "x2", "y2")


def identity_scores(
    cameras: Sequence[str], times_s: Sequence[float], truth: Sequence[Hashable], given: Sequence[Hashable]
) -> dict[str, float]:
    """ID-F1, HOTA and its association part (fractions) of N pictures with true and given labels.

    Pictures of one camera and one time are one frame. MissingPackage without reid-hota.
    """
    try:
        import pandas
        from reid_hota import HOTAConfig, HOTAReIDEvaluator
    except ImportError as error:
        raise MissingPackage("ID-F1 and HOTA need the package reid-hota: pip install 'vireid[identities]'") from error
    numbers = [dict(zip(dict.fromkeys(labels), range(len(labels)), strict=False)) for labels in (truth, given)]
    tables: tuple[dict[str, list], dict[str, list]] = ({}, {})
    frames: dict[tuple[str, float], int] = {}
    seen: dict[tuple[str, int, Hashable], int] = {}
    for place, (camera, time_s, true, label) in enumerate(zip(cameras, times_s, truth, given, strict=True)):
        frame = frames.setdefault((camera, time_s), len(frames)) * len(truth)
        again = seen[camera, frame, true] = seen.get((camera, frame, true), -1) + 1  # a person is once in a frame
        box = (place * 2 * SIDE, 0, place * 2 * SIDE + SIDE, SIDE)
        for table, number in zip(tables, (numbers[0][true], numbers[1][label]), strict=True):
            line = {"frame": frame + again, "id": number, **dict(zip(PLACES, box, strict=True))}
            table.setdefault(camera, []).append(line)
    config = HOTAConfig(reference_contains_dense_annotations=True, suppress_print_statements=True)
    evaluator = HOTAReIDEvaluator(n_workers=0, config=config)
    evaluator.evaluate(*({camera: pandas.DataFrame(lines) for camera, lines in table.items()} for table in tables))
    scores = evaluator.get_global_hota_data()
    return {name: float(numpy.mean(scores[name])) for name in ("IDF1", "HOTA", "AssA")}
