"""The model of transformers beside ours: where they agree, and where its documents meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from correctness_models import Bench, Kind, make_config

from trainer.model.student import StudentModel
from trainer.probe_gradients import relative_error

AGREEMENT = {"cpu": 1e-5, "cuda": 5e-3}
"""Of float32 logits; on a GPU the peer's kernels multiply in tf32, as the scan alone does."""


def measure_peers(bench: Bench) -> Iterator[tuple[str, str, float, float | None]]:
    """(row, subject, value, limit); numbers about transformers alone have no limit."""
    if "triton" in bench.backends:
        from gpu_models import stand_in_for_convolution

        stand_in_for_convolution()
    for num_groups in (1, 2, 8):
        error = compare_logits(bench.device, num_groups)
        yield "logits vs transformers", f"{num_groups} groups", error, AGREEMENT[bench.device]
    dtypes = [torch.float32, *([torch.bfloat16] if bench.device == "cuda" else [])]
    for dtype in dtypes:
        name = f"transformers, {str(dtype).removeprefix('torch.')}"
        stock = load_stock(bench, dtype)
        yield "train vs eval path", name, compare_paths(bench, stock), None
        yield "ForCausalLM(seq_idx) vs alone", name, measure_leak(bench, stock), None
        if bench.device == "cuda":
            # TRL's route; without kernels it raises, as it should.
            error = compare_backbone(bench, stock)
            yield "backbone(seq_idx) gradients vs float64", name, error, None


def compare_logits(device: str, num_groups: int) -> float:
    """Largest difference of ours on PyTorch and theirs, over the largest logit."""
    from transformers import Mamba2ForCausalLM

    torch.manual_seed(0)
    config = make_config(device, n_groups=num_groups)
    model = StudentModel(config).to(device).eval()
    stock = Mamba2ForCausalLM(config).to(device).eval()
    stock.load_state_dict(model.state_dict())
    ids = torch.randint(3, config.vocab_size, (2, 300), device=device)
    with torch.no_grad():
        found, wanted = model(ids).logits, stock(ids, use_cache=False).logits
    return float((found - wanted).abs().max() / wanted.abs().max())


def load_stock(bench: Bench, dtype: torch.dtype) -> Any:
    """Transformers' model with the bench's weights."""
    from transformers import Mamba2ForCausalLM

    stock = Mamba2ForCausalLM(bench.config).double()
    stock.load_state_dict(bench.weights)
    return stock.to(bench.device, dtype)


@torch.no_grad()
def compare_paths(bench: Bench, stock: Any) -> float:
    """Logits in training mode (its fused kernel on a GPU) against those in evaluation mode."""
    ids = torch.tensor([bench.rows[0][0]], device=bench.device)
    train = stock.train()(ids, use_cache=False).logits
    evaluated = stock.eval()(ids, use_cache=False).logits
    return float((train - evaluated).double().norm() / evaluated.double().norm())


@torch.no_grad()
def measure_leak(bench: Bench, stock: Any) -> float:
    """Change of the second document's logits by the first, though seq_idx tells them apart."""
    first, second = bench.rows[0][0], bench.rows[0][3]
    ids = torch.tensor([[*first, *second]], device=bench.device)
    numbers = (torch.arange(ids.shape[1], device=bench.device) >= len(first)).int()[None]
    stock.train()
    packed = stock(ids, seq_idx=numbers, use_cache=False).logits[:, len(first) :]
    alone = stock(ids[:, len(first) :], use_cache=False).logits
    return float((packed - alone).double().norm() / alone.double().norm())


def compare_backbone(bench: Bench, stock: Any) -> float:
    """Gradients by its backbone with seq_idx and our loss, against the reference."""
    from trainer.model.loss import sum_token_loss

    batch = bench.gradients_of(Kind("torch", torch.float32)).make_batch(bench.rows)
    stock.train().zero_grad()
    hidden = stock.backbone(batch["input_ids"], seq_idx=batch["seq_idx"], use_cache=False)[0]
    weight = stock.lm_head.weight
    sums = sum_token_loss(hidden.to(weight.dtype), weight, batch["labels"], batch["seq_idx"])
    (sums.total / sums.num_tokens).backward()
    found = {name: p.grad.detach().cpu().double() for name, p in stock.named_parameters()}
    return relative_error(found, bench.reference)
