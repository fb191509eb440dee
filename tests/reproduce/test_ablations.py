"""Figure 3 and Table 1: the published points, what each run changes, how runs are kept, read and drawn."""

import json
import math
import re
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import header, rows, smooth_picture

from swinir.cli.main import main
from swinir.image_io.image import write
from swinir.models.complexity import count_parameters
from swinir.reproduce.ablation_results import differences, spread
from swinir.reproduce.ablation_runs import Score
from swinir.reproduce.ablations import SCALES, STUDIES, plan_points, runs
from swinir.train.config import load_config, varied
from swinir.train.initialize import build_network

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "ablations"
# Read off the paper's figure and table, Manga109 x2; a range as it was read.
PAPER = {
    ("figure3a", "swinir"): {
        60: 39.14, 90: 39.31, 120: 39.48, 150: 39.55, 180: 39.60, 210: (39.62, 39.63), 240: (39.65, 39.66)
    },
    ("figure3b", "swinir"): {1: 38.76, 2: (39.05, 39.06), 4: 39.43, 6: 39.60, 8: 39.64, 10: 39.68, 12: 39.70},
    ("figure3c", "swinir"): {1: 38.96, 2: 39.28, 4: 39.42, 6: 39.60, 8: 39.64, 10: 39.65, 12: 39.66},
    ("figure3d", "swinir"): {32: 39.39, 40: 39.44, 48: 39.51, 56: 39.57, 64: 39.60, 72: 39.64, 80: 39.66},
    ("figure3d", "rcan"): {32: 39.34, 40: 39.39, 48: 39.41, 56: 39.42, 64: 39.44, 72: 39.50, 80: 39.52},
    ("figure3e", "swinir"): {0.25: 39.13, 0.5: 39.39, 1: 39.60, 2: 39.75, 3: 39.81, 4: 39.88, 4.3: 39.92},
    ("figure3e", "rcan"): {0.25: 38.96, 0.5: (39.17, 39.18), 1: 39.44, 2: 39.53, 3: 39.66, 4: 39.69, 4.3: 39.73},
    ("figure3f", "swinir"): {
        10_000: 38.67, 25_000: 39.0, 50_000: 39.26, 100_000: 39.3, 150_000: 39.43,
        200_000: 39.44, 250_000: 39.47, 300_000: 39.55, 400_000: 39.58, 500_000: 39.60,
    },
    ("figure3f", "rcan"): {
        10_000: 38.6, 25_000: 38.94, 50_000: 39.11, 100_000: 39.19, 150_000: 39.26,
        200_000: 39.35, 250_000: 39.34, 300_000: 39.37, 400_000: 39.39, 500_000: 39.43,
    },
    ("table1", "swinir"): {"none": 39.42, "1x1": 39.45, "1conv": 39.58, "3conv": 39.56},
}  # fmt: skip


def base(scale):
    return load_config(CONFIGS / f"{scale}.toml")


def configurations(name, scale, seeds=1):
    """The planned configurations of a study by model, point and seed."""
    return {(p.model, p.x, p.seed): p.config for p in plan_points(STUDIES[name], scale, base(scale), seeds)}


# What was published.


@pytest.mark.parametrize("name", STUDIES)
def test_published_points_are_the_papers(name):
    expected = {model: points for (study, model), points in PAPER.items() if study == name}
    published = {model: dict(points) for model, points in STUDIES[name].published.items()}
    assert published.keys() == expected.keys() == set(STUDIES[name].models)
    for model, points in expected.items():
        assert published[model].keys() == points.keys()
        for x, psnr in points.items():
            low, high = psnr if isinstance(psnr, tuple) else (psnr, psnr)
            assert low <= published[model][x] <= high


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "figure3f"])
def test_the_full_scale_has_the_published_points(name):
    for model, points in STUDIES[name].published.items():
        assert [x for m, x, _ in configurations(name, "full") if m == model] == [x for x, _ in points]


# Configurations.


