"""`swinir reproduce table2` and the others, from the command line: tiny weights on tiny sets."""

import json
import subprocess
import sys

import pytest
from reproductions import write_sets, write_weights

from swinir.cli.main import main
from swinir.reproduce import measure as m


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path / "zoo"))
    write_sets(tmp_path / "testsets", "Set5", "Set12")
    write_weights(tmp_path / "mine.pth")
    return tmp_path


def reproduce(*words):
    return main(["reproduce", *words, "--device", "cpu"])


def content(place, name):
    return json.loads((place / "results" / "reproduce" / f"{name}.json").read_text(encoding="utf-8"))


def test_bundled_experts_are_measured_and_called_another_network(place, capsys):
    assert reproduce("table3", "--weights", "bundled", "--sets", "Set5") == 0
    out = capsys.readouterr().out
    assert out.count("another network: 295k parameters, the published 910k") == 1
    assert "explained: counted as in the paper" in out
    assert "3 another network; tolerance: PSNR 0.02 dB, SSIM 0.001" in out
    assert "differs" not in out
    for suffix in ("html", "md", "csv", "json"):
        assert (place / "results" / "reproduce" / f"table3.{suffix}").is_file()
    assert content(place, "table3")["verdicts"]["another network"] == 3


def test_the_same_command_again_keeps_what_is_there(place, capsys, monkeypatch):
    words = ("table5", "--weights", "bundled", "--sets", "Set12", "--noise", "25")
    assert reproduce(*words) == 0
    first = content(place, "table5")
    capsys.readouterr()
    monkeypatch.setattr(m, "evaluate", lambda *_: pytest.fail("measured again"))
    assert reproduce(*words) == 0
    assert "(kept)" in capsys.readouterr().out
    assert content(place, "table5") == first


def test_missing_sets_are_said_first_and_the_rest_runs(place, capsys):
    assert reproduce("table5", "--weights", "bundled") == 1
    captured = capsys.readouterr()
    assert (
        "missing: set BSD68 in testsets, for 1 cell; get it by: swinir data prepare BSD68 FOLDER_OR_ARCHIVE"
        in captured.err
    )
    assert "Set12" in captured.out
    assert "BSD68" not in captured.out
    assert [missing["remedy"] for missing in content(place, "table5")["missing"]] == [
        "swinir data prepare BSD68 FOLDER_OR_ARCHIVE", "swinir data prepare Urban100 FOLDER_OR_ARCHIVE",
    ]  # fmt: skip


def test_released_weights_are_asked_for_by_default_and_named_when_missing(place, capsys):
    assert reproduce("table2", "--sets", "Set5", "--scales", "2") == 2
    err = capsys.readouterr().err
    assert (
        "missing: weights classical_sr_x2_DF2K, for 1 cell; get it by: swinir zoo download classical_sr_x2_DF2K" in err
    )
    assert "no cell can be measured without the missing files" in err
    assert not (place / "results").exists()


def test_there_is_no_bundled_expert_for_table_2(place, capsys):
    assert reproduce("table2", "--weights", "bundled") == 2
    assert "none of the weights (bundled) is for these cells of classical_sr" in capsys.readouterr().err


def test_a_file_of_any_name_is_matched_by_its_network(place, capsys):
    assert reproduce("all", "--weights", "mine.pth", "--sets", "Set5") == 0
    captured = capsys.readouterr()
    assert "mine     x2        Set5" in captured.out
    assert "no cell of table2, table4" in captured.err
    assert [len(table["cells"]) for table in content(place, "all")["tables"]] == [0, 1, 0, 0, 0, 0, 0]


