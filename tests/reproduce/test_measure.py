"""A cell measured: the tester's figures, kept, taken up again, and measured again when anything changed."""

import json
import shutil

import numpy as np
import pytest
import torch
from reproductions import tiny_network, write_sets, write_weights

from swinir.cli.main import main
from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write
from swinir.reproduce import measure as m
from swinir.reproduce.measure import MATLAB, NO_PADDING, Bench, Settings
from swinir.reproduce.plan import Wanted, find_weights, plan_cells
from swinir.reproduce.published import TABLES

CPU = Settings(torch.device("cpu"))


@pytest.fixture
def place(tmp_path):
    write_sets(tmp_path / "testsets", "Set5", "Set12")
    write_weights(tmp_path / "mine.pth")
    return tmp_path


def cells(place, table="table3", name="Set5", weights="mine.pth", **options):
    wanted = Wanted((TABLES[table],), sets=(name,), **options)
    return plan_cells(wanted, find_weights([str(place / weights)]), place / "testsets").cells


def bench(place, settings=CPU):
    notes = []
    made = Bench(place / "testsets", place / "out", settings, notice=notes.append)
    made.notes = notes
    return made


def kept(place, cell):
    return json.loads((place / "out" / cell.file).read_text())


def change(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | values))


@pytest.fixture
def counted(monkeypatch):
    """The images that were really restored."""
    names = []

    def evaluate(model, samples, protocol, **options):
        for row in m_evaluate(model, samples, protocol, **options):
            names.append(row.image)
            yield row

    m_evaluate = m.evaluate
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
    for name in ("checkpoint_sha256", "precision", "torch", "numpy", "opencv", "device", "engine", "task", "noise"):
        assert ours[name] == theirs[name]


def test_a_kept_cell_says_what_its_figures_follow_from(place):
    (cell,) = cells(place)
    measured = bench(place).measure(cell)
    facts = kept(place, cell)
    assert len(facts["images"]) == len(facts["key"]["images_sha256"]) / 2 == 5
    assert facts["lq_as_matlab"] == {"compared": 3, "same": 3}
    assert facts["network"] == tiny_network("lightweight_sr", 2).to_dict()
    assert (facts["table"], facts["set"], facts["weights"], facts["complete"]) == ("table3", "Set5", "mine", True)
    assert facts["means"] == pytest.approx(measured.means)
    assert not measured.published_network
    assert measured.parameters < 10_000


def test_what_is_done_is_not_done_again(place, counted):
    (cell,) = cells(place)
    first = bench(place).measure(cell)
    assert len(counted) == 5
    again = bench(place).measure(cell)
    assert len(counted) == 5
    assert again.reused
    assert again.means == first.means
    assert again.rows == first.rows


def test_a_stopped_cell_goes_on(place, counted, monkeypatch):
    (cell,) = cells(place)

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


def test_a_cell_begun_elsewhere_starts_anew(place, counted):
    (cell,) = cells(place)
    bench(place).measure(cell)
    change(place / "out" / cell.file, complete=False, torch="0.1", images=kept(place, cell)["images"][:2])
    again = bench(place)
    again.measure(cell)
    assert len(counted) == 10
    assert "begun elsewhere" in again.notes[0]
    change(place / "out" / cell.file, torch="0.1")  # a whole one is as good as it was
    assert bench(place).measure(cell).reused


def test_other_weights_of_the_same_name_are_noticed(place, counted):
    (cell,) = cells(place)
    first = bench(place).measure(cell)
    write_weights(place / "mine.pth", seed=1)
    again = bench(place)
    second = again.measure(cell)
    assert len(counted) == 10
    assert again.notes == ["mine on Set5: measured again, since checkpoint_sha256 changed"]
    assert second.means != first.means


@pytest.mark.parametrize("folder", ["HR/003.png", "LR_bicubic/X2/003x2.png"])
def test_a_changed_image_is_noticed(place, counted, folder):
    (cell,) = cells(place)
    bench(place).measure(cell)
    file = place / "testsets" / "Set5" / folder
    write(file, 255 - read(file))
    again = bench(place)
    again.measure(cell)
    assert len(counted) == 10
    assert again.notes == ["mine on Set5: measured again, since images_sha256 changed"]


def test_a_removed_image_is_noticed(place, counted):
    (cell,) = cells(place)
    bench(place).measure(cell)
    (place / "testsets" / "Set5" / "HR" / "004.png").unlink()
    assert len(bench(place).measure(cell).rows) == 4
    assert len(counted) == 9


@pytest.mark.parametrize("settings", [Settings(CPU.device, "bf16"), Settings(CPU.device, "fp32", 56, 8)])
def test_other_settings_are_measured_again(place, counted, settings):
    (cell,) = cells(place)
    bench(place).measure(cell)
    bench(place, settings).measure(cell)
    assert len(counted) == 10


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": {}}'])
def test_a_damaged_file_is_measured_again(place, counted, content):
    (cell,) = cells(place)
    file = place / "out" / cell.file
    file.parent.mkdir(parents=True)
    file.write_text(content)
    bench(place).measure(cell)
    assert len(counted) == 5
    assert kept(place, cell)["complete"]


