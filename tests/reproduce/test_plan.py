"""What is measured: weights by name, grammar and network; cells; what is missing and how to get it."""

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


def wanted(*names, **options):
    return Wanted(tuple(TABLES[name] for name in names), **options)


def test_bundled_experts_are_found_and_released_ones_are_missing():
    bundled = find_weights(["bundled"])
    assert {one.name for one in bundled} == {entry.alias for entry in zoo.bundled()}
    assert all(one.path.is_file() for one in bundled)
    assert find_weights(["released"]) == list(zoo.RELEASED)


def test_downloaded_files_are_found_by_any_of_their_names(tmp_path):
    file = tmp_path / "zoo" / "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth"
    write_weights(file)
    (one,) = find_weights(["lightweight_sr_x2_DIV2K"])
    assert (one.path, one.task, one.level, one.data) == (file, "lightweight_sr", 2, "DIV2K")
    assert one in find_weights(["released"])


def test_a_file_is_known_by_the_grammar_of_its_name(tmp_path):
    file = write_weights(tmp_path / "004_grayDN_DFWB_s128w8_SwinIR-M_noise25.pth", task="gray_dn")
    (one,) = find_weights([str(file)])
    assert (one.name, one.task, one.level, one.data) == (file.stem, "gray_dn", 25, "DFWB")


@pytest.mark.parametrize(
    ("task", "scale", "level"),
    [("lightweight_sr", 3, 3), ("classical_sr", 4, 4), ("color_dn", 1, None), ("jpeg_car", 1, None)],
)
def test_a_file_of_another_name_is_known_by_its_network(tmp_path, task, scale, level):
    file = write_weights(tmp_path / "mine.pth", task=task, scale=scale)
    (one,) = find_weights([str(file)])
    assert (one.name, one.task, one.level, one.data) == ("mine", task, level, "")


def test_a_folder_gives_all_its_files(tmp_path):
    for name in ("b.pth", "a.safetensors"):
        write_weights(tmp_path / "w" / name)
    (tmp_path / "w" / "notes.txt").write_text("x")
    assert [one.name for one in find_weights([str(tmp_path / "w")])] == ["a", "b"]


