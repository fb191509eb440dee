"""Results of `swinir compare` as a table, Markdown and notes."""

import math

from swinir.bench.compare_networks import Comparison, ImageRow, ModelRow
from swinir.report.comparison import as_markdown, comparison_table, notes


def result():
    def row(name, **options):
        return ModelRow(name, name, "ok", padding="none", precision="fp32", **options)

    models = [
        row(
            "a",
            parameters=1234567,
            macs=2_500_000_000,
            metrics={"psnr": 30.126, "niqe_private": 5.0},
            seconds_per_megapixel=2.0,
        ),
        row("b|c", parameters=0, metrics={"psnr": math.inf, "niqe_private": 6.0}, seconds_per_megapixel=0.5),
        ModelRow("d", "d.pth", "failed", "no | such"),
    ]
    images = [ImageRow(name, "i", {"psnr": 1.0, "niqe_private": 2.0}, 0.01, (0.1,)) for name in ("a", "b|c")]
    return Comparison(models, images, ("psnr", "niqe_private"), {"x": "x.png: is no image"}, "i")


def test_the_table_of_a_terminal():
    head, a, b, d = comparison_table(result()).text().splitlines()
    assert head.split() == ["network", "parameters", "GMACs", "PSNR", "NIQE", "(private)", "s/MP", "error"]
    assert a.split() == ["a", "1,234,567", "2.5", "30.13", "5.00", "2"]
    assert b.split() == ["b|c", "0", "-", "inf", "6.00", "0.5"]
    assert d.split(maxsplit=1) == ["d", "failed: no | such"]


def test_markdown_has_the_best_in_bold_and_cells_that_hold_together():
    lines = as_markdown(result(), {}).splitlines()
    assert lines[2] == "| a | 1,234,567 | 2.5 | 30.13 | **5.00** | 2 |  |"
    assert lines[3] == r"| b\|c | 0 | - | **inf** | 6.00 | 0.5 |  |"
    assert lines[4] == r"| d |  |  |  |  |  | failed: no \| such |"


def test_notes_say_under_which_conditions_each_ran():
    text = " ".join(notes(result(), {"tile": 64, "tile_overlap": 8, "tile_blend": "mean"}))
    for part in ("Means over 1 image;", "of 256x256 pixels", "on i.", "mirroring: none.", "Precision: fp32."):
        assert part in text
    assert "not comparable with published numbers" in text
    assert "Left out: x.png: is no image." in text
