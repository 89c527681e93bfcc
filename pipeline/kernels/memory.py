"""Single steps that kernels take in memory and that numba has no words for.

numba keeps a kernel's machine code as long as the kernel's own file stays as it is: whoever changes
this file has to change its users too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]


def _loader(bits: int) -> Any:
    """Reads bytes of an array from a place on as one little-endian number."""

    def load(typing: Any, data: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.gep(array.data, [arguments[1]])
            wide = builder.bitcast(address, ir.IntType(bits).as_pointer())
            return builder.load(wide, align=1)

        return types.Integer.from_bitwidth(bits, signed=False)(data, types.int64), generate

    return intrinsic(load)


load_eight = cast(Callable[[UInt8s, Any], np.uint64], _loader(64))
load_two = cast(Callable[[UInt8s, Any], np.uint16], _loader(16))


def _make_prefetch() -> Any:
    """Asks for a row of a table early, so that it is near when it is read."""

    def prefetch(typing: Any, table: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            stride = builder.extract_value(array.strides, 0)
            base = builder.bitcast(array.data, ir.IntType(8).as_pointer())
            address = builder.gep(base, [builder.mul(stride, arguments[1])])
            pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
            builder.call(function, [address, number(0), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(table, types.uint64), generate

    return intrinsic(prefetch)


prefetch = cast(Callable[[UInt64s, Any], None], _make_prefetch())
