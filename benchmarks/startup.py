"""Start-up: `vireid --help`, completion, and the first answer of a cold `vireid search`, beside what they must import.

The gallery is a folder of 240 synthetic pictures; the model is `night`, by the runtime that `auto` takes. `imports` is
Python that imports LanceDB, OpenVINO and faiss and does nothing; `torch` imports torch. Seconds of the clock and of the
CPU of a new process, in turns, the smallest of five rounds; files lie in the system's cache.

    python benchmarks/startup.py    writes benchmarks/results/startup.txt
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

ROUNDS, PEOPLE = 5, 20
RESULTS = Path(__file__).parent / "results" / "startup.txt"
COMPLETION = {"_VIREID_COMPLETE": "complete_bash", "COMP_WORDS": "vireid sea", "COMP_CWORD": "1"}


def vireid(*words: object) -> list[str]:
    return [sys.executable, "-m", "vireid", *map(str, words)]


def spent(command: list[str], **variables: str) -> tuple[float, float]:
    """Seconds of the clock and of the CPU."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | variables)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        people, gallery = Path(temporary) / "people", Path(temporary) / "gallery"
        subprocess.run(vireid("data", "make", people, "--people", PEOPLE, "--images", 2, "--no-masks"), check=True)
        subprocess.run(vireid("index", people, "--gallery", gallery), check=True)
        query = next(people.rglob("*.jpg"))
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "help": (vireid("--help"), {}),
            "completion": (vireid(), COMPLETION),
            "search": (vireid("search", query, "--gallery", gallery, "--json"), {}),
            "imports": ([sys.executable, "-c", "import lancedb, openvino, faiss"], {}),
            "torch": ([sys.executable, "-c", "import torch"], {}),
        }
        rounds = [
            {name: spent(command, **variables) for name, (command, variables) in commands.items()}
            for _ in range(ROUNDS)
        ]
    lines = [describe()]
    for name in commands:
        clock, cpu = min(each[name][0] for each in rounds), min(each[name][1] for each in rounds)
        lines.append(f"{name:12} {clock:.2f} s   {cpu:.2f} CPU s")
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
