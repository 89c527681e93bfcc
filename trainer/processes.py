"""The processes of one training run: which one this is, and what it may use.

One process per device, started by ``torchrun`` or ``accelerate launch``; plain ``python -m`` is one
process on one device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline import console
from pipeline.tied_process import LAUNCHER_PID


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world_size: int

    @property
    def is_main(self) -> bool:
        """Whether this one writes shared files and talks to people."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether weights are sharded and gradients reduced."""
        return self.world_size > 1

    def wait(self) -> None:
        """Until all processes are here."""
        if self.are_many:
            import torch.distributed as dist

            dist.barrier()

    def share(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if not self.are_many:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process, then in the others, e.g. to fill a cache once."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


def is_launched() -> bool:
    """Whether a launcher started this process, which therefore trains by itself."""
    return LAUNCHER_PID in os.environ or "RANK" in os.environ


def answers_for_run(launcher: str) -> bool:
    """Whether this process claims the run's part of the run folder (``pipeline.claims``).

    Of processes that this project launched none does: who launched them has it. Where a launcher of
    yours drops their environment, the recipe still says that they are launched.
    """
    if not is_launched():
        return True
    is_by_hand = LAUNCHER_PID not in os.environ and launcher == "inline"
    return is_by_hand and find_processes().is_main


def find_processes() -> Processes:
    """What ``torchrun`` or ``accelerate launch`` said; one process without them."""
    return Processes(
        rank=int(os.environ.get("RANK", "0")), world_size=int(os.environ.get("WORLD_SIZE", "1"))
    )


def join(processes: Processes) -> None:
    """Connect the processes (NCCL on GPUs, gloo on CPUs) and silence all but the main one."""
    if not processes.are_many:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    if not processes.is_main:
        console.screen().quiet = True


def note_unused_gpus(processes: Processes) -> str | None:
    """What to say when several GPUs are visible and one process was started."""
    import torch

    visible = torch.cuda.device_count()
    if processes.are_many or visible < 2:
        return None
    return (
        f"{visible} GPUs are visible and one is used; for all of them: "
        f"torchrun --nproc-per-node {visible} -m trainer.sft …"
    )


def device_name() -> str:
    """The GPU's name, or ``CPU``."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "CPU"
