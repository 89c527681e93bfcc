"""Holding a process to a budget of memory, and reading how much it really took.

On a GPU the allocator refuses what goes over the budget, and what CUDA itself takes counts too. On
a CPU there is no such limit: the peak of resident memory since the model came is compared with it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.errors import ConfigError

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class OverBudget(RuntimeError):
    """A batch took more than the budget: where the allocator does not refuse it by itself."""


class GpuMemory:
    """Memory of one GPU, of which a budget may be used.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total = torch.cuda.get_device_properties(device).total_memory

    def restrict(self, limit: int) -> None:
        """From here on allocations beyond ``limit`` bytes fail.

        Raises:
            ConfigError: The card has less, or CUDA alone takes more.
        """
        torch.cuda.empty_cache()
        left = limit - self._outside()
        if limit > self.total or left <= 0:
            raise ConfigError(
                f"a budget of {limit / 2**30:.1f} GB on a card of {self.total / 2**30:.1f} GB, of "
                f"which CUDA and other programs hold {self._outside() / 2**30:.1f} GB",
                hint="use a smaller --budget-gb, or free the card",
            )
        torch.cuda.set_per_process_memory_fraction(left / self.total, self.device)

    def release(self) -> None:
        """Lift the restriction."""
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    def start(self) -> None:
        """Forget the peak so far."""
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """Most bytes needed since :meth:`start`: by tensors, and what CUDA takes beside them."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) + self._outside()

    def held(self) -> int:
        """Bytes of tensors alive."""
        return torch.cuda.memory_allocated(self.device)

    def _outside(self) -> int:
        free, total = torch.cuda.mem_get_info(self.device)
        return max(0, total - free - torch.cuda.memory_reserved(self.device))

    def check(self, limit: int, counted: int) -> None:
        """Raise :class:`OverBudget` where CUDA's own part went over what was left for it.

        Args:
            limit: Bytes of the budget.
            counted: Bytes that are known to be needed; the allocator has seen to them.
        """
        taken = torch.cuda.max_memory_reserved(self.device) + self._outside()
        if taken > limit:
            raise OverBudget(f"{taken:,} of {limit:,} bytes")


class CpuMemory:
    """Resident memory of this process beyond what it had when this object was made.

    Raises:
        ConfigError: The system does not tell (no Linux).
    """

    def __init__(self) -> None:
        if not _STATUS.is_file():
            raise ConfigError(
                "this system has no /proc/self/status, so memory cannot be held to a budget",
                hint="measure throughput on Linux, or on a GPU",
            )
        self._before = _read_status("VmRSS")

    def restrict(self, limit: int) -> None:
        """Nothing refuses an allocation here: :meth:`check` tells afterwards."""

    def release(self) -> None:
        """Nothing to lift."""

    def start(self) -> None:
        """Forget the peak so far (Linux: 5 resets VmHWM)."""
        _CLEAR.write_text("5")

    def peak(self) -> int:
        """Most bytes resident since :meth:`start`."""
        return max(0, _read_status("VmHWM") - self._before)

    def held(self) -> int:
        """Bytes resident."""
        return max(0, _read_status("VmRSS") - self._before)

    def check(self, limit: int, counted: int) -> None:
        """Raise :class:`OverBudget` where the peak, or what is known to be needed, is over it."""
        taken = max(self.peak(), counted)
        if taken > limit:
            raise OverBudget(f"{taken:,} of {limit:,} bytes")


Memory = GpuMemory | CpuMemory


def ran_out(exc: BaseException | None) -> bool:
    """Whether memory was the reason: a capture that runs out ends with another error on top."""
    while exc is not None:
        if isinstance(exc, torch.OutOfMemoryError | OverBudget) or "DefaultCPUAllocator" in str(
            exc
        ):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def open_memory(device: torch.device) -> Memory:
    """The memory of a device."""
    return GpuMemory(device) if device.type == "cuda" else CpuMemory()


def _read_status(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ConfigError(f"{_STATUS} has no {name}", hint="measure throughput on Linux or on a GPU")
