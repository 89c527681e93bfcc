"""Kill synthesis at random moments, continue it, and compare every byte and every request.

    .venv/bin/python benchmarks/synthesis_kills.py --kills 20

Two runs ask the same local server (``teacher_server.py``): one undisturbed, one that gets SIGKILL
again and again at seeded random moments spread over the undisturbed run's length. At the end all
files of all versions must be equal, and the killed run may have asked at most one batch (what was
in flight) again for each kill. The last line is JSON; the exit code is 0 only when both hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from chain_run import ROOT, SERVER, chain_command

STARTUP_S = 0.8
"""Before this nothing has begun; a kill then shows nothing."""


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--combinations", type=int, default=800)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synthesis-kills-") as name:
        folder = Path(name)
        calm = run_once(folder / "calm", options, moments=[])
        length = calm["seconds"]
        rng = random.Random(options.seed)
        # Each run goes on where the last one stopped, so the moments together span its length.
        span = 2 * length / options.kills
        moments = [rng.uniform(STARTUP_S, STARTUP_S + span) for _ in range(options.kills)]
        killed = run_once(folder / "killed", options, moments=moments)
        different = sorted(
            path
            for path in calm["files"].keys() | killed["files"].keys()
            if calm["files"].get(path) != killed["files"].get(path)
        )
    again = killed["asked"] - calm["asked"]
    result = {
        "kills": killed["kills"],
        "files": len(calm["files"]),
        "files_that_differ": different,
        "requests": calm["asked"],
        "requests_asked_again": again,
        "most_allowed": killed["kills"] * options.concurrency,
        "undisturbed_s": round(length, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    is_good = not different and calm["files"] and again <= result["most_allowed"]
    return 0 if is_good and killed["kills"] else 1


def run_once(folder: Path, options: argparse.Namespace, *, moments: list[float]) -> dict[str, Any]:
    """One run on a fresh server, killed after each of ``moments`` seconds, then finished."""
    folder.mkdir(parents=True)
    command = [*SERVER, "--median-ms", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        command = chain_command(
            folder, url, combinations=options.combinations, concurrency=options.concurrency
        )
        kills = sum(kill_after(command, seconds) for seconds in moments)
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        seconds = time.monotonic() - start
        stats = httpx.get(f"{url}/stats").json()
        server.kill()
    return {
        "seconds": seconds,
        "kills": kills,
        "asked": sum(stats["asked"].values()),
        "files": hash_versions(folder / "out"),
    }


def kill_after(command: list[str], seconds: float) -> int:
    """1 when the run was still going and was killed, 0 when it had ended before."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return 1
    return 0


def hash_versions(out: Path) -> dict[str, str]:
    """Path and SHA-256 of every file of the finished versions."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "synthesis").rglob("*"))
        if path.is_file() and not any(piece.startswith(".") for piece in path.parts)
    }


if __name__ == "__main__":
    sys.exit(main())