def test_a_failed_image_is_a_failed_row_and_tried_again(place, counted):
    (cell,) = cells(place)
    file = place / "testsets" / "Set5" / "HR" / "001.png"
    good = file.read_bytes()
    file.write_bytes(good[:50])
    measured = bench(place).measure(cell)
    assert [row.image for row in measured.failed] == ["001"]
    assert "001.png" in measured.failed[0].error
    assert [row.image for row in bench(place).measure(cell).failed] == ["001"]
    assert len(counted) == 6
    file.write_bytes(good)
    measured = bench(place).measure(cell)
    assert measured.failed == ()
    assert len(measured.rows) == 5


def test_infinite_figures_are_kept(place):
    (cell,) = cells(place)
    bench(place).measure(cell)
    images = kept(place, cell)["images"]
    images[0]["psnr"] = "inf"
    change(place / "out" / cell.file, images=images)
    assert bench(place).measure(cell).rows[0].psnr == float("inf")


def test_weights_of_another_task_are_refused(place):
    (cell,) = cells(place)
    write_weights(place / "mine.pth", task="gray_dn")
    with pytest.raises(ValueError, match=r"mine\.pth does not fit --task lightweight_sr"):
        bench(place).measure(cell)


def test_self_ensemble_has_other_figures_and_a_file_of_its_own(place):
    plain, plus = cells(place, plus=True)
    assert bench(place).measure(plain).means != bench(place).measure(plus).means
    assert kept(place, plus)["self_ensemble"]


def test_the_published_architecture_is_known_whatever_it_was_trained_on(place):
    from swinir.tasks import get_task

    for patch in (48, 64):
        config = get_task("lightweight_sr").network_for(2, img_size=patch)
        write_weights(place / f"{patch}.pth", config=config)
        (cell,) = cells(place, weights=f"{patch}.pth")
        file = place / "testsets" / "Set5" / "HR"
        for image in sorted(file.iterdir())[1:]:
            image.unlink()
        measured = bench(place).measure(cell)
        assert (measured.published_network, measured.parameters) == (True, 910_152)


def test_without_the_further_window_the_network_pads_by_reflection(place):
    from swinir.evaluation.evaluate import to_tensor, to_uint8
    from swinir.metrics.full_reference import psnr
    from swinir.weights.checkpoint import load_model

    (cell,) = cells(place)
    measured = bench(place).alternatives(bench(place).measure(cell), 0.1)
    model = load_model(place / "mine.pth", "cpu")
    values = []
    for gt in sorted((place / "testsets/Set5/HR").iterdir()):
        lq = read(place / "testsets/Set5/LR_bicubic/X2" / f"{gt.stem}x2.png")
        restored = to_uint8(model(to_tensor(lq.astype(np.float32) / 255)).clamp(0, 1))
        height, width = restored.shape[:2]
        values.append(psnr(restored, read(gt)[:height, :width], crop_border=2))
    assert measured.alternatives[NO_PADDING]["psnr"] == pytest.approx(sum(values) / 5, abs=1e-6)
    assert MATLAB not in measured.alternatives


def test_low_quality_files_of_another_program_are_found_and_replaced(place):
    (cell,) = cells(place)
    right = bench(place).measure(cell).means
    shutil.rmtree(place / "out")
    for file in (place / "testsets/Set5/LR_bicubic/X2").iterdir():
        gt = read(place / "testsets/Set5/HR" / f"{file.stem.removesuffix('x2')}.png")
        write(file, gt[::2, ::2])
    measured = bench(place).measure(cell)
    assert measured.facts["lq_as_matlab"] == {"compared": 3, "same": 0}
    assert measured.means["psnr_y"] != pytest.approx(right["psnr_y"], abs=0.01)
    found = bench(place).alternatives(measured, 5.0)
    assert found.alternatives == {MATLAB: pytest.approx(right)}
    assert kept(place, cell)["alternatives"][MATLAB] == pytest.approx(right)
    again = bench(place).measure(cell)
    assert again.reused
    assert again.alternatives == found.alternatives


def test_odd_sizes_are_cropped_as_the_sets_are(place):
    (cell,) = cells(place)
    for gt in (place / "testsets/Set5/HR").iterdir():
        image = read(gt)[:23, :21]
        write(gt, image)
        write(place / "testsets/Set5/LR_bicubic/X2" / f"{gt.stem}x2.png", imresize(image[:22, :20], 0.5))
    assert bench(place).measure(cell).facts["lq_as_matlab"] == {"compared": 3, "same": 3}


def test_other_ways_are_tried_once(place, counted):
    (cell,) = cells(place)
    first = bench(place).alternatives(bench(place).measure(cell), 0.1)
    assert len(counted) == 10
    again = bench(place).measure(cell)
    bench(place).alternatives(again, 0.1)
    assert len(counted) == 10
    assert again.alternatives == first.alternatives
    assert bench(place).alternatives(replace_alternatives(again), 0.31).alternatives == {}


def replace_alternatives(measured):
    from dataclasses import replace

    return replace(measured, facts={**measured.facts, "alternatives": {}}, alternatives={})
