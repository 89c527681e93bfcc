"""Kill the demo at several moments, continue it, and compare its datasets with an undisturbed run.

    .venv/bin/python benchmarks/kill_and_continue.py --undisturbed runs/demo --out runs/killed

The killed run is started again by the same command until it has been killed at every moment, then
left to finish. Every file of every version under ``synthesis/`` and ``datasets/`` must be equal.
Prints one line per kill and ends with exit code 0 only when all bytes agree.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

MOMENTS: dict[str, tuple[str, float]] = {
    "while problems are asked": ("synthesis/problems/.lock-*", 5.0),
    "while solutions are asked": ("synthesis/solutions/.lock-*", 5.0),
    "while phase 1 is built": ("datasets/phase-1", 0.5),
    "while phase 1 is trained": ("checkpoints/.staging-phase-1-*", 15.0),
    "while phase 1 is evaluated": ("evaluation/phase-1", 4.0),
}
"""The path whose appearance says that a moment has come, and how many seconds later to kill."""


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--undisturbed", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run to kill")
    options = parser.parse_args()
    command = [sys.executable, "-m", "flows.whole_loop", "--recipe", "demo"]
    command += ["--out", str(options.out)]
    for moment, (pattern, delay) in MOMENTS.items():
        kill_at(command, options.out, pattern, delay)
        sys.stdout.write(f"killed {moment}\n")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    calm, killed = hash_versions(options.undisturbed), hash_versions(options.out)
    different = sorted(p for p in calm.keys() | killed.keys() if calm.get(p) != killed.get(p))
    sys.stdout.write(f"{len(calm)} files compared, {len(different)} differ {different[:5]}\n")
    return 1 if different or not calm else 0


def kill_at(command: list[str], out: Path, pattern: str, delay: float) -> None:
    """Start the command and send SIGKILL ``delay`` seconds after ``pattern`` appears.

    Raises:
        RuntimeError: The run ended before the moment came.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not any(out.glob(pattern)):
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode} before {pattern}")
        time.sleep(0.05)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def hash_versions(out: Path) -> dict[str, str]:
    """Path and SHA-256 of every file of the finished versions."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("synthesis", "datasets")
        for path in sorted((out / part).rglob("*"))
        if path.is_file() and not any(piece.startswith(".") for piece in path.parts)
    }


if __name__ == "__main__":
    sys.exit(main())
