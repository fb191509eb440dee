"""Verdicts of measured cells: the reasons that are tried, and the paper's costs."""

from dataclasses import replace
from pathlib import Path

import pytest
from reproductions import RELEASED_HASH, cell, measured

from swinir.reproduce.measure import MATLAB, NO_PADDING
from swinir.reproduce.plan import Weights
from swinir.reproduce.published import TABLES, published
from swinir.reproduce.results import CostRow, conclude, count_costs, figure_text, is_released, judge_costs, thousands
from swinir.reproduce.verdict import Tolerance

TOLERANCE = Tolerance()
SET5_X4 = cell("table2", "Set5", 4)
KNOWN = published(SET5_X4.table, SET5_X4.place).values


def verdict(cell, values, **options):
    return conclude(measured(cell, values, **options), TOLERANCE).verdict


def explained(cell, values, **options):
    """The reasons of a verdict that must be "explained", and its text."""
    found = verdict(cell, values, **options)
    assert found.kind == "explained"
    return found.reasons, found.text


def test_published_figures_are_reproduced_in_every_table():
    result = conclude(measured(SET5_X4, KNOWN), TOLERANCE)
    assert result.ours == pytest.approx({"psnr_y": 32.72, "ssim_y": 0.9021})
    assert [row.source for row in result.third_party] == ["mmagic", "basicsr"]
    for table in TABLES.values():
        for level in table.levels:
            one = cell(table.name, table.sets[0], level)
            assert verdict(one, published(table, one.place).values).kind == "reproduced"


def test_rgb_in_the_place_of_luma_is_found_and_luma_in_the_place_of_rgb():
    values = {"psnr_y": 34.6, "ssim_y": 0.93, "psnr": KNOWN["psnr_y"] - 0.01, "ssim": KNOWN["ssim_y"]}
    reasons, text = explained(SET5_X4, values)
    assert reasons == ("other channels",)
    assert "32.71/0.9021" in text
    assert explained(cell("table6", "Kodak24", 25), {"psnr": 31.0, "psnr_y": 32.89})[0] == ("other channels",)
    assert verdict(cell("table5", "Set12", 25), {"psnr": 30.0}).kind == "differs"  # gray has one channel
    both = {"psnr": 36.77, "ssim": 0.95, "psnr_y": 35.25, "ssim_y": 0.9423}
    assert verdict(cell("div2k", "DIV2K-val", 2), both).kind == "differs"  # publishes both


def test_figures_of_third_parties_explain_the_same_figures_of_the_same_weights():
    values = {"psnr_y": 38.3240, "ssim_y": 0.9626}
    assert abs(38.3240 - 38.35) > TOLERANCE.psnr
    reasons, text = explained(cell("table2", "Set5", 2), values)
    assert reasons == ("third party",)
    assert "mmagic" in text
    others = verdict(cell("table2", "Set5", 2, weights=Weights("mine", Path("mine.pth"), "classical_sr", 2)), values)
    assert others.kind == "differs"
    assert "not the released weights" in others.text


@pytest.mark.parametrize(
    ("level", "plus", "psnr", "ssim", "kind", "reasons"),
    [
        (2, False, 39.49, 0.9790, "explained", ("training patch",)),
        (2, False, 39.51, 0.9790, "explained", ("training patch",)),
        (2, False, 39.60, 0.9792, "reproduced", ()),
        (2, False, 39.40, 0.9792, "differs", ()),
        (4, True, 31.88, 0.9245, "explained", ("misprint",)),
        (4, False, 31.67, 0.9226, "reproduced", ()),
    ],
)
def test_the_known_errors_of_manga109_are_reasons(level, plus, psnr, ssim, kind, reasons):
    found = verdict(cell("table2", "Manga109", level, plus=plus), {"psnr_y": psnr, "ssim_y": ssim})
    assert found.kind == kind
    if kind == "explained":
        assert found.reasons == reasons


def test_weights_of_another_row_are_found_unless_rows_are_as_near_as_the_tolerance():
    reasons, text = explained(SET5_X4, {"psnr_y": 32.92, "ssim_y": 0.9044})
    assert reasons == ("another row",)
    assert "SwinIR DF2K" in text
    assert "DIV2K, with self-ensemble" in explained(SET5_X4, {"psnr_y": 32.81, "ssim_y": 0.9029})[1]
    near = cell("table2", "Set5", 2, plus=True)  # 38.38, and 38.42 without self-ensemble for DF2K
    assert verdict(near, {"psnr_y": 38.402, "ssim_y": 0.9622}).kind == "differs"


@pytest.mark.parametrize("name", [NO_PADDING, MATLAB])
def test_other_ways_to_measure_explain_the_figures_that_they_reach(name):
    off = {"psnr_y": 32.60, "ssim_y": 0.9021}
    reasons, text = explained(SET5_X4, off, alternatives={name: KNOWN})
    assert reasons == (name,)
    assert "32.72/0.9021" in text
    for values in ({"psnr_y": 32.66, "ssim_y": 0.9}, {}):
        assert verdict(SET5_X4, off, alternatives={name: values}).kind == "differs"


