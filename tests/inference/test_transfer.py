"""Copies to and from a GPU, played by stand-ins for tensors; and for real where there is a GPU."""

from types import SimpleNamespace

import pytest
import torch
from fake_cuda import FakeCuda

from swinir.inference import transfer
from swinir.inference.transfer import to_device, to_host

CUDA = torch.device("cuda", 1)


class Tensor:
    """Bytes on a device, with a log of the copies that are made."""

    def __init__(self, device, log, nbytes=12):
        self.device, self.log, self.nbytes, self.shape, self.dtype = device, log, nbytes, (nbytes,), torch.uint8

    def copy_(self, other, non_blocking=False):
        self.log.append(("copy", str(other.device), str(self.device), non_blocking))
        return self

    def to(self, device, non_blocking=False):
        self.log.append(("to", str(self.device), str(device), non_blocking))
        return Tensor(device, self.log)

    def cpu(self):
        return self.to(torch.device("cpu"))


@pytest.fixture
def log(monkeypatch):
    cuda, log = FakeCuda(monkeypatch), []

    def empty(shape, dtype, pin_memory):
        assert pin_memory
        log.append(("pin", cuda.current))
        return Tensor("pinned", log)

    monkeypatch.setattr(torch, "empty", empty)
    waiting = SimpleNamespace(synchronize=lambda: log.append(("wait",)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: waiting)
    return log


def test_uploads_go_through_pinned_memory_and_do_not_wait(log):
    assert to_device(Tensor(torch.device("cpu"), log), CUDA).device == CUDA
    assert log == [("pin", 1), ("copy", "cpu", "pinned", False), ("to", "pinned", "cuda:1", True)]


def test_downloads_go_through_pinned_memory_and_end_before_they_are_read(log):
    to_host(Tensor(CUDA, log))
    assert log == [("pin", 1), ("copy", "cuda:1", "pinned", True), ("wait",)]


def test_copies_that_are_not_pinned_wait(log, monkeypatch):
    """Large ones, and those for which the system gives no pinned memory."""
    large = transfer.MAX_PINNED + 1
    to_device(Tensor(torch.device("cpu"), log, large), CUDA)
    to_host(Tensor(CUDA, log, large))

    def refuse(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    to_device(Tensor(torch.device("cpu"), log), CUDA)
    to_host(Tensor(CUDA, log))
    assert log == [("to", "cpu", "cuda:1", False), ("to", "cuda:1", "cpu", False)] * 2


def test_nothing_is_pinned_without_a_gpu():
    x = torch.rand(3)
    assert to_device(x, torch.device("cpu")) is x
    assert to_host(x) is x


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_bytes_come_back_from_a_gpu(dtype):
    x = (torch.rand(3, 70, 50) * 255).to(dtype)
    for view in (x, x.permute(1, 2, 0), x[:1].expand(3, -1, -1)):
        there = to_device(view, torch.device("cuda"))
        assert torch.equal(to_host(there), view)
        assert torch.equal(to_host(there.transpose(0, 1)), view.transpose(0, 1))
