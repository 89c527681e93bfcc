"""What a run proves at every start, on the very calls that it will train with."""

from __future__ import annotations

from typing import Any

from pipeline import console


def check_leak(trainer: Any) -> dict[str, float]:
    """Packed documents must give the gradients they give one by one; see :mod:`trainer.probe`.

    The loss is the trainer's own ``compute_loss`` under its own autocast, with the live backend,
    activation policy and sharding.

    Args:
        trainer: A :class:`trainer.student_trainer.StudentTrainer`.

    Returns:
        ``error`` of packed against separate, and of the negative control without document labels.

    Raises:
        StateLeak: Documents influence each other, or the probe cannot tell.
    """
    import torch

    from trainer.probe import probe_leak

    parts = trainer.parts
    exact = parts.training.precision == "float32"

    def compute_loss(model: Any, inputs: dict[str, Any]) -> Any:
        with trainer.compute_loss_context_manager():
            return trainer.compute_loss(model, inputs)

    result = probe_leak(
        trainer.model,
        loss_fn=compute_loss,
        device=trainer.args.device,
        dtype=torch.float32 if exact else torch.bfloat16,
        pad_multiple=parts.data.collate.pad_multiple,
    )
    console.say(f"leak probe: {result}")
    return {"error": result.error, "control": result.control}
