"""Triton kernel of the fused Swin Transformer layer; `swinir.models.fused` packs its arguments and launches it.

A program takes `per` whole windows, each padded to `tokens` rows. It holds their channels as a tuple of `chunks`
tensors of `chunk` columns: sides of Triton's tensors are powers of two, and 180 channels so take 192 columns, not 256.
"""

# mypy: ignore-errors
# Triton compiles these functions from their source, in a language whose types mypy does not know.

import triton
import triton.language as tl


@triton.jit
def _rows(first, rows, cols, shift, window: tl.constexpr, tokens: tl.constexpr, per: tl.constexpr):
    """Rows of the stream of the tokens of `per` windows; (B, rows * window, cols * window) in image order."""
    token = tl.arange(0, per * tokens)
    index, inside = first + token // tokens, token % tokens
    image, place = index // (rows * cols), index % (rows * cols)
    y = place // cols * window + inside // window + shift
    x = place % cols * window + inside % window + shift
    y = tl.where(y >= rows * window, y - rows * window, y)
    x = tl.where(x >= cols * window, x - cols * window, x)
    # 64 bits, since a stream can hold more than 2**31 values.
    return (image.to(tl.int64) * (rows * window) + y) * (cols * window) + x


@triton.jit
def _classes(first, rows, cols, shift, per: tl.constexpr):
    """Mask classes of `per` windows: inside, right edge, bottom edge, corner; all the first without a shift."""
    place = (first + tl.arange(0, per)) % (rows * cols)
    kind = 2 * (place // cols == rows - 1).to(tl.int32) + (place % cols == cols - 1).to(tl.int32)
    return tl.where(shift > 0, kind, 0)


@triton.jit
def _moments(x, eps, dim: tl.constexpr, chunk: tl.constexpr, chunks: tl.constexpr):
    """Mean of each row of x and the factor that makes its variance one."""
    total = tl.sum(x[0], 1)
    for i in tl.static_range(1, chunks):
        total += tl.sum(x[i], 1)
    mean = (total / dim)[:, None]
    squares = tl.zeros_like(total)
    for i in tl.static_range(chunks):
        centred = x[i] - mean
        if (i + 1) * chunk > dim:
            centred = tl.where(i * chunk + tl.arange(0, chunk)[None, :] < dim, centred, 0.0)
        squares += tl.sum(centred * centred, 1)
    return mean, tl.rsqrt(squares / dim + eps)[:, None]


@triton.jit
def _normal(x, mean, factor, chunks: tl.constexpr, narrow: tl.constexpr):
    """LayerNorm without its affine part, which the products that follow contain. Padding need not be zero: it meets
    zeros of the weights."""
    y = ()
    for i in tl.static_range(chunks):
        y += (((x[i] - mean) * factor).to(narrow),)
    return y


@triton.jit
def _product(
    a,
    weight,
    first,
    stride: tl.constexpr,
    width: tl.constexpr,
    dim: tl.constexpr,
    chunk: tl.constexpr,
    chunks: tl.constexpr,
    step: tl.constexpr,
):
    """Product of normalized rows with columns [first, first + width) of a (chunks * chunk, stride) weight.

    `a` has the chunks of the rows. With a `step` it has the rows' place in the stream, their mask and their moments;
    `step` channels at a time are then read and normalized again, which takes few registers.
    """
    column = first + tl.arange(0, width)[None, :]
    if step == 0:
        row = tl.arange(0, chunk)[:, None]
        y = tl.dot(a[0], tl.load(weight + row * stride + column), input_precision="ieee")
        for i in tl.static_range(1, chunks):
            y = tl.dot(a[i], tl.load(weight + (i * chunk + row) * stride + column), y, input_precision="ieee")
    else:
        place, live, mean, factor = a
        y = tl.zeros((place.shape[0], width), tl.float32)
        for c in range(0, dim, step):
            lane = c + tl.arange(0, step)
            x = tl.load(place + lane[None, :], mask=live & (lane < dim)[None, :], other=0.0)
            w = tl.load(weight + lane[:, None] * stride + column)
            y = tl.dot((x - mean) * factor, w, y, input_precision="ieee")
    return y


@triton.jit
def _add_product(x, a, weight, first, width: tl.constexpr, chunk: tl.constexpr, chunks: tl.constexpr):
    """Chunks of x plus the product of `a` with rows [first, first + width) of a (_, chunks * chunk) weight."""
    row, column = first + tl.arange(0, width)[:, None], tl.arange(0, chunk)[None, :]
    y = ()
    for i in tl.static_range(chunks):
        w = tl.load(weight + row * (chunks * chunk) + i * chunk + column)
        y += (tl.dot(a, w, x[i], input_precision="ieee"),)
    return y


@triton.jit
def _add_bias(x, bias, chunk: tl.constexpr, chunks: tl.constexpr):
    y = ()
    for i in tl.static_range(chunks):
        y += (x[i] + tl.load(bias + i * chunk + tl.arange(0, chunk))[None, :],)
    return y


@triton.jit
def _gelu(u, narrow: tl.constexpr):
    """GELU of x = sqrt(2) * u, times sqrt(2)."""
    if narrow == tl.float32:
        return u + u * tl.erf(u)
    # The exact function takes as long as all products of the MLP. This odd polynomial is the best of its degree within
    # 2.65 and constant beyond; it is 2.2e-4 off at most, a tenth of what rounding to bfloat16 changes.
    v = tl.minimum(tl.maximum(u, -2.65), 2.65)
    t = v * v
    p = 6.625938e-06 * t - 2.039408e-04
    p = p * t + 2.715281e-03
    p = p * t - 2.08649e-02
    p = p * t + 1.047355e-01
    p = p * t - 3.708542e-01
    p = p * t + 1.127227
    return u + u * (v * p)


# One compilation serves images of all sizes and layers with and without a shift.
@triton.jit(do_not_specialize=["windows", "rows", "cols", "shift"])
def swin_layer(
    stream,
    qkv,
    q_bias,
    proj,
    proj_bias,
    table,
    fc1,
    fc1_bias,
    fc2,
    fc2_bias,
    eps1,
    eps2,
    windows,
    rows,
    cols,
    shift,
    dim: tl.constexpr,
    chunk: tl.constexpr,
    chunks: tl.constexpr,
    heads: tl.constexpr,
    head: tl.constexpr,
    hidden: tl.constexpr,
    window: tl.constexpr,
    tokens: tl.constexpr,
    narrow: tl.constexpr,
    per: tl.constexpr,
    block: tl.constexpr,
    step: tl.constexpr,
    attention: tl.constexpr,
    mlp: tl.constexpr,
):
    """X = MSA(LN(X)) + X if `attention`, then X = MLP(LN(X)) + X if `mlp`, in place in the (_, dim) stream."""
    first = tl.program_id(0) * per
    token, column = tl.arange(0, per * tokens), tl.arange(0, chunk)[None, :]
    live = ((token % tokens < window * window) & (first + token // tokens < windows))[:, None]
    place = stream + _rows(first, rows, cols, shift, window, tokens, per)[:, None] * dim
    # The residual stays in registers: x is read once and all products accumulate onto it.
    x = ()
    for i in tl.static_range(chunks):
        x += (tl.load(place + i * chunk + column, mask=live & (i * chunk + column < dim), other=0.0),)

    if attention:
        mean, factor = _moments(x, eps1, dim, chunk, chunks)
        normal = (place, live, mean, factor) if step else _normal(x, mean, factor, chunks, narrow)
        x = _add_bias(x, proj_bias, chunk, chunks)
        one, lane = tl.arange(0, tokens), tl.arange(0, head)
        kind = _classes(first, rows, cols, shift, per)
        for h in range(heads):
            q = _product(normal, qkv, h * head, 3 * heads * head, head, dim, chunk, chunks, step)
            k = _product(normal, qkv, (heads + h) * head, 3 * heads * head, head, dim, chunk, chunks, step)
            v = _product(normal, qkv, (2 * heads + h) * head, 3 * heads * head, head, dim, chunk, chunks, step)
            q = (q + tl.load(q_bias + h * head + lane)[None, :]).to(narrow)
            if per == 1:
                k, v = k.to(narrow), v.to(narrow)
                pair = ((tl.sum(kind, 0) * heads + h) * tokens + one[:, None]) * tokens + one[None, :]
            else:
                q = tl.reshape(q, (per, tokens, head))
                k, v = tl.reshape(k.to(narrow), (per, tokens, head)), tl.reshape(v.to(narrow), (per, tokens, head))
                pair = ((kind[:, None, None] * heads + h) * tokens + one[None, :, None]) * tokens + one[None, None, :]
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") + tl.load(table + pair)
            last: tl.constexpr = len(logits.shape) - 1
            share = tl.exp2(logits - tl.max(logits, last, keep_dims=True))
            # One division a row.
            factor = 1.0 / tl.sum(share, last, keep_dims=True)
            attended = tl.dot(share.to(narrow), v, input_precision="ieee") * factor
            attended = tl.reshape(attended.to(narrow), (per * tokens, head))
            x = _add_product(x, attended, proj, h * head, head, chunk, chunks)

    if mlp:
        mean, factor = _moments(x, eps2, dim, chunk, chunks)
        normal = (place, live, mean, factor) if step else _normal(x, mean, factor, chunks, narrow)
        x = _add_bias(x, fc2_bias, chunk, chunks)
        for j in range(0, hidden, block):
            u = _product(normal, fc1, j, hidden, block, dim, chunk, chunks, step)
            u += tl.load(fc1_bias + j + tl.arange(0, block))[None, :]
            x = _add_product(x, _gelu(u, narrow).to(narrow), fc2, j, block, chunk, chunks)

    for i in tl.static_range(chunks):
        tl.store(place + i * chunk + column, x[i], mask=live & (i * chunk + column < dim))
