"""`swinir restore` on the command line: options, exit codes, messages, outputs."""

import json
import signal

import numpy as np
import pytest
from forks import Command, commands
from pictures import smooth, write, write_expert

from swinir.cli.main import main
from swinir.image_io.reader import read_picture


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model and two images in it."""
    monkeypatch.chdir(tmp_path)
    write_expert(tmp_path / "x2.pth")
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", smooth(20, 24))
    write(tmp_path / "in" / "b.png", smooth(20, 24, 1))
    return tmp_path


def restore(*words):
    return main(["restore", "--device", "cpu", *map(str, words)])


def test_a_folder_comes_out_enlarged(folder, capsys):
    assert restore("in", "-n", "x2.pth", "-o", "out") == 0
    assert read_picture("out/a_x2.png").pixels.shape == (40, 48, 3)
    assert read_picture("out/b_x2.png").pixels.shape == (40, 48, 1)
    assert "in/a.png -> out/a_x2.png: x2.pth" in (said := capsys.readouterr().out)
    assert "2 restored, 0 skipped, 0 failed; see out" in said


def test_no_option_is_needed(folder):
    noisy = smooth(64, 64) + np.random.default_rng(0).normal(0, 25, (64, 64, 3))
    write(folder / "photo.png", np.clip(noisy, 0, 255).astype(np.uint8))
    assert restore("photo.png", "--json", "all.json") == 0
    (row,) = json.loads((folder / "all.json").read_text())["pictures"]
    assert row["output"] == "restored/photo.png"
    assert "noise25" in row["experts"][0][0]


def test_explain_prints_estimates_and_reasons(folder, capsys):
    assert restore("in/a.png", "-s", "2", "--explain") == 0
    said = capsys.readouterr().out
    assert "Noise: standard deviation" in said
    assert "lightweight_sr_x2_tiny: enlargement by 2 was asked for" in said


def test_a_bad_file_fails_alone_and_the_exit_code_tells(folder, capsys):
    (folder / "in" / "c.png").write_bytes(b"nothing")
    assert restore("in", "-n", "x2.pth", "-o", "out") == 1
    said = capsys.readouterr()
    assert "failed: in/c.png" in said.err
    assert "2 restored, 0 skipped, 1 failed" in said.err
    assert restore("in", "-n", "x2.pth", "-o", "out", "-q") == 1
    assert "0 restored, 2 skipped, 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png"], "absent.png is not there"),
        (["in", "-o", "in"], "is the input folder itself"),
        (["in", "-n", "lightweight_sr_x9"], "lightweight_sr"),
        (["in", "-n", "x2.pth", "--noise", "25"], "leave task, noise and jpeg out"),
        (["in", "--task", "deblur"], "unknown task 'deblur'"),
        (["in", "--task", "lightweight_sr"], "ask for a scale above 1"),
        (["in", "-s", "0"], "scale must be above 0 and at most 64, got 0"),
        (["in", "-t", "big"], "--tile must be auto, 0 for no tiles, or a side in pixels, got 'big'"),
        (["in", "--ext", "xcf"], "images are written as .png"),
        (["in", "--quality", "101"], "quality must be from 1 to 100, got 101"),
        (["in", "-n", "x2.pth", "--backend", "tensorrt"], "backend must be one of onnx, openvino, got 'tensorrt'"),
        (["in", "--precision", "int8"], "precision must be one of"),
        (["in", "--skip-existing", "--overwrite"], "exclude each other"),
        (["in", "--alpha_upsampler", "nearest"], "alpha must be model or bicubic"),
        (["in", "--max-pixels", "0"], "max_pixels must be positive"),
        (["in", "--json", "nowhere/all.json"], "folder not found"),
    ],
)
def test_a_mistake_is_one_line_before_the_work(folder, capsys, words, message):
    assert restore(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "restored").exists()


def test_an_image_beyond_the_limit_is_refused(folder, capsys):
    assert restore("in", "-n", "x2.pth", "--max-pixels", "0.0001") == 1
    assert "is more than the limit" in capsys.readouterr().err


def test_input_and_output_side_by_side(folder):
    assert restore("in/a.png", "-n", "x2.pth", "-o", "out", "--compare") == 0
    picture = read_picture("out/a_x2_compare.png").pixels
    assert picture.shape[1] > 2 * 48


def test_other_formats_and_names(folder):
    assert restore("in", "-n", "x2.pth", "-o", "out", "--ext", "jpg", "--quality", "80", "--suffix", "_big") == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a_big.jpg", "b_big.jpg", "results.jsonl"]


def test_other_requests_get_outputs_of_their_own_and_the_first_command_still_finds_its_own(folder, capsys):
    write_expert(folder / "mine.pth")
    requests = (), ("-s", "2"), ("-n", "mine.pth")
    for words in (*requests, *requests):
        assert restore("in/a.png", *words) == 0
    names = ["a.png", "a_mine.png", "a_x2.png", "results.jsonl"]
    assert sorted(p.name for p in (folder / "restored").iterdir()) == names
    assert main(["report", "restored"]) == 0
    assert "report.html: 3 of 3 images shown" in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["another request", "damage"])
def test_a_refused_or_failed_image_does_not_replace_the_record_of_a_good_output(folder, capsys, bad):
    first = ["in/a.png", "-n", "x2.pth", "-o", "out/a.png"]
    assert restore(*first) == 0
    good, made = (folder / "in" / "a.png").read_bytes(), (folder / "out" / "a.png").read_bytes()
    if bad == "damage":
        (folder / "in" / "a.png").write_bytes(good[:100])
    assert restore(*first, *(["-s", "3"] if bad == "another request" else [])) == 1
    (folder / "in" / "a.png").write_bytes(good)
    assert restore(*first) == 0
    assert (folder / "out" / "a.png").read_bytes() == made
    capsys.readouterr()
    assert main(["report", "out"]) == 0
    assert "1 of 1 images shown" in capsys.readouterr().out
    assert "A later attempt failed: " in (folder / "report.html").read_text()


@pytest.mark.parametrize("size", ["1", "0", "16"])
def test_tile_sizes(folder, capsys, size):
    code = restore("in/a.png", "-n", "x2.pth", "-o", "out", "-t", size, "--tile_overlap", "4")
    assert code == (1 if size == "1" else 0)
    if size == "1":
        assert "tile must be at least one window of 4 pixels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_backend_gives_the_same_image(folder, backend):
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    assert restore("in/a.png", "-n", "x2.pth", "-o", "ours") == 0
    assert restore("in/a.png", "-n", "x2.pth", "-o", "theirs", "--backend", backend) == 0
    ours, theirs = (read_picture(f"{name}/a_x2.png").pixels.astype(int) for name in ("ours", "theirs"))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_within_a_tile_and_the_rest_is_done_next_time(folder, kind, code):
    for i in range(6):
        write(folder / "in" / f"{i}.png", smooth(200, 200, seed=i))
    words = ["restore", "in", "-n", "x2.pth", "-o", "out", "--device", "cpu"]
    with commands() as command:
        log = folder / "log"
        assert command(Command(words, str(log), kill=kind, rows=3, metrics="out/results.jsonl")) == [code]
        assert "not reached" in log.read_text()
        assert "Traceback" not in log.read_text()
        assert command(Command(words, str(log))) == [0]
    assert len(list((folder / "out").glob("*.png"))) == 8
    assert not [p for p in (folder / "out").iterdir() if p.name.endswith(".part")]
