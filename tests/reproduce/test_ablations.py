"""Figure 3 and Table 1: published points, configurations, differences, and the command."""

import contextlib
import io
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import header, rows, smooth_image, write_images

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
# Read from the paper's figure and table, Manga109 x2; some values as a range.
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


# Published results


@pytest.mark.parametrize("name", STUDIES)
def test_published_points_are_the_papers_and_the_full_scale_has_them(name):
    expected = {model: points for (study, model), points in PAPER.items() if study == name}
    published = {model: dict(points) for model, points in STUDIES[name].published.items()}
    assert published.keys() == expected.keys() == set(STUDIES[name].models)
    for model, points in expected.items():
        assert published[model].keys() == points.keys()
        for x, psnr in points.items():
            low, high = psnr if isinstance(psnr, tuple) else (psnr, psnr)
            assert low <= published[model][x] <= high
        if name != "figure3f":
            assert [x for m, x, _ in configurations(name, "full") if m == model] == list(points)


# Configurations


@pytest.mark.parametrize("scale", SCALES)
def test_headers_state_data_and_command(scale):
    fields = header(CONFIGS / f"{scale}.toml")
    assert fields["Reproduces"]
    assert fields["Data"]
    assert f"--scale {scale}" in fields["Command"]


def test_the_full_base_is_swinir_m_on_div2k_for_500k_iterations():
    config = base("full")
    assert count_parameters(config.network_config()) == 11_752_487
    data = (config.data.images, config.data.batch, config.data.patch)
    assert (config.schedule.iterations, config.optimizer.lr, *data) == (500_000, 2e-4, 800, 32, 64)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_a_run_differs_from_the_base_in_one_option(name, scale):
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


def test_shares_beyond_div2k_continue_with_flickr2k():
    configs = list(configurations("figure3e", "full").values())[:7]
    assert [config.data.images for config in configs] == [200, 400, 800, 1600, 2400, 3200, 3440]
    folders = [[path.parts[1] for path in config.data.train] for config in configs]
    assert folders == [["DIV2K"]] * 3 + [["DIV2K", "Flickr2K"]] * 4


def test_studies_share_the_base_and_seeds_follow_one_another():
    studies = ("figure3a", "figure3b", "figure3c", "table1")
    names = {config.name for name in studies for config in configurations(name, "cpu").values()}
    assert len(names) == 1 + 3 + 3 + 2 + 3
    planned = plan_points(STUDIES["table1"], "cpu", base("cpu"), 2)
    assert [point.seed for point in planned] == [point.config.seed for point in planned] == [0] * 4 + [1] * 4
    assert len(runs(planned)) == 8


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table1", {"validate_every": 400}, "multiple of validate_every, got 750 and 400"),
        ("figure3e", {"data.images": None}, r"add --set data\.images=800"),
    ],
)
def test_an_unsuitable_base_is_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        plan_points(STUDIES[name], "cpu", varied(base("cpu"), change), 1)


def test_rcan_of_every_scale_costs_about_what_swinir_does():
    pytest.importorskip("spandrel", reason="RCAN is in the extra `baselines`")
    for scale in ("1h-gpu", "cpu"):
        config = configurations("figure3f", scale)["rcan", None, 0]
        ours = count_parameters(base(scale).network_config())
        theirs = sum(p.numel() for p in build_network(config).parameters() if p.requires_grad)
        assert 1 < theirs / ours < 1.4  # the paper: 15.4 M and 11.8 M


# Differences


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


def test_seeds_without_a_partner_do_not_count():
    scores = [score("1conv", 0, 30.0), score("none", 0, 29.0), score("none", 1, 10.0)]
    (found,) = differences(STUDIES["table1"], scores)
    assert (found.psnr_y, found.error, found.seeds, found.shows) == (-1.0, None, 1, "undecided")
    assert found.published == pytest.approx(39.42 - 39.58)


def test_points_are_compared_with_the_reference_with_neighbours_and_ends_or_with_rcan():
    table = [score(x, 0, 30.0) for x in ("none", "1x1", "1conv", "3conv")]
    assert {d.subtrahend for d in differences(STUDIES["table1"], table)} == {"SwinIR 1conv"}
    curve = differences(STUDIES["figure3b"], [score(x, 0, 30 + x) for x in (1, 2, 4)])
    assert [(d.minuend, d.subtrahend, d.psnr_y) for d in curve] == [
        ("SwinIR 2", "SwinIR 1", 1),
        ("SwinIR 4", "SwinIR 2", 2),
        ("SwinIR 4", "SwinIR 1", 3),
    ]
    (found,) = differences(STUDIES["figure3d"], [score(48, 0, 30.0), score(48, 0, 29.5, "rcan")])
    assert (found.psnr_y, found.published) == (0.5, pytest.approx(0.10))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_mean_and_error_are_those_of_the_gaps(gaps):
    scores = [score(x, s, 30 + g) for s, gap in enumerate(gaps) for x, g in ((1, 0.0), (2, gap))]
    (found,) = differences(STUDIES["figure3b"], scores)
    assert found.psnr_y == pytest.approx(statistics.fmean(gaps), abs=1e-9)
    assert found.error == pytest.approx(statistics.stdev(gaps) / math.sqrt(len(gaps)), abs=1e-9)
    assert spread(scores, "swinir", 2)[2] == len(gaps)


