"""What a narrow recurrent state costs in accuracy: bf16 against float32, rounded in two ways.

    python benchmarks/evaluation/state_drift.py [--steps 4096] [--slowest 1e-4]

A Mamba-2 with random float32 weights reads the same random tokens four times: with a float32 state
(the reference), with its state rounded to bf16 after every step to the nearest number (what the
decode loop and vLLM do) or up and down at random with the right mean, and, for scale, with bf16
weights and a float32 state. Arithmetic within a step is float32 throughout. The heads' step sizes
range from ``--slowest`` (1e-3 in initial weights; smaller: heads that learnt to remember) to 0.1.

Each window's line tells the relative error of the logits, the Kullback-Leibler divergence of the
next token from the reference (nats) and how often the likeliest token is the same. The last lines
tell the relative error of the state by how fast heads forget: a head that loses less than half of
bf16's spacing (2^-9) a step cannot forget at all when rounded to nearest.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evaluation.decoding.state import SlotStates
from evaluation.decoding.step import advance, load_step_operations
from pipeline.settings.training import ModelSettings
from trainer.model import build_config
from trainer.model.student import StudentModel

WINDOWS = (64, 256, 1024, 4096, 16_384, 65_536)
RATES = ((0.0, 2**-9), (2**-9, 0.02), (0.02, math.inf))
ROWS = 8
Round = Callable[[Tensor], Tensor]


def to_nearest(state: Tensor) -> Tensor:
    """Float32 values that bf16 can hold."""
    return state.to(torch.bfloat16).float()


def to_either_side(state: Tensor, generator: torch.Generator) -> Tensor:
    """The same, up or down with probabilities that keep the mean."""
    bits = state.view(torch.int32)
    noise = torch.randint(0, 1 << 16, state.shape, dtype=torch.int32, generator=generator)
    return ((bits + noise) & -(1 << 16)).view(torch.float32)


class Reader:
    """One way of keeping the state, token by token."""

    def __init__(self, model: Any, rounding: Round | None = None) -> None:
        self.model, self.rounding = model, rounding
        self.states = SlotStates(model, ROWS, torch.float32)
        self.operations = load_step_operations("torch")

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after one more token of each row."""
        logits = advance(self.model, tokens, self.states, self.operations)
        if self.rounding is not None:
            for state in self.states.states:
                state.copy_(self.rounding(state))
        return logits


def make_model(options: argparse.Namespace) -> Any:
    """Random float32 weights."""
    torch.manual_seed(options.seed)
    settings = ModelSettings(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        head_dim=64,
        state_size=64,
        n_groups=2,
        tie_word_embeddings=True,
    )
    config = build_config(settings)
    config.vocab_size = options.vocabulary
    model = StudentModel(config).eval().requires_grad_(False)
    low, high = math.log(options.slowest), math.log(0.1)
    for layer in model.backbone.layers:
        bias = layer.mixer.dt_bias
        step = torch.exp(torch.rand(bias.shape) * (high - low) + low)
        bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
    return model


def measure_rates(model: Any, tokens: Tensor) -> Tensor:
    """(layers, heads) mean of what a head's state loses a step, ``dt * |A|``."""
    found: list[Tensor] = []

    def keep(mixer: Any, _: Any, projected: Tensor) -> None:
        dt = torch.nn.functional.softplus(projected[..., -mixer.dt_bias.numel() :] + mixer.dt_bias)
        found.append((dt * mixer.A_log.exp()).flatten(0, -2).mean(0))

    hooks = [
        layer.mixer.in_proj.register_forward_hook(
            lambda _, inputs, output, mixer=layer.mixer: keep(mixer, inputs, output)
        )
        for layer in model.backbone.layers
    ]
    model(tokens.T.contiguous())
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def compare(reference: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Relative error, divergence in nats, share of equal likeliest tokens."""
    p, q = reference.log_softmax(-1), other.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    centred = reference - reference.mean(-1, keepdim=True)
    error = (other - reference).norm() / centred.norm()
    same = (reference.argmax(-1) == other.argmax(-1)).float().mean()
    return float(error), float(divergence), float(same)


def state_errors(reference: SlotStates, other: SlotStates, rates: Tensor) -> dict[str, float]:
    """Relative error of the states of heads that forget at similar rates."""
    found = {}
    for low, high in RATES:
        wrong = whole = 0.0
        for layer, (a, b) in enumerate(zip(reference.states, other.states, strict=True)):
            chosen = (rates[layer] >= low) & (rates[layer] < high)
            wrong += float((a[:, chosen] - b[:, chosen]).square().sum())
            whole += float(a[:, chosen].square().sum())
        if whole:
            found[f"loses {low:.3g} to {high:.3g} a step"] = round(math.sqrt(wrong / whole), 6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--slowest", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model(options)
    generator = torch.Generator().manual_seed(options.seed)
    tokens = torch.randint(0, options.vocabulary, (options.steps, ROWS), generator=generator)
    rates = measure_rates(model, tokens[:256])
    narrow = copy.deepcopy(model)
    for parameter in narrow.parameters():
        parameter.copy_(to_nearest(parameter))
    reference = Reader(model)
    readers = {
        "bf16 state, to nearest": Reader(model, to_nearest),
        "bf16 state, stochastic": Reader(model, lambda s: to_either_side(s, generator)),
        "bf16 weights, float32 state": Reader(narrow),
    }
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in readers}
    began = 0
    with torch.inference_mode():
        for step, ids in enumerate(tokens, start=1):
            wanted = reference.read(ids)
            for name, reader in readers.items():
                sums[name] += torch.tensor(compare(wanted, reader.read(ids)))
            if step in WINDOWS or step == options.steps:
                for name, total in sums.items():
                    error, divergence, same = (total / (step - began)).tolist()
                    values = {"logits": error, "nats": divergence, "same": same}
                    print(json.dumps({"steps": f"{began + 1}-{step}", "kept": name, **values}))
                    total.zero_()
                began = step
    for name, reader in readers.items():
        errors = state_errors(reference.states, reader.states, rates)
        print(json.dumps({"after": options.steps, "kept": name, "state error": errors}))


if __name__ == "__main__":
    main()
