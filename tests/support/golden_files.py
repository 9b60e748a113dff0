"""Where the recorded inputs and outputs of published code lie."""

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
