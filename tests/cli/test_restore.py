"""`swinir restore` on the command line: options, exit codes, messages, outputs."""

import importlib.util
import inspect
import io
import json
import os
import re
import signal
import sys
from dataclasses import asdict, fields

import numpy as np
import pytest
from drawings import drawings
from estimates import add_noise, photograph
from forks import Command, commands, in_another_process
from pictures import smooth, write, write_expert
from PIL import Image

import swinir
from swinir.cli.main import main
from swinir.cli.restore_options import expand_bare_ray
from swinir.image_io.reader import read_picture
from swinir.photos.options import RestoreOptions


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


def test_options_of_the_command_have_the_defaults_of_the_library():
    given = inspect.signature(swinir.cli.restore.restore).parameters
    assert {f.name: given[f.name].default for f in fields(RestoreOptions)} == asdict(RestoreOptions())


def test_a_folder_comes_out_enlarged(folder, capsys):
    assert restore("in", "-n", "x2.pth", "-o", "out") == 0
    assert read_picture("out/a_x2.png").pixels.shape == (40, 48, 3)
    assert read_picture("out/b_x2.png").pixels.shape == (40, 48, 1)
    assert "in/a.png -> out/a_x2.png: x2.pth" in (said := capsys.readouterr().out)
    assert "2 restored, 0 skipped, 0 failed; see out" in said


def test_no_option_is_needed(folder):
    write(folder / "photo.png", add_noise(photograph("astronaut")[:96, :96], 25))
    assert restore("photo.png", "--json", "all.json") == 0
    (row,) = json.loads((folder / "all.json").read_text())["pictures"]
    assert row["output"] == "restored/photo.png"
    assert "colorDN" in row["experts"][0][0]


def test_parts_together_are_the_whole(folder, capsys):
    for number in range(4):
        write(folder / "in" / f"{number}.png", smooth(8, 8))
    codes = [restore("in", "-n", "x2.pth", "-o", "out", "--shard", f"{part}/2") for part in (1, 2)]
    said = capsys.readouterr().out
    assert codes == [0, 0]
    assert said.count(" -> ") == len(list((folder / "out").glob("*.png"))) == 6
    assert said.count("0 skipped, 0 failed") == 2


def test_a_ray_option_without_an_address_is_this_machine():
    words = ["restore", "--ray", "in", "--ray", "10.0.0.1:6379", "--ray", "auto", "--ray"]
    assert expand_bare_ray(words) == [*words[:2], "local", *words[2:], "local"]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_its_extra_is_named(folder, capsys):
    assert restore("in", "-n", "x2.pth", "--ray") == 2
    assert "pip install 'swinir-toolkit[ray]'" in capsys.readouterr().err


def test_explain_prints_estimates_and_reasons(folder, capsys):
    assert restore("in/a.png", "-s", "2", "--explain") == 0
    said = capsys.readouterr().out
    assert "Noise: standard deviation" in said
    assert "lightweight_sr_x1-4_tiny: enlargement by 2 was asked for" in said


