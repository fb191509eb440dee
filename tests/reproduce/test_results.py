"""From measured cells to verdicts: which reasons are tried, and what the paper's costs are worth."""

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


def test_published_figures_are_reproduced():
    result = conclude(measured(SET5_X4, KNOWN), TOLERANCE)
    assert result.verdict.kind == "reproduced"
    assert result.ours == pytest.approx({"psnr_y": 32.72, "ssim_y": 0.9021})
    assert [row.source for row in result.third_party] == ["mmagic", "basicsr"]


def test_figures_over_rgb_in_the_place_of_luma_are_found():
    values = {"psnr_y": 34.6, "ssim_y": 0.93, "psnr": KNOWN["psnr_y"] - 0.01, "ssim": KNOWN["ssim_y"]}
    verdict = conclude(measured(SET5_X4, values), TOLERANCE).verdict
    assert (verdict.kind, verdict.reasons) == ("explained", ("other channels",))
    assert "32.71/0.9021" in verdict.text


def test_luma_in_the_place_of_rgb_is_found():
    kodak = cell("table6", "Kodak24", 25)
    verdict = conclude(measured(kodak, {"psnr": 31.0, "psnr_y": 32.89}), TOLERANCE).verdict
    assert (verdict.kind, verdict.reasons) == ("explained", ("other channels",))


def test_gray_figures_have_no_other_channels():
    gray = cell("table5", "Set12", 25)
    assert conclude(measured(gray, {"psnr": 30.0}), TOLERANCE).verdict.kind == "differs"


def test_div2k_has_both_channels_and_they_do_not_explain_each_other():
    values = {"psnr": 36.77, "ssim": 0.95, "psnr_y": 35.25, "ssim_y": 0.9423}
    assert conclude(measured(cell("div2k", "DIV2K-val", 2), values), TOLERANCE).verdict.kind == "differs"


def test_what_others_measured_with_the_released_weights_explains_the_same_here():
    set5 = cell("table2", "Set5", 2)
    good = measured(set5, {"psnr_y": 38.3240, "ssim_y": 0.9626})
    assert abs(38.3240 - 38.35) > TOLERANCE.psnr
    verdict = conclude(good, TOLERANCE).verdict
    assert (verdict.kind, verdict.reasons) == ("explained", ("third party",))
    assert "mmagic" in verdict.text


def test_what_others_measured_says_nothing_about_other_weights():
    set5 = cell("table2", "Set5", 2, weights=Weights("mine", Path("mine.pth"), "classical_sr", 2))
    verdict = conclude(measured(set5, {"psnr_y": 38.3240, "ssim_y": 0.9626}), TOLERANCE).verdict
    assert verdict.kind == "differs"
    assert "not the released weights" in verdict.text


@pytest.mark.parametrize("psnr", [39.49, 39.50, 39.51])
def test_the_patch_of_48_is_known_for_manga109_at_x2(psnr):
    manga = cell("table2", "Manga109", 2)
    verdict = conclude(measured(manga, {"psnr_y": psnr, "ssim_y": 0.9790}), TOLERANCE).verdict
    assert (verdict.kind, verdict.reasons) == ("explained", ("training patch",))
    assert conclude(measured(manga, {"psnr_y": 39.60, "ssim_y": 0.9792}), TOLERANCE).verdict.kind == "reproduced"
    assert conclude(measured(manga, {"psnr_y": 39.40, "ssim_y": 0.9792}), TOLERANCE).verdict.kind == "differs"


def test_the_misprint_of_manga109_at_x4_is_known():
    manga = cell("table2", "Manga109", 4, plus=True)
    verdict = conclude(measured(manga, {"psnr_y": 31.88, "ssim_y": 0.9245}), TOLERANCE).verdict
    assert (verdict.kind, verdict.off, verdict.reasons) == ("explained", ("ssim_y",), ("misprint",))
    plain = cell("table2", "Manga109", 4)
    assert conclude(measured(plain, {"psnr_y": 31.67, "ssim_y": 0.9226}), TOLERANCE).verdict.kind == "reproduced"


def test_weights_of_another_row_are_found():
    verdict = conclude(measured(SET5_X4, {"psnr_y": 32.92, "ssim_y": 0.9044}), TOLERANCE).verdict
    assert (verdict.kind, verdict.reasons) == ("explained", ("another row",))
    assert "SwinIR DF2K" in verdict.text
    plus = conclude(measured(SET5_X4, {"psnr_y": 32.81, "ssim_y": 0.9029}), TOLERANCE).verdict
    assert "DIV2K, with self-ensemble" in plus.text


def test_rows_as_near_as_the_tolerance_do_not_explain_each_other():
    set5 = cell("table2", "Set5", 2, plus=True)  # 38.38, and 38.42 without self-ensemble for DF2K
    verdict = conclude(measured(set5, {"psnr_y": 38.402, "ssim_y": 0.9622}), TOLERANCE).verdict
    assert verdict.kind == "differs"


@pytest.mark.parametrize("name", [NO_PADDING, MATLAB])
def test_other_ways_to_measure_explain_what_they_reach(name):
    off = {"psnr_y": 32.60, "ssim_y": 0.9021}
    good = conclude(measured(SET5_X4, off, alternatives={name: KNOWN}), TOLERANCE).verdict
    assert (good.kind, good.reasons) == ("explained", (name,))
    assert "32.72/0.9021" in good.text
    bad = conclude(measured(SET5_X4, off, alternatives={name: {"psnr_y": 32.66, "ssim_y": 0.9}}), TOLERANCE).verdict
    assert bad.kind == "differs"
    assert conclude(measured(SET5_X4, off, alternatives={name: {}}), TOLERANCE).verdict.kind == "differs"


