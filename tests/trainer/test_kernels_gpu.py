"""The kernels on a GPU at sizes of real runs, against float64: run this after any version change."""

from __future__ import annotations

import pytest
import torch
from kernel_references import DEVICE, compute_gradients

if DEVICE == "cpu":
    pytest.skip("needs a CUDA device", allow_module_level=True)
from kernel_cases import CASES, make_config, measure_case, prepare_small_tiles

from pipeline.errors import ConfigError
from trainer.kernels.availability import require
from trainer.kernels.convolution import convolve, differentiate
from trainer.kernels.precompile import Workload, precompile_all
from trainer.kernels.tiles import list_smallest_tiles, pin_tiles, read_tiles

try:
    require("triton")
except ConfigError as missing:
    pytest.skip(str(missing), allow_module_level=True)

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def small_tiles() -> None:
    prepare_small_tiles()


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_agrees_with_float64(name: str) -> None:
    assert measure_case(CASES[name]()) < 1


@pytest.mark.parametrize("name", [name for name in CASES if "bfloat16" in name])
def test_the_same_input_gives_the_same_bits(name: str) -> None:
    case = CASES[name]()
    first, second = (compute_gradients(case.kernel, case.inputs) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


def test_compiling_ahead_leaves_nothing_to_compile_a_second_time() -> None:
    workload = Workload(make_config(), torch.bfloat16, 1024, has_documents=False)
    assert precompile_all([workload], num_processes=8).num_failed == 0
    assert precompile_all([workload]).num_kernels == 0


def test_a_pinned_tile_is_the_one_that_runs() -> None:
    wanted = list_smallest_tiles()
    pin_tiles(wanted)
    measure_case(CASES["scan bfloat16"]())
    used = read_tiles()
    assert used
    assert all(wanted[name] == tile for name, tile in used.items())
    with pytest.raises(ValueError, match="proposes no tile"):
        pin_tiles({name: {"BLOCK_SIZE_M": 7} for name in used})


def test_rows_beyond_two_to_the_31_elements_are_reached() -> None:
    channels, width, tail = 256, 10304, 64
    length = (1 << 31) // width + 1000
    wide = torch.zeros(1, length, width, dtype=torch.bfloat16, device="cuda")
    x = wide[..., 4096 : 4096 + channels]
    x[:, -tail:] = torch.randn(1, tail, channels, device="cuda")
    weight = torch.randn(channels, 4, device="cuda")
    y = convolve(x, weight, None, None)
    assert torch.equal(y[:, -tail:], convolve(x[:, -tail:].contiguous(), weight, None, None))
    dy = torch.zeros_like(y)
    dy[:, -tail:] = torch.randn(1, tail, channels, device="cuda")
    dx = torch.empty_like(wide)[..., 4096 : 4096 + channels]
    differentiate((x, weight, None), None, dy, dx=dx)
    short = torch.empty(1, tail, channels, dtype=torch.bfloat16, device="cuda")
    differentiate((x[:, -tail:], weight, None), None, dy[:, -tail:], dx=short)
    assert torch.equal(dx[:, -tail:], short)
