"""Plots: points at their distances, and two panels with the same length for a decibel."""

import re

import pytest
from matplotlib import figure

from swinir.reproduce.plot import PlotRow, distance_plot, plot_study


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved = []
    save = figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *args, **options: saved.append(self) or save(self, *args, **options)
    )
    return saved


def test_points_lie_at_their_distances_on_their_row(figures):
    rows = [
        PlotRow("x2 Set5", [("baseline", -0.3), ("differs", -0.5)]),
        PlotRow("x4 Set5", [("reproduced", 0.01), ("another network", 0.4)]),
    ]
    text = distance_plot(rows, 0.02, "dB").decode()
    (axes,) = figures[0].axes
    points = {
        collection.get_label(): collection.get_offsets().tolist()
        for collection in axes.collections
        if not collection.get_label().startswith("_")
    }
    assert points == {
        "other methods, as published": [[-0.3, 0]],
        "measured here: reproduced": [[0.01, 1]],
        "measured here: differs": [[-0.5, 0]],
        "measured here: other verdicts": [[0.4, 1]],
    }
    band = axes.patches[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.02, 0.02))
    assert re.findall(r">(x\d Set5)<", text) == ["x2 Set5", "x4 Set5"]
    assert distance_plot(rows, 0.02, "dB").decode() == text


def test_a_plot_without_any_distance_or_tolerance_can_be_drawn():
    assert b"<svg" in distance_plot([PlotRow("<$x", [("reproduced", 0.0)])], 0.0, "dB")


def test_a_study_names_both_settings_and_every_network(tmp_path):
    measured = {"SwinIR": [(1, 30.0, 0.1), (2, 31.0, 0.0)], "RCAN": [(1, 29.0, 0.2)]}
    published = {"SwinIR": [(1, 39.0, 0.0)]}
    path = tmp_path / "x.svg"
    plot_study(path, "Figure 0", "things", measured, published, settings=("half an hour", "half a year"))
    text = path.read_text()
    for words in ("Figure 0", "things", "half an hour", "half a year", "SwinIR", "RCAN", "measured", "published"):
        assert f">{words}<" in text


def test_a_decibel_has_the_same_length_in_both_panels(tmp_path, figures):
    measured = {"SwinIR": [("a", 30.0, 0.0), ("b", 30.01, 0.0)]}
    published = {"SwinIR": [("a", 39.0, 0.0), ("b", 40.0, 0.0)]}
    for equal in (True, False):
        plot_study(tmp_path / "x.png", "", "", measured, published, settings=("", ""), equal_spans=equal)
    (one, other), (small, large) = (
        [high - low for low, high in (axes.get_ylim() for axes in each.axes)] for each in figures
    )
    assert one == pytest.approx(other)
    assert one > 1
    assert small < 0.1 < large
