"""Model selection for estimates and wishes, among models that are or are not there."""

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swinir.degradations.estimate import Findings, Noise
from swinir.photos.select_models import (
    BEST_JPEG,
    FAINT_NOISE,
    LEAST_NOISE,
    NOISY_JPEG,
    Selection,
    Wish,
    select_models,
    split_scale,
)
from swinir.weights import zoo

CLEAN = Findings(Noise(0.4), jpeg_quality=None, jpeg_source=None, gray=False)
BUNDLED = zoo.bundled()


def tiny(name):
    """The row of a bundled model."""
    parts = zoo.parse_name(name)
    alias = f"{parts.task}_{parts.level_text}_tiny"
    return replace(BUNDLED[0], name=name, file=f"{name}.pth", parts=parts, parameters=250_000, alias=alias)


ANY_NOISE = tiny("005_colorDN_TK410_s64w8_SwinIR-T_noise0-55")
ANY_JPEG = tiny("006_colorCAR_TK410_s64w8_SwinIR-T_jpeg5-95")
PHOTO = tiny("007_realPhoto_TK410_s64w8_SwinIR-T_x1")
ANY_SCALE = tiny("002_lightweightSR_TK410_s48w8_SwinIR-T_x1-4")
ENLARGING = [tiny(f"002_lightweightSR_TK410_s32w8_SwinIR-T_x{scale}") for scale in (2, 3, 4)]
TINY = (ANY_NOISE, ANY_JPEG, PHOTO, *ENLARGING)
EVERYTHING = (*TINY, *zoo.RELEASED)


def findings(noise=0.4, jpeg=None, gray=False, correlated=False):
    return Findings(Noise(noise, correlated), jpeg, "pixels" if jpeg else None, gray)


def aliases(selection: Selection):
    return [step.model.alias for step in selection.passes]


def chosen(found, models=TINY, **wish):
    return aliases(select_models(found, Wish(**wish), models))


NOISE, JPEG, BOTH = ([entry.alias] for entry in (ANY_NOISE, ANY_JPEG, PHOTO))


# Without a wish


def test_a_clean_image_is_left_alone_with_a_reason():
    selection = select_models(CLEAN, Wish(), TINY)
    assert selection.passes == ()
    assert selection.factor == 1
    assert [line.split(" is left alone")[0] for line in selection.explain()] == ["JPEG quality", "noise"]


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(
    ("found", "models"),
    [
        ({"noise": LEAST_NOISE}, NOISE),
        ({"noise": 90}, NOISE),
        ({"noise": 25, "jpeg": NOISY_JPEG}, NOISE),
        ({"jpeg": 3}, JPEG),
        ({"jpeg": BEST_JPEG}, JPEG),
        ({"jpeg": 30, "noise": FAINT_NOISE - 0.1, "correlated": True}, JPEG),
        ({"jpeg": 30, "noise": FAINT_NOISE, "correlated": True}, BOTH),
        ({"noise": LEAST_NOISE, "correlated": True}, BOTH),
        ({"noise": 30, "jpeg": NOISY_JPEG - 1}, BOTH),
        ({"noise": 30, "jpeg": 10, "correlated": True}, BOTH),
        ({"noise": LEAST_NOISE - 0.1, "jpeg": BEST_JPEG + 1, "correlated": True}, []),
    ],
)
def test_each_kind_of_degradation_has_its_model(found, models, gray):
    assert chosen(findings(**found, gray=gray)) == models


def test_weak_degradations_are_left_alone():
    selection = select_models(findings(noise=LEAST_NOISE - 0.1, jpeg=BEST_JPEG + 1), Wish(), TINY)
    assert selection.passes == ()
    assert ["models help" in line for line in selection.left_alone] == [True, True]


