"""What loading kernels brings along."""

from __future__ import annotations

import subprocess
import sys


def test_kernels_run_without_matrix_products() -> None:
    # A fifth of a second of every command and every worker.
    program = (
        "import sys\n"
        "from pipeline.word_hashes import hash_words\n"
        "assert len(hash_words(['two words']).hashes) == 2\n"
        "print([name for name in sys.modules if name.startswith('scipy.linalg')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"
