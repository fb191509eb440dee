"""The results of a benchmark: means over the rows that have a metric, and the files."""

import csv
import json
import math

import pytest

from swinir.evaluation.results import Row, means, write_csv, write_json

ROWS = [
    Row("a", "ok", width=4, height=3, psnr=math.inf, ssim=1.0, seconds=0.5, output="a_SwinIR.png"),
    Row("b, with a comma", "failed", error='b.png: "broken"'),
]


def test_means_are_over_the_rows_that_have_the_metric():
    rows = [
        Row("a", "ok", psnr=20.0, ssim=0.5),
        Row("b", "failed", error="x"),
        Row("c", "ok", psnr=30.0, ssim=None),
        Row("d", "ok", psnr=40.0, ssim=0.7),
    ]
    assert means(rows) == {"psnr": 30.0, "ssim": pytest.approx(0.6)}
    assert means([]) == {}


def test_json_is_strict_and_holds_facts_rows_and_means(tmp_path):
    write_json(tmp_path / "x.json", ROWS, {"task": "color_dn", "tile": None})

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert (content["task"], content["tile"]) == ("color_dn", None)
    assert content["images"][0]["psnr"] == "inf"
    assert content["images"][1]["error"] == 'b.png: "broken"'
    assert content["means"] == {"psnr": "inf", "ssim": 1.0}


def test_csv_has_a_line_for_each_image_and_one_for_the_means(tmp_path):
    write_csv(tmp_path / "x.csv", ROWS, {"task": "color_dn"})
    with (tmp_path / "x.csv").open(newline="") as file:
        first, second, last = csv.DictReader(file)
    assert (first["image"], first["psnr"], first["ssim"], first["task"]) == ("a", "inf", "1.0", "color_dn")
    assert (second["image"], second["psnr"], second["error"]) == ("b, with a comma", "", 'b.png: "broken"')
    assert (last["image"], last["psnr"], last["ssim"], last["task"]) == ("mean", "inf", "1.0", "color_dn")