def test_compression_is_repaired_before_noise_and_enlarging_comes_last():
    apart = [entry for entry in TINY if entry is not PHOTO]
    steps = chosen(findings(noise=26, jpeg=35), apart, scale=2)
    assert steps == [*JPEG, *NOISE, "lightweight_sr_x2_tiny"]
    assert chosen(findings(noise=26, jpeg=35), scale=2) == [*BOTH, "lightweight_sr_x2_tiny"]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (
            findings(noise=26),
            "noise 26 was found; the best model here is for any level from 0 to 55 and is not told which.",
        ),
        (findings(noise=26, correlated=True), "noise 26 was found; neighbouring pixels share it."),
        (findings(noise=26, jpeg=35), "noise 26 was found; JPEG quality 35 is repaired in the same pass."),
    ],
)
def test_every_pass_has_a_reason(found, reason):
    assert select_models(found, Wish(), TINY).passes[0].reason == reason


# Wishes


def test_wishes_override_estimates():
    assert chosen(CLEAN, noise=3) == NOISE
    assert chosen(CLEAN, jpeg=95) == JPEG
    assert chosen(CLEAN, noise=20, jpeg=60) == BOTH
    assert chosen(findings(noise=3, correlated=True), noise=3) == BOTH
    assert chosen(findings(noise=50), [*TINY, *zoo.RELEASED], noise=14) == ["color_dn_noise15_DFWB"]


def test_noise_0_and_jpeg_100_prevent_a_repair():
    assert chosen(findings(noise=50, jpeg=10, correlated=True), noise=0) == JPEG
    assert chosen(findings(noise=50, jpeg=10), jpeg=100) == NOISE
    assert chosen(findings(noise=50, jpeg=10), noise=0, jpeg=100) == []


def test_a_task_asked_for_is_the_only_thing_done():
    worn = findings(noise=50, jpeg=10, correlated=True)
    assert chosen(worn, task="color_dn") == NOISE
    assert chosen(worn, task="color_dn", jpeg=30) == [*JPEG, *NOISE]
    assert chosen(worn, task="color_jpeg_car") == JPEG
    assert chosen(worn, task="lightweight_sr", scale=3) == ["lightweight_sr_x3_tiny"]
    assert chosen(CLEAN, task="color_dn", scale=2) == [*NOISE, "lightweight_sr_x2_tiny"]
    assert chosen(CLEAN, task="real_photo", scale=2) == [*BOTH, "lightweight_sr_x2_tiny"]


def test_a_task_for_grey_serves_colour_when_named():
    assert chosen(findings(noise=25), EVERYTHING, task="gray_dn") == ["gray_dn_noise25_DFWB"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"scale": 0.5}, "scale must be at least 1, got 0.5"),
        ({"scale": math.nan}, "scale must be at least 1, got nan"),
        ({"scale": math.inf}, "scale must be at least 1, got inf"),
        ({"task": "denoise"}, "unknown task 'denoise'; choose one of classical_sr"),
        ({"noise": -1}, "noise must be from 0 to 255, got -1"),
        ({"noise": math.nan}, "noise must be from 0 to 255, got nan"),
        ({"jpeg": 0}, "jpeg must be from 1 to 100, got 0"),
        ({"task": "real_sr"}, "real_sr enlarges; ask for a scale above 1"),
        (
            {"task": "real_photo", "noise": 15},
            "real_photo repairs noise and compression together; leave noise and jpeg",
        ),
    ],
)
def test_impossible_wishes_are_refused(wish, message):
    with pytest.raises(ValueError, match=message):
        Wish(**wish)


# Enlarging


@pytest.mark.parametrize(
    ("scale", "passes"),
    [
        (1.5, (2,)),
        (2, (2,)),
        (2.5, (3,)),
        (4, (4,)),
        (5, (2, 3)),
        (6, (2, 3)),
        (7, (2, 4)),
        (9, (3, 3)),
        (10, (3, 4)),
        (16, (4, 4)),
        (17, (2, 3, 3)),
    ],
)
def test_passes_reach_the_scale_and_little_more(scale, passes):
    selection = select_models(CLEAN, Wish(scale=scale), ENLARGING)
    assert tuple(step.scale for step in selection.passes) == passes
    assert selection.factor == math.prod(passes)


