"""The forms of what was measured: Markdown, CSV, JSON, the table in the paper's shape, the page, the plot."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproductions import TOLERANCE, cell, result

from swinir.reproduce.page import write_page
from swinir.reproduce.plan import Missing
from swinir.reproduce.plot import Line, Point, axis, distance_plot
from swinir.reproduce.published import TABLES
from swinir.reproduce.results import Failure
from swinir.reproduce.summary import Summary, counted, grid, write_summary
from swinir.reproduce.verdict import LEGEND

WRONG = "<script>throw 1</script> | wrong"


@pytest.fixture
def summary():
    results = (
        result("table2", "Set5", 4),
        result("table2", "Set5", 4, data="DF2K", of="DF2K", psnr=-0.5),
        result("table2", "Manga109", 2, psnr=-0.1),
        result("table3", "Set14", 2, psnr=-0.9, published_network=False),
    )
    failures = (Failure(cell("table3", "Set5", 3), WRONG),)
    missing = (Missing("set Urban100 in testsets", "swinir data prepare Urban100", 3),)
    tables = (TABLES["table2"], TABLES["table3"], TABLES["table4"])
    return Summary("all", tables, results, failures, missing, TOLERANCE, {"torch": "2.6", "device": "cpu"}, 3)


def test_verdicts_are_counted(summary):
    assert counted(summary) == "1 reproduced, 1 explained, 1 differs, 1 another network, 1 failed, 3 missing"
    assert list(summary.kinds()) == [*LEGEND, "failed"]


def test_the_papers_shape_has_other_methods_swinir_others_and_ours():
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


def test_markdown_states_every_cell_and_what_is_known(summary, tmp_path):
    (markdown, *_) = write_summary(tmp_path, summary)
    text = markdown.read_text(encoding="utf-8")
    assert "| classical_sr_x4_DIV2K | x4 | Set5 | 32.72/0.9021 | 32.72/0.9021 |" in text
    assert "| +0.00/+0.0000 | reproduced |" in text
    assert "explained: 39.60 belongs to training patch 64" in text
    assert "another network: 289k parameters, the published 910k" in text
    assert "| set Urban100 in testsets | `swinir data prepare Urban100` | 3 |" in text
    assert "878K" in text
    assert "Mult-Adds hold for an output of 1024x720" in text
    assert "Nothing of it was measured." in text
    widths = [{line.replace("\\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
              for block in text.split("\n\n")]  # fmt: skip
    assert all(len(width) <= 1 for width in widths)


def test_csv_has_a_line_for_each_cell_with_unrounded_figures(summary, tmp_path):
    _, file, _ = write_summary(tmp_path, summary)
    lines = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert [line["verdict"] for line in lines] == ["reproduced", "differs", "explained", "another network"]
    assert float(lines[2]["psnr_y"]) == pytest.approx(39.50)
    assert float(lines[2]["psnr_y_published"]) == 39.60
    assert float(lines[2]["psnr_y_difference"]) == pytest.approx(-0.10)
    assert lines[0]["source"] == "paper"
    assert lines[0]["others"] == "32.73/0.9029 (mmagic), 32.73/0.9028 (basicsr)"
    assert len(lines[0]["checkpoint_sha256"]) == 64


def test_json_is_strict_and_whole(summary, tmp_path):
    _, _, file = write_summary(tmp_path, summary)

    def refuse(word):
        raise AssertionError(word)

    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    once = ("reproduced", "explained", "differs", "another network", "failed")
    assert content["verdicts"] == {kind: int(kind in once) for kind in (*LEGEND, "failed")}
    assert [len(table["cells"]) for table in content["tables"]] == [3, 1, 0]
    assert content["tables"][1]["costs"][0]["parameters"] == 910_152
    assert content["tolerance"] == {"psnr": 0.02, "ssim": 0.001}
    assert content["missing"] == [
        {"what": "set Urban100 in testsets", "remedy": "swinir data prepare Urban100", "cells": 3}
    ]
    assert content["failed"] == [{"file": "cells/table3/lightweight_sr_x3_DIV2K/Set5_x3.json", "error": WRONG}]


class Page(HTMLParser):
    """Checks that elements are closed, and collects them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_well_formed_and_asks_no_network(summary, tmp_path):
    write_page(tmp_path / "all.html", summary)
    text = (tmp_path / "all.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "style=" not in text
    assert WRONG in "".join(page.texts)
    assert "<script>throw" not in text
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and attrs["class"] == "plot"]
    assert len(drawings) == 3  # table 2 near and far, table 3


