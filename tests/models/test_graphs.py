"""Recordings of GPU work: what is recorded, held and handed out. The hardware is played by the CPU."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from swinir.models.graphs import WARM_UP, Recording


@pytest.fixture
def fake_cuda(monkeypatch):
    """CUDA graphs as the CPU can play them: what runs while one is open is run again, into the same memory."""
    recorded = []

    class Graph:
        def replay(self):
            for function, source, target in recorded:
                target.copy_(function(source))

    @contextmanager
    def graph(_graph):
        recorded.append("open")
        yield
        recorded.remove("open")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return recorded


def test_a_recording_computes_new_input_into_results_of_their_own(fake_cuda):
    calls = []

    def double(x):
        calls.append(x)
        y = 2 * x
        if "open" in fake_cuda:
            fake_cuda.append((lambda source: 2 * source, x, y))
        return y

    example = torch.ones(3)
    recording = Recording(double, example)
    assert len(calls) == WARM_UP + 1
    example.fill_(100)  # the caller's tensor is not the recorded one
    first = recording(torch.tensor([1.0, 2.0, 3.0]))
    second = recording(torch.tensor([5.0, 6.0, 7.0]))
    assert first.tolist() == [2, 4, 6]
    assert second.tolist() == [10, 12, 14]
    assert len(calls) == WARM_UP + 1


@pytest.mark.gpu
def test_a_recording_on_a_gpu_computes_what_the_function_does():
    weight = torch.randn(64, 64, device="cuda")
    recording = Recording(lambda x: torch.relu(x @ weight), torch.zeros(8, 64, device="cuda"), weight)
    for _ in range(3):
        x = torch.randn(8, 64, device="cuda")
        assert torch.equal(recording(x), torch.relu(x @ weight))
