"""The eager layer: which tokens it works on at once, and how often it is compiled. Its output: test_optimized.py."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from networks import live

from swinir.models import eager_layer
from swinir.models.eager_layer import rectangles
from swinir.models.optimized import OptimizedSwinIR, optimize
from swinir.models.swinir import NetworkConfig
from swinir.models.windows import layer_windows, to_image

TINY = NetworkConfig(embed_dim=12, depths=(2,), num_heads=(3,), img_size=16)


@given(
    st.sampled_from([2, 7, 8]),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 30),
)
def test_rectangles_have_the_windows_of_the_network(window, shifted, rows, cols, batch, most):
    size = (rows * window, cols * window)
    plain, moved = layer_windows(*size, window, torch.device("cpu"), shifted=shifted)
    counts, order = (moved if shifted else plain).counts, moved.order
    tokens = torch.arange(batch * size[0] * size[1]).view(batch, -1, 1)
    x = to_image(tokens, window, size).permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    expected = tokens if order is None else tokens[:, order]
    by_class = expected.view(batch, -1, window**2).split(counts, dim=1)
    seen = [torch.empty(0, window**2, dtype=torch.long) for _ in counts]
    for part in rectangles(x.shape, window, window // 2 if shifted else 0, most):
        windows = part.gather(x)
        assert len(windows) <= max(most, batch)
        seen[part.kind] = torch.cat([seen[part.kind], windows[..., 0]])
        part.scatter(-1 - windows, x)
    for ours, theirs in zip(seen, by_class, strict=True):
        assert sorted(ours.tolist()) == sorted(theirs.flatten(0, 1).tolist())
    assert (x < 0).all()


@pytest.mark.parametrize("window", [7, 8])
def test_gpus_get_position_biases_that_they_need_not_copy(monkeypatch, window):
    """Their kernels take one mask for all windows if its strides are multiples of 8; others are padded for each."""
    seen, attend = [], F.scaled_dot_product_attention

    def record(*tensors, attn_mask, scale):
        seen.append((attn_mask.shape[0], *(step % 8 for step in attn_mask.stride()[1:-1]), attn_mask.stride(-1)))
        return attend(*tensors, attn_mask=attn_mask, scale=scale)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    network = live(replace(TINY, window_size=window, img_size=2 * window))
    OptimizedSwinIR(network, layers="eager")(torch.rand(1, 3, 2 * window, 2 * window))
    assert set(seen) == {(1, 0, 0, 1)}


@pytest.fixture
def graphs(monkeypatch):
    """Count the graphs that are compiled, by a compiler that compiles nothing."""
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    eager_layer._compiled_transform.cache_clear()
    yield compiled
    torch._dynamo.reset()
    eager_layer._compiled_transform.cache_clear()


def test_two_compiled_graphs_serve_images_of_any_size(graphs):
    network = live(TINY)
    form = optimize(network, compile=True)
    sizes = [(8, 8), (8, 16), (16, 24), (40, 32), (24, 72), (17, 30), (80, 8), (8, 48), (56, 56), (64, 9)]
    for height, width in sizes:
        lq = torch.rand(1, 3, height, width)
        with torch.inference_mode(height % 16 > 0):
            assert (form(lq) - optimize(network)(lq)).abs().max() < 1e-5
    assert len(graphs) <= 2


def test_no_network_of_many_runs_eagerly_for_want_of_graphs(graphs):
    with torch._dynamo.config.patch(recompile_limit=2):  # 8 by default, for a quick test
        for width in range(1, 3):
            network = live(NetworkConfig(embed_dim=4 * width, depths=(2,), num_heads=(2,), img_size=16))
            form = optimize(network, compile=True)
            with torch.inference_mode():
                form(torch.rand(1, 3, 32, 32))
    assert len(graphs) == 4
