"""Prove that packed documents do not influence each other, on the very calls that train.

    python -m trainer.probe --recipe demo

A small model of the recipe's own class, width, backend, dtype and activation policy computes the
gradients of several documents packed into rows, and of the same documents one by one. They must
agree; and the same comparison without document labels, the negative control, must fail, or else
the probe could not tell. The loss would not do: a leak of 20 % in the gradients moves it by 0.1 %.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli
from pipeline.errors import StateLeak

if TYPE_CHECKING:
    from pipeline.settings.recipe import Recipe
    from trainer.model.student import StudentModel
    from trainer.probe_gradients import LossFunction, Rows

CONTROL_MINIMUM = 0.1
"""What leaks must differ by so much, or the probe proves nothing."""
TOLERANCES = {
    ("cpu", "float64"): 1e-10,
    ("cpu", "float32"): 1e-5,
    ("cuda", "float64"): 1e-10,
    # Matrix products of the kernels take tf32 inputs.
    ("cuda", "float32"): 1e-4,
    ("cpu", "bfloat16"): 1.5e-2,
    ("cuda", "bfloat16"): 1.5e-2,
}
"""Largest relative error of all gradients together, by device and computing dtype."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found; relative errors in the 2-norm."""

    error: float
    """All gradients, packed against one by one."""
    worst: float
    """The gradient of one parameter that differs most by itself; at most ten times as much."""
    worst_name: str
    tolerance: float
    """What ``error`` must not pass."""
    control: float
    """``error`` without document labels."""
    num_documents: int
    num_tokens: int
    backend: str
    device: str
    dtype: str
    """Of the computation."""
    activation: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"packed = one by one to {self.error:.1e} (at most {self.tolerance:g}); without "
            f"document labels {self.control:.2f} (at least {CONTROL_MINIMUM:g}); backend "
            f"{self.backend}, {self.device}, {self.dtype}, {self.num_documents} documents"
        )


def probe_leak(
    model: StudentModel,
    *,
    loss_fn: LossFunction | None = None,
    device: Any = None,
    dtype: Any = None,
    pad_multiple: int = 128,
) -> ProbeResult:
    """Compare gradients of packed rows with those of their documents one by one.

    The given model is not touched, nor is any random state: a model of its configuration with two
    layers and random weights is probed, with its backend, activation policy and weights' dtype.

    Args:
        model: The model to be trained, sharded or not.
        loss_fn: The trainer's own loss; by default the model's.
        device: Where to compute; by default where the model is.
        dtype: Computing dtype, which decides the tolerance; by default that of the weights. With
            bfloat16 and float32 weights the default loss runs under autocast.
        pad_multiple: Rows are padded to a multiple of it, as in training.

    Raises:
        StateLeak: Documents influence each other, or the negative control does not notice a leak.
    """
    import torch

    from trainer.probe_gradients import build_small, draw_rows, own_loss

    started = time.perf_counter()
    weights = next(model.parameters())
    where, dtype = torch.device(device or weights.device), dtype or weights.dtype
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(0)
        small = build_small(model, where, weights.dtype)
        rows = draw_rows(small.config.chunk_size, small.config.vocab_size)
    kind = str(dtype).removeprefix("torch.")
    result = ProbeResult(
        **_compare(small, loss_fn or own_loss(dtype), rows, pad_multiple),
        tolerance=TOLERANCES[where.type, kind],
        num_documents=sum(len(row) for row in rows),
        num_tokens=sum(len(document) for row in rows for document in row),
        backend=model.backend,
        device=where.type,
        dtype=kind,
        activation=model.activation,
        seconds=round(time.perf_counter() - started, 3),
    )
    check(result)
    return result


