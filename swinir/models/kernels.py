"""Kernels of a Swin Transformer layer for CPUs, compiled by LLVM (llvmlite) for the processor at hand.

PyTorch's attention operators are made for many tokens and wide heads. On windows of 49 or 64 tokens with heads of 10
to 32 channels they reach a fifth of a core's arithmetic rate, and normalisation, gathering and additions are passes of
their own over memory. Numba's vectoriser makes an attention kernel that is as slow as PyTorch's and takes seconds to
compile; here the vectors are written down, and compiling takes a few tenths of a second.

Kernels run in the calling thread, without Python's global lock. A `narrow` kernel reads and writes bfloat16 tokens; all
kernels compute in float32.
"""

import ctypes
import functools
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

if INSTALLED := importlib.util.find_spec("llvmlite") is not None:
    from llvmlite import binding, ir

    FLOAT, INT, SHORT = ir.FloatType(), ir.IntType(64), ir.IntType(16)

LOG2E = math.log2(math.e)
# 2**r for r in [-0.5, 0.5] with a relative error of 1e-7: least squares on the nodes of Chebyshev.
EXP2 = (1.000000071029698, 0.6931469491610636, 0.2402212175356164, 0.05550742616, 0.00967545974552, 0.00132669703864)
ROUND = 1.5 * 2**23  # adding it rounds a float32 to an integer in the lowest bits
Row = list[Any]  # of LLVM vectors, whose sizes are powers of two