def test_wrong_weights_are_named(tmp_path):
    with pytest.raises(
        ValueError, match="unknown weights 'lightweigt_sr_x2_tiny'; did you mean lightweight_sr_x2_tiny"
    ):
        find_weights(["lightweigt_sr_x2_tiny"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no weights \(.*\) in .*empty"):
        find_weights([str(tmp_path / "empty")])
    (tmp_path / "bad.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        find_weights([str(tmp_path / "bad.pth")])
    with pytest.raises(ValueError, match="several weights have the name lightweight_sr_x2_tiny"):
        find_weights(["bundled", "lightweight_sr_x2_tiny"])


def test_a_network_of_no_task_is_refused(tmp_path):
    file = write_weights(tmp_path / "odd.pth", config=tiny_network("lightweight_sr", 2, in_chans=1))
    with pytest.raises(ValueError, match="fits none of the tasks"):
        find_weights([str(file)])


def test_weights_are_measured_at_their_level_on_the_sets_that_are_there(testsets):
    planned = plan_cells(wanted("table3"), find_weights(["bundled"]), testsets)
    assert [(cell.set.name, cell.level_text) for cell in planned.cells] == [
        ("Set5", "x2"),
        ("Set5", "x3"),
        ("Set5", "x4"),
    ]
    assert planned.cells[0].file.as_posix() == "cells/table3/lightweight_sr_x2_tiny/Set5_x2.json"
    lacking = {missing.what: missing for missing in planned.missing}
    assert len(lacking) == 4
    urban = lacking[f"set Urban100 in {testsets}"]
    assert (urban.remedy, urban.cells) == (f"swinir data prepare Urban100 FOLDER_OR_ARCHIVE --testsets {testsets}", 3)


def test_weights_of_unknown_level_are_measured_at_all(testsets, tmp_path):
    weights = find_weights([str(write_weights(tmp_path / "mine.pth", task="gray_dn"))])
    planned = plan_cells(wanted("table5", sets=("Set12",)), weights, testsets)
    assert [cell.level for cell in planned.cells] == [15, 25, 50]
    planned = plan_cells(wanted("table5", sets=("Set12",), levels=(25,)), weights, testsets)
    assert [cell.level for cell in planned.cells] == [25]


def test_missing_weights_are_named_with_the_command(testsets):
    planned = plan_cells(wanted("table2", sets=("Set5",), levels=(4,)), find_weights(["released"]), testsets)
    assert planned.cells == ()
    assert [(m.what, m.remedy, m.cells) for m in planned.missing] == [
        (f"weights classical_sr_x4_{data}", f"swinir zoo download classical_sr_x4_{data}", 1)
        for data in ("DF2K", "DIV2K")
    ]


def test_cells_that_lack_weights_and_images_are_counted_for_both(testsets):
    planned = plan_cells(wanted("table5", levels=(15,)), find_weights(["released"]), testsets)
    assert planned.cells == ()
    assert [(missing.what.split(" in ")[0], missing.cells) for missing in planned.missing] == [
        ("weights gray_dn_noise15_DFWB", 3), ("set BSD68", 1), ("set Urban100", 1),
    ]  # fmt: skip
    assert planned.lacking == 3


def test_missing_low_quality_images_are_named_with_the_command(testsets):
    shutil.rmtree(testsets / "Set5" / "LR_bicubic" / "X3")
    planned = plan_cells(wanted("table3", sets=("Set5",)), find_weights(["bundled"]), testsets)
    assert [cell.level for cell in planned.cells] == [2, 4]
    (missing,) = planned.missing
    assert missing.what == f"low-quality images of Set5 at x3 in {testsets}"
    assert missing.remedy == f"swinir data prepare Set5 --testsets {testsets}"


def test_denoising_needs_no_low_quality_images(testsets):
    assert plan_cells(wanted("table5", sets=("Set12",)), find_weights(["gray_dn_noise25_tiny"]), testsets).missing == ()


def test_self_ensemble_comes_beside_the_plain_cells(testsets):
    planned = plan_cells(wanted("table3", sets=("Set5",), levels=(2,), plus=True), find_weights(["bundled"]), testsets)
    assert [cell.label for cell in planned.cells] == ["lightweight_sr_x2_tiny", "lightweight_sr_x2_tiny+"]
    assert len({cell.file for cell in planned.cells}) == 2


def test_figures_are_compared_with_those_of_the_same_training_data(testsets, tmp_path):
    for name in ("001_classicalSR_DF2K_s64w8_SwinIR-M_x2", "001_classicalSR_MINE_s48w8_SwinIR-M_x2"):
        write_weights(tmp_path / "w" / f"{name}.pth", task="classical_sr")
    planned = plan_cells(wanted("table2", sets=("Set5",)), find_weights([str(tmp_path / "w")]), testsets)
    assert [cell.place for cell in planned.cells] == [("DF2K", 2, "Set5", False), ("DIV2K", 2, "Set5", False)]


def test_real_world_weights_belong_to_no_table(testsets):
    weights = [one for one in find_weights(["bundled"]) if one.task == "real_sr"]
    assert len(weights) == 1
    assert plan_cells(wanted(*TABLES), weights, testsets).cells == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("Set6",)}, "no set 'Set6' in table3; choose from Set5, Set14"),
        ({"levels": (8,)}, "no level 8 in table3; choose from 2, 3, 4"),
    ],
)
def test_what_a_table_does_not_have_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        wanted("table3", **options)


def test_weights_have_the_names_of_the_files_that_are_kept(testsets, tmp_path):
    one = Weights("mine", tmp_path / "mine.pth", "lightweight_sr", 2)
    (cell,) = plan_cells(wanted("table3", sets=("Set5",)), [one], testsets).cells
    assert cell.file.as_posix() == "cells/table3/mine/Set5_x2.json"
