"""Benchmarks are scripts beside the packages: their folder is put where imports find it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "curriculum"))