def test_verbose_tells_why_a_slower_form_of_the_layers_is_used(folder, capsys, monkeypatch):
    monkeypatch.setattr("swinir.models.kernels.problem", lambda: "llvmlite is not installed")
    line = "llvmlite is not installed; PyTorch's operators are used instead"
    assert restore("in/a.png", "-n", "x2.pth", "-o", "out", "-v") == 0
    assert line in capsys.readouterr().err
    assert restore("in/b.png", "-n", "x2.pth", "-o", "out") == 0
    assert line not in capsys.readouterr().err


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
        (["absent.png"], "absent.png is not there; check the path"),
        (["https://example.org/a.png"], "is a web address; download the image and give the path of the file"),
        (["in", "-o", "one.png"], "one.png is the name of one image, and in is a folder; name a folder with -o"),
        (["in/a.png", "in/b.png", "-o", "one.png"], "one.png is the name of one image, and 2 inputs are given"),
        (["in", "--backend", "onnx", "--device", "gpu"], "device 'gpu' is unknown; choose cpu"),
        (["in", "-o", "in"], "is the input folder itself"),
        (["in", "-n", "lightweight_sr_x9"], "lightweight_sr"),
        (["in", "-n", "x2.pth", "--noise", "25"], "leave task, noise and jpeg out"),
        (["in", "--task", "deblur"], "unknown task 'deblur'"),
        (["in", "--task", "lightweight_sr"], "ask for a scale above 1"),
        (["in", "-s", "0"], "scale must be above 0 and at most 64, got 0"),
        (["in", "--strength", "1.5"], "strength must be from 0 to 1, got 1.5"),
        (["in", "-t", "big"], "--tile must be auto, 0 for no tiles, or a side in pixels, got 'big'"),
        (["in", "--ext", "xcf"], "images are written as .png"),
        (["in", "--quality", "101"], "quality must be from 1 to 100, got 101"),
        (
            ["in", "-n", "x2.pth", "--backend", "tensorrt"],
            "backend must be one of onnx, openvino, got 'tensorrt'",
        ),
        (["in", "--precision", "int8"], "precision must be one of"),
        (["in", "--skip-existing", "--overwrite"], "exclude each other"),
        (["in", "--alpha_upsampler", "nearest"], "alpha must be model or bicubic"),
        (["in", "--max-pixels", "0"], "max_pixels must be positive"),
        (["in", "--json", "nowhere/all.json"], "folder not found"),
        (["in", "--shard", "3/2"], "--shard must be I/N with I from 1 to N, such as 3/16, got '3/2'"),
        (["in", "--workers", "2"], "--workers and --records are for --ray; leave them out, or add it"),
        (["in", "--ray", "--dry-run"], "--ray excludes --dry-run and --compare"),
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
    assert "is more than the limit of 0.0001 megapixels" in capsys.readouterr().err


def test_input_and_output_side_by_side(folder):
    assert restore("in/a.png", "-n", "x2.pth", "-o", "out", "--compare") == 0
    picture = read_picture("out/a_x2_compare.png").pixels
    assert picture.shape[1] > 2 * 48


def test_other_formats_and_names(folder):
    assert restore("in", "-n", "x2.pth", "-o", "out", "--ext", "jpg", "--quality", "80", "--suffix", "_big") == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a_big.jpg", "b_big.jpg", "results.jsonl"]


def test_other_requests_get_outputs_of_their_own_and_the_first_command_still_finds_its_own(folder, capsys):
    write_expert(folder / "mine.pth")
    requests = (), ("-s", "2"), ("-n", "mine.pth"), ("--noise", "9", "--strength", "0.5")
    for words in (*requests, *requests):
        assert restore("in/a.png", *words) == 0
    names = ["a.png", "a_mine.png", "a_noise9_strength0.5.png", "a_x2.png", "results.jsonl"]
    assert sorted(p.name for p in (folder / "restored").iterdir()) == names
    assert main(["report", "restored"]) == 0
    assert "report.html: 4 of 4 images shown" in capsys.readouterr().out


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


@pytest.mark.parametrize("option", ["-s", "--scale", "--outscale"])
def test_one_scale_option_has_three_names(folder, option):
    assert restore("in/a.png", "-n", "x2.pth", option, "1.5", "-o", "out.png") == 0
    assert read_picture("out.png").pixels.shape == (30, 36, 3)


@pytest.mark.parametrize(
    "words", [["--tile-overlap", "4", "--self-ensemble"], ["--tile_overlap", "4", "--self_ensemble"]]
)
def test_options_are_taken_with_hyphens_and_with_underscores(folder, words):
    assert restore("in/a.png", "-n", "x2.pth", "-o", "out.png", "-t", "16", *words) == 0


def test_a_misspelled_option_is_refused_with_the_nearest(folder, capsys):
    assert restore("in", "--tille", "5") == 2
    assert "No such option: --tille (Possible options: --tile)" in capsys.readouterr().err


def test_the_help_groups_options_by_use(capsys):
    assert main(["restore", "--help"]) == 0
    text = capsys.readouterr().out
    titles = ("Arguments:", "Options:", "Models:", "Output:", "Speed and memory:", "Messages:")
    assert sorted(titles, key=text.index) == list(titles)
    assert text.index("Models:") < text.index("--noise") < text.index("Output:") < text.index("--ext")


