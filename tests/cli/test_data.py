"""`swinir data`: output and exit codes."""

import json
import tarfile
import zipfile

import cv2
import pytest
from photographs import TRIO, add_sets, photographs, write_images, write_set

from swinir.cli.main import main
from swinir.image_io.image import read, write


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Exit code and lines of a subcommand of `swinir data`, for the sets below tmp_path / "sets"."""
    add_sets(monkeypatch, TRIO)

    def call(*words):
        code = main(["data", *map(str, words), "--testsets", str(tmp_path / "sets")])
        out, err = capsys.readouterr()
        return code, (out + err).splitlines()

    return call


@pytest.fixture
def folder(tmp_path):
    """The folder of a complete and correct set."""
    return write_set(tmp_path / "sets")


def test_the_list_shows_what_is_present(run, folder):
    (folder / "LR_bicubic" / "X3" / "coffeex3.png").unlink()
    code, lines = run("list")
    rows = {line.split()[0]: line for line in lines}
    assert code == 0
    assert "present" in rows["Trio"]
    assert "X2 X3 (2 of 3)" in rows["Trio"]
    assert "missing" in rows["Urban100"]
    facts = {entry["name"]: entry for entry in json.loads("\n".join(run("list", "--json")[1]))}
    assert (facts["Trio"]["state"], facts["Trio"]["low_quality"]) == ("present", {"2": 3, "3": 2})
    assert facts["Manga109"]["terms"] == "academic use; must not be passed on"


def test_a_preparation_is_summarized(run, tmp_path):
    source = write_images(tmp_path / "source")
    code, lines = run("prepare", "trio", source)
    trio = tmp_path / "sets" / "Trio"
    assert (code, lines) == (0, [f"Trio: 3 copied, 6 low-quality images made, 0 existed; present in {trio / 'HR'}"])
    write_images(source, "{name}_SRF_2_nearest.png")
    (source / "broken.png").write_bytes(b"no image")
    (trio / "HR" / "coffee.png").unlink()
    code, lines = run("prepare", "Trio", source)
    assert code == 1  # a file could not be read
    assert lines[0].startswith("not used, the output of a method: 3 (astronaut_SRF_2_nearest.png, ")
    assert any(line.startswith("broken.png: ") for line in lines)


def test_a_check_prints_each_fault_with_advice_and_its_end_is_the_exit_code(run, folder):
    code, lines = run("check")
    assert code == 0
    assert "Trio: ok: 3 images, no hashes known; X2 X3 by MATLAB's bicubic" in lines
    assert any(line.startswith("Set5: missing; ") for line in lines)
    assert run("check", "Set5")[0] == 1
    file = folder / "LR_bicubic/X2/coffeex2.png"
    write(file, cv2.resize(read(folder / "HR/coffee.png")[:120], (73, 60), interpolation=cv2.INTER_CUBIC))
    code, lines = run("check", "Trio")
    assert (code, lines[0], len(lines)) == (1, "Trio: present; faults in 1 file", 2)
    assert lines[1].startswith("  fault: Trio/LR_bicubic/X2/coffeex2.png: is not by MATLAB's bicubic but by OpenCV's")
    assert lines[1].endswith("; remove it; swinir data prepare Trio makes it again")
    (report,) = json.loads("\n".join(run("check", "Trio", "--json")[1]))
    assert [finding["level"] for finding in report["findings"]] == ["fault"]
    file.unlink()
    assert run("prepare", "Trio")[0] == 0
    assert run("check", "Trio")[0] == 0


def test_names_from_an_archive_cannot_write_to_the_terminal(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, image in photographs().items():
            archive.writestr(f"{name}.png", cv2.imencode(".png", image)[1].tobytes())
        archive.writestr("noisy\x1b[2J/coffee.png", b"")
    code, lines = run("prepare", "Trio", tmp_path / "x.zip")
    assert code == 0
    assert not any("\x1b" in line for line in lines)
    assert "x1b[2J" in lines[0]


def test_a_hostile_archive_is_refused_before_anything_is_written(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
        archive.writestr("coffee.png", b"x")
        archive.writestr("../../escaped.png", b"x")
    with tarfile.open(tmp_path / "hostile.tar", "w") as archive:
        link = tarfile.TarInfo("coffee.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    for name, message in (("hostile.zip", "points out of the folder"), ("hostile.tar", "a link, or no regular file")):
        code, lines = run("prepare", "Trio", tmp_path / name)
        assert code == 2
        assert message in lines[0]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["hostile.tar", "hostile.zip"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "Nonsense"], "unknown test set 'Nonsense'"),
        (["prepare", "Set12"], "Set12 has no low-quality images to make"),
        (["prepare", "Trio"], "no images in"),
        (["prepare", "Trio", "/nowhere/at/all"], "no such folder or archive"),
        (["check", "Trio"], "folder not found"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, message):
    code, lines = run(*words)
    assert (code, len(lines)) == (2, 1)
    assert message in lines[0]


def test_a_flat_set_is_laid_out_where_it_lies(run, tmp_path):
    folder = write_images(tmp_path / "sets" / "Trio")
    names = sorted(path.name for path in folder.iterdir())
    code, lines = run("prepare", "Trio")
    assert (code, lines) == (
        0,
        [f"Trio: 3 moved into HR, 0 copied, 6 low-quality images made, 0 existed; present in {folder / 'HR'}"],
    )
    assert sorted(path.name for path in (folder / "HR").iterdir()) == names
    assert sorted(path.name for path in folder.iterdir()) == ["HR", "LR_bicubic"]


def test_a_flat_set_may_be_named_as_its_own_source(run, tmp_path):
    folder = write_images(tmp_path / "sets" / "Trio")
    assert run("prepare", "Trio", folder)[0] == 0
    assert run("check", "Trio")[0] == 0


def test_an_interrupted_layout_is_completed(run, tmp_path):
    folder = write_images(tmp_path / "sets" / "Trio")
    (folder / ".HR").mkdir()
    (folder / "coffee.png").rename(folder / ".HR" / "coffee.png")
    assert run("prepare", "Trio")[0] == 0
    assert len(list((folder / "HR").iterdir())) == 3
