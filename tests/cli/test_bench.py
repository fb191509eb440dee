"""`swinir bench`: what it prints, writes and refuses."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from swinir.bench import matrix_rate, timing, variants
from swinir.bench.processes import here
from swinir.cli.main import main
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import write_checkpoint

TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(2,), img_size=16)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(matrix_rate, "PRODUCTS", {"cpu": ((8, 8, 8),)})
    monkeypatch.setattr(timing, "time_variants", partial(timing.time_variants, start=here))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "tiny.pth"
    write_checkpoint(path, SwinIR(TINY).state_dict(), TINY)
    return path


def bench(*words):
    return main(["bench", *map(str, words), "--device", "cpu"])


def test_a_table_json_and_a_plot(weights, tmp_path, capsys):
    words = ["--sizes", "16,24x20", "--repeats", 2, "--threads", 2]
    files = ["--json", tmp_path / "a.json", "--plot", tmp_path / "a.png"]
    assert bench(weights, *words, *files) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found.keys() == {"network", "machine", "matrix_gflops", "repeats", "complete", "rows"}
    assert found["complete"] is True
    assert found["network"]["file"] == "tiny.pth"
    assert found["network"]["config"] == TINY.to_dict()
    assert found["matrix_gflops"].keys() == {"fp32", "bf16"}
    assert found["machine"]["threads"] == 2
    sizes = [(row["height"], row["width"]) for row in found["rows"]]
    assert sizes == [(16, 16)] * 3 + [(24, 20)] * 3
    assert [row["variant"] for row in found["rows"]] == 2 * ["plain", "fp32", "bf16"]
    for row in found["rows"]:
        assert row["status"] == "ok"
        assert len(row["samples"]) == found["repeats"] == 2
        assert row["matrix_share"] > 0
    assert (tmp_path / "a.png").stat().st_size > 1000
    for word in (
        found["machine"]["cpu"],
        "2 of ",
        f"torch {torch.__version__}",
        "weights of tiny.pth",
        "GFLOP/s in bf16",
        "24x20  bf16",
        "whole images",
    ):
        assert word in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("times as fast as plain: fp32 ")
    assert "(24x20); bf16 " in last


def test_tiles_batch_and_memory(weights, monkeypatch, capsys):
    monkeypatch.setattr(timing, "peak_bytes", lambda work, device: work() or 123_000_000)
    words = ["--sizes", 40, "--tile", 16, "--tile_overlap", 8, "--batch", 2, "--variants", "fp32", "--repeats", 1]
    assert bench(weights, *words) == 0
    out = capsys.readouterr().out
    assert "tiles of 16 overlapping by 8, batch 2" in out
    assert " 123 " in out
    assert "nothing to compare" in out


def test_a_released_network_without_its_file_has_random_weights_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path))
    words = ["--sizes", 8, "--variants", "fp32", "--repeats", 1, "--json", tmp_path / "a.json"]
    assert bench("lightweight_sr_x2_DIV2K", *words) == 0
    assert "RANDOM weights" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["network"]["file"] is None


def refuse(model):
    raise RuntimeError("not today")


def test_a_variant_that_cannot_run_is_said_and_the_others_are_measured(weights, monkeypatch, capsys):
    broken = replace(variants.VARIANTS["bf16"], build=refuse)
    monkeypatch.setitem(variants.VARIANTS, "bf16", broken)
    assert bench(weights, "--sizes", 16, "--variants", "bf16,plain,fp32", "--repeats", 1) == 1
    captured = capsys.readouterr()
    assert "failed: RuntimeError: not today" in captured.err
    assert "times as fast as plain: fp32 " in captured.out


def test_rows_are_printed_as_they_come_and_kept_when_interrupted(weights, tmp_path, monkeypatch, capsys):
    real, calls = timing.time_variants, []

    def interrupted(subject, variants, case, **options):
        calls.append(case)
        yield from real(subject, variants, case, **options)
        if len(calls) == 2:
            assert "24x24  fp32" in capsys.readouterr().out
            raise SystemExit(130)

    monkeypatch.setattr(timing, "time_variants", interrupted)
    words = ["--sizes", "16,24", "--variants", "fp32", "--repeats", 1, "--json", tmp_path / "a.json"]
    assert bench(weights, *words) == 130
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["complete"] is False
    assert len(found["rows"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variants", "plain,fp23"], "unknown variant 'fp23'; choose from plain, fp32"),
        (["--sizes", "0"], "--sizes must be sides or HEIGHTxWIDTH in pixels, got '0'"),
        (["--sizes", ""], "--sizes must be"),
        (["--tile", "4"], "tile must be at least one window of 8"),
        (["--tile", "16", "--tile_overlap", "16"], "tile_overlap must be"),
        (["--json", "none/such/a.json"], "folder not found"),
        (["--plot", "a.gif"], "must end in one of .png"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_before_any_work(words, message, weights, monkeypatch, capsys):
    monkeypatch.setattr(timing, "time_variants", None)
    assert bench(weights, *words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_an_unknown_network_is_refused(capsys):
    assert bench("nonsense") == 2
    assert "no such file, and unknown weights 'nonsense'" in capsys.readouterr().err