@given(st.floats(1, 1e4), st.sets(st.sampled_from([2, 3, 4, 8]), min_size=1))
def test_as_few_passes_as_possible_and_never_too_small(scale, scales):
    models = [e for e in zoo.RELEASED if e.parts.task == "classical_sr" and e.parts.level in scales]
    selection = select_models(CLEAN, Wish(scale=scale), models)
    assert selection.factor >= scale
    if selection.passes:
        assert max(scales) ** (len(selection.passes) - 1) < scale
    if len(selection.passes) == 1:
        assert selection.factor == min(s for s in scales if s >= scale)


@pytest.mark.parametrize(
    ("scale", "fixed", "passes"),
    [
        (2.5, (), [("x1-4", 2.5)]),
        (6, (), [("x1-4", 2), ("x1-4", 3)]),
        (2.5, ("T",), [("x1-4", 2.5)]),
        (2, ("T",), [("x2", 2)]),  # a model of this scale alone
        (6, ("T",), [("x2", 2), ("x3", 3)]),
        (5, ("T",), [("x1-4", 2), ("x1-4", 2.5)]),
        (2.5, ("T", "M"), [("x3", 3)]),  # a larger network
    ],
)
def test_a_model_of_any_scale_comes_before_others_that_miss_the_scale_unless_they_are_larger(scale, fixed, passes):
    fitting = {
        "T": ENLARGING,
        "M": [entry for entry in zoo.RELEASED if entry.parts.task == "classical_sr"],
    }
    models = [ANY_SCALE, *(entry for size in fixed for entry in fitting[size])]
    selection = select_models(CLEAN, Wish(scale=scale), models)
    assert [(step.model.parts.level_text, step.scale) for step in selection.passes] == passes


@given(st.floats(1, 1e4), st.integers(2, 8))
@example(4.01, 4)
@example(16, 4)
def test_a_scale_is_split_into_the_fewest_factors_of_which_all_but_the_last_are_whole(scale, most):
    factors = split_scale(scale, most)
    assert math.prod(factors) == pytest.approx(scale)
    assert all(1 <= factor <= most for factor in factors)
    assert all(isinstance(factor, int) for factor in factors[:-1])
    assert len(factors) == 1 or most ** (len(factors) - 1) < scale


def test_a_grey_image_is_enlarged_as_colour():
    assert chosen(findings(gray=True), scale=2) == ["lightweight_sr_x2_tiny"]


def test_networks_that_invent_details_are_used_when_named_only():
    real = [e for e in zoo.RELEASED if e.parts.task == "real_sr"]
    with pytest.raises(ValueError, match="no model of classical_sr or lightweight_sr"):
        select_models(CLEAN, Wish(scale=4), real)
    assert aliases(select_models(CLEAN, Wish(scale=4, task="real_sr"), EVERYTHING)) == ["real_sr_x4_DFOWMFC_GAN"]
    assert aliases(select_models(CLEAN, Wish(scale=2, task="real_sr"), EVERYTHING)) == ["real_sr_x2_DFO_GAN"]


# Available models


@pytest.mark.parametrize(
    ("found", "model"),
    [
        (findings(noise=11), "color_dn_noise15_DFWB"),
        (findings(noise=21), "color_dn_noise25_DFWB"),
        (findings(noise=27, gray=True), "gray_dn_noise25_DFWB"),
        (findings(jpeg=13), "color_jpeg_car_jpeg10_DFWB"),
        (findings(jpeg=55, gray=True), "jpeg_car_jpeg40_DFWB"),
    ],
)
def test_large_models_near_the_level_are_preferred_to_a_small_one_for_any_level(found, model):
    assert chosen(found, EVERYTHING) == [model]


@pytest.mark.parametrize("found", [findings(noise=9), findings(jpeg=6), findings(noise=9, gray=True)])
def test_a_small_model_for_any_level_is_preferred_to_large_ones_for_distant_levels(found):
    assert chosen(found, EVERYTHING) in (NOISE, JPEG)


