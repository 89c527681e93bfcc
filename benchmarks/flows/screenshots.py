"""Pictures of the Prefect pages for ``docs/images``, and a run operated from the pages alone.

    python -m benchmarks.flows.screenshots

A server, its deployments and a teacher are started in an empty folder. Then: a green run; a run
that is started with the form, killed with SIGKILL, taken up by pressing *Retry* and finished, whose
Parquet must be that of the green run; the green run again, of which nothing is done again; and one
whose teacher dies. Ends with 1 if any of that does not come out. Needs ``chromium`` on the PATH.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.flows.browser import Browser, open_browser
from pipeline import console

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
_RECIPE = """name = "tour"
seed = 11
[teachers.default]
engine = "http"
model = "stand-in"
base_urls = ["http://127.0.0.1:{port}/v1"]
max_concurrency = 8
outage_s = 2
[synthesis]
bank = "{bank}"
batch_size = 8
[synthesis.combinations]
num_combinations = 160
math_share = 0.9
[synthesis.verification]
minimum_agreement = 0.4
"""
_PATIENCE_S = 300.0


class Tour:
    """The pages of one server, and what happens on them."""

    def __init__(self, browser: Browser, folder: Path, address: str, images: Path) -> None:
        self.browser = browser
        self.folder = folder
        self.address = address
        self.images = images

    def post(self, path: str, body: Any) -> Any:
        """Ask the server's API."""
        answer = httpx.post(f"{self.address}/api/{path}", json=body, timeout=30, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        """All task runs of a flow run."""
        return list(self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}}))

    def start_with_form(self, out: Path, image: str = "") -> str:
        """Fill the form of the deployment's page in, press *Submit*; the run's id.

        ``image`` names a picture of the form.
        """
        body = {"deployments": {"name": {"any_": ["local"]}}}
        there = self.post("deployments/filter", body)
        found = next(d for d in there if d["entrypoint"].endswith(":synth_promptcot"))
        given = {"recipe": str(self.folder / "tour.toml"), "out": str(out)}
        query = urllib.parse.urlencode({"parameters": json.dumps(given)})
        before = {run["id"] for run in self.post("flow_runs/filter", {"limit": 200})}
        url = f"{self.address}/deployments/deployment/{found['id']}/run?{query}"
        self.browser.resize(1280, 2200)
        self.browser.open(url, until="Submit")
        time.sleep(3)
        if image:
            self.browser.picture(self.images / image)
        self.browser.click("Submit", nth=-1)
        new: set[str] = set()

        def is_new() -> bool:
            new.update(
                {run["id"] for run in self.post("flow_runs/filter", {"limit": 200})} - before
            )
            return bool(new)

        self.wait(is_new, "the form made no run")
        return new.pop()

    def wait(self, is_there: Callable[[], bool], otherwise: str) -> None:
        """Wait for something, for minutes at most.

        Raises:
            TimeoutError: It did not happen.
        """
        end = time.monotonic() + _PATIENCE_S
        while not is_there():
            if time.monotonic() > end:
                raise TimeoutError(otherwise)
            time.sleep(0.5)

    def state_of(self, run_id: str) -> str:
        """A flow run's state by name."""
        return str(self.read_run(run_id)["state"]["name"])

    def read_run(self, run_id: str) -> dict[str, Any]:
        """A flow run as the server knows it."""
        url = f"{self.address}/api/flow_runs/{run_id}"
        return dict(httpx.get(url, timeout=30, trust_env=False).json())

    def wait_for_state(self, run_id: str, *names: str) -> None:
        """Wait until a flow run is in one of the states."""
        self.wait(lambda: self.state_of(run_id) in names, f"run {run_id} is not {names}")

    def show(
        self, run_id: str, image: str, *, tab: str = "", until: str, height: int = 1100
    ) -> None:
        """Take a picture of a run's page."""
        self.browser.resize(1280, height)
        self.browser.open(f"{self.address}/runs/flow-run/{run_id}", until=until)
        # The graph is laid out after everything else.
        time.sleep(10)
        if tab:
            self.browser.click(tab)
            time.sleep(2)
        self.browser.picture(self.images / image)