@pytest.mark.parametrize("scale", SCALES)
def test_headers_say_what_to_expect_and_how_to_run_the_scale(scale):
    fields = header(ROOT / "configs" / "ablations" / f"{scale}.toml")
    assert fields["Reproduces"]
    assert fields["Data"]
    assert f"--scale {scale}" in fields["Command"]


def test_the_full_base_is_swinir_m_on_div2k_for_500k_iterations():
    config = base("full")
    assert count_parameters(config.network_config()) == 11_752_487
    assert (config.schedule.iterations, config.data.images, config.data.batch, config.data.patch) == (
        500_000,
        800,
        32,
        64,
    )
    assert config.optimizer.lr == 2e-4


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_a_run_differs_from_the_base_in_one_thing(name, scale):
    varying = {
        "figure3a": {"network.embed_dim"},
        "figure3b": {"network.depths", "network.num_heads"},
        "figure3c": {"network.depths"},
        "figure3d": {"data.patch"},
        "figure3e": {"data.images", "data.train"},
        "figure3f": set(),
        "table1": {"network.resi_connection"},
    }[name]
    for (model, _, _), config in configurations(name, scale).items():
        start = base(scale) if model == "swinir" else varied(base(scale), {"network": config.network})
        one, other = (flat(c.model_dump() | {"network": resolved(c)}) for c in (config, start))
        changed = {key for key in one | other if one.get(key) != other.get(key)}
        assert changed <= varying | {"name", "validate_every"} | ({"network.img_size"} if name == "figure3d" else set())


def resolved(config):
    return config.network_config().to_dict() if config.network_name == "swinir" else config.network


def flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_six_more_rstbs_have_the_parameters_of_six_rstbs():
    layer = 4 * 180**2 + 4 * 180 + 2 * 180 * 360 + 360 + 180 + 4 * 180 + 15**2 * 6
    rstb = 6 * layer + 9 * 180**2 + 180
    config = configurations("figure3b", "full")["swinir", 12, 0]
    assert count_parameters(config.network_config()) == 11_752_487 + 6 * rstb


def test_shares_beyond_div2k_go_on_with_flickr2k():
    configs = configurations("figure3e", "full")
    assert [config.data.images for config in configs.values()][:7] == [200, 400, 800, 1600, 2400, 3200, 3440]
    folders = [[path.parts[1] for path in config.data.train] for config in configs.values()][:7]
    assert folders == [["DIV2K"]] * 3 + [["DIV2K", "Flickr2K"]] * 4


def test_studies_share_the_base_and_seeds_come_one_after_the_other():
    names = {
        config.name
        for name in ("figure3a", "figure3b", "figure3c", "table1")
        for config in configurations(name, "cpu").values()
    }
    assert len(names) == 1 + 3 + 3 + 2 + 3
    planned = plan_points(STUDIES["table1"], "cpu", base("cpu"), 2)
    assert [point.seed for point in planned] == [0] * 4 + [1] * 4
    assert len(runs(planned)) == 8
    assert {point.config.seed for point in planned if point.seed == 1} == {1}


def test_a_base_that_does_not_end_in_a_validation_is_refused():
    odd = varied(base("cpu"), {"validate_every": 400})
    with pytest.raises(ValueError, match="multiple of validate_every, got 750 and 400"):
        plan_points(STUDIES["table1"], "cpu", odd, 1)


def test_rcan_of_every_scale_costs_about_what_swinir_does():
    pytest.importorskip("spandrel", reason="RCAN is in the extra `baselines`")
    for scale in ("1h-gpu", "cpu"):
        config = configurations("figure3f", scale)["rcan", None, 0]
        ours = count_parameters(base(scale).network_config())
        theirs = sum(p.numel() for p in build_network(config).parameters() if p.requires_grad)
        assert 1 < theirs / ours < 1.4  # the paper: 15.4 M for 11.8 M


# Differences.


def score(x, seed, psnr, model="swinir"):
    return Score(model, x, seed, psnr, 0.9, 10, 1000, "run")


