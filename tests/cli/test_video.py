"""`swinir video` on the command line: options, exit codes, messages."""

import sys

import pytest

pytest.importorskip("av")

from clips import decoded, moving, write_clip
from pictures import write_expert

from swinir.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model and a clip in it."""
    monkeypatch.chdir(tmp_path)
    write_expert(tmp_path / "x2.pth")
    write_clip(tmp_path / "in.mp4", moving(4, 24, 32))
    return tmp_path


def video(*words):
    return main(["video", "--device", "cpu", "--preset", "ultrafast", "--precision", "fp32", *words])


def test_a_clip_comes_out_enlarged(folder, capsys):
    assert video("in.mp4", "-n", "x2.pth", "-o", "out/a.mp4") == 0
    assert {(frame.width, frame.height) for frame in decoded("out/a.mp4")} == {(64, 48)}
    said = capsys.readouterr().out
    assert "in.mp4 -> out/a.mp4: x2.pth" in said
    assert "Flicker" in said
    assert "1 restored, 0 skipped, 0 failed; see out/a.mp4" in said
    assert video("in.mp4", "-n", "x2.pth", "-o", "out/a.mp4") == 0
    assert "in.mp4: skipped, done before" in capsys.readouterr().out


def test_the_output_is_named_by_the_request(folder):
    assert video("in.mp4", "-s", "2", "--task", "lightweight_sr", "--preview", "0.05s") == 0
    assert len(decoded("restored/in_x2_lightweight_sr.mp4")) == 2


def test_a_broken_clip_fails_with_one_line(folder, capsys):
    (folder / "bad.mp4").write_bytes(b"nothing")
    assert video("bad.mp4") == 1
    assert capsys.readouterr().err.startswith("failed: bad.mp4: cannot be read as a video: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in.mp4", "--preview", "soon"], "--preview must be seconds, such as 5s, got 'soon'"),
        (["in.mp4", "--preview", "0"], "preview must be above 0 seconds, got 0"),
        (["in.mp4", "-o", "a.avi"], "a.avi must end in one of .mp4"),
        (["in.mp4", "-o", "in.mp4"], "the output would replace the input in.mp4"),
        (["in.mp4", "--codec", "vp9"], "codec must be one of libx264"),
        (["in.mp4", "--overwrite", "--skip-existing"], "exclude each other"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(folder, capsys, words, said):
    assert video(*words) == 2
    assert said in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_without_the_extra_one_line_names_it(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert video("in.mp4") == 2
    assert (
        capsys.readouterr().err == "swinir: av is not installed; install it with: pip install 'swinir-toolkit[video]'\n"
    )
