"""Measured cells: the tester's figures, kept, resumed, and measured again when anything has changed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import to_tensor, to_uint8
from reproductions import tiny_network, write_sets, write_weights

from swinir.cli.main import main
from swinir.degradations.resize import imresize
from swinir.evaluation.protocol import RELEASED
from swinir.image_io.image import read, write
from swinir.metrics.full_reference import psnr
from swinir.reproduce import measure as m
from swinir.reproduce.measure import MATLAB, NO_PADDING, Bench
from swinir.reproduce.plan import Wanted, find_weights, plan_cells
from swinir.reproduce.published import TABLES
from swinir.tasks import get_task
from swinir.weights.checkpoint import load_model

HR, X2 = "testsets/Set5/HR", "testsets/Set5/LR_bicubic/X2"


@pytest.fixture
def place(tmp_path):
    write_sets(tmp_path / "testsets", "Set5", "Set12")
    write_weights(tmp_path / "mine.pth")
    return tmp_path


def cells(place, table="table3", name="Set5", weights="mine.pth", **options):
    wanted = Wanted((TABLES[table],), sets=(name,), **options)
    return plan_cells(wanted, find_weights([str(place / weights)]), place / "testsets").cells


@pytest.fixture
def cell(place):
    (one,) = cells(place)
    return one


def bench(place, notes=None, **options):
    notice = [].append if notes is None else notes.append
    return Bench(place / "testsets", place / "out", torch.device("cpu"), replace(RELEASED, **options), notice=notice)


def kept(place, cell):
    return json.loads((place / "out" / cell.file).read_text())


def change(place, cell, **values):
    (place / "out" / cell.file).write_text(json.dumps(kept(place, cell) | values))


@pytest.fixture
def counted(monkeypatch):
    """The images that were really restored."""
    names, real = [], m.evaluate

    def evaluate(model, samples, protocol, **options):
        for row in real(model, samples, protocol, **options):
            names.append(row.image)
            yield row

    monkeypatch.setattr(m, "evaluate", evaluate)
    return names


@pytest.mark.parametrize(
    ("table", "name", "options"),
    [
        ("table3", "Set5", ["--task", "lightweight_sr", "--scale", "2"]),
        ("table5", "Set12", ["--task", "gray_dn", "--noise", "50"]),
    ],
)
def test_figures_are_the_testers(place, table, name, options, tmp_path):
    write_weights(place / "gray.pth", task="gray_dn")
    file = place / ("mine.pth" if table == "table3" else "gray.pth")
    cell = cells(place, table, name, file.name)[-1]
    measured = bench(place).measure(cell)
    folders = ["--folder_gt", str(cell.set.gt_folder(place / "testsets"))]
    if table == "table3":
        folders += ["--folder_lq", str(cell.set.lq_folder(place / "testsets", 2))]
    argv = ["test", *options, "--model_path", str(file), *folders, "--no_save", "--device", "cpu"]
    assert main([*argv, "--json", str(tmp_path / "r.json")]) == 0
    theirs = json.loads((tmp_path / "r.json").read_text())
    assert measured.means == pytest.approx(theirs["means"], abs=1e-9)
    ours = kept(place, cell)
    for key in ("checkpoint_sha256", "precision", "torch", "numpy", "opencv", "device", "engine", "task", "noise"):
        assert ours[key] == theirs[key]


def test_a_kept_cell_states_everything_that_its_figures_depend_on(place, cell):
    measured = bench(place).measure(cell)
    facts = kept(place, cell)
    assert len(facts["images"]) == len(facts["key"]["images_sha256"]) / 2 == 5
    assert facts["lq_as_matlab"] == {"compared": 3, "same": 3}
    assert facts["network"] == tiny_network("lightweight_sr", 2).to_dict()
    assert (facts["table"], facts["set"], facts["weights"], facts["complete"]) == ("table3", "Set5", "mine", True)
    assert facts["means"] == pytest.approx(measured.means)
    assert not measured.published_network
    assert measured.parameters < 10_000


def test_what_is_done_is_not_done_again(place, cell, counted):
    first = bench(place).measure(cell)
    again = bench(place).measure(cell)
    assert (len(counted), again.reused) == (5, True)
    assert (again.means, again.rows) == (first.means, first.rows)


def test_weights_are_hashed_once_for_all_their_cells(place, monkeypatch):
    hashed, real = [], m.sha256
    monkeypatch.setattr(m, "sha256", lambda path: hashed.append(path.name) or real(path))
    one = bench(place)
    for cell in cells(place, plus=True):
        one.measure(cell)
    assert hashed.count("mine.pth") == 1


def test_a_stopped_cell_resumes(place, cell, counted):
    def stop(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(place).measure(cell, progress=stop)
    assert not kept(place, cell)["complete"]
    done = bench(place).measure(cell)
    assert counted == ["000", "001", "002", "003", "004"]
    assert not done.reused
    shutil.rmtree(place / "out")
    assert done.means == pytest.approx(bench(place).measure(cell).means)


def test_a_cell_begun_with_other_versions_starts_anew_and_a_complete_one_does_not(place, cell, counted):
    bench(place).measure(cell)
    change(place, cell, complete=False, torch="0.1", images=kept(place, cell)["images"][:2])
    notes = []
    bench(place, notes).measure(cell)
    assert len(counted) == 10
    assert "begun with other versions" in notes[0]
    change(place, cell, torch="0.1")
    assert bench(place).measure(cell).reused


def invert(file):
    write(file, 255 - read(file))


@pytest.mark.parametrize(
    ("alter", "options", "reason"),
    [
        (lambda place: write_weights(place / "mine.pth", seed=1), {}, "checkpoint_sha256"),
        (lambda place: invert(place / HR / "003.png"), {}, "images_sha256"),
        (lambda place: invert(place / X2 / "003x2.png"), {}, "images_sha256"),
        (lambda place: (place / HR / "004.png").unlink(), {}, "images_sha256"),
        (lambda place: None, {"precision": "bf16"}, "precision"),
        (lambda place: None, {"tile": 56, "tile_overlap": 8}, "tile, tile_overlap"),
    ],
    ids=["weights", "reference", "low-quality image", "removed image", "precision", "tile"],
)
def test_a_change_is_noticed_and_measured_again(place, cell, counted, alter, options, reason):
    bench(place).measure(cell)
    alter(place)
    notes = []
    measured = bench(place, notes, **options).measure(cell)
    assert notes == [f"mine on Set5, x2: measured again, because {reason} changed"]
    assert len(counted) == 5 + len(measured.rows)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": {}}'])
def test_a_damaged_file_is_measured_again(place, cell, counted, content):
    file = place / "out" / cell.file
    file.parent.mkdir(parents=True)
    file.write_text(content)
    bench(place).measure(cell)
    assert len(counted) == 5
    assert kept(place, cell)["complete"]


def test_a_failed_image_is_a_failed_row_and_tried_again(place, cell, counted):
    file = place / HR / "001.png"
    good = file.read_bytes()
    file.write_bytes(good[:50])
    (failed,) = bench(place).measure(cell).failed
    assert failed.image == "001"
    assert "001.png" in failed.error
    assert len(bench(place).measure(cell).failed) == 1
    assert len(counted) == 6
    file.write_bytes(good)
    measured = bench(place).measure(cell)
    assert (measured.failed, len(measured.rows)) == ((), 5)


def test_infinite_figures_are_kept(place, cell):
    bench(place).measure(cell)
    images = kept(place, cell)["images"]
    images[0]["psnr"] = "inf"
    change(place, cell, images=images)
    assert bench(place).measure(cell).rows[0].psnr == float("inf")


def test_weights_of_another_task_are_refused(place, cell):
    write_weights(place / "mine.pth", task="gray_dn")
    with pytest.raises(ValueError, match=r"mine\.pth does not fit --task lightweight_sr"):
        bench(place).measure(cell)


def test_self_ensemble_has_other_figures_and_its_own_file(place):
    plain, plus = cells(place, plus=True)
    assert bench(place).measure(plain).means != bench(place).measure(plus).means
    assert kept(place, plus)["self_ensemble"]


@pytest.mark.parametrize("patch", [48, 64])
def test_the_published_architecture_is_known_whatever_patch_it_was_trained_on(place, patch):
    write_weights(place / "full.pth", config=get_task("lightweight_sr").network_for(2, img_size=patch))
    (cell,) = cells(place, weights="full.pth")
    for image in sorted((place / HR).iterdir())[1:]:
        image.unlink()
    measured = bench(place).measure(cell)
    assert (measured.published_network, measured.parameters) == (True, 910_152)


def test_without_the_additional_window_the_network_pads_by_reflection(place, cell):
    measured = bench(place).alternatives(bench(place).measure(cell), 0.1)
    model = load_model(place / "mine.pth", "cpu")
    values = []
    for gt in sorted((place / HR).iterdir()):
        lq = read(place / X2 / f"{gt.stem}x2.png")
        restored = to_uint8(model(to_tensor(lq.astype(np.float32) / 255)).clamp(0, 1))
        height, width = restored.shape[:2]
        values.append(psnr(restored, read(gt)[:height, :width], crop_border=2))
    assert measured.alternatives[NO_PADDING]["psnr"] == pytest.approx(sum(values) / 5, abs=1e-6)
    assert MATLAB not in measured.alternatives


def test_low_quality_files_of_another_program_are_found_and_replaced(place, cell):
    right = bench(place).measure(cell).means
    shutil.rmtree(place / "out")
    for file in (place / X2).iterdir():
        write(file, read(place / HR / f"{file.stem.removesuffix('x2')}.png")[::2, ::2])
    measured = bench(place).measure(cell)
    assert measured.facts["lq_as_matlab"] == {"compared": 3, "same": 0}
    assert measured.means["psnr_y"] != pytest.approx(right["psnr_y"], abs=0.01)
    found = bench(place).alternatives(measured, 5.0)
    assert found.alternatives == {MATLAB: pytest.approx(right)}
    assert kept(place, cell)["alternatives"][MATLAB] == pytest.approx(right)
    again = bench(place).measure(cell)
    assert again.reused
    assert again.alternatives == found.alternatives


def test_odd_sizes_are_cropped_as_the_sets_are(place, cell):
    for gt in (place / HR).iterdir():
        image = read(gt)[:23, :21]
        write(gt, image)
        write(place / X2 / f"{gt.stem}x2.png", imresize(image[:22, :20], 0.5))
    assert bench(place).measure(cell).facts["lq_as_matlab"] == {"compared": 3, "same": 3}


def test_other_ways_are_tried_once_and_only_if_they_can_explain_the_difference(place, cell, counted):
    first = bench(place).alternatives(bench(place).measure(cell), 0.1)
    assert len(counted) == 10
    again = bench(place).measure(cell)
    assert again.alternatives == first.alternatives
    bench(place).alternatives(again, 0.1)
    assert len(counted) == 10
    untried = replace(again, facts={**again.facts, "alternatives": {}}, alternatives={})
    assert bench(place).alternatives(untried, 0.31).alternatives == {}
