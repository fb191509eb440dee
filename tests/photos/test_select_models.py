"""Model selection for estimates and wishes, among models that are or are not there."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swinir.degradations.estimate import Findings, Noise
from swinir.photos.select_models import BEST_JPEG, LEAST_NOISE, Selection, Wish, select_models
from swinir.tasks import TASKS
from swinir.weights import zoo

CLEAN = Findings(Noise(0.4), jpeg_quality=None, jpeg_source=None, gray=False)
BUNDLED = zoo.bundled()
EVERYTHING = (*BUNDLED, *zoo.RELEASED)


def findings(noise=0.4, jpeg=None, gray=False):
    return Findings(Noise(noise), jpeg, "pixels" if jpeg else None, gray)


def aliases(selection: Selection):
    return [step.model.alias for step in selection.passes]


def bundled(found, **wish):
    return aliases(select_models(found, Wish(**wish), BUNDLED))


# Without a wish


def test_a_clean_image_is_left_alone_with_a_reason():
    selection = select_models(CLEAN, Wish(), BUNDLED)
    assert selection.passes == ()
    assert selection.factor == 1
    assert [line.split(" is left alone")[0] for line in selection.explain()] == ["JPEG quality", "noise"]


@pytest.mark.parametrize(
    ("level", "model"), [(LEAST_NOISE, 15), (12, 15), (18, 15), (21, 25), (33, 25), (38, 50), (50, 50), (90, 50)]
)
def test_noise_goes_to_the_nearest_model(level, model):
    assert bundled(findings(noise=level)) == [f"color_dn_noise{model}_tiny"]


@pytest.mark.parametrize(("quality", "model"), [(3, 10), (10, 10), (18, 10), (22, 40), (40, 40), (BEST_JPEG, 40)])
@pytest.mark.parametrize(("gray", "task"), [(False, "color_jpeg_car"), (True, "jpeg_car")])
def test_compression_goes_to_the_nearest_model_for_the_channels(quality, model, gray, task):
    assert bundled(findings(jpeg=quality, gray=gray)) == [f"{task}_jpeg{model}_tiny"]


@pytest.mark.parametrize(
    ("level", "model"),
    [(8, "color_dn_noise15"), (14, "color_dn_noise25"), (24, "gray_dn_noise25"), (45, "color_dn_noise50")],
)
def test_noise_of_a_grey_image_is_stronger_in_models_for_colour(level, model):
    assert bundled(findings(noise=level, gray=True)) == [f"{model}_tiny"]  # thrice the same noise is stronger


def test_weak_degradations_are_left_alone():
    selection = select_models(findings(noise=LEAST_NOISE - 0.1, jpeg=BEST_JPEG + 1), Wish(), BUNDLED)
    assert selection.passes == ()
    assert ["models help" in line for line in selection.left_alone] == [True, True]


def test_compression_is_repaired_before_noise_and_enlarging_comes_last():
    steps = bundled(findings(noise=26, jpeg=35), scale=2)
    assert steps == ["color_jpeg_car_jpeg40_tiny", "color_dn_noise25_tiny", "lightweight_sr_x2_tiny"]


def test_every_step_has_a_reason():
    for step in select_models(findings(noise=26, jpeg=35), Wish(scale=2), BUNDLED).passes:
        assert step.reason.endswith(".")
        assert "found" in step.reason or "asked for" in step.reason


# Wishes


def test_wishes_override_estimates():
    assert bundled(findings(noise=50, jpeg=10), noise=14, jpeg=44) == [
        "color_jpeg_car_jpeg40_tiny",
        "color_dn_noise15_tiny",
    ]
    assert bundled(CLEAN, noise=3) == ["color_dn_noise15_tiny"]
    assert bundled(CLEAN, jpeg=95) == ["color_jpeg_car_jpeg40_tiny"]


def test_noise_0_and_jpeg_100_prevent_a_repair():
    assert bundled(findings(noise=50, jpeg=10), noise=0) == ["color_jpeg_car_jpeg10_tiny"]
    assert bundled(findings(noise=50, jpeg=10), jpeg=100) == ["color_dn_noise50_tiny"]


def test_a_task_asked_for_is_the_only_thing_done():
    worn = findings(noise=50, jpeg=10)
    assert bundled(worn, task="color_dn") == ["color_dn_noise50_tiny"]
    assert bundled(worn, task="color_dn", noise=15) == ["color_dn_noise15_tiny"]
    assert bundled(worn, task="color_jpeg_car") == ["color_jpeg_car_jpeg10_tiny"]
    assert bundled(worn, task="lightweight_sr", scale=3) == ["lightweight_sr_x3_tiny"]
    assert bundled(CLEAN, task="color_dn", scale=2) == ["color_dn_noise15_tiny", "lightweight_sr_x2_tiny"]


def test_a_task_for_grey_serves_colour_when_named():
    selection = select_models(findings(noise=25), Wish(task="gray_dn"), BUNDLED)
    assert aliases(selection) == ["gray_dn_noise25_tiny"]
    assert "each channel on its own" in selection.passes[0].reason


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
    selection = select_models(CLEAN, Wish(scale=scale), BUNDLED)
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


def test_a_grey_image_is_enlarged_as_colour():
    selection = select_models(findings(gray=True), Wish(scale=2), BUNDLED)
    assert aliases(selection) == ["lightweight_sr_x2_tiny"]
    assert "takes the grey image as colour" in selection.passes[0].reason


def test_networks_that_invent_details_are_used_when_named_only():
    real = [e for e in zoo.RELEASED if e.parts.task == "real_sr"]
    with pytest.raises(ValueError, match="no model of classical_sr or lightweight_sr"):
        select_models(CLEAN, Wish(scale=4), real)
    assert aliases(select_models(CLEAN, Wish(scale=4, task="real_sr"), EVERYTHING)) == ["real_sr_x4_DFOWMFC_GAN"]
    assert aliases(select_models(CLEAN, Wish(scale=2, task="real_sr"), EVERYTHING)) == ["real_sr_x2_DFO_GAN"]


# Available models


def test_large_models_are_preferred_at_the_same_level():
    found = findings(noise=27, jpeg=12)
    assert aliases(select_models(found, Wish(scale=4), EVERYTHING)) == [
        "color_jpeg_car_jpeg10_DFWB",
        "color_dn_noise25_DFWB",
        "classical_sr_x4_DF2K",
    ]


def test_a_nearer_level_is_preferred_to_a_larger_network():
    large = [e for e in zoo.RELEASED if e.alias == "color_dn_noise15_DFWB"]
    assert aliases(select_models(findings(noise=27), Wish(), [*large, *BUNDLED])) == ["color_dn_noise25_tiny"]


def test_models_for_other_channels_serve_when_there_are_no_others():
    cases = ((True, 50, "takes the grey image as colour"), (False, 25, "takes each channel on its own"))
    for gray, level, words in cases:
        others = [e for e in BUNDLED if TASKS[e.parts.task].gray != gray]
        selection = select_models(findings(noise=26, gray=gray), Wish(), others)
        assert [step.model.parts.level for step in selection.passes] == [level]
        assert words in selection.passes[0].reason


def test_a_colour_image_prefers_a_model_for_colour_of_any_level():
    models = [e for e in EVERYTHING if e.alias in ("color_jpeg_car_jpeg10_tiny", "jpeg_car_jpeg40_DFWB")]
    assert aliases(select_models(findings(jpeg=40), Wish(), models)) == ["color_jpeg_car_jpeg10_tiny"]


@pytest.mark.parametrize(
    ("found", "wish", "command"),
    [
        (findings(noise=44), Wish(), "color_dn or gray_dn .* `swinir zoo download color_dn_noise50_DFWB`"),
        (findings(jpeg=28, gray=True), Wish(), "`swinir zoo download jpeg_car_jpeg30_DFWB`"),
        (CLEAN, Wish(scale=3), "`swinir zoo download classical_sr_x3_"),
        (CLEAN, Wish(scale=4, task="real_sr"), "no model of real_sr .* `swinir zoo download real_sr_x4_"),
    ],
)
def test_a_missing_model_is_named_with_the_download_command(found, wish, command):
    with pytest.raises(ValueError, match=command) as caught:
        select_models(found, wish, ())
    alias = str(caught.value).split("`")[1].split()[-1]
    assert zoo.find(alias).parts.task in str(caught.value)


@given(
    st.builds(findings, st.floats(0, 200), st.none() | st.floats(1, 100), st.booleans()),
    st.builds(
        Wish,
        scale=st.floats(1, 50),
        noise=st.none() | st.floats(0, 255),
        jpeg=st.none() | st.floats(1, 100),
        task=st.none() | st.sampled_from(["color_dn", "gray_dn", "jpeg_car", "color_jpeg_car"]),
    ),
)
def test_bundled_models_fulfil_any_wish(found, wish):
    selection = select_models(found, wish, BUNDLED)
    kinds = [step.model.parts.kind for step in selection.passes]
    assert kinds == sorted(kinds)  # jpeg, noise, x
    assert selection.factor >= wish.scale
    assert len(selection.explain()) == len(selection.passes) + len(selection.left_alone)
    assert selection == select_models(replace(found), wish, BUNDLED)


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
        (findings(noise=6.96), "6.96 was found, and models help from 7 on"),
        (findings(noise=6.6), "6.6 was found, and models help from 7 on"),
        (findings(noise=3.4), "3 was found, and models help from 7 on"),
        (findings(jpeg=70.2), "70.2 was found, and models help up to 70"),
    ],
)
def test_a_level_beyond_a_limit_is_not_told_as_the_limit(found, said):
    assert any(said in line for line in select_models(found, Wish(), []).left_alone)