def test_a_difference_is_paired_by_seed():
    """Seeds differ by 1 dB, the points of one seed by 0.2 give or take 0.01: only pairs can tell."""
    scores = [score(x, s, 30 + s + g) for s, gap in enumerate((0.19, 0.20, 0.21)) for x, g in ((12, 0), (18, gap))]
    (found,) = differences(STUDIES["figure3a"], scores)
    assert found.psnr_y == pytest.approx(0.2)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.interval == pytest.approx(4.30 * 0.01 / math.sqrt(3))
    assert (found.minuend, found.subtrahend, found.shows) == ("SwinIR 18", "SwinIR 12", "higher")


def test_seeds_that_lack_a_partner_do_not_count():
    scores = [score("1conv", 0, 30.0), score("none", 0, 29.0), score("none", 1, 10.0)]
    (found,) = differences(STUDIES["table1"], scores)
    assert (found.psnr_y, found.error, found.seeds, found.shows) == (-1.0, None, 1, "undecided")
    assert found.published == pytest.approx(39.42 - 39.58)


def test_the_reference_of_table_1_is_the_papers_design_and_rcan_is_that_of_panel_d():
    table = [score(x, 0, 30.0) for x in ("none", "1x1", "1conv", "3conv")]
    assert {d.subtrahend for d in differences(STUDIES["table1"], table)} == {"SwinIR 1conv"}
    panel = [score(48, 0, 30.0), score(48, 0, 29.5, "rcan")]
    (found,) = differences(STUDIES["figure3d"], panel)
    assert (found.psnr_y, found.published) == (0.5, pytest.approx(0.10))


def test_a_curve_is_compared_by_neighbours_and_by_its_ends():
    found = differences(STUDIES["figure3b"], [score(x, 0, 30 + x) for x in (1, 2, 4)])
    assert [(d.minuend, d.subtrahend, d.psnr_y) for d in found] == [
        ("SwinIR 2", "SwinIR 1", 1),
        ("SwinIR 4", "SwinIR 2", 2),
        ("SwinIR 4", "SwinIR 1", 3),
    ]


def test_a_share_of_unknown_many_images_is_refused():
    whole = varied(base("cpu"), {"data.images": None})
    with pytest.raises(ValueError, match=r"add --set data\.images=800"):
        plan_points(STUDIES["figure3e"], "cpu", whole, 1)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_mean_and_error_are_those_of_the_gaps(gaps):
    scores = [score(x, s, 30 + g) for s, gap in enumerate(gaps) for x, g in ((1, 0.0), (2, gap))]
    (found,) = differences(STUDIES["figure3b"], scores)
    assert found.psnr_y == pytest.approx(statistics.fmean(gaps), abs=1e-9)
    assert found.error == pytest.approx(statistics.stdev(gaps) / math.sqrt(len(gaps)), abs=1e-9)
    assert spread(scores, "swinir", 2)[2] == len(gaps)


# The command.

TOML = """
name = "small"
task = "lightweight_sr"
scale = 2
log_every = 2
save_every = 1
validate_every = 2
[data]
train = "{train}"
images = 2
patch = 16
batch = 1
validate_gt = "{gt}"
[schedule]
iterations = 4
[network]
embed_dim = 12
depths = [1]
num_heads = [2]
"""


