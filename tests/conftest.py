"""Fixtures: where public benchmark images may lie, and small networks."""

import gc
import os
from functools import cache
from pathlib import Path

import hypothesis
import pytest

import swinir.cli.main  # noqa: F401 - before torch: it keeps waiting threads from spinning on a busy machine

import torch  # isort: skip

# Modules and tests stay to the end; searching them for garbage again and again takes a tenth of all time.
gc.disable()

DATA = Path(__file__).parent / "data"
# No verdict depends on speed or chance.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")
PUBLIC = Path(os.environ.get("SWINIR_TEST_DATA", Path(__file__).parents[2] / "shared"))


# The CPU stands in for the GPU in tests that ask for the fixture `cuda`.
REHEARSAL = os.environ.get("SWINIR_GPU_REHEARSAL") == "1" and not torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The slow ones first, so that the last tests that processes take from one another are short.
    items.sort(key=lambda item: "slow" not in item.keywords)
    for item in items:
        if {"slow", "extras"} & set(item.keywords):  # minutes on a busy machine
            item.add_marker(pytest.mark.timeout(3600))
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords and not (REHEARSAL and "cuda" in getattr(item, "fixturenames", ())):
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def cuda():
    """The CUDA device of tests marked `gpu`."""
    return torch.device("cpu" if REHEARSAL else "cuda")


@pytest.fixture(scope="session")
def public_folder():
    """A function that gives a folder of public images, or skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = PUBLIC / name
        if not folder.exists():
            pytest.skip(f"{name} is not here; set SWINIR_TEST_DATA to the folder that holds it")
        return folder

    return find


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """`sample(format)` is a small network and the files it was exported to, once for all tests."""
    from exports import write_sample

    return cache(lambda format: write_sample(format, tmp_path_factory.mktemp(format)))


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: threads that wait for one another cost more than they bring, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path):
    """A folder of five small training images."""
    from training import write_images

    return write_images(tmp_path / "images")
