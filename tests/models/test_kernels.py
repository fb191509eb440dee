"""The kernels for CPUs against the same computation in float64."""

import pytest
import torch
import torch.nn.functional as F

from swinir.models import kernels

SHAPES = [(64, 10, 6), (64, 16, 3), (49, 30, 2), (49, 32, 1), (64, 24, 2), (4, 5, 3)]  # tokens, head size, heads


@pytest.mark.parametrize(("tokens", "head", "heads"), SHAPES)
def test_attention_is_that_of_the_definition(tokens, head, heads):
    torch.manual_seed(0)
    qkv, bias = torch.randn(3, tokens, 3, heads, head), 3 * torch.randn(heads, tokens, tokens)
    bias[:, :, 1::3] = -100.0
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        operand = qkv.to(dtype)
        q, k, v = operand.double().permute(2, 0, 3, 1, 4)
        expected = ((q @ k.mT / kernels.LOG2E + bias.double()).softmax(-1) @ v).transpose(1, 2)
        out = torch.full((3, tokens, heads, head), torch.nan, dtype=dtype)
        kernels.attention(tokens, head, narrow=dtype == torch.bfloat16)(operand, kernels.bias_table(bias), out)
        assert (out.double() - expected).abs().max() < tolerance


def test_large_and_missing_numbers_pass_attention_as_they_pass_softmax():
    qkv = torch.ones(3, 4, 3, 1, 5)
    qkv[0, :, :2] *= 1e4
    qkv[1, 2, 2] = torch.inf
    qkv[2, 1, 0, 0, 0] = torch.nan
    out = torch.empty(3, 4, 1, 5)
    kernels.attention(4, 5, narrow=False)(qkv, kernels.bias_table(torch.zeros(1, 4, 4)), out)
    assert (out[0] - 1).abs().max() < 1e-6
    assert out[1].isinf().all()
    assert out[2, 1].isnan().all()
    assert out[2, 0].isfinite().all()


@pytest.mark.parametrize(("channels", "window"), [(60, 8), (180, 7), (30, 2), (7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_over_the_stream_add_and_normalize_windows_across_the_edges(channels, window, dtype):
    torch.manual_seed(0)
    size, shift, narrow = (2 * window, 3 * window), window // 2, dtype == torch.bfloat16
    x, change = 5 + torch.randn(2, *size, channels), torch.randn(12, window**2, channels).to(dtype)
    weight, bias = torch.randn(channels), torch.randn(channels)
    place = (2, *size, shift, shift, 2, 3)

    def tokens(x):
        moved = x.roll((-shift, -shift), (1, 2)).view(2, 2, window, 3, window, channels)
        return moved.transpose(2, 3).reshape(12, window**2, channels)

    for add, norm in ((False, True), (True, True), (True, False)):
        stream, out = x.clone(), torch.empty_like(change)
        run = kernels.stream_kernel(channels, window, narrow=narrow, add=add, norm=norm)
        run(stream, change, out, weight, bias, 1e-5, *place)
        expected = tokens(x) + change.float() if add else tokens(x)
        assert torch.equal(tokens(stream), expected)
        if norm:
            expected = F.layer_norm(expected.double(), (channels,), weight.double(), bias.double())
            assert (out.float() - expected.to(dtype).float()).abs().max() < (0.04 if narrow else 1e-5)


def test_bfloat16_is_rounded_as_pytorch_rounds():
    x = torch.randn(1, 8, 8, 16)
    change = torch.zeros(1, 64, 16, dtype=torch.bfloat16)
    out = torch.empty_like(change)
    weight, bias = torch.ones(16), torch.zeros(16)
    place = (1, 8, 8, 0, 0, 1, 1)
    kernels.stream_kernel(16, 8, narrow=True, add=False, norm=True)(x, change, out, weight, bias, 1e-5, *place)
    exact = torch.empty(1, 64, 16)
    kernels.stream_kernel(16, 8, narrow=False, add=False, norm=True)(x, exact, exact, weight, bias, 1e-5, *place)
    assert torch.equal(out, exact.bfloat16())


def test_narrow_vectors_serve_processors_without_wide_ones(monkeypatch):
    monkeypatch.setattr(kernels, "vector_lanes", lambda: 8)
    kernels.attention.cache_clear()
    try:
        test_attention_is_that_of_the_definition(49, 10, 2)
    finally:
        kernels.attention.cache_clear()


def test_a_missing_compiler_is_named(monkeypatch):
    assert kernels.problem() is None
    monkeypatch.setattr(kernels, "INSTALLED", False)
    assert kernels.problem() == "the kernels for CPUs need llvmlite, which is not installed"
