"""Layouts in which synthetic sets are written; plain words that the command line reads before numpy is loaded."""

from typing import Literal

Layout = Literal["sysu", "regdb", "llcm"]
