"""What PyTorch and the disk say when a run cannot go on, in one sentence with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, StoreError
from pipeline.store import explain_disk_errors
from trainer.memory import Shape, available_gib, estimate, list_remedies


@contextmanager
def explain_save_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that fills up while PyTorch or safetensors write into a :class:`StoreError`.

    Neither raises an ``OSError``: safetensors has its own error with the number in its text, and
    PyTorch's archive writer a ``RuntimeError`` from ``inline_container.cc``.

    Raises:
        StoreError: The disk is full or not writable.
    """
    from safetensors import SafetensorError

    with explain_disk_errors(folder):
        try:
            yield
        except (SafetensorError, RuntimeError) as exc:
            text = str(exc)
            if not any(mark in text for mark in ("No space left", "os error", "inline_container")):
                raise
            raise StoreError(
                f"cannot write a checkpoint under {folder} ({text.splitlines()[0]}); checkpoints "
                "finished before are kept",
                hint="free some disk space (or pass another --out) and run the same command again",
            ) from exc


@contextmanager
def explain_memory(shape: Shape) -> Iterator[None]:
    """Turn a lack of memory into the settings that would help, and by how much.

    Raises:
        ConfigError: Out of memory, on the device or on the host.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise _out_of_memory(shape, str(exc)) from exc
    except MemoryError as exc:
        raise _out_of_memory(shape, "the host is out of memory") from exc
    except RuntimeError as exc:
        # PyTorch's allocator for CPUs, and for page-locked memory.
        if not any(mark in str(exc) for mark in ("can't allocate memory", "CUDA error: out of")):
            raise
        raise _out_of_memory(shape, str(exc)) from exc


def _out_of_memory(shape: Shape, text: str) -> ConfigError:
    needed, there = estimate(shape), available_gib()
    remedies = list_remedies(shape, there)
    advice = "; or ".join(remedies) if remedies else "use a smaller model or shorter max_length"
    return ConfigError(
        f"out of memory in a forward pass of {shape.micro_batch} × {shape.row_tokens:,} tokens "
        f"(estimated {needed.device:.1f} GiB, of which activations {needed.activations:.1f}; "
        f"{there:.1f} GiB are there): {_first_sentence(text)}; checkpoints are kept",
        hint=f"change one and run the same command again: {advice}",
    )


def _first_sentence(text: str) -> str:
    return text.strip().splitlines()[0].split(". ")[0].rstrip(".")