def main() -> int:
    """Do it all; 0 if everything came out as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--folder", type=Path, help="new; named in the pictures")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    options.images.mkdir(parents=True, exist_ok=True)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="promptcot-"))
    folder.mkdir(parents=True, exist_ok=True)
    teacher_port, port = free_port(), options.port or free_port()
    bank = ROOT / "promptcot" / "data" / "seeds.jsonl"
    recipe = _RECIPE.format(port=teacher_port, bank=bank)
    (folder / "tour.toml").write_text(recipe, encoding="utf-8")
    with (
        serving(folder, port) as address,
        teaching(teacher_port) as teacher,
        open_browser() as browser,
    ):
        failures = take_tour(Tour(browser, folder, address, options.images), teacher)
    for failure in failures:
        console.say(f"wrong: {failure}")
    console.say(f"pictures are in {options.images}")
    return 1 if failures else 0


def take_tour(tour: Tour, teacher: subprocess.Popen[bytes]) -> list[str]:
    """Green, killed and retried, reused, failed; what did not come out."""
    wrong: list[str] = []
    green, killed = tour.folder / "green", tour.folder / "killed"
    first = tour.start_with_form(green, "prefect-form.png")
    tour.wait_for_state(first, "Completed", "Failed")
    time.sleep(4)
    tour.show(first, "prefect-run.png", until="written:")
    tour.show(first, "prefect-shards.png", tab="Task Runs", until="written:", height=1500)
    tour.show(first, "prefect-artifacts.png", tab="Artifacts", until="written:", height=1300)
    show_artifacts(tour, first)
    if (num := len(tour.task_runs(first))) > 200:
        wrong.append(f"{num} task runs")

    second = tour.start_with_form(killed)
    log = killed / "logs" / "events.jsonl"
    tour.wait(lambda: count_events(log, "solutions") >= 3, "solutions did not begin")
    os.kill(read_pid(log), signal.SIGKILL)
    tour.wait_for_state(second, "Crashed")
    tour.browser.resize(1280, 1100)
    tour.browser.open(f"{tour.address}/runs/flow-run/{second}", until="Crashed")
    time.sleep(3)
    tour.browser.click("Retry")
    time.sleep(2)
    if tour.state_of(second) == "Crashed":
        tour.browser.click("Retry", nth=-1)
    tour.wait_for_state(second, "Completed", "Failed")
    time.sleep(4)
    tour.show(second, "prefect-retried.png", until="written:")
    states = [task["state_name"] for task in tour.task_runs(second)]
    console.say(f"killed and retried: {sorted(set(states))}, {len(states)} task runs")
    if "Reused" not in states or "Running" in states:
        wrong.append(f"states after the retry: {states}")
    if hash_data(green) != hash_data(killed):
        wrong.append("the retried run's Parquet differs from the green one's")
    console.say(f"{len(hash_data(green))} Parquet files, the same in both runs")

    third = tour.start_with_form(green)
    tour.wait_for_state(third, "Completed", "Failed")
    time.sleep(4)
    tour.show(third, "prefect-reused.png", tab="Task Runs", until="written:")
    if {task["state_name"] for task in tour.task_runs(third)} != {"Reused"}:
        wrong.append("the green run was not reused")

    fourth = tour.start_with_form(tour.folder / "failed")
    log = tour.folder / "failed" / "logs" / "events.jsonl"
    tour.wait(lambda: count_events(log, "solutions") >= 2, "solutions did not begin")
    teacher.kill()
    tour.wait_for_state(fourth, "Failed")
    time.sleep(4)
    tour.show(fourth, "prefect-failed.png", until="stopped")
    name = str(tour.read_run(fourth)["name"])
    if "solutions-000" not in name or f"prefect flow-run retry {fourth}" not in name:
        wrong.append(f"the failed run's name: {name}")
    return wrong


def show_artifacts(tour: Tour, run_id: str) -> None:
    """Pictures of the pages of two artifacts."""
    body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    there = {artifact["key"]: artifact["id"] for artifact in tour.post("artifacts/filter", body)}
    for key in ("funnel", "report"):
        tour.browser.resize(1280, 900)
        tour.browser.open(f"{tour.address}/artifacts/artifact/{there[key]}", until=key)
        tour.browser.picture(tour.images / f"prefect-{key}.png", settle_s=4)


def read_events(log: Path) -> list[dict[str, Any]]:
    """The whole lines of an event log; none where there is none yet."""
    if not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines(True)[:-1]]


def count_events(log: Path, stage: str) -> int:
    """Shards of a stage that are finished, as far as the log tells."""
    done = [e["done"] for e in read_events(log) if e.get("stage") == stage and e.get("done")]
    return max(done, default=0)


def read_pid(log: Path) -> int:
    """The process that the newest run works in."""
    return int([event["pid"] for event in read_events(log) if event["event"] == "run.started"][-1])


def hash_data(out: Path) -> dict[str, str]:
    """All Parquet files of finished versions, from the run folder."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "synthesis").glob("*/[0-9a-f]*/data/*.parquet"))
    }


@contextmanager
def teaching(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The stand-in for a teacher (``benchmarks/teacher_server.py``)."""
    server = ROOT / "benchmarks" / "teacher_server.py"
    command = [sys.executable, str(server), "--port", str(port), "--median-ms", "400"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """``python -m flows.deployments`` with a home of its own; yields the pages' address."""
    address = f"http://127.0.0.1:{port}"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{address}/api",
    }
    log = folder / "serve.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "flows.deployments"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            end = time.monotonic() + _PATIENCE_S
            while "Ctrl-C stops serving" not in log.read_text(encoding="utf-8"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(log.read_text(encoding="utf-8"))
                time.sleep(0.5)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
