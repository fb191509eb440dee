"""The protocol of a benchmark: its level, its facts, tiles in whole windows."""

import pytest

from swinir.evaluation.protocol import Protocol, check_network, fit_tile
from swinir.inference.options import RunOptions
from swinir.models.swinir import NetworkConfig
from swinir.tasks import get_task


@pytest.mark.parametrize(
    ("task", "level", "noise", "jpeg"),
    [("classical_sr", 3, None, None), ("gray_dn", 25, 25, None), ("jpeg_car", 10, None, 10)],
)
def test_the_level_is_the_one_that_the_task_has(task, level, noise, jpeg):
    protocol = Protocol(get_task(task), scale=3, noise=25, jpeg=10)
    assert protocol.level == level
    assert (protocol.facts()["noise"], protocol.facts()["jpeg"]) == (noise, jpeg)


@pytest.mark.parametrize(
    ("task", "stated"),
    [("gray_dn", "color_dn"), ("jpeg_car", "color_jpeg_car"), ("jpeg_car", "real_photo"), ("real_photo", "real_photo")],
)
def test_a_file_that_states_its_task_may_have_any_image_range(task, stated):
    ours = NetworkConfig(in_chans=3, img_range=0.5)
    check_network(ours, Protocol(get_task(task)), "x.pth", stated=stated)
    with pytest.raises(ValueError, match=r"its image range is 0\.5"):
        check_network(ours, Protocol(get_task(task)), "x.pth", stated="lightweight_sr")


def test_a_file_that_states_its_task_may_have_any_reconstruction():
    protocol, ours = Protocol(get_task("classical_sr"), 2), NetworkConfig(upscale=2, upsampler="pixelshuffledirect")
    check_network(ours, protocol, "x.pth", stated="classical_sr")
    for stated in (None, "lightweight_sr"):
        with pytest.raises(ValueError, match="its reconstruction is 'pixelshuffledirect', the task needs 'pixelshuf"):
            check_network(ours, protocol, "x.pth", stated=stated)


@pytest.mark.parametrize("chans", [1, 4])
def test_a_network_of_other_channels_is_refused_whatever_its_file_states(chans):
    with pytest.raises(ValueError, match=f"its channels is {chans}, the task needs 3"):
        check_network(NetworkConfig(in_chans=chans), Protocol(get_task("color_dn")), "x.pth", stated="color_dn")


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (RunOptions(30, 10, "mean"), (24, 10)),  # the released program leaves the overlap as it is
        (RunOptions(30, 10, "cut"), (24, 16)),
        (RunOptions(None, 10, "mean"), (None, 10)),
    ],
    ids=["mean", "cut", "whole"],
)
def test_tiles_are_rounded_to_whole_windows(asked, used):
    options = fit_tile(Protocol(get_task("color_dn"), options=asked), 8).options
    assert (options.tile, options.tile_overlap) == used


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (RunOptions(7, 0, "mean"), "tile must be at least one window of 8 pixels, got 7"),
        (RunOptions(30, 24, "mean"), "--tile_overlap must be from 0 to below the tile of 24, got 24"),
        (RunOptions(30, 17, "cut"), "tile_overlap must be from 0 to 16 for tile 24"),
    ],
    ids=["tile", "mean", "cut"],
)
def test_tiles_without_a_stride_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        fit_tile(Protocol(get_task("color_dn"), options=asked), 8)
