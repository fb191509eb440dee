"""Verdicts from figures: published ones moved by known amounts, other channels, misprints, other networks."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swinir.reproduce.published import METHOD, PUBLISHED, TABLES, figures
from swinir.reproduce.verdict import LEGEND, Kind, Reason, Tolerance, judge, title

TOLERANCE = Tolerance()
ROWS = [
    row.values
    for table in TABLES.values()
    for row in figures(table)
    if row.method == METHOD and row.source in PUBLISHED
]
SET5 = {"psnr_y": 32.72, "ssim_y": 0.9021}


def moved(values, psnr=0.0, ssim=0.0):
    return {metric: value + (ssim if metric.startswith("ssim") else psnr) for metric, value in values.items()}


@pytest.mark.parametrize(("psnr", "ssim"), [(0, 0), (0.02, 0.001), (-0.02, -0.001), (0.02, -0.001), (-0.01, 0.0004)])
def test_published_figures_moved_within_the_tolerance_are_reproduced(psnr, ssim):
    for published in ROWS:
        verdict = judge(moved(published, psnr, ssim), published, tolerance=TOLERANCE)
        assert (verdict.kind, verdict.text, verdict.off) == ("reproduced", "", ()), published


@pytest.mark.parametrize(("psnr", "ssim"), [(0.021, 0), (-0.021, 0), (-3, -0.1), (0, -0.0011), (0, 0.0011)])
def test_published_figures_moved_further_differ(psnr, ssim):
    for published in ROWS:
        verdict = judge(moved(published, psnr, ssim), published, tolerance=TOLERANCE)
        off = [m for m in published if (ssim if m.startswith("ssim") else psnr)]
        assert verdict.kind == ("differs" if off else "reproduced"), published
        assert list(verdict.off) == off
        for metric in off:
            assert verdict.differences[metric] == pytest.approx(ssim if metric.startswith("ssim") else psnr)
            assert title(metric) in verdict.text


@given(
    st.floats(20, 45),
    st.floats(-1, 1),
    st.floats(0.5, 1),
    st.floats(-0.01, 0.01),
    st.floats(0, 0.5),
    st.floats(0, 0.005),
)
def test_reproduced_means_that_every_difference_is_within_the_tolerance(psnr, d, ssim, e, wide, narrow):
    verdict = judge(
        {"psnr": psnr + d, "ssim": ssim + e}, {"psnr": psnr, "ssim": ssim}, tolerance=Tolerance(wide, narrow)
    )
    within = abs(psnr + d - psnr) <= wide + 1e-9 and abs(ssim + e - ssim) <= narrow + 1e-9
    if within:
        assert verdict.kind == "reproduced"
    else:
        assert verdict.kind in ("differs", "explained")
        assert verdict.off


def test_another_way_to_measure_must_agree_in_all_figures():
    rgb = Reason("other channels", "over red, green and blue", ours={"psnr_y": 32.725, "ssim_y": 0.9022})
    verdict = judge({"psnr_y": 34.9, "ssim_y": 0.92}, SET5, tolerance=TOLERANCE, reasons=[rgb])
    assert (verdict.kind, verdict.text, verdict.reasons) == ("explained", rgb.text, (rgb.name,))
    assert verdict.differences["psnr_y"] == pytest.approx(2.18)
    half = Reason("other channels", "over red, green and blue", ours={"psnr_y": 32.72, "ssim_y": 0.87})
    verdict = judge({"psnr_y": 34.9, "ssim_y": 0.9021}, SET5, tolerance=TOLERANCE, reasons=[half])
    assert (verdict.kind, verdict.reasons) == ("differs", ())


def test_a_misprint_explains_its_own_figure_alone():
    published = {"psnr_y": 31.88, "ssim_y": 0.9423}
    misprint = Reason("misprint", "looks like a typing error for 0.9243", published={"ssim_y": 0.9243})
    good = judge({"psnr_y": 31.875, "ssim_y": 0.9247}, published, tolerance=TOLERANCE, reasons=[misprint])
    assert (good.kind, good.off, good.text) == ("explained", ("ssim_y",), misprint.text)
    bad = judge({"psnr_y": 31.5, "ssim_y": 0.9247}, published, tolerance=TOLERANCE, reasons=[misprint])
    assert bad.kind == "differs"
    assert bad.text.startswith("no known reason for PSNR on luma; misprint: ")
    neither = judge({"psnr_y": 31.88, "ssim_y": 0.93}, published, tolerance=TOLERANCE, reasons=[misprint])
    assert (neither.kind, neither.reasons) == ("differs", ())


def test_two_reasons_may_explain_a_figure_each_but_one_for_all_comes_first():
    reasons = [
        Reason("a", "half", published={"psnr_y": 32.6}),
        Reason("b", "other half", published={"ssim_y": 0.89}),
        Reason("c", "whole", published={"psnr_y": 32.6, "ssim_y": 0.89}),
    ]
    ours = {"psnr_y": 32.6, "ssim_y": 0.89}
    both = judge(ours, SET5, tolerance=TOLERANCE, reasons=reasons[:2])
    assert (both.kind, both.text, both.reasons) == ("explained", "half; other half", ("a", "b"))
    assert judge(ours, SET5, tolerance=TOLERANCE, reasons=reasons).reasons == ("c",)


def test_a_whole_row_must_agree_in_all_figures():
    row = Reason("another row", "DF2K", published={"psnr_y": 32.92, "ssim_y": 0.9044}, whole=True)
    assert judge({"psnr_y": 32.92, "ssim_y": 0.9044}, SET5, tolerance=TOLERANCE, reasons=[row]).kind == "explained"
    assert judge({"psnr_y": 32.92, "ssim_y": 0.9021}, SET5, tolerance=TOLERANCE, reasons=[row]).kind == "differs"


def test_reasons_are_not_needed_within_the_tolerance():
    verdict = judge(SET5, SET5, tolerance=TOLERANCE, reasons=[Reason("a", "b", published={"psnr_y": 32.72})])
    assert (verdict.kind, verdict.text, verdict.reasons) == ("reproduced", "", ())


@pytest.mark.parametrize("higher", [0.0003, 0.0006, 0.0009])
def test_a_little_more_ssim_is_what_evaluators_in_python_find(higher):
    strict = Tolerance(ssim=0.0002)
    verdict = judge(moved(SET5, 0.01, higher), SET5, tolerance=strict)
    assert (verdict.kind, verdict.reasons) == ("explained", ("SSIM of Python evaluators",))
    assert f"+{higher:.4f}" in verdict.text


@pytest.mark.parametrize(("psnr", "ssim"), [(0.01, -0.0006), (0.01, 0.0011), (0.03, 0.0006), (0.01, 0.00022)])
def test_less_ssim_or_much_more_or_another_psnr_is_not(psnr, ssim):
    assert judge(moved(SET5, psnr, ssim), SET5, tolerance=Tolerance(ssim=0.0002)).kind == "differs"


@pytest.mark.parametrize("psnr", [0, -1.4, 2])
def test_other_networks_and_images_are_named_whatever_their_figures(psnr):
    text = "289k parameters, the published 11.5M"
    verdict = judge(moved(SET5, psnr), SET5, tolerance=TOLERANCE, another_network=text)
    assert (verdict.kind, verdict.text) == ("another network", text)
    assert verdict.differences["psnr_y"] == pytest.approx(psnr)
    part = "3 images where the set has 5"
    verdict = judge(moved(SET5, psnr), SET5, tolerance=TOLERANCE, other_images=part, another_network=text)
    assert (verdict.kind, verdict.text) == ("other images", part)
    for nothing in (None, {}):
        verdict = judge(SET5, nothing, tolerance=TOLERANCE, another_network=text)
        assert (verdict.kind, verdict.text, verdict.differences) == ("not published", text, {})


def test_remarks_are_added_to_differs_and_nothing_else():
    remark = "not the released weights"
    assert remark in judge(moved(SET5, 1), SET5, tolerance=TOLERANCE, remarks=[remark]).text
    assert remark not in judge(SET5, SET5, tolerance=TOLERANCE, remarks=[remark]).text


def test_an_infinite_psnr_differs():
    verdict = judge({"psnr": math.inf}, {"psnr": 38.0}, tolerance=TOLERANCE)
    assert (verdict.kind, verdict.differences["psnr"]) == ("differs", math.inf)


@pytest.mark.parametrize(
    ("ours", "message"),
    [({"psnr_y": 32.7}, "no figure of ours for ssim_y"), (SET5 | {"psnr_y": math.nan}, "NaN")],
)
def test_missing_figures_are_an_error(ours, message):
    with pytest.raises(ValueError, match=message):
        judge(ours, SET5, tolerance=TOLERANCE)


@pytest.mark.parametrize("values", [{"psnr": -0.1}, {"ssim": math.nan}, {"psnr": math.inf}])
def test_a_tolerance_is_a_number_of_0_or_more(values):
    with pytest.raises(ValueError, match="must be 0 or more"):
        Tolerance(**values)


@pytest.mark.parametrize("sides", [{}, {"ours": {"psnr": 1.0}, "published": {"psnr": 1.0}}])
def test_a_reason_predicts_one_side(sides):
    with pytest.raises(ValueError, match="either ours or the published"):
        Reason("a", "b", **sides)


def test_the_legend_explains_every_verdict():
    assert set(LEGEND) == set(get_args(Kind))
