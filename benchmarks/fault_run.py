"""The whole synthesis chain against a server that fails in every way, held against a calm run.

    .venv/bin/python benchmarks/fault_run.py --combinations 300

The server (``teacher_server.py``) answers 20 % of all requests with 500, 5 % never and 5 % with
garbage, and is killed and started again twice. Checked afterwards, stage by stage: every row that
went in is accepted or rejected with a reason, exactly once; and the ledger's tokens are those of
the distinct completions that the server logged, each counted once however often it was made.
Unless a row was given up after all retries, the versions' bytes are those of the calm run. One JSON
line, then a table; the exit code is 0 only when all of that holds.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chain_run import ROOT, SERVER, chain_command

from pipeline import console
from pipeline.manifest import Version, resolve_version
from pipeline.store import read_rows
from promptcot.engines.ledger import read_ledger

CHAIN = ("combinations", "problems", "distinct", "judged", "solutions", "verified")
FAULTS = ("--errors", "0.20", "--hangs", "0.05", "--garbage", "0.05")


def main() -> int:
    """Run both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--combinations", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--timeout-s", type=float, default=2.0)
    parser.add_argument("--down-s", type=float, default=3.0, help="between a death and the restart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fault-run-") as name:
        calm = run_once(Path(name) / "calm", options, faults=(), deaths=[])
        # A quarter and two thirds of the work, as the calm run counted it.
        deaths = [calm["completions"] // 4, calm["completions"] * 2 // 3]
        faulty = run_once(Path(name) / "faulty", options, faults=FAULTS, deaths=deaths)
    result = {
        "deaths": faulty["deaths"],
        "seconds": faulty["seconds"],
        "seconds_calm": calm["seconds"],
        "completions": faulty["completions"],
        "distinct_completions": faulty["distinct"],
        "stored": faulty["stored"],
        "tokens_served_once": faulty["tokens"],
        "tokens_in_ledger": faulty["ledger_tokens"],
        "rows_lost": sum(stage["lost"] for stage in faulty["stages"].values()),
        "rows_twice": sum(stage["twice"] for stage in faulty["stages"].values()),
        "rows_without_reason": sum(stage["no_reason"] for stage in faulty["stages"].values()),
        "rows_given_up": sum(stage["given_up"] for stage in faulty["stages"].values()),
        "same_bytes_as_calm": faulty["shards"] == calm["shards"],
        "accepted": faulty["stages"]["verified"]["out"],
        "accepted_calm": calm["stages"]["verified"]["out"],
    }
    result["ok"] = (
        result["deaths"] == len(deaths)
        and result["tokens_in_ledger"] == result["tokens_served_once"]
        and result["stored"] == result["distinct_completions"]
        and (result["same_bytes_as_calm"] or result["rows_given_up"])
        and not (result["rows_lost"] or result["rows_twice"] or result["rows_without_reason"])
    )
    sys.stdout.write(json.dumps(result) + "\n")
    show(calm["stages"], faulty["stages"])
    return 0 if result["ok"] else 1


def run_once(
    folder: Path, options: argparse.Namespace, *, faults: tuple[str, ...], deaths: list[int]
) -> dict[str, Any]:
    """One run of the chain; the server dies when it has served each of ``deaths`` completions."""
    folder.mkdir(parents=True)
    served, out, port = folder / "served.txt", folder / "out", free_port()
    command = chain_command(
        folder,
        f"http://127.0.0.1:{port}/v1",
        combinations=options.combinations,
        concurrency=options.concurrency,
        timeout_s=options.timeout_s if faults else 60.0,
    )
    server = Server(port, [*faults, "--served", str(served)])
    start = time.monotonic()
    num_deaths = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            time.sleep(0.05)
            if num_deaths < len(deaths) and count_lines(served) >= deaths[num_deaths]:
                num_deaths += 1
                server.restart(after_s=options.down_s)
    seconds = time.monotonic() - start
    server.kill()
    if run.returncode:
        raise SystemExit(f"the run ended with exit code {run.returncode}")
    return {
        "seconds": round(seconds, 1),
        "deaths": num_deaths,
        "stages": check_stages(out),
        "shards": {
            f"{stage}/{shard.path}": shard.sha256
            for stage in CHAIN
            for shard in resolve_version(out / "synthesis" / stage).manifest.shards
        },
        **count_served(served, out),
    }


class Server:
    """The failing server on a fixed port."""

    def __init__(self, port: int, options: list[str]) -> None:
        self._command = [*SERVER, "--port", str(port), *options]
        self._process = self._start()

    def restart(self, *, after_s: float) -> None:
        """Kill it, leave it dead for a while, start it again with other faults."""
        self.kill()
        time.sleep(after_s)
        # Faults are drawn by request, try and seed; the new process counts tries from one again.
        self._command += ["--seed", str(len(self._command))]
        self._process = self._start()

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        return process


def count_served(served: Path, out: Path) -> dict[str, int]:
    """What the server says it made, and what the run says it got."""
    lines = [line.split() for line in served.read_text().splitlines()]
    tokens = {key: int(count) for key, count in lines}
    ledger = read_ledger(out)
    return {
        "completions": len(lines),
        "distinct": len(tokens),
        "tokens": sum(tokens.values()),
        "stored": sum(line.stored for line in ledger),
        "ledger_tokens": sum(line.completion_tokens for line in ledger),
    }


def check_stages(out: Path) -> dict[str, dict[str, int]]:
    """Rows of each stage: in, out, rejected, and what should be zero."""
    found = {}
    for stage in CHAIN[1:]:
        version = resolve_version(out / "synthesis" / stage)
        rejects = read_rejects(version)
        accepted = [identity(row) for row in version.rows()]
        manifest = version.manifest
        found[stage] = {
            "in": manifest.rows_in,
            "out": len(accepted),
            "rejected": len(rejects),
            "lost": manifest.rows_in - len(accepted) - len(rejects),
            "twice": sum(n - 1 for n in Counter(accepted).values())
            + sum(n - 1 for n in Counter(row["row_id"] for row in rejects).values()),
            "no_reason": sum(not row["reason"] for row in rejects),
            "given_up": sum("no answer in" in (row["detail"] or "") for row in rejects),
        }
    return found


def identity(row: dict[str, Any]) -> str:
    """A row's id; judged problems and verified traces hold what they are about."""
    about = row.get("solution") or row.get("problem") or row
    return str(row["id"] if "id" in row else about["id"])


def read_rejects(version: Version) -> list[dict[str, Any]]:
    """The rejected rows of a version."""
    files = sorted((version.folder / "rejected").glob("*.parquet"))
    return [row for path in files for row in read_rows(path)]


def show(calm: dict[str, dict[str, int]], faulty: dict[str, dict[str, int]]) -> None:
    """The stages as a table."""
    columns = ["stage", "in", "out", "rejected", "lost", "twice", "given up", "calm"]
    rows = [
        [name, *(stage[column.replace(" ", "_")] for column in columns[1:-1]), calm[name]["out"]]
        for name, stage in faulty.items()
    ]
    console.table("Rows under faults", columns, rows)


def count_lines(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
