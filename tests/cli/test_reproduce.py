"""`swinir reproduce table2` and the others, from the command line: tiny weights on tiny sets."""

import errno
import json
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from reproductions import write_released, write_sets, write_weights

from swinir.cli.main import main
from swinir.reproduce import measure
from swinir.tasks import get_task
from swinir.weights import zoo

SMALL = "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path / "zoo"))
    write_sets(tmp_path / "testsets", "Set5", "Set12")
    write_weights(tmp_path / "mine.pth")
    return tmp_path


@pytest.fixture
def reproduce(place, capsys):
    """Runs the command on the CPU; gives its exit code and both streams."""

    def run(*words):
        code = main(["reproduce", *words, "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


def content(place, name):
    return json.loads((place / "results" / "reproduce" / f"{name}.json").read_text(encoding="utf-8"))


def test_bundled_models_are_measured_once_and_called_another_network(place, reproduce, monkeypatch):
    words = ("table3", "--weights", "bundled", "--sets", "Set5", "--scales", "3,4")
    code, out, _ = reproduce(*words)
    assert code == 0
    assert out.count("another network: ") == 2
    assert "explained: counted as in the paper" in out
    assert "2 another network; tolerance: PSNR 0.02 dB, SSIM 0.001" in out
    assert "differs" not in out
    for suffix in ("html", "md", "csv", "json"):
        assert (place / "results" / "reproduce" / f"table3.{suffix}").is_file()
    first = content(place, "table3")
    assert first["verdicts"]["another network"] == 2
    monkeypatch.setattr(measure, "evaluate", lambda *_: pytest.fail("measured again"))
    code, out, _ = reproduce(*words)
    assert (code, out.count("(kept)")) == (0, 2)
    assert content(place, "table3") == first


def test_missing_sets_are_listed_first_and_the_others_are_measured(place, reproduce):
    write_weights(place / "004_grayDN_DFWB_s128w8_SwinIR-M_noise25.pth", task="gray_dn")
    code, out, err = reproduce("table5", "--weights", "004_grayDN_DFWB_s128w8_SwinIR-M_noise25.pth")
    assert code == 1
    assert "missing: set BSD68 in testsets, for 1 cell; get it by: swinir data prepare BSD68 FOLDER_OR_ARCHIVE" in err
    assert "Set12" in out
    assert "BSD68" not in out
    assert [missing["remedy"] for missing in content(place, "table5")["missing"]] == [
        f"swinir data prepare {name} FOLDER_OR_ARCHIVE" for name in ("BSD68", "Urban100")
    ]


def test_released_weights_are_the_default_and_named_when_missing(place, reproduce):
    code, _, err = reproduce("table2", "--sets", "Set5", "--scales", "2")
    assert code == 2
    name = "classical_sr_x2_DF2K"
    assert f"missing: weights {name}, for 1 cell; get it by: swinir zoo download {name}" in err
    assert "no cell can be measured without the missing files" in err
    assert not (place / "results").exists()


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A server on this machine with a file for each released name; gives its folder."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.setattr(zoo, "RELEASED", write_released(folder, zoo.RELEASED))

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("SWINIR_ZOO_MIRROR", f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()


def test_the_released_weights_go_from_the_download_to_the_page(place, reproduce, release, capsys):
    """All names, with tiny networks, a set for each table, and one file that is not on the server at first."""
    write_sets(place / "testsets", "classic5", "McMaster", "DIV2K-val", images=1)
    late = release / SMALL
    late.rename(place / "late")
    assert main(["zoo", "download", "released"]) == 1
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), len(err.splitlines())) == (30, 1)
    code, _, err = reproduce("table3", "--sets", "Set5")
    assert code == 1
    assert "missing: weights lightweight_sr_x2_DIV2K, for 1 cell; get it by: swinir zoo download" in err
    (place / "late").rename(late)
    assert main(["zoo", "download", "released"]) == 0
    capsys.readouterr()
    code, out, _ = reproduce("all", "--sets", "Set5,Set12,classic5,McMaster,DIV2K-val")
    assert code == 0
    assert out.count("(kept)") == 2
    cells = [cell for table in content(place, "all")["tables"] for cell in table["cells"]]
    assert len(cells) == 29
    page = (place / "results" / "reproduce" / "all.html").read_text(encoding="utf-8")
    assert len({cell["weights"] for cell in cells}) == 23
    assert all(cell["weights"] in page for cell in cells)


def test_a_file_of_any_name_is_matched_by_its_network_with_the_users_tolerance(place, reproduce):
    options = ("--self-ensemble", "--psnr-tolerance", "0.5", "--ssim-tolerance", "0.01")
    code, out, err = reproduce("all", "--weights", "mine.pth", "--sets", "Set5", *options)
    assert code == 0
    assert re.findall(r"^(mine\S*) +x2 +Set5 ", out, re.M) == ["mine", "mine+"]
    assert "no cell of table2, table4" in err
    found = content(place, "all")
    assert [len(table["cells"]) for table in found["tables"]] == [0, 2, 0, 0, 0, 0, 0]
    assert found["tolerance"] == {"psnr": 0.5, "ssim": 0.01}


def test_other_weights_of_the_published_architecture_differ_and_the_reason_is_named(place, reproduce):
    write_weights(place / SMALL, config=get_task("lightweight_sr").network_for(2))
    folder = place / "testsets/Set5"
    parts = {file: file.read_bytes() for file in sorted((folder / "HR").iterdir())[1:]}
    for file in parts:
        file.unlink()
    code, out, _ = reproduce("table3", "--weights", SMALL, "--sets", "Set5")
    assert code == 0
    assert "other images: 1 image where the set has 5" in out
    for file, whole in parts.items():
        file.write_bytes(whole)
    code, out, err = reproduce("table3", "--weights", SMALL, "--sets", "Set5", "--no-alternatives")
    assert code == 0
    assert "differs: no known reason for PSNR on luma and SSIM on luma; SHA-256 is not that" in out
    assert "measured again, because images_sha256 changed" in err


def test_weights_that_do_not_fit_fail_and_the_others_are_measured(place, reproduce):
    write_weights(place / "w" / "002_lightweightSR_MINE_s64w8_SwinIR-S_x3.pth", scale=2)
    write_weights(place / "w" / "good.pth")
    code, out, err = reproduce("table3", "--weights", "w", "--sets", "Set5")
    assert code == 1
    assert "its scale is 2, the task needs 3" in err
    assert "good" in out
    assert "1 another network, 1 failed" in out
    assert "its scale is 2" in (place / "results/reproduce/table3.html").read_text(encoding="utf-8")


def test_failed_images_are_named_and_the_command_exits_with_1(place, reproduce):
    file = place / "testsets/Set5/HR/002.png"
    file.write_bytes(file.read_bytes()[:60])
    code, out, err = reproduce("table3", "--weights", "mine.pth", "--sets", "Set5")
    assert code == 1
    assert "002.png" in err
    assert "other images: 1 failed" in out


def test_an_interrupted_run_leaves_a_page_of_what_is_done(place, reproduce, monkeypatch):
    real, calls = measure.Bench.measure, []

    def stop(self, cell, **options):
        if calls:
            raise SystemExit(130)
        calls.append(cell)
        return real(self, cell, **options)

    monkeypatch.setattr(measure.Bench, "measure", stop)
    assert reproduce("table3", "--weights", "mine.pth", "--sets", "Set5", "--self-ensemble")[0] == 130
    assert content(place, "table3")["verdicts"]["another network"] == 1


def test_a_full_disk_ends_the_run_with_one_line(place, reproduce, monkeypatch):
    calls = []

    def full(path, rows, facts):
        calls.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(measure, "write_json", full)
    code, _, err = reproduce("table3", "--weights", "mine.pth", "--sets", "Set5", "--self-ensemble")
    assert code == 2
    assert err.splitlines()[-1].startswith(
        "swinir: [Errno 28] No space left on device; make room, and the same command"
    )
    assert len(set(calls)) == 1  # the other cell was not begun


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
        (("table2", "--weights", "bundled"), "none of the weights (bundled) is for these cells of classical_sr"),
    ],
)
def test_wrong_usage_is_one_line(reproduce, words, message):
    code, _, err = reproduce(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_help_states_the_rules_and_loads_no_torch():
    code = (
        "import sys; from swinir.cli.main import main; main(['reproduce', 'table4', '--help']);"
        "print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 when all requested cells were measured" in done.stdout
    assert "--jpeg" in done.stdout
    assert done.stdout.strip().endswith("[]")