@pytest.fixture
def command(images, tmp_path, capsys, monkeypatch):
    """Runs `swinir reproduce`, with a base that trains in a moment; gives exit code, output and errors."""
    (tmp_path / "gt").mkdir()
    write(tmp_path / "gt" / "x.png", smooth_picture(32, 32, 5))
    (tmp_path / "base.toml").write_text(TOML.format(train=images, gt=tmp_path / "gt"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWINIR_DEBUG", raising=False)

    def run(*words):
        code = main(["reproduce", *words, "--config", "base.toml", "-o", str(tmp_path / "out"), "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


def test_a_study_is_trained_once_and_leaves_numbers_and_a_picture(command, tmp_path):
    code, out, err = command("table1", "--scale", "cpu", "--seeds", "2")
    assert (code, err) == (0, "")
    folder = tmp_path / "out" / "cpu"
    results = json.loads((folder / "table1.json").read_text())
    assert [(row["x"], row["seed"]) for row in results["scores"]] == [
        (x, seed) for seed in (0, 1) for x in ("none", "1x1", "1conv", "3conv")
    ]
    assert [facts["device"] for facts in results["made_with"]] == ["cpu"]
    assert str(tmp_path) not in (folder / "table1.json").read_text()
    assert (folder / "table1.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^1conv +SwinIR +39\.58 ", out, re.M)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.pth")}
    assert len(stamps) == 2 * 8  # the last weights and the best
    code, out, err = command("table1", "--scale", "cpu", "--seeds", "2")
    assert (code, "step" in out) == (0, False)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_scores_are_those_of_the_last_validation(command, tmp_path):
    assert command("figure3c", "--scale", "cpu")[0] == 0
    results = json.loads((tmp_path / "out" / "cpu" / "figure3c.json").read_text())
    for row in results["scores"]:
        last = [line for line in rows(tmp_path / "out" / "cpu" / row["run"]) if "psnr_y" in line][-1]
        assert (row["steps"], row["psnr_y"]) == (4, last["psnr_y"]) == (last["step"], last["psnr_y"])


def test_convergence_has_a_point_for_each_validation(command, tmp_path):
    pytest.importorskip("spandrel", reason="RCAN is in the extra `baselines`")
    assert command("figure3f", "--scale", "cpu")[0] == 0
    results = json.loads((tmp_path / "out" / "cpu" / "figure3f.json").read_text())
    assert [(row["model"], row["x"]) for row in results["scores"]] == [
        ("swinir", 2), ("swinir", 4), ("rcan", 2), ("rcan", 4)
    ]  # fmt: skip


def test_a_run_that_was_stopped_goes_on(command, tmp_path):
    assert command("table1")[0] == 0
    folder = tmp_path / "out" / "cpu" / "swinir_seed0"
    before = rows(folder)
    (folder / "swinir_seed0.pth").unlink()
    for path in (folder / "states").glob("*-00000004-*"):
        path.unlink()
    code, out, _ = command("table1")
    assert code == 0
    assert "step 4/4" in out
    assert "step 2/4" not in out
    assert [row.get("psnr_y") for row in rows(folder)] == [row.get("psnr_y") for row in before]


def test_another_configuration_is_noticed_before_anything_is_trained(command, tmp_path):
    assert command("table1")[0] == 0
    code, out, err = command("table1", "--set", "schedule.iterations=6")
    assert (code, out) == (2, "")
    assert "swinir_variantnone_seed0 was trained with another configuration" in err
    assert "schedule.iterations 4, now 6" in err
    assert command("table1", "--set", "log_every=1", "--gather")[0] == 0  # changes nothing of what is learned


def test_the_list_says_what_is_done_and_trains_nothing(command, tmp_path):
    code, out, _ = command("figure3a", "--dry-run")
    assert (code, out.count("to do"), (tmp_path / "out").exists()) == (0, 4, False)


def test_nothing_to_gather_is_said(command):
    code, _, err = command("table1", "--gather")
    assert code == 2
    assert "no run of table1 is finished" in err


def test_an_unknown_scale_is_refused(command):
    code, _, err = command("table1", "--scale", "3090")
    assert code == 2
    assert "--scale must be one of full, 1h-gpu, cpu, got '3090'" in err


# The page.


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "ablations").rglob("*.json")), ids=lambda path: path.stem)
def test_the_page_gives_the_measured_means_and_differences(path):
    results, page = json.loads(path.read_text()), (ROOT / "docs" / "ablations.md").read_text()
    values = {}
    for row in results["scores"]:
        values.setdefault((row["model"], row["x"]), []).append(row["psnr_y"])
    for point, psnr in values.items():
        assert f" {statistics.fmean(psnr):.3f} " in page, point
    assert path.with_suffix(".png").is_file()
    for row in results["differences"]:
        assert f" {row['psnr_y']:+.3f} " in page, row