def test_the_program_prints_its_version_and_a_script_of_completion(capsys, monkeypatch):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"swinir {swinir.__version__}\n"
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert main(["--show-completion", "bash"]) == 0
    assert "_SWINIR_COMPLETE=complete_bash" in capsys.readouterr().out


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder, capsys):
    (folder / "in" / "c.png").write_bytes(b"nothing")
    before = sorted(folder.rglob("*"))
    assert restore("in", "-n", "x2.pth", "-o", "out", "-t", "16", "--tile-overlap", "4", "--dry-run") == 1
    said = capsys.readouterr()
    assert re.search(r"in/a\.png -> out/a_x2\.png: x2\.pth; 24x20 to 48x40, 4 tiles, about [0-9.]+ s, \d+ MB", said.out)
    assert re.search(r"2 to restore in about [0-9.]+ s on cpu; nothing was written", said.out)
    assert "failed: in/c.png" in said.err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["-n", "same.pth", "-s", "2"], "same.pth keeps the size: enlarged to 48x40 by bicubic interpolation"),
        (["-n", "x2.pth", "-s", "0.5"], "reduced to 12x10 by bicubic interpolation"),
        (["--noise", "0", "--jpeg", "100", "-s", "0.5"], "reduced to 12x10 by bicubic interpolation"),
        (["--task", "real_sr", "-s", "4"], "is for degraded photographs"),
    ],
)
def test_what_models_do_not_do_is_said(folder, capsys, words, note):
    write_expert("same.pth", upsampler="", upscale=1)
    assert restore("in/a.png", "-o", "out.png", *words) == 0
    assert note in capsys.readouterr().out


def test_a_clean_image_is_copied_and_counted_as_that(folder, capsys):
    assert restore("in/a.png") == 0
    said = capsys.readouterr().out
    assert "no repair needed, copied" in said
    assert "0 restored, 1 copied" in said


def test_prints_dither_text_and_drawings_are_copied(folder):
    for name, image in drawings().items():
        write(folder / "in" / f"{name}.png", image)
    assert restore("in", "-q") == 0
    given = sorted((folder / "in").iterdir())
    assert [p.name for p in given if (folder / "restored" / p.name).read_bytes() != p.read_bytes()] == []


def test_a_named_file_leaves_no_records_in_its_folder(folder):
    before = set(folder.iterdir())
    assert restore("in/a.png", "-n", "x2.pth", "-o", "new.png") == 0
    assert set(folder.iterdir()) - before == {folder / "new.png"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_counts_megapixels(folder, monkeypatch):
    write("big.png", smooth(200, 300))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert restore("big.png", "in", "-n", "x2.pth", "-o", "out", "-t", "16", "--tile-overlap", "4") == 0
    assert "of 0.1 megapixels" in terminal.getvalue()
    assert not re.search(r"\d\.\d\d", terminal.getvalue())


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
    exact = ("in/a.png", "-n", "x2.pth", "--precision", "fp32")
    assert restore(*exact, "-o", "ours") == 0
    assert restore(*exact, "-o", "theirs", "--backend", backend) == 0
    ours, theirs = (read_picture(f"{name}/a_x2.png").pixels.astype(int) for name in ("ours", "theirs"))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]])
def test_closed_standard_streams_change_nothing(folder, closed):
    def run():
        for number in closed:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        return restore("in/a.png")

    assert in_another_process(run) == 0
    assert (folder / "restored" / "a.png").read_bytes() == (folder / "in" / "a.png").read_bytes()
    assert len((folder / "restored" / "results.jsonl").read_text().splitlines()) == 2


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


def test_a_clean_photograph_that_exif_turns_is_copied_with_its_turn(folder):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(smooth(20, 24)).save("in/turned.jpg", quality=98, exif=exif)
    assert restore("in/turned.jpg", "-o", "out", "--json", "all.json") == 0
    (row,) = json.loads((folder / "all.json").read_text())["pictures"]
    assert (row["status"], row["output_width"], row["output_height"]) == ("unchanged", 20, 24)
    assert (folder / "out" / "turned.jpg").read_bytes() == (folder / "in" / "turned.jpg").read_bytes()
    assert read_picture("out/turned.jpg").pixels.shape == (24, 20, 3)


def test_the_time_of_an_image_that_takes_long_is_printed_before(folder, capsys, monkeypatch):
    monkeypatch.setattr("swinir.cli.restore_display.TIMED_FROM", 0)
    monkeypatch.setattr("swinir.cli.restore_display.ANNOUNCED_FROM", 0.0)
    assert restore("in/a.png", "-n", "x2.pth", "-o", "out.png") == 0
    assert re.fullmatch(r"in/a\.png: 0\.0 megapixels, about [0-9.]+ s\n", capsys.readouterr().err)