def test_models_for_other_channels_serve_when_there_are_no_others():
    for gray, task in ((True, "color_dn"), (False, "gray_dn")):
        others = [entry for entry in zoo.RELEASED if entry.parts.task == task]
        assert chosen(findings(noise=26, gray=gray), others) == [f"{task}_noise25_DFWB"]


def test_noise_that_may_be_texture_is_left_alone_unless_asked_for():
    unsure = Findings(Noise(12.0, correlated=True, sure=False), None, None, gray=False)
    selection = select_models(unsure, Wish(), TINY)
    assert selection.passes == ()
    said = "noise is left alone: 12 was found, but it may be texture; --task real_photo removes it."
    assert selection.left_alone[-1] == said
    (step,) = select_models(unsure, Wish(task="real_photo"), TINY).passes
    assert step.model.parts.task == "real_photo"
    asked = select_models(unsure, Wish(noise=12), TINY).passes
    assert [step.model.parts.task for step in asked] == ["real_photo"]


def test_a_colour_image_prefers_a_model_for_colour_of_any_level():
    models = [e for e in EVERYTHING if e.alias in ("color_jpeg_car_jpeg10_DFWB", "jpeg_car_jpeg40_DFWB")]
    assert chosen(findings(jpeg=40), models) == ["color_jpeg_car_jpeg10_DFWB"]


@pytest.mark.parametrize(
    ("found", "wish", "command"),
    [
        (findings(noise=44), Wish(), "color_dn or gray_dn .* `swinir zoo download color_dn_noise50_DFWB`"),
        (findings(jpeg=28, gray=True), Wish(), "`swinir zoo download jpeg_car_jpeg30_DFWB`"),
        (CLEAN, Wish(scale=3), "`swinir zoo download classical_sr_x3_"),
        (CLEAN, Wish(scale=4, task="real_sr"), "no model of real_sr .* `swinir zoo download real_sr_x4_"),
        (CLEAN, Wish(task="real_photo"), "no model of real_photo is on this machine; reinstall the package"),
    ],
)
def test_a_missing_model_is_named_with_the_way_to_get_it(found, wish, command):
    with pytest.raises(ValueError, match=command):
        select_models(found, wish, ())


@given(
    st.builds(findings, st.floats(0, 200), st.none() | st.floats(1, 100), st.booleans(), st.booleans()),
    st.builds(
        Wish,
        scale=st.floats(1, 50),
        noise=st.none() | st.floats(0, 255),
        jpeg=st.none() | st.floats(1, 100),
        task=st.none() | st.sampled_from(["color_dn", "color_jpeg_car"]),
    ),
)
def test_the_bundle_fulfils_any_wish(found, wish):
    selection = select_models(found, wish, TINY)
    scales = [step.scale for step in selection.passes]
    assert scales == sorted(scales)  # those that keep the size, and small factors, come first
    assert selection.factor >= wish.scale
    assert len(selection.explain()) == len(selection.passes) + len(selection.left_alone)
    assert selection == select_models(replace(found), wish, TINY)


# zoo.present


def test_downloaded_models_are_present_beside_bundled_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path))
    assert zoo.present() == BUNDLED
    entry = zoo.find("color_dn_noise15_DFWB")
    (tmp_path / entry.file).touch()
    assert zoo.present() == (*BUNDLED, entry)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (findings(noise=3.96), "3.96 was found, and models help from 4 on"),
        (findings(noise=3.6), "3.6 was found, and models help from 4 on"),
        (findings(noise=2.4), "2 was found, and models help from 4 on"),
        (findings(jpeg=70.2), "70.2 was found, and models help up to 70"),
    ],
)
def test_a_level_beyond_a_limit_is_not_told_as_the_limit(found, said):
    assert any(said in line for line in select_models(found, Wish(), []).left_alone)
