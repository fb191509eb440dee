"""Planned cells: weights by name, file name and network; missing files and the commands that get them."""

import shutil

import pytest
from reproductions import tiny_network, write_sets, write_weights

from swinir.reproduce.plan import Wanted, Weights, find_weights, plan_cells
from swinir.reproduce.published import TABLES
from swinir.weights import zoo
from swinir.weights.checkpoint import CheckpointError


@pytest.fixture
def testsets(tmp_path):
    return write_sets(tmp_path / "testsets", "Set5", "Set12")


@pytest.fixture(autouse=True)
def _no_downloads_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path / "zoo"))


def plan(testsets, weights, *tables, **options):
    """Plan tables for weights, or for the words that name them."""
    if isinstance(weights[0], str):
        weights = find_weights(weights)
    return plan_cells(Wanted(tuple(TABLES[name] for name in tables), **options), weights, testsets)


def test_bundled_models_are_found_and_released_ones_are_missing():
    bundled = find_weights(["bundled"])
    assert {one.name for one in bundled} == {entry.alias for entry in zoo.bundled()}
    assert all(one.path.is_file() for one in bundled)
    assert find_weights(["released"]) == list(zoo.RELEASED)


def test_downloaded_files_are_found_by_any_of_their_names(tmp_path):
    file = write_weights(tmp_path / "zoo" / "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth")
    (one,) = find_weights(["lightweight_sr_x2_DIV2K"])
    assert (one.path, one.task, one.level, one.data) == (file, "lightweight_sr", 2, "DIV2K")
    assert one in find_weights(["released"])


@pytest.mark.parametrize(
    ("name", "task", "scale", "level", "data"),
    [
        ("004_grayDN_DFWB_s128w8_SwinIR-M_noise25", "gray_dn", 1, 25, "DFWB"),
        ("mine", "lightweight_sr", 3, 3, ""),
        ("mine", "classical_sr", 4, 4, ""),
        ("mine", "color_dn", 1, None, ""),
        ("mine", "jpeg_car", 1, None, ""),
    ],
)
def test_a_file_is_known_by_its_name_or_else_by_its_network(tmp_path, name, task, scale, level, data):
    file = write_weights(tmp_path / f"{name}.pth", task=task, scale=scale)
    (one,) = find_weights([str(file)])
    assert (one.name, one.task, one.level, one.data) == (name, task, level, data)


def test_a_folder_gives_all_its_files(tmp_path):
    for name in ("b.pth", "a.safetensors"):
        write_weights(tmp_path / "w" / name)
    (tmp_path / "w" / "notes.txt").write_text("x")
    assert [one.name for one in find_weights([str(tmp_path / "w")])] == ["a", "b"]


def test_wrong_weights_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pth").write_text("no weights")
    odd = write_weights(tmp_path / "odd.pth", config=tiny_network("lightweight_sr", 2, in_chans=1))
    for words, message in (
        (["lightweigt_sr_x2_tiny"], "unknown weights 'lightweigt_sr_x2_tiny'; did you mean lightweight_sr_x1-4_tiny"),
        ([str(tmp_path / "empty")], r"no weights \(.*\) in .*empty"),
        ([str(odd)], "fits none of the tasks"),
        (["bundled", "lightweight_sr_x1-4_tiny"], "several weights have the name lightweight_sr_x1-4_tiny"),
    ):
        with pytest.raises(ValueError, match=message):
            find_weights(words)
    with pytest.raises(FileNotFoundError, match=r"no file or folder zoo/001_.*; check the path"):
        find_weights(["zoo/001_classicalSR_DF2K_s64w8_SwinIR-M_x9.pth"])
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        find_weights([str(tmp_path / "bad.pth")])


def test_weights_are_measured_at_their_level_on_the_sets_that_are_there(testsets):
    planned = plan(testsets, ["bundled"], "table3")
    assert [(cell.set.name, cell.level_text) for cell in planned.cells] == [
        ("Set5", "x2"),
        ("Set5", "x3"),
        ("Set5", "x4"),
    ]
    assert planned.cells[0].file.as_posix() == "cells/table3/lightweight_sr_x1-4_tiny/Set5_x2.json"
    lacking = {missing.what: missing for missing in planned.missing}
    assert len(lacking) == 4
    urban = lacking[f"set Urban100 in {testsets}"]
    assert (urban.remedy, urban.cells) == (f"swinir data prepare Urban100 FOLDER_OR_ARCHIVE --testsets {testsets}", 3)


@pytest.mark.parametrize(("levels", "measured"), [((), [15, 25, 50]), ((25,), [25])])
def test_weights_of_unknown_level_are_measured_at_all_wanted_levels(testsets, levels, measured):
    weights = [Weights("mine", testsets / "mine.pth", "gray_dn", None)]
    planned = plan(testsets, weights, "table5", sets=("Set12",), levels=levels)
    assert [cell.level for cell in planned.cells] == measured
    assert planned.missing == ()


def test_missing_weights_and_images_are_named_with_their_commands_and_counted(testsets):
    planned = plan(testsets, ["released"], "table2", sets=("Set5",), levels=(4,))
    assert planned.cells == ()
    assert [(m.what, m.remedy, m.cells) for m in planned.missing] == [
        (f"weights classical_sr_x4_{data}", f"swinir zoo download classical_sr_x4_{data}", 1)
        for data in ("DF2K", "DIV2K")
    ]
    planned = plan(testsets, ["released"], "table5", levels=(15,))
    assert [(missing.what.split(" in ")[0], missing.cells) for missing in planned.missing] == [
        ("weights gray_dn_noise15_DFWB", 3), ("set BSD68", 1), ("set Urban100", 1),
    ]  # fmt: skip
    assert (planned.cells, planned.lacking) == ((), 3)


def test_missing_low_quality_images_are_named_with_the_command(testsets):
    shutil.rmtree(testsets / "Set5" / "LR_bicubic" / "X3")
    planned = plan(testsets, ["bundled"], "table3", sets=("Set5",))
    assert [cell.level for cell in planned.cells] == [2, 4]
    (missing,) = planned.missing
    assert missing.what == f"low-quality images of Set5 at x3 in {testsets}"
    assert missing.remedy == f"swinir data prepare Set5 --testsets {testsets}"


def test_self_ensemble_repeats_each_cell_in_its_own_file(testsets):
    planned = plan(testsets, ["bundled"], "table3", sets=("Set5",), levels=(2,), plus=True)
    assert [cell.label for cell in planned.cells] == ["lightweight_sr_x1-4_tiny", "lightweight_sr_x1-4_tiny+"]
    assert len({cell.file for cell in planned.cells}) == 2


def test_figures_are_compared_with_those_of_the_same_training_data(testsets):
    weights = [Weights(data, testsets / f"{data}.pth", "classical_sr", 2, data) for data in ("DF2K", "MINE")]
    planned = plan(testsets, weights, "table2", sets=("Set5",))
    assert [cell.place for cell in planned.cells] == [("DF2K", 2, "Set5", False), ("DIV2K", 2, "Set5", False)]


def test_real_world_weights_belong_to_no_table(testsets):
    weights = [one for one in find_weights(["bundled"]) if one.task == "real_sr"]
    assert plan(testsets, weights, *TABLES).cells == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("Set6",)}, "no set 'Set6' in table3; choose from Set5, Set14"),
        ({"levels": (8,)}, "no level 8 in table3; choose from 2, 3, 4"),
    ],
)
def test_unknown_sets_and_levels_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Wanted((TABLES["table3"],), **options)