@functools.cache
def attention(tokens: int, head: int, *, narrow: bool) -> Callable[[Tensor, Tensor, Tensor], None]:
    """Compile multi-head attention inside windows: f(qkv, bias, out).

    `qkv` is (windows, tokens, 3, heads, head), with queries scaled by `LOG2E` beside the usual factor, `bias` is one
    class of a `bias_table`, `out` is (windows, tokens, heads, head).
    """
    lanes = vector_lanes()
    blocks = -(-tokens // lanes)
    kernel = _Kernel(pointers=(narrow, False, narrow), integers=2)
    qkv, bias, out, windows, heads = kernel.args
    q, o = (kernel.array(head * blocks * lanes) for _ in range(2))  # (head, blocks * lanes)
    k, v = (kernel.array(tokens * head) for _ in range(2))  # (tokens, head)
    p = kernel.array(tokens * lanes)
    vector = ir.VectorType(FLOAT, lanes)
    with kernel.loop(head * blocks) as i:  # queries beyond the window exist, and are not stored
        kernel.put(kernel.constant(0.0, vector), q, (i, lanes))
    with kernel.loop(windows) as n, kernel.loop(heads) as h:
        width = kernel.int_mul(heads, head)
        with kernel.loop(tokens) as i:
            first = kernel.offset((n, tokens * 3), (i, 3), times=width, plus=kernel.int_mul(h, head))
            row = kernel.load(qkv, head, (first, 1))
            for d, value in enumerate(kernel.scalars(row)):
                kernel.put(value, q, (d, blocks * lanes), (i, 1))
            kernel.store(kernel.load(qkv, head, (first, 1), (width, 1)), k, (i, head))
            kernel.store(kernel.load(qkv, head, (first, 1), (width, 2)), v, (i, head))
        with kernel.loop(blocks) as block:
            ours = [kernel.vector(q, lanes, (d, blocks * lanes), (block, lanes)) for d in range(head)]
            top = kernel.variable(kernel.constant(-3e38, vector))
            with kernel.loop(tokens) as j:
                s = kernel.vector(bias, lanes, (h, blocks * tokens * lanes), (block, tokens * lanes), (j, lanes))
                for d in range(head):
                    s = kernel.fma(kernel.splat(k, lanes, (j, head), (d, 1)), ours[d], s)
                kernel.put(s, p, (j, lanes))
                kernel.set(top, kernel.max(kernel.get(top), s))
            total = kernel.variable(kernel.constant(0.0, vector))
            with kernel.loop(tokens) as j:
                e = kernel.exp2(kernel.sub(kernel.vector(p, lanes, (j, lanes)), kernel.get(top)))
                kernel.put(e, p, (j, lanes))
                kernel.set(total, kernel.add(kernel.get(total), e))
            sums = [kernel.variable(kernel.constant(0.0, vector)) for _ in range(head)]
            with kernel.loop(tokens) as j:
                e = kernel.vector(p, lanes, (j, lanes))
                for d in range(head):
                    kernel.set(sums[d], kernel.fma(kernel.splat(v, lanes, (j, head), (d, 1)), e, kernel.get(sums[d])))
            scale = kernel.div(kernel.constant(1.0, vector), kernel.get(total))
            for d in range(head):
                kernel.put(kernel.mul(kernel.get(sums[d]), scale), o, (d, blocks * lanes), (block, lanes))
        with kernel.loop(tokens) as i:
            row = kernel.row([kernel.scalar(o, (d, blocks * lanes), (i, 1)) for d in range(head)])
            kernel.store(row, out, (kernel.offset((n, tokens), (i, 1), times=width, plus=kernel.int_mul(h, head)), 1))
    run = kernel.compile()
    return lambda qkv, bias, out: run(qkv.data_ptr(), bias.data_ptr(), out.data_ptr(), len(qkv), qkv.shape[3])


def bias_table(bias: Tensor) -> Tensor:
    """Convert additive biases (..., heads, queries, keys) to the layout that `attention` reads."""
    lanes, tokens = vector_lanes(), bias.shape[-1]
    queries = torch.arange(-(-tokens // lanes) * lanes).clamp(max=tokens - 1)
    blocks = (bias.double() * LOG2E).float()[..., queries, :].unflatten(-2, (-1, lanes))
    return blocks.transpose(-1, -2).contiguous()  # (..., heads, blocks, keys, lanes)


@functools.cache
def stream_kernel(channels: int, window: int, *, narrow: bool, add: bool, norm: bool) -> Callable[..., None]:
    """Compile a pass over a rectangle of windows of the stream: f(x, change, out, weight, bias, eps, *place).

    `x` is the float32 stream (B, H, W, C), `place` = (B, H, W, y, x, rows, columns): its size, the corner of the first
    window and the number of windows; what lies beyond an edge is taken from the opposite one. With `add`, the tokens
    `change` are added to the stream; with `norm`, its LayerNorm goes into the tokens `out`. Tokens are
    (B * rows * columns, window**2, C).
    """
    kernel = _Kernel(pointers=(False, narrow, narrow, False, False), floats=1, integers=7)
    stream, change, out, weight, bias, eps, batch, height, width, y0, x0, rows, cols = kernel.args
    with kernel.loop(batch) as b, kernel.loop(rows) as r, kernel.loop(cols) as c:
        first = kernel.offset((kernel.offset((b, 1), times=rows, plus=r), 1), times=cols, plus=c)
        with kernel.loop(window) as i:
            y = kernel.wrap(kernel.offset((r, window), (i, 1), plus=y0), height)
            line = kernel.offset((kernel.offset((b, 1), times=height, plus=y), 1), times=width)
            with kernel.loop(window) as j:
                x = kernel.wrap(kernel.offset((c, window), (j, 1), plus=x0), width)
                pixel = kernel.offset((line, channels), (x, channels))
                token = kernel.offset((first, window**2 * channels), (i, window * channels), (j, channels))
                row = kernel.load(stream, channels, (pixel, 1))
                if add:
                    row = [
                        kernel.add(*pair) for pair in zip(row, kernel.load(change, channels, (token, 1)), strict=True)
                    ]
                    kernel.store(row, stream, (pixel, 1))
                if norm:
                    gains, shifts = kernel.load(weight, channels, (0, 1)), kernel.load(bias, channels, (0, 1))
                    row = kernel.normalize(row, channels, eps)
                    row = [kernel.fma(*parts) for parts in zip(row, gains, shifts, strict=True)]
                    kernel.store(row, out, (token, 1))
    run = kernel.compile()

    def call(x: Tensor, change: Tensor, out: Tensor, weight: Tensor, bias: Tensor, eps: float, *place: int) -> None:
        run(x.data_ptr(), change.data_ptr(), out.data_ptr(), weight.data_ptr(), bias.data_ptr(), eps, *place)

    return call


def problem() -> str | None:
    """Explain why kernels cannot be compiled here; None if they can."""
    if not INSTALLED:
        return "the kernels for CPUs need llvmlite, which is not installed"
    try:
        _target()
    except (RuntimeError, OSError) as error:
        return f"LLVM makes no code for this processor: {error}"
    return None


def vector_lanes() -> int:
    """Count the float32 values that one step of the kernels works on."""
    return 16 if "avx512f" in _features() else 8


@functools.cache
def _features() -> frozenset[str]:
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def _target() -> Any:
    """Create LLVM's description of this processor; an engine takes possession of it."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3)


Term = tuple[Any, Any]  # a factor of an offset: index, stride


class _Kernel:
    """A function void(pointers..., floats..., integers...) under construction; all arithmetic is in float32.

    Args:
        pointers: for each pointer True if it is to bfloat16 values, else float32.
        floats, integers: number of further arguments.
    """

    def __init__(self, pointers: Sequence[bool], *, floats: int = 0, integers: int = 0) -> None:
        types = [(SHORT if narrow else FLOAT).as_pointer() for narrow in pointers]
        types += [FLOAT] * floats + [INT] * integers
        self.module = ir.Module()
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), "kernel")
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        self.args = self.function.args
        for pointer in self.args[: len(pointers)]:
            pointer.add_attribute("noalias")
        self.signature = [ctypes.c_void_p] * len(pointers) + [ctypes.c_float] * floats + [ctypes.c_int64] * integers

    def compile(self) -> Callable[..., None]:
        """Finish the function and translate it to machine code, which lives as long as the callable."""
        self.builder.ret_void()
        module = binding.parse_assembly(str(self.module))
        options = binding.create_pipeline_tuning_options(speed_level=2)
        options.loop_unrolling = False
        target = _target()
        passes = binding.create_pass_builder(target, options)
        passes.getModulePassManager().run(module, passes)
        engine = binding.create_mcjit_compiler(module, target)
        engine.finalize_object()
        run: Any = ctypes.CFUNCTYPE(None, *self.signature)(engine.get_function_address("kernel"))
        run.engine = engine
        return run

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """Repeat what is emitted in the context for indices below `count`, at least once."""
        before = self.builder.block
        body, end = self.function.append_basic_block(), self.function.append_basic_block()
        self.builder.branch(body)
        self.builder.position_at_end(body)
        index = self.builder.phi(INT)
        index.add_incoming(INT(0), before)
        yield index
        after = self.builder.add(index, INT(1))
        index.add_incoming(after, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", after, self._int(count)), body, end)
        self.builder.position_at_end(end)

    # Memory

    def array(self, size: int) -> Any:
        """Reserve float32 values on the stack."""
        with self.builder.goto_entry_block():
            array = self.builder.alloca(FLOAT, INT(size))
        array.align = 64
        return array

    def variable(self, value: Any) -> Any:
        """Reserve a register for values of a loop."""
        with self.builder.goto_entry_block():
            variable = self.builder.alloca(value.type)
        self.builder.store(value, variable)
        return variable

    def get(self, variable: Any) -> Any:
        return self.builder.load(variable)

    def set(self, variable: Any, value: Any) -> None:
        self.builder.store(value, variable)

    def vector(self, array: Any, size: int, *place: Term) -> Any:
        """Load consecutive values."""
        return self._load(array, size, self.offset(*place))

    def scalar(self, array: Any, *place: Term) -> Any:
        """Load a float32."""
        return self.builder.load(self.builder.gep(array, [self.offset(*place)]))

    def put(self, value: Any, array: Any, *place: Term) -> None:
        """Store a float32 or a vector of them."""
        pointer = self.builder.gep(array, [self.offset(*place)])
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def splat(self, array: Any, lanes: int, *place: Term) -> Any:
        """Load one value into all lanes."""
        return self._spread(self.scalar(array, *place), lanes)

    def load(self, array: Any, size: int, *place: Term) -> Row:
        """Load consecutive values as a row."""
        start, row = self.offset(*place), []
        for piece in _pieces(size):
            row.append(self._load(array, piece, start))
            start = self.builder.add(start, INT(piece))
        return row

    def store(self, row: Row, array: Any, *place: Term) -> None:
        start = self.offset(*place)
        for piece in row:
            narrow = array.type.pointee == SHORT
            value = self._to_bfloat16(piece) if narrow else piece
            pointer = self.builder.bitcast(self.builder.gep(array, [start]), value.type.as_pointer())
            self.builder.store(value, pointer, align=2 if narrow else 4)
            start = self.builder.add(start, INT(piece.type.count))

    def row(self, scalars: list[Any]) -> Row:
        """Join scalars to a row."""
        row, rest = [], iter(scalars)
        for piece in _pieces(len(scalars)):
            vector = ir.Constant(ir.VectorType(FLOAT, piece), ir.Undefined)
            for lane in range(piece):
                vector = self.builder.insert_element(vector, next(rest), _lane(lane))
            row.append(vector)
        return row

    def scalars(self, row: Row) -> Iterator[Any]:
        for piece in row:
            for lane in range(piece.type.count):
                yield self.builder.extract_element(piece, _lane(lane))

    def _load(self, array: Any, size: int, start: Any) -> Any:
        narrow = array.type.pointee == SHORT
        vector = ir.VectorType(array.type.pointee, size)
        pointer = self.builder.bitcast(self.builder.gep(array, [start]), vector.as_pointer())
        value = self.builder.load(pointer, align=2 if narrow else 4)
        if not narrow:
            return value
        wide = ir.VectorType(ir.IntType(32), size)
        bits = self.builder.shl(self.builder.zext(value, wide), ir.Constant(wide, [16] * size))
        return self.builder.bitcast(bits, ir.VectorType(FLOAT, size))

    def _to_bfloat16(self, vector: Any) -> Any:
        """Round to nearest, ties to even."""
        size = vector.type.count
        wide = ir.VectorType(ir.IntType(32), size)
        bits = self.builder.bitcast(vector, wide)
        high = self.builder.lshr(bits, ir.Constant(wide, [16] * size))
        odd = self.builder.and_(high, ir.Constant(wide, [1] * size))
        bits = self.builder.add(self.builder.add(bits, ir.Constant(wide, [0x7FFF] * size)), odd)
        return self.builder.trunc(self.builder.lshr(bits, ir.Constant(wide, [16] * size)), ir.VectorType(SHORT, size))

    # Indices

    def offset(self, *terms: Term, times: Any = 1, plus: Any = 0) -> Any:
        """Compute (the sum of index * stride) * times + plus."""
        total = INT(0)
        for index, stride in terms:
            total = self.builder.add(total, self.int_mul(index, stride))
        return self.builder.add(self.int_mul(total, times), self._int(plus))

    def int_mul(self, a: Any, b: Any) -> Any:
        return self.builder.mul(self._int(a), self._int(b))

    def wrap(self, index: Any, size: Any) -> Any:
        """Compute index modulo size for an index below 2 * size."""
        beyond = self.builder.icmp_signed(">=", index, size)
        return self.builder.select(beyond, self.builder.sub(index, size), index)

    def _int(self, value: Any) -> Any:
        return INT(value) if isinstance(value, int) else value

    # Arithmetic

    def constant(self, value: float, like: Any) -> Any:
        return ir.Constant(like, [ir.Constant(FLOAT, value)] * like.count if isinstance(like, ir.VectorType) else value)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=("contract",))

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=("contract",))

    def div(self, a: Any, b: Any) -> Any:
        return self.builder.fdiv(a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Compute a * b + c, rounded once where the processor can."""
        return self.add(self.mul(a, b), c)

    def max(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def exp2(self, x: Any) -> Any:
        """Compute 2**x for x <= 0; NaN stays NaN."""
        lowest = self.constant(-126.0, x.type)
        x = self.builder.select(self.builder.fcmp_ordered("<", x, lowest), lowest, x)
        # The exponent of 2**n, n + 127, appears in the lowest bits of the sum.
        shifted = self.builder.fadd(x, self.constant(ROUND + 127, x.type))
        rest = self.sub(x, self.sub(shifted, self.constant(ROUND + 127, x.type)))
        bits = ir.VectorType(ir.IntType(32), x.type.count)
        power = self.builder.shl(self.builder.bitcast(shifted, bits), ir.Constant(bits, [23] * x.type.count))
        value = self.constant(EXP2[-1], x.type)
        for coefficient in reversed(EXP2[:-1]):
            value = self.fma(value, rest, self.constant(coefficient, x.type))
        return self.mul(value, self.builder.bitcast(power, x.type))

    def normalize(self, row: Row, size: int, eps: Any) -> Row:
        """Subtract the mean of `size` values, and divide by the square root of their variance plus `eps`."""
        mean = self.mul(self._sum(row), self.constant(1 / size, FLOAT))
        row = [self.sub(piece, self._spread(mean, piece.type.count)) for piece in row]
        variance = self.mul(self._sum([self.mul(piece, piece) for piece in row]), self.constant(1 / size, FLOAT))
        root = self.module.declare_intrinsic("llvm.sqrt", [FLOAT])
        scale = self.div(self.constant(1.0, FLOAT), self.builder.call(root, [self.builder.fadd(variance, eps)]))
        return [self.mul(piece, self._spread(scale, piece.type.count)) for piece in row]

    def _spread(self, value: Any, lanes: int) -> Any:
        """Copy a value into all lanes of a vector."""
        one = self.builder.insert_element(ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined), value, _lane(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

    def _sum(self, row: Row) -> Any:
        """Sum all values: vectors of equal sizes by lanes, then halves of a vector."""
        total = row[0]
        for piece in row[1:]:
            while total.type.count > piece.type.count:
                total = self._fold(total)
            total = self.add(total, piece)
        while total.type.count > 1:
            total = self._fold(total)
        return self.builder.extract_element(total, _lane(0))

    def _fold(self, vector: Any) -> Any:
        half = vector.type.count // 2
        low, high = (
            self.builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(start, start + half)))
            )
            for start in (0, half)
        )
        return self.add(low, high)


def _pieces(size: int) -> list[int]:
    """Divide a row into vectors of 16 and smaller powers of two."""
    return [16] * (size // 16) + [piece for piece in (8, 4, 2, 1) if size & piece]


def _lane(index: int) -> Any:
    return ir.Constant(ir.IntType(32), index)
