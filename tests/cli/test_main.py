"""The program itself: errors that are no fault of ours, and streams that end."""

import os
import sys

import pytest
from forks import in_another_process
from pictures import smooth, write

from swinir.cli.main import main
from swinir.models.swinir import SwinIR
from swinir.weights import zoo


@pytest.mark.parametrize(
    "error", [RuntimeError("could not create a primitive"), RuntimeError("can't start new thread"), MemoryError()]
)
def test_lack_of_memory_is_one_line(monkeypatch, capsys, error):
    def fail(name):
        raise error

    monkeypatch.setattr(zoo, "locate", fail)
    assert main(["zoo", "path", "x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("swinir: out of memory (")


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "-o", "/proc/x/demo.png"],
        ["demo", "-o", "folder"],
        ["export", "lightweight_sr_x1-4_tiny", "-o", "folder"],
        ["export", "lightweight_sr_x1-4_tiny", "-o", "/proc/x.onnx"],
        ["restore", "a.png", "--json", "folder"],
        ["report", "folder", "-o", "folder.html"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.html"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "a.png", smooth(8, 8))
    monkeypatch.setattr(SwinIR, "forward", None)  # the work
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words[-1].removesuffix("/demo.png") in line
    assert ".part" not in line


def test_an_error_of_programming_is_raised(monkeypatch):
    def fail(name):
        raise RuntimeError("an assumption failed")

    monkeypatch.setattr(zoo, "locate", fail)
    with pytest.raises(RuntimeError, match="an assumption failed"):
        main(["zoo", "path", "x"])


@pytest.mark.parametrize("lines", ["few", "many"])
def test_a_reader_that_has_ended_ends_the_program_quietly(tmp_path, lines):
    def run():
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.dup2(os.open(tmp_path / "err", os.O_WRONLY | os.O_CREAT), 2)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        code = main(["zoo", "path", "lightweight_sr_x1-4_tiny"] if lines == "few" else ["zoo", "list", "--json"])
        sys.stdout.flush()
        return code

    assert in_another_process(run) == 1
    assert (tmp_path / "err").read_text() == ""
