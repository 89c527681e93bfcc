"""The student's gradients against float64, packed against one by one, by backend and dtype.

    python benchmarks/trainer/correctness.py [--device cpu|cuda] [--rows packed,control] [--list]

Documents of 2 to 700 tokens in one row of 2,048 (a quarter of it on a CPU), through the trainer's
collator and the model's own chunked loss. The reference is the ``torch`` backend in float64, which
tests hold against the step-by-step recurrence. Errors are relative, in the 2-norm, of all gradients
together. float32 means tf32 matrix products in the kernels; "autocast" is float32 weights under
bf16 autocast. Rows of transformers run its own model, with kernels on a GPU (our convolution stands
in for causal-conv1d where that is missing). The scan's kernels get their smallest tiles, which fit
in every dtype; the tiles that timings use are checked by ``throughput.py --check``.

One JSON line with everything goes to standard output at the end, progress to standard error. A row
that cannot be computed is recorded with its error and the others go on. Exit code 1 if a row failed
or a number is past its limit.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import correctness_kernels
import correctness_peers
import torch
from correctness_models import Bench, list_kinds

from pipeline.errors import ConfigError
from trainer.kernels.availability import require
from trainer.probe_gradients import find_worst, relative_error


@dataclass(frozen=True, slots=True)
class Number:
    """One number of the table."""

    row: str
    subject: str
    """Backend and dtype, or kernel."""
    value: float
    limit: float | None
    """The largest allowed; the smallest for ``at_least``; none is for information."""
    at_least: bool = False
    note: str = ""

    @property
    def is_fine(self) -> bool:
        """NaN is not."""
        if self.limit is None:
            return not math.isnan(self.value)
        return self.value >= self.limit if self.at_least else self.value <= self.limit


PACKED = {
    ("cpu", "float64"): 1e-10,
    ("cpu", "float32"): 1e-5,
    ("cuda", "float64"): 1e-10,
    ("cuda", "float32"): 1e-4,
}
"""Largest difference of packed and one by one; 1.5e-2 wherever bf16 takes part."""
AGAINST_FLOAT64 = {"float64": 1e-12, "float32": 1e-3}
"""Largest difference to the reference; 3e-2 wherever bf16 takes part."""


def compare_gradients(bench: Bench) -> Iterator[Number]:
    """Packed rows and single documents against float64, and against each other."""
    for kind in list_kinds(bench):
        packed, separate = bench.packed(kind), bench.separate(kind)
        limit = AGAINST_FLOAT64.get(kind.dtype_name, 3e-2)
        errors = [relative_error(found, bench.reference) for found in (packed, separate)]
        yield Number("packed vs float64", str(kind), errors[0], limit)
        yield Number("one by one vs float64", str(kind), errors[1], limit)
        # Below, both are the last bits of float32.
        if errors[1] > 1e-5:
            ratio = errors[0] / errors[1]
            yield Number("packed error over one by one's", str(kind), ratio, 1.1)
        limit = PACKED.get((bench.device, kind.dtype_name), 1.5e-2)
        name, worst = find_worst(packed, separate)
        note = f"worst: {name}, {worst:.1e}"
        yield Number(
            "packed vs one by one", str(kind), relative_error(packed, separate), limit, note=note
        )


def compare_without_labels(bench: Bench) -> Iterator[Number]:
    """The negative control: a leak must show."""
    for kind in list_kinds(bench):
        error = relative_error(bench.leaking(kind), bench.reference)
        yield Number("packed without documents vs float64", str(kind), error, 0.1, at_least=True)


def compare_losses(bench: Bench) -> Iterator[Number]:
    """What the leak does to the loss alone."""
    kind = replace(list_kinds(bench)[0], dtype=torch.float64)
    with torch.no_grad():
        right, wrong = bench.loss(kind, with_labels=True), bench.loss(kind, with_labels=False)
    note = f"{right:.4f} and {wrong:.4f}"
    yield Number("the leak in the loss", str(kind), abs(wrong / right - 1), None, note=note)


def repeat_steps(bench: Bench) -> Iterator[Number]:
    """The same step twice; mamba-ssm's fused operation and cumsum on a GPU may add up otherwise."""
    for kind in list_kinds(bench):
        twice = [bench.fresh(kind) for _ in range(2)]
        limit = 0.0 if kind.backend == "triton" or bench.device == "cpu" else 1e-7
        yield Number("same step twice", str(kind), relative_error(*twice), limit)


