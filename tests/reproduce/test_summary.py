"""A summary as Markdown, CSV and JSON, and the tables in the paper's layout."""

import csv
import json

import pytest
from reproductions import TOLERANCE, result

from swinir.reproduce.published import TABLES
from swinir.reproduce.summary import Summary, grid, write_summary
from swinir.reproduce.verdict import LEGEND


def test_verdicts_are_counted(summary):
    assert str(summary) == "1 reproduced, 1 explained, 1 differs, 1 another network, 1 failed, 3 missing"
    assert list(summary.counts()) == [*LEGEND, "failed"]
    assert str(Summary("table5", (TABLES["table5"],), (), (), (), TOLERANCE, {})) == "nothing measured"


def test_the_papers_layout_has_other_methods_swinir_third_parties_and_ours():
    rows = grid(TABLES["table2"], 4, [result("table2", "Set5", 4, psnr=0.01)])
    assert [row.label for row in rows] == [
        "RCAN", "HAN", "NLSA", "RRDB", "IPT", "SwinIR", "SwinIR+", "SwinIR", "SwinIR+",
        "SwinIR by mmagic", "SwinIR by mmagic", "SwinIR by basicsr", "classical_sr_x4_DIV2K",
    ]  # fmt: skip
    assert [row.cells for row in rows if row.label == "IPT"] == [
        {"Set5": "32.64", "Set14": "29.01", "BSD100": "27.82", "Urban100": "27.26"}
    ]
    assert rows[-1].cells == {"Set5": "32.73/0.9021"}
    assert (rows[-1].kind, rows[-1].data) == ("ours", "DIV2K")


def test_markdown_states_every_cell_and_note(summary, tmp_path):
    (file, *_) = write_summary(tmp_path, summary)
    text = file.read_text(encoding="utf-8")
    for part in (
        "| classical_sr_x4_DIV2K | x4 | Set5 | 32.72/0.9021 | 32.72/0.9021 |",
        "| +0.00/+0.0000 | reproduced |",
        "explained: 39.60 belongs to training patch 64",
        "another network: 289k parameters, the published 910k",
        "| set Urban100 in testsets | `swinir data prepare Urban100` | 3 |",
        "878K",
        "Mult-Adds are for an output of 1024x720",
        "Not measured.",
    ):
        assert part in text
    for block in text.split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_csv_has_a_line_for_each_cell_with_unrounded_figures(summary, tmp_path):
    _, file, _ = write_summary(tmp_path, summary)
    lines = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert [line["verdict"] for line in lines] == ["reproduced", "differs", "explained", "another network"]
    assert float(lines[2]["psnr_y"]) == pytest.approx(39.50)
    assert float(lines[2]["psnr_y_published"]) == 39.60
    assert float(lines[2]["psnr_y_difference"]) == pytest.approx(-0.10)
    assert lines[0]["others"] == "32.73/0.9029 (mmagic), 32.73/0.9028 (basicsr)"
    assert (lines[0]["source"], len(lines[0]["checkpoint_sha256"])) == ("paper", 64)


def test_json_is_strict_and_complete(summary, tmp_path):
    _, _, file = write_summary(tmp_path, summary)
    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    once = ("reproduced", "explained", "differs", "another network", "failed")
    assert content["verdicts"] == {kind: int(kind in once) for kind in (*LEGEND, "failed")}
    assert [len(table["cells"]) for table in content["tables"]] == [3, 1, 0]
    assert content["tables"][1]["costs"][0]["parameters"] == 910_152
    assert content["tolerance"] == {"psnr": 0.02, "ssim": 0.001}
    assert [missing["remedy"] for missing in content["missing"]] == ["swinir data prepare Urban100"]
    (failed,) = content["failed"]
    assert failed["file"] == "cells/table3/lightweight_sr_x3_DIV2K/Set5_x3.json"