def test_a_published_architecture_with_other_weights_differs_and_the_remark_says_why(place, capsys):
    from swinir.tasks import get_task

    name = "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth"
    write_weights(place / name, config=get_task("lightweight_sr").network_for(2))
    for file in sorted((place / "testsets/Set5/HR").iterdir())[1:]:
        file.unlink()
    assert reproduce("table3", "--weights", name, "--sets", "Set5") == 0
    assert "other images: 1 image where the set has 5" in capsys.readouterr().out
    write_sets(place / "whole", "Set5")
    assert reproduce("table3", "--weights", name, "--sets", "Set5", "--testsets", "whole") == 0
    captured = capsys.readouterr()
    assert "differs: no known reason for PSNR on luma and SSIM on luma; SHA-256 is not that" in captured.out
    assert "measured again, because images_sha256 changed" in captured.err


def test_weights_that_do_not_fit_fail_and_the_rest_runs(place, capsys):
    write_weights(place / "w" / "002_lightweightSR_MINE_s64w8_SwinIR-S_x3.pth", scale=2)
    write_weights(place / "w" / "good.pth")
    assert reproduce("table3", "--weights", "w", "--sets", "Set5") == 1
    captured = capsys.readouterr()
    assert "its scale is 2, the task needs 3" in captured.err
    assert "good" in captured.out
    assert "1 another network, 1 failed" in captured.out
    assert "its scale is 2" in (place / "results/reproduce/table3.html").read_text(encoding="utf-8")


def test_failed_images_are_named_and_the_command_exits_with_1(place, capsys):
    file = place / "testsets/Set5/HR/002.png"
    file.write_bytes(file.read_bytes()[:60])
    assert reproduce("table3", "--weights", "mine.pth", "--sets", "Set5") == 1
    captured = capsys.readouterr()
    assert "002.png" in captured.err
    assert "other images: 1 failed" in captured.out


def test_self_ensemble_adds_the_rows_with_a_plus(place, capsys):
    assert reproduce("table3", "--weights", "mine.pth", "--sets", "Set5", "--self-ensemble") == 0
    out = capsys.readouterr().out
    assert "mine+ " in out
    assert "not published" in out


def test_an_interrupted_run_leaves_a_page_of_what_is_done(place, monkeypatch, capsys):
    from swinir.reproduce import measure

    real = measure.Bench.measure
    calls = []

    def stop(self, cell, **options):
        if calls:
            raise SystemExit(130)
        calls.append(cell)
        return real(self, cell, **options)

    monkeypatch.setattr(measure.Bench, "measure", stop)
    assert reproduce("table3", "--weights", "bundled", "--sets", "Set5") == 130
    assert content(place, "table3")["verdicts"]["another network"] == 1


def test_tolerances_are_the_users(place):
    words = ("table3", "--weights", "mine.pth", "--sets", "Set5")
    assert reproduce(*words, "--psnr-tolerance", "0.5", "--ssim-tolerance", "0.01") == 0
    assert content(place, "table3")["tolerance"] == {"psnr": 0.5, "ssim": 0.01}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table3", "--sets", "Set6"), "no set 'Set6' in table3; choose from Set5"),
        (("table3", "--scales", "8"), "no level 8 in table3; choose from 2, 3, 4"),
        (("table5", "--noise", "loud"), "--noise takes numbers separated by commas, got 'loud'"),
        (("table3", "--precision", "fp8"), "--precision must be one of"),
        (("table3", "--tile", "8"), "--tile must be at least 56, got 8"),
        (("table3", "--tile", "64", "--tile-overlap", "64"), "--tile-overlap must be from 0 to 56, got 64"),
        (("table3", "--psnr-tolerance", "-1"), "tolerance of psnr must be 0 or more"),
        (("table3", "--weights", "nonsense"), "unknown weights 'nonsense'"),
        (("table3", "--weights", "bundled", "-o", "mine.pth"), "mine.pth is a file"),
    ],
)
def test_wrong_usage_is_one_line(place, capsys, words, message):
    assert reproduce(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_help_states_the_rules_and_loads_no_torch(place):
    code = (
        "import sys; from swinir.cli.main import main; main(['reproduce', 'table4', '--help']);"
        "print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 when all requested cells were measured" in done.stdout
    assert "--jpeg" in done.stdout
    assert done.stdout.strip().endswith("[]")