def recompute_blocks(bench: Bench) -> Iterator[Number]:
    """Blocks computed again in backward give the gradients of kept ones."""
    for kind in list_kinds(bench):
        for activation in ("all", "every_second"):
            found = bench.fresh(replace(kind, activation=activation))
            error = relative_error(found, bench.packed(kind))
            name = f"{kind}, {activation}"
            yield Number("blocks computed again vs kept", name, error, 1e-6)


def compare_kernels(bench: Bench) -> Iterator[Number]:
    """Each kernel's outputs and gradients alone, against float64."""
    for name, error, limit in correctness_kernels.measure_kernels(bench.device):
        yield Number("kernel alone vs float64", name, error, limit)


def compare_peers(bench: Bench) -> Iterator[Number]:
    """The model of transformers: agreement, and where it leaks."""
    for row, subject, value, limit in correctness_peers.measure_peers(bench):
        yield Number(row, subject, value, limit)


ROWS: dict[str, Callable[[Bench], Iterator[Number]]] = {
    "gradients": compare_gradients,
    "control": compare_without_labels,
    "loss": compare_losses,
    "repeat": repeat_steps,
    "recompute": recompute_blocks,
    "kernels": compare_kernels,
    "peers": compare_peers,
}


def show(number: Number, seconds: float) -> None:
    """One line of progress."""
    bound = "" if number.limit is None else f"{'≥' if number.at_least else '≤'} {number.limit:g}"
    mark = "" if number.is_fine else "  TOO FAR"
    print(
        f"{seconds:6.1f} s  {number.row:36} {number.subject:34} {number.value:9.2e}  {bound:10}"
        f"{number.note}{mark}",
        file=sys.stderr,
        flush=True,
    )


def find_backends(device: str) -> dict[str, str]:
    """Backend → why it is left out, or nothing."""
    found = {"torch": ""}
    for backend in ("triton", "split"):
        try:
            if device == "cpu":
                raise ConfigError("its kernels need a GPU", hint="run this on one")
            require(backend)
            found[backend] = ""
        except ConfigError as exc:
            found[backend] = str(exc)
    return found


def describe_machine(device: str) -> dict[str, str]:
    """What the numbers hold for."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {"device": device, "name": name, "python": platform.python_version(), **packages}


def main() -> int:
    """Compute the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}: {row.__doc__}" for name, row in ROWS.items()), file=sys.stderr)
        return 0
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    backends = find_backends(device)
    bench = Bench(device, [name for name, reason in backends.items() if not reason])
    began, numbers, errors = time.perf_counter(), [], {}
    for name in options.rows.split(","):
        try:
            for number in ROWS[name](bench):
                numbers.append(number)
                show(number, time.perf_counter() - began)
        except Exception as exc:
            traceback.print_exc()
            errors[name] = f"{type(exc).__name__}: {str(exc)[:300]}"
    too_far = [f"{n.row}: {n.subject}" for n in numbers if not n.is_fine]
    report = {
        **describe_machine(device),
        "backends": {name: reason or "measured" for name, reason in backends.items()},
        "seconds": round(time.perf_counter() - began, 1),
        "numbers": [{**asdict(n), "is_fine": n.is_fine} for n in numbers],
        "too_far": too_far,
        "errors": errors,
    }
    print(json.dumps(report))
    return 1 if errors or too_far else 0


if __name__ == "__main__":
    sys.exit(main())