class Bench:
    """Notes the distances that it was asked about, and finds that the padding is the reason."""

    def __init__(self):
        self.asked = []

    def alternatives(self, measured, distance):
        self.asked.append(distance)
        return replace(measured, alternatives={NO_PADDING: KNOWN})


def test_other_ways_are_measured_only_for_cells_that_differ():
    bench = Bench()
    assert conclude(measured(SET5_X4, KNOWN), TOLERANCE, bench=bench).verdict.kind == "reproduced"
    tiny = measured(SET5_X4, {"psnr_y": 30.0, "ssim_y": 0.8}, published_network=False)
    assert conclude(tiny, TOLERANCE, bench=bench).verdict.kind == "another network"
    assert bench.asked == []
    off = measured(SET5_X4, {"psnr_y": 32.60, "ssim_y": 0.9021})
    assert conclude(off, TOLERANCE, bench=bench).verdict.reasons == (NO_PADDING,)
    assert bench.asked == pytest.approx([0.12])


def test_a_tiny_network_is_another_network_and_the_difference_is_given():
    found = verdict(cell("table5", "Set12", 25), {"psnr": 29.71}, published_network=False)
    assert (found.kind, found.text) == ("another network", "289k parameters, the published 11.5M")
    assert found.differences["psnr"] == pytest.approx(-1.30)


def test_incomplete_sets_and_failed_images_are_not_compared():
    part = verdict(SET5_X4, KNOWN, images=3)
    assert (part.kind, part.text) == ("other images", "3 images where the set has 5")
    failed = verdict(SET5_X4, KNOWN, failed=["baby.png"])
    assert (failed.kind, failed.text) == ("other images", "1 failed")
    with pytest.raises(ValueError, match=r"no PSNR on luma, SSIM on luma of any image; a\.png: unreadable"):
        verdict(SET5_X4, {}, failed=["a.png", "b.png", "c.png", "d.png", "e.png"])


def test_a_figure_of_third_parties_alone_is_not_a_published_one():
    values = {"psnr": 30.1, "ssim": 0.82, "psnrb": 29.0}
    result = conclude(measured(cell("color_jpeg", "classic5", 10), values), TOLERANCE)
    assert result.verdict.kind == "not published"
    assert result.third_party[0].values == {"psnr": 30.1019, "ssim": 0.8217}


def test_released_weights_are_known_by_their_hash():
    assert is_released(measured(SET5_X4, KNOWN)) is True
    copy = cell("table2", "Set5", 2, weights=Weights("copy", Path("copy.pth"), "classical_sr", 2))
    assert is_released(measured(copy, KNOWN, sha256=RELEASED_HASH)) is True
    assert is_released(measured(SET5_X4, KNOWN, sha256="1" * 64)) is False
    assert is_released(measured(cell("table5", "Set12", 25), {"psnr": 31.0})) is None
    off = {"psnr_y": 20.0, "ssim_y": 0.5}
    text = verdict(SET5_X4, off, sha256="1" * 64, precision="bf16", tile=64).text
    assert "SHA-256 is not that of the released file; computed in bf16; in tiles of 64" in text


def test_the_papers_costs_are_explained_by_its_way_of_counting():
    rows = count_costs([])
    assert [row.parameters for row in rows] == [910_152, 918_267, 929_628]
    assert [round(row.macs_as_published / 1e9, 1) for row in rows] == [195.6, 87.2, 49.6]
    assert {row.verdict for row in rows} == {"explained: counted as in the paper"}
    values = {"psnr_y": 37.0, "ssim_y": 0.95}
    tiny = conclude(measured(cell("table3", "Set5", 2), values, published_network=False), TOLERANCE)
    assert count_costs([tiny])[:3] == rows
    assert (count_costs([tiny])[3].verdict, count_costs([tiny])[3].published_k) == ("another network", None)


@pytest.mark.parametrize(
    ("published_k", "published_g", "verdict"),
    [(910, 240.9, "reproduced"), (878, 195.6, "explained: counted as in the paper"), (878, 240.9, "differs")],
)
def test_costs_are_judged_complete_or_as_the_paper_counts(published_k, published_g, verdict):
    row = CostRow("x2", 2, 910_152, 877_692, 240_910_848_000, 195_589_056_000)
    assert judge_costs(row, published_k, published_g) == verdict


@pytest.mark.parametrize(
    ("metric", "value", "sign", "text"),
    [("psnr_y", 37.2964, False, "37.30"), ("ssim", 0.95790, False, "0.9579"), ("psnrb", 0.5, True, "+0.50"),
     ("psnr", -0.001, True, "+0.00"), ("ssim_y", -0.00014, True, "-0.0001"), ("psnr", float("inf"), False, "inf")],
)  # fmt: skip
def test_figures_have_as_many_digits_as_are_published(metric, value, sign, text):
    assert figure_text(metric, value, sign=sign) == text


@pytest.mark.parametrize(("value", "text"), [(289_225, "289k"), (11_504_163, "11.5M"), (999, "1k")])
def test_large_numbers_are_short(value, text):
    assert thousands(value) == text