def test_the_page_marks_each_verdict(summary, tmp_path):
    write_page(tmp_path / "all.html", summary)
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    marks = [attrs["class"] for tag, attrs in page.tags if tag == "path" and "d" in attrs]
    drawn = [mark for mark in marks if mark.startswith("ours")]
    for verdict in ("reproduced", "explained", "differs", "another-network"):
        assert f"ours {verdict}" in drawn
    tiles = "".join(page.texts)
    assert re.search(r"Reproduced\s*1\s", tiles)
    assert "What is missing, and how to get it" in tiles


def test_a_page_without_results_says_so(tmp_path):
    empty = Summary("table5", (TABLES["table5"],), (), (), (), TOLERANCE, {})
    write_page(tmp_path / "table5.html", empty)
    assert "Nothing of it was measured." in "".join(Page((tmp_path / "table5.html").read_text()).texts)
    assert counted(empty) == "nothing measured"


@given(st.lists(st.floats(-20, 20), max_size=8))
def test_an_axis_holds_all_values_and_zero_on_round_ticks(values):
    low, high, step = axis(values)
    assert low <= min([0, *values]) + 1e-7
    assert high >= max([0, *values]) - 1e-7
    assert 1 <= round((high - low) / step) <= 12
    assert float(f"{step:e}".split("e")[0]) in (1.0, 2.0, 5.0)
    assert low / step == pytest.approx(round(low / step), abs=1e-6)


def test_a_plot_without_any_distance_or_tolerance_can_be_drawn():
    assert "<svg" in distance_plot([Line("x2 Set5", [Point("mine", 0.0, "ours")])], 0.0, "dB")


def test_an_infinite_figure_is_in_the_table_and_not_in_the_plot(tmp_path):
    perfect = result("table3", "Set5", 2, psnr=float("inf"))
    write_page(tmp_path / "p.html", Summary("table3", (TABLES["table3"],), (perfect,), (), (), TOLERANCE, {}))
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "inf/0.9611" in "".join(page.texts)
    assert "svg" not in [tag for tag, _ in page.tags]


def test_points_stand_where_their_distance_is():
    point = Point("mine", -0.5, "ours", "differs")
    drawing = distance_plot([Line("x2 Set5", [point])], 0.02, "dB")
    ticks = {
        float(text): float(x)
        for x, text in re.findall(r'<text class="tick" x="([\d.]+)" y="\d+">([-+\d.]+)</text>', drawing)
    }
    left, zero = ticks[min(ticks)], ticks[0.0]
    expected = zero + (left - zero) * -0.5 / min(ticks)
    (x,) = re.findall(r'class="ours differs" d="M([\d.]+) ', drawing)
    assert float(x) + 7 == pytest.approx(expected, abs=0.2)
    (start, width) = re.findall(r'class="band" x="([\d.]+)" y="8" width="([\d.]+)"', drawing)[0]
    assert float(start) + float(width) / 2 == pytest.approx(zero, abs=0.2)
    assert "mine: -0.500 dB" in drawing


def test_labels_of_a_plot_are_escaped():
    assert "&lt;b&gt;" in distance_plot([Line("<b>", [Point("<b>", 0.0, "baseline")])], 0.02, "<b>")
