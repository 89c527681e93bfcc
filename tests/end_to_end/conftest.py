"""What these tests take from those of the packages."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "curriculum"), str(TESTS / "promptcot")]