class Bench:
    """Notes what it was asked, and finds that the padding is the reason."""

    def __init__(self):
        self.asked = []

    def alternatives(self, measured, distance):
        self.asked.append(distance)
        return replace(measured, alternatives={NO_PADDING: KNOWN})


def test_other_ways_are_measured_only_for_what_differs():
    bench = Bench()
    assert conclude(measured(SET5_X4, KNOWN), TOLERANCE, bench=bench).verdict.kind == "reproduced"
    tiny = measured(SET5_X4, {"psnr_y": 30.0, "ssim_y": 0.8}, published_network=False)
    assert conclude(tiny, TOLERANCE, bench=bench).verdict.kind == "another network"
    assert bench.asked == []
    off = measured(SET5_X4, {"psnr_y": 32.60, "ssim_y": 0.9021})
    assert conclude(off, TOLERANCE, bench=bench).verdict.reasons == (NO_PADDING,)
    assert bench.asked == pytest.approx([0.12])


def test_a_tiny_network_is_another_network_and_the_distance_is_given():
    gray = cell("table5", "Set12", 25)
    verdict = conclude(measured(gray, {"psnr": 29.71}, published_network=False), TOLERANCE).verdict
    assert (verdict.kind, verdict.text) == ("another network", "289k parameters, the published 11.5M")
    assert verdict.differences["psnr"] == pytest.approx(-1.30)


def test_a_part_of_a_set_and_failed_images_are_not_compared():
    part = conclude(measured(SET5_X4, KNOWN, images=3), TOLERANCE).verdict
    assert (part.kind, part.text) == ("other images", "3 images where the set has 5")
    failed = conclude(measured(SET5_X4, KNOWN, failed=["baby.png"]), TOLERANCE).verdict
    assert (failed.kind, failed.text) == ("other images", "1 failed")


def test_a_cell_without_any_figure_is_an_error_with_its_reason():
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    with pytest.raises(ValueError, match=r"no PSNR on luma, SSIM on luma of any image; a\.png: unreadable"):
        conclude(measured(SET5_X4, {}, failed=names), TOLERANCE)


def test_what_only_others_measured_is_not_published():
    result = conclude(
        measured(cell("color_jpeg", "classic5", 10), {"psnr": 30.1, "ssim": 0.82, "psnrb": 29.0}), TOLERANCE
    )
    assert result.verdict.kind == "not published"
    assert result.third_party[0].values == {"psnr": 30.1019, "ssim": 0.8217}


def test_released_weights_are_known_by_their_hash():
    assert is_released(measured(SET5_X4, KNOWN)) is True
    copy = cell("table2", "Set5", 2, weights=Weights("copy", Path("copy.pth"), "classical_sr", 2))
    assert is_released(measured(copy, KNOWN, sha256=RELEASED_HASH)) is True
    assert is_released(measured(SET5_X4, KNOWN, sha256="1" * 64)) is False
    assert is_released(measured(cell("table5", "Set12", 25), {"psnr": 31.0})) is None


def test_a_released_name_with_another_hash_is_said():
    off = measured(SET5_X4, {"psnr_y": 20.0, "ssim_y": 0.5}, sha256="1" * 64, precision="bf16", tile=64)
    text = conclude(off, TOLERANCE).verdict.text
    assert "SHA-256 is not that of the released file; computed in bf16; in tiles of 64" in text


def test_the_papers_costs_are_explained_by_its_way_of_counting():
    rows = count_costs([])
    assert [row.parameters for row in rows] == [910_152, 918_267, 929_628]
    assert [round(row.macs_as_published / 1e9, 1) for row in rows] == [195.6, 87.2, 49.6]
    assert {row.verdict for row in rows} == {"explained: counted as in the paper"}


@pytest.mark.parametrize(
    ("published_k", "published_g", "verdict"),
    [(910, 240.9, "reproduced"), (878, 195.6, "explained: counted as in the paper"), (878, 240.9, "differs")],
)
def test_costs_are_judged_whole_or_in_the_papers_way(published_k, published_g, verdict):
    row = CostRow("x2", 2, 910_152, 877_692, 240_910_848_000, 195_589_056_000)
    assert judge_costs(row, published_k, published_g) == verdict


def test_other_networks_are_counted_too():
    tiny = conclude(
        measured(cell("table3", "Set5", 2), {"psnr_y": 37.0, "ssim_y": 0.95}, published_network=False), TOLERANCE
    )
    rows = count_costs([tiny])
    assert len(rows) == 4
    assert (rows[3].verdict, rows[3].published_k) == ("another network", None)
    assert rows[3].parameters < 100_000


@pytest.mark.parametrize(("value", "text"), [(289_225, "289k"), (11_504_163, "11.5M"), (999, "1k")])
def test_large_numbers_are_short(value, text):
    assert thousands(value) == text


@pytest.mark.parametrize(
    ("metric", "value", "sign", "text"),
    [("psnr_y", 37.2964, False, "37.30"), ("ssim", 0.95790, False, "0.9579"), ("psnrb", 0.5, True, "+0.50"),
     ("psnr", -0.001, True, "+0.00"), ("ssim_y", -0.00014, True, "-0.0001"), ("psnr", float("inf"), False, "inf")],
)  # fmt: skip
def test_figures_have_the_digits_they_are_published_with(metric, value, sign, text):
    assert figure_text(metric, value, sign=sign) == text


def test_every_table_can_be_judged():
    for table in TABLES.values():
        for level in table.levels:
            one = cell(table.name, table.sets[0], level)
            known = published(table, one.place).values
            assert conclude(measured(one, known), TOLERANCE).verdict.kind == "reproduced"