# The command

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of Table 1, trained by the command: its folder, exit code and output."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "gt").mkdir()
    write(folder / "gt" / "x.png", smooth_image(32, 32, 5))
    images = write_images(folder / "images")
    (folder / "base.toml").write_text(TOML.format(train=images, gt=folder / "gt"))
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(arguments(folder, "table1", "--seeds", "2"))
    return folder, code, output.getvalue()


def arguments(folder, *words):
    return ["reproduce", *words, "--config", str(folder / "base.toml"), "-o", str(folder / "out"), "--device", "cpu"]


@pytest.fixture
def command(trained, tmp_path, capsys, monkeypatch):
    """Runs `swinir reproduce` in a copy of the trained folder; gives exit code, output and errors."""
    shutil.copytree(trained[0], tmp_path / "copy")
    monkeypatch.delenv("SWINIR_DEBUG", raising=False)

    def run(*words):
        code = main(arguments(tmp_path / "copy", *words))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def out(command, tmp_path):
    return tmp_path / "copy" / "out" / "cpu"


def test_a_study_leaves_numbers_and_a_plot_and_is_trained_once(trained, command, out):
    folder, code, text = trained
    assert code == 0
    results = json.loads((out / "table1.json").read_text())
    assert [(row["x"], row["seed"]) for row in results["scores"]] == [
        (x, seed) for seed in (0, 1) for x in ("none", "1x1", "1conv", "3conv")
    ]
    assert [facts["device"] for facts in results["made_with"]] == ["cpu"]
    assert str(folder) not in (out / "table1.json").read_text()
    assert (out / "table1.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^1conv +SwinIR +39\.58 ", text, re.M)
    for row in results["scores"]:
        last = [line for line in rows(out / row["run"]) if "psnr_y" in line][-1]
        assert (row["steps"], row["psnr_y"]) == (4, last["psnr_y"]) == (last["step"], last["psnr_y"])
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/*.pth")}
    assert len(stamps) == 2 * 8  # the last weights and the best
    code, text, _ = command("table1", "--seeds", "2")
    assert (code, "step" in text) == (0, False)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_convergence_has_a_point_for_each_validation(command, out):
    pytest.importorskip("spandrel", reason="RCAN is in the extra `baselines`")
    assert command("figure3f")[0] == 0
    results = json.loads((out / "figure3f.json").read_text())
    assert [(row["model"], row["x"]) for row in results["scores"]] == [
        ("swinir", 2), ("swinir", 4), ("rcan", 2), ("rcan", 4)
    ]  # fmt: skip


def test_an_interrupted_run_resumes(command, out):
    folder = out / "swinir_seed0"
    before = rows(folder)
    (folder / "swinir_seed0.pth").unlink()
    for path in (folder / "states").glob("*-00000004-*"):
        path.unlink()
    code, text, _ = command("table1")
    assert code == 0
    assert "step 4/4" in text
    assert "step 2/4" not in text
    assert [row.get("psnr_y") for row in rows(folder)] == [row.get("psnr_y") for row in before]


def test_another_configuration_is_refused_before_any_training(command):
    code, text, err = command("table1", "--set", "schedule.iterations=6")
    assert (code, text) == (2, "")
    assert "swinir_variantnone_seed0 was trained with another configuration" in err
    assert "schedule.iterations 4, now 6" in err
    assert command("table1", "--set", "log_every=1", "--gather")[0] == 0  # changes nothing that is learned


def test_the_list_states_what_is_done_and_trains_nothing(command):
    code, text, _ = command("figure3a", "--dry-run")
    assert (code, text.count("to do"), text.count("done ")) == (0, 3, 1)  # the base is a run of Table 1, too


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table1", "--scale", "1h-gpu", "--gather"), "no run of table1 is finished"),
        (("table1", "--scale", "3090"), "--scale must be one of full, 1h-gpu, cpu, got '3090'"),
    ],
)
def test_wrong_usage_is_refused(command, words, message):
    code, _, err = command(*words)
    assert code == 2
    assert message in err


# The document


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "ablations").rglob("*.json")), ids=lambda path: path.stem)
def test_the_document_gives_the_measured_means_and_differences(path):
    results, page = json.loads(path.read_text()), (ROOT / "docs" / "ablations.md").read_text()
    values = {}
    for row in results["scores"]:
        values.setdefault((row["model"], row["x"]), []).append(row["psnr_y"])
    for point, psnr in values.items():
        assert f" {statistics.fmean(psnr):.3f} " in page, point
    assert path.with_suffix(".png").is_file()
    for row in results["differences"]:
        assert f" {row['psnr_y']:+.3f} " in page, row