def _compare(
    model: StudentModel, loss_fn: LossFunction, rows: Rows, pad_multiple: int
) -> dict[str, Any]:
    """The errors of a :class:`ProbeResult`."""
    from trainer.probe_gradients import DocumentGradients, find_worst, relative_error

    compute = DocumentGradients(model, loss_fn, pad_multiple)
    separate = compute.one_by_one(rows)
    packed, leaking = compute.packed(rows), compute.packed(rows, with_labels=False)
    worst_name, worst = find_worst(packed, separate)
    return {
        "error": relative_error(packed, separate),
        "worst": worst,
        "worst_name": worst_name,
        "control": relative_error(leaking, separate),
    }


def check(result: ProbeResult) -> None:
    """Refuse what did not pass.

    Raises:
        StateLeak: See :func:`probe_leak`.
    """
    hint = 'train with another training.backend or packing = "off", and report this as a bug'
    # Written so that NaN fails. Single gradients round more than all together, and a leak into
    # the states alone shows in those of the decay by a third and more.
    if not (result.error <= result.tolerance and result.worst <= 10 * result.tolerance):
        raise StateLeak(
            f"packed documents influence each other: gradients differ by {result.error:.2g} from "
            f"those one by one, more than {result.tolerance:g} (worst: {result.worst_name}, "
            f"{result.worst:.2g}; backend {result.backend}, {result.device}, {result.dtype})",
            hint=hint,
        )
    if not result.control >= CONTROL_MINIMUM:
        raise StateLeak(
            f"the leak probe cannot tell: without document labels gradients differ by only "
            f"{result.control:.2g}, less than {CONTROL_MINIMUM:g}, so a leak would pass unseen",
            hint=hint,
        )


app = cli.make_app(
    "probe",
    "Prove that packed documents do not influence each other.\n\n"
    "Example: python -m trainer.probe --recipe demo",
)


@app.command()
def probe(
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="torch, triton or split (default: the recipe's)."),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Prove that packed documents do not influence each other; exit code 3 if they do.

    Example: python -m trainer.probe --recipe demo
    """
    # Nothing comes from the hub; read once, when huggingface_hub is imported.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from pipeline import console
    from pipeline.settings import load_recipe

    if as_json:
        console.use_json_output()
    chosen = [f"training.backend={backend}"] if backend else []
    loaded = load_recipe(recipe, [*(overrides or []), *chosen])
    result = probe_recipe(loaded)
    if as_json:
        console.print_json(asdict(result))
        return
    console.table(f"leak probe of recipe {loaded.name}", ["what", "value"], _table_rows(result))


def probe_recipe(recipe: Recipe) -> ProbeResult:
    """Probe what a recipe would train with here, with the model's own loss.

    Raises:
        ConfigError: The backend's kernels are missing.
        StateLeak: See :func:`probe_leak`.
    """
    import torch

    from trainer.model import build_config
    from trainer.model.student import StudentModel
    from trainer.recipe import choose_backend

    training = recipe.settings.training
    backend = choose_backend(training)
    on_gpu = torch.cuda.is_available()
    with torch.device("meta"):
        model = StudentModel(
            build_config(recipe.settings.model), backend=backend, activation=training.activation
        )
    if training.precision in ("host_master", "stochastic"):
        model = model.to(torch.bfloat16)
    dtype = torch.float32 if training.precision == "float32" else torch.bfloat16
    return probe_leak(model, device="cuda" if on_gpu else "cpu", dtype=dtype)


def _table_rows(result: ProbeResult) -> list[tuple[str, str]]:
    return [
        ("packed against one by one", f"{result.error:.2e} (at most {result.tolerance:g})"),
        ("worst parameter", f"{result.worst:.2e} {result.worst_name}"),
        ("without document labels", f"{result.control:.3f} (at least {CONTROL_MINIMUM:g})"),
        ("documents", f"{result.num_documents} of {result.num_tokens} tokens"),
        ("backend", f"{result.backend} on {result.device}, {result.dtype}"),
        ("recomputed blocks", result.activation),
        ("took", f"{result.seconds:.1f} s"),
    ]


if __name__ == "__main__":
    cli.run_app(app, "python -m trainer.probe")
