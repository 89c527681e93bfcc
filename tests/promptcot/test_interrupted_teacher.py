"""Ctrl-C while hundreds of requests are in flight: a quick, clean end with nothing lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from promptcot.engines.ledger import read_ledger

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import typer
from toy_engines import ToyEngine, open_toy, questions
from pipeline.cli import make_app, run_app
from pipeline.manifest import InputRef
from pipeline.records import ConceptCombination
from pipeline.stages import BatchResult, BatchStream, Stage, run_stage

out = Path(sys.argv[2])
app = make_app("toy", "A stage that asks a slow teacher.")

@app.command()
def run() -> None:
    # Two replies a batch come at once, the others not in this life.
    engine = ToyEngine(slots=512, delay=lambda seed: 0.0 if seed % 64 < 2 else 3600.0)
    with open_toy(engine, out) as teacher:
        stage = Stage(
            name="toy", root=out / "toy", record=ConceptCombination, settings={},
            inputs=[InputRef(name="numbers", version="v")], packages=["pipeline"],
            concurrency=10, cancel=teacher.cancel,
        )
        stream = BatchStream(rows=lambda: range(6400), num_rows=6400, size=64, key=str)

        def ask(batch):
            teacher.answer_all(questions(64, batch.rows[0]), "toy")
            return BatchResult(num_in=0, rows=[])

        run_stage(stage, stream, ask)

if __name__ == "__main__":
    run_app(app, "toy", [])
"""


def test_interrupt_with_512_requests_in_flight_ends_within_two_seconds(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(program), str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while _num_stored(tmp_path) < 16 and time.monotonic() < deadline:
            time.sleep(0.05)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        seconds = time.monotonic() - start
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "continue with" in errors
    assert seconds < 2
    assert _num_stored(tmp_path) >= 16


def _num_stored(out: Path) -> int:
    return sum(line.stored for line in read_ledger(out))
