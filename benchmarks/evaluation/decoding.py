"""Decoding the student: ours against transformers' ``generate``, on the same weights in one run.

    python benchmarks/evaluation/decoding.py [--shape tiny|130m|1.3b|7b] [--device cpu|cuda]
        [--batches 1,32] [--new-tokens 64] [--prompt-tokens 48] [--repeats 3] [--dtype bfloat16]

Random weights of the shape, equally long prompts, no end token, so that everybody generates
exactly as many tokens. Three decoders: ``ours`` (fixed slots; on a GPU Triton kernels and a CUDA
graph), ``generate`` (transformers' ``Mamba2ForCausalLM``) and ``student.generate`` (our model class
in transformers' loop). Each generates greedily and by temperature 0.8 with top-p 0.95; repeats of
all take turns, and the median counts. Prefill is included, loading and graph capture are not.

On a CPU the clock is the process's own time on one thread, so that other work on the machine does
not count; on a GPU it is wall time. One JSON line a case, the last one with everything. Exit code 1
if greedy texts in float32 part at a token where the two scores differ by more than rounding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, Mamba2Config, Mamba2ForCausalLM
from transformers.utils import logging

from evaluation.decoding.batching import Batcher, Job
from evaluation.decoding.choice import Sampling
from evaluation.decoding.loop import DecodeOptions, Decoder
from pipeline.student import VOCAB_SIZE
from trainer.model.student import StudentModel

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "head_dim": 32, "state_size": 32,
             "n_groups": 2, "chunk_size": 64},
    "130m": {"hidden_size": 768, "num_hidden_layers": 24, "head_dim": 64, "state_size": 128,
             "n_groups": 1, "chunk_size": 256},
    "1.3b": {"hidden_size": 2048, "num_hidden_layers": 48, "head_dim": 64, "state_size": 128,
             "n_groups": 1, "chunk_size": 256},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 64, "head_dim": 64, "state_size": 128,
           "n_groups": 8, "chunk_size": 256},
}  # fmt: skip
ROUNDING = 1e-5
"""Of scores in float32, as a share of the largest."""
GREEDY = Sampling(temperature=0)
SAMPLED = Sampling(temperature=0.8, top_p=0.95)
Decode = Callable[[list[tuple[int, ...]]], list[list[int]]]


def make_models(shape: str, device: str, dtype: torch.dtype) -> tuple[StudentModel, Any]:
    """Our model and transformers' with the same weights."""
    values = SHAPES[shape]
    config = Mamba2Config(
        **values, expand=2, num_heads=2 * values["hidden_size"] // values["head_dim"],
        vocab_size=VOCAB_SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        ours = StudentModel(config).to(dtype).eval()
        peer = Mamba2ForCausalLM(config).to(dtype).eval()
    peer.load_state_dict(ours.state_dict())
    for model in (ours, peer):
        # What a call leaves open comes from here: nobody may end early.
        model.generation_config.eos_token_id = None
    return ours, peer


def decode_with_ours(
    model: StudentModel, batch: int, num_tokens: int, sampling: Sampling, options: DecodeOptions
) -> Decode:
    """The decode loop; the decoder, and with it the graph, is made once."""
    decoder = Decoder(model, batch, sampling=sampling, options=options)

    def run(prompts: list[tuple[int, ...]]) -> list[list[int]]:
        batcher: Batcher[int] = Batcher(decoder, end_token=-1)
        for number, prompt in enumerate(prompts):
            batcher.add(Job(number, prompt, number, num_tokens))
        return [list(one.tokens) for one in sorted(batcher.run(), key=lambda one: one.tag)]

    return run


def decode_with_generate(model: Any, num_tokens: int, sampling: Sampling) -> Decode:
    """Transformers' loop over one static batch."""
    rules = {"do_sample": False}
    if not sampling.is_greedy:
        rules = {
            "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": 0,
        }  # fmt: skip
    how = GenerationConfig(**rules, max_new_tokens=num_tokens, eos_token_id=None, pad_token_id=0)

    def run(prompts: list[tuple[int, ...]]) -> list[list[int]]:
        ids = torch.tensor(prompts, device=model.device)
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, generation_config=how)
        return output[:, ids.shape[1] :].tolist()

    return run


