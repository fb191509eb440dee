"""Expected tiles, memory and time of an image, against what happens."""

import numpy as np
import pytest
import torch
from pictures import smooth, write_expert

from swinir.image_io.canvas import Workspace
from swinir.image_io.picture import Picture
from swinir.photos.expectation import Stopwatch, expect
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.options import RestoreOptions
from swinir.photos.restore_photo import decide, restore_photo


@pytest.mark.parametrize(
    "options", [{}, {"tile": 16, "tile_overlap": 4}, {"scale": 3.5, "tile": 32, "tile_overlap": 8}]
)
def test_the_counted_tiles_are_those_that_run(tmp_path, monkeypatch, options):
    treatment = RestoreOptions(model=write_expert(tmp_path / "x2.pth"), **options).treatment
    models, picture = LoadedModels(torch.device("cpu")), Picture(smooth(41, 30))
    decision = decide(picture, treatment, models)
    expected = expect(picture, decision, treatment, models)
    network, seen = models.get(decision.models[0]), []
    monkeypatch.setattr(type(network), "__call__", record(type(network).__call__, seen))
    restore_photo(picture, decision, treatment, models, Workspace(tmp_path))
    assert expected.tiles == len(seen)
    assert sum(expected.pixels.values()) == sum(seen)


def record(call, seen):
    def wrapped(self, x):
        seen.append(x.shape[0] * x.shape[-2] * x.shape[-1])
        return call(self, x)

    return wrapped


def test_the_time_is_that_of_a_small_image_for_each_pixel(tmp_path):
    treatment = RestoreOptions(model=write_expert(tmp_path / "x2.pth")).treatment
    models, picture = LoadedModels(torch.device("cpu")), Picture(np.zeros((100, 140, 3), np.uint8))
    expected = expect(picture, decide(picture, treatment, models), treatment, models)
    clock = iter(range(0, 1000, 17))  # 17 seconds between two looks
    seconds = Stopwatch(lambda: float(next(clock))).seconds(expected, treatment, models)
    assert seconds == pytest.approx(17 / 68**2 * 104 * 144)  # sides padded by up to a window of 4


def test_more_memory_is_expected_for_a_larger_output(tmp_path):
    models, picture = LoadedModels(torch.device("cpu")), Picture(smooth(40, 40))
    sizes = []
    for scale in (2, 4):
        treatment = RestoreOptions(model=write_expert(tmp_path / "x2.pth"), scale=scale).treatment
        sizes.append(expect(picture, decide(picture, treatment, models), treatment, models).bytes)
    assert sizes[1] > sizes[0] + 3 * 120 * 120
