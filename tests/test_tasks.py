"""The table of tasks against the released files' settings and the released program's names."""

import json

import pytest
from conftest import DATA

from swinir.models.swinir import NetworkConfig
from swinir.tasks import TASKS, get_task
from swinir.weights.zoo import parse_name

OFFICIAL = json.loads((DATA / "official_configs.json").read_text())


def test_there_are_the_released_programs_seven_tasks_and_one_of_ours():
    assert [name for name, row in TASKS.items() if row.in_paper] == [
        "classical_sr",
        "lightweight_sr",
        "real_sr",
        "gray_dn",
        "color_dn",
        "jpeg_car",
        "color_jpeg_car",
    ]
    assert [name for name, row in TASKS.items() if not row.in_paper] == ["real_photo"]
    assert all(row.name == name for name, row in TASKS.items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_network_of_a_task_is_the_released_one(name):
    parts = parse_name(name)
    task = get_task(parts.task)
    scale = parts.level if parts.kind == "x" else 1
    network = task.network_for(scale, img_size=parts.patch, large=parts.size == "L")
    assert network == NetworkConfig.from_dict(OFFICIAL[name]["config"])
    assert parts.level in task.levels
    assert task.weights_key == OFFICIAL[name]["params_key"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_released_names_spell_the_task_as_its_row_does(name):
    assert TASKS[parse_name(name).task].in_file_name in name


@pytest.mark.parametrize(
    ("task", "options", "folder"),
    [
        ("classical_sr", {"scale": 2}, "swinir_classical_sr_x2"),
        ("lightweight_sr", {"scale": 3}, "swinir_lightweight_sr_x3"),
        ("real_sr", {"scale": 4}, "swinir_real_sr_x4"),
        ("real_sr", {"scale": 4, "large": True}, "swinir_real_sr_x4_large"),
        ("gray_dn", {"noise": 25}, "swinir_gray_dn_noise25"),
        ("color_dn", {"noise": 15, "jpeg": 40}, "swinir_color_dn_noise15"),
        ("jpeg_car", {"jpeg": 10}, "swinir_jpeg_car_jpeg10"),
        ("color_jpeg_car", {"jpeg": 40, "noise": 15}, "swinir_color_jpeg_car_jpeg40"),
    ],
)
def test_result_folders_have_the_released_names(task, options, folder):
    assert TASKS[task].result_folder(**options) == folder


def test_only_classical_and_lightweight_metrics_leave_a_border_out():
    assert {name: task.crop_border(max(task.scales)) for name, task in TASKS.items()} == {
        "classical_sr": 8,
        "lightweight_sr": 4,
        "real_sr": 0,
        "gray_dn": 0,
        "color_dn": 0,
        "jpeg_car": 0,
        "color_jpeg_car": 0,
        "real_photo": 0,
    }


def test_grey_tasks_have_one_channel_networks():
    assert all(task.network.in_chans == (1 if task.gray else 3) for task in TASKS.values())


def test_an_unknown_task_is_refused_with_the_tasks_there_are():
    with pytest.raises(ValueError, match=r"unknown task 'denoise'; choose one of classical_sr, .*, color_jpeg_car"):
        get_task("denoise")


@pytest.mark.parametrize(
    ("task", "scale"), [("classical_sr", 1), ("lightweight_sr", 8), ("real_sr", 3), ("gray_dn", 2)]
)
def test_a_scale_the_task_does_not_have_is_refused(task, scale):
    with pytest.raises(ValueError, match=f"{task} takes scale .*, got {scale}; pass --scale"):
        TASKS[task].network_for(scale)


@pytest.mark.parametrize("task", [name for name in TASKS if name != "real_sr"])
def test_a_large_model_that_does_not_exist_is_refused(task):
    with pytest.raises(ValueError, match=f"{task} has no large model; leave --large_model out"):
        TASKS[task].network_for(TASKS[task].scales[0], large=True)