def measure(
    decoders: dict[str, Decode], prompts: list[tuple[int, ...]], repeats: int
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """Median seconds and texts of each; repeats take turns, after one run that warms up.

    A decoder that the card has no room for is left out, and a line says so.
    """
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    texts: dict[str, list[list[int]]] = {}
    for name, decode in decoders.items():
        try:
            texts[name] = decode(prompts)
        except torch.OutOfMemoryError:
            print(json.dumps({"out of memory": name, "batch": len(prompts)}), flush=True)
    for _ in range(repeats):
        for name in texts:
            start = clock()
            decoders[name](prompts)  # all end with a copy to the host
            seconds[name].append(clock() - start)
    return {name: statistics.median(seconds[name]) for name in texts}, texts


def run_case(models: tuple[StudentModel, Any], batch: int, sampling: Sampling,
             arguments: argparse.Namespace) -> dict[str, Any]:  # fmt: skip
    """One batch size and one way of choosing."""
    ours, peer = models
    on_gpu = arguments.device == "cuda"
    options = DecodeOptions(
        state_dtype=arguments.state_dtype, kernels="triton" if on_gpu else "torch"
    )
    generator = torch.Generator().manual_seed(batch)
    size = (batch, arguments.prompt_tokens)
    prompts = [
        tuple(row) for row in torch.randint(3, VOCAB_SIZE, size, generator=generator).tolist()
    ]
    tokens = arguments.new_tokens
    seconds, texts = measure(
        {
            "ours": decode_with_ours(ours, batch, tokens, sampling, options),
            "generate": decode_with_generate(peer, tokens, sampling),
            "student.generate": decode_with_generate(ours, tokens, sampling),
        },
        prompts,
        arguments.repeats,
    )
    result: dict[str, Any] = {
        "shape": arguments.shape,
        "batch": batch,
        "sampling": "greedy" if sampling.is_greedy else "sampled",
        "tokens_per_s": {name: batch * tokens / value for name, value in seconds.items()},
        "ratio": {name: value / seconds["ours"] for name, value in seconds.items()},
    }
    if sampling.is_greedy and "generate" in texts:
        pairs = list(zip(prompts, texts["ours"], texts["generate"], strict=True))
        result["equal_texts"] = sum(a == b for _, a, b in pairs) / batch
        result["largest_gap"] = max(find_gap(peer, *pair) for pair in pairs)
    return result


def find_gap(model: Any, prompt: tuple[int, ...], first: list[int], second: list[int]) -> float:
    """How far apart the two scores are, as a share of the largest, where two texts part; or 0.

    Random weights give near ties, which rounding decides: 32,768 scores of about equal size.
    """
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            ids = torch.tensor([[*prompt, *first[:place]]], device=model.device)
            scores = model(ids).logits[0, -1].float()
            return float((scores[a] - scores[b]).abs() / scores.abs().max())
    return 0.0


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--state-dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    on_gpu = arguments.device == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    dtype = arguments.dtype or ("bfloat16" if on_gpu else "float32")
    models = make_models(arguments.shape, arguments.device, getattr(torch, dtype))
    results = []
    with torch.inference_mode():
        for batch in map(int, arguments.batches.split(",")):
            for sampling in (GREEDY, SAMPLED):
                results.append(run_case(models, batch, sampling, arguments))
                print(json.dumps(results[-1]), flush=True)
    device = torch.cuda.get_device_name() if on_gpu else "cpu, one thread"
    print(json.dumps({"device": device, "dtype": dtype, "cases": results}))
    differs = any(result.get("largest_gap", 0) > ROUNDING for result in results)
    return 1 if differs and dtype == "float32" else 0


if __name__ == "__main__":
    sys.exit(main())
