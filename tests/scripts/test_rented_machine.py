"""The scripts for rented machines, on machines made of stubs."""

import re
import shutil
import signal
import subprocess
import tarfile
import time
import tomllib

import pytest
from machines import CONDA, ROOT, SWINIR, Machine, ask_library

from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import load_config
from swinir.weights.zoo import RELEASED

SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
COMMANDS = ("autodl_setup.sh", "reproduce_all.sh")
RECIPES = sorted(
    path
    for path in ROOT.glob("configs/*/*.toml")
    if "# One GPU:" in path.read_text() and path.parent.name != "ablations"  # whose networks differ from run to run
)
DIV2K = ("--train", "configs/classical_sr/div2k_x2.toml")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def one_line(done):
    """The only error line of a run that failed."""
    assert done.returncode
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stdout + done.stderr
    return errors[0]


def finish(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def set_up(machine, *options, **settings):
    return machine.script("autodl_setup.sh", *options, **settings)


def reproduce(machine, *options, **settings):
    return machine.script("reproduce_all.sh", *options, **settings)


# The scripts as texts


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_stops_at_any_failure_explains_its_options_and_refuses_others(name, machine):
    text = (ROOT / "scripts" / name).read_text()
    assert "set -euo pipefail" in text
    options = set(re.findall(r"^        (--[a-z-]+)(?: \||\))", text, re.M)) | {"--help"}
    assert options <= set(re.findall(r"--[a-z-]+", finish(machine.script(name, "--help"))))
    done = machine.script(name, "--nonsense")
    assert "--nonsense" in one_line(done)
    assert done.returncode == 2


# Which PyTorch

# NVIDIA's minimum drivers: 580 for CUDA 13, 570.26 for 12.8, 560.28.03 for 12.6, 525.60.13 for any CUDA 12.
DRIVERS = {
    "595.10": ("13.x", "torch>=2.11,<2.16"),
    "580.65.06": ("13.x", "torch>=2.11,<2.16"),
    "575.57.08": ("12.8", "torch>=2.8,<2.11"),
    "570.26": ("12.8", "torch>=2.8,<2.11"),
    "565.57.01": ("12.6", "torch>=2.7,<2.8"),
    "550.90.07": ("12.4", "torch>=2.6,<2.7"),
    "525.105.17": ("12.4", "torch>=2.6,<2.7"),
    "525.60.13": ("12.4", "torch>=2.6,<2.7"),
    "525.60.12": (),
    "470.82.01": (),
    "440.33": (),
}


def build(arguments, **settings):
    return tuple(ask_library(f"choose_build {arguments}", **settings).stdout.split())


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_decides_the_build(driver):
    assert build(f"{driver} 2.31") == DRIVERS[driver]


def test_cuda_11_8_is_chosen_when_an_index_for_it_is_named():
    index = {"SWINIR_TORCH_INDEX": "https://example.org/cu118"}
    assert build("470.82.01 2.31", **index) == ("11.8", "torch>=2.6,<2.8")
    assert build("440.33 2.31", **index) == ()


def test_an_old_glibc_gets_the_build_of_the_older_standard():
    assert build("580.65.06 2.27")[0] == "12.4"


@pytest.mark.parametrize(
    ("driver", "kept", "chosen"),
    [
        ("580.65.06", "torch>=2.6,<2.7", "torch>=2.6,<2.7"),
        ("525.60.13", "torch>=2.6,<2.7", "torch>=2.6,<2.7"),
        ("535.54.03", "torch>=2.11,<2.16", "torch>=2.6,<2.7"),
    ],
)
def test_an_installed_version_stays_while_the_driver_supports_it(driver, kept, chosen):
    assert build(f"{driver} 2.31 '{kept}'")[1] == chosen


def test_no_build_is_older_than_the_project_allows():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch>=2.6" in wanted
    text = (ROOT / "scripts/rented_machine.sh").read_text()
    lowest = [int(minor) for minor in re.findall(r'torch>=2\.(\d+),<2\.\d+"', text)]
    assert (len(lowest), min(lowest)) == (5, 6)


# Estimates


def test_the_hours_of_the_tables_follow_from_the_published_second():
    # By hand: 1130 megapixels, 0.539 s for 256x256, and with self-ensemble 1 + 8 passes.
    hours = 1130e6 * 0.539 / 256**2 / 3600
    assert float(ask_library("table_hours").stdout) == pytest.approx(hours, abs=0.06)
    assert float(ask_library("table_hours $SELF_ENSEMBLE_PASSES").stdout) == pytest.approx(9 * hours, abs=0.06)


@pytest.mark.parametrize(
    ("recipe", "eight_cards"),
    [
        ("classical_sr/div2k_x2", 1.75 * 24),
        ("classical_sr/div2k_x4", 0.95 * 24),
        ("gray_dn/medium_noise15", 9.7 * 24),
        ("lightweight_sr/small_x2", 13),
        ("real_sr/medium_x4_gan", 7 * 24),
        ("real_sr/large_x4_psnr", 15 * 24),
    ],
)
def test_the_hours_of_a_training_follow_from_its_header(recipe, eight_cards):
    low, high = map(float, ask_library(f"training_hours '{ROOT}/configs/{recipe}.toml'").stdout.split())
    assert low == pytest.approx(8 * eight_cards * 0.36, abs=1)
    assert high == pytest.approx(8 * eight_cards * 1.43, abs=1)


def test_a_recipe_without_a_published_time_gets_no_estimate():
    assert ask_library(f"training_hours '{ROOT}/configs/debug/tiny.toml'").stdout == ""


def test_the_cost_is_hours_times_the_price():
    priced = ask_library("cost 2.5 10", SWINIR_PRICE_PER_HOUR="1.6").stdout.strip()
    assert priced == "2.5 to 10 hours, 4.00 to 16.00 at 1.6 an hour"
    assert ask_library("cost 2.5 10").stdout.strip() == "2.5 to 10 hours"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_smaller_gpu_gets_more_parts_and_the_recipe_takes_them(recipe):
    text = recipe.read_text()
    accumulate, counted = map(int, re.search(r"accumulate=(\d+) keeps (\d+) GB of activations", text).groups())
    parts = {}
    for gib in (24, 8):
        words = ask_library(f"one_gpu_options '{recipe}' {gib * 1024}").stdout.split()
        parts[gib] = load_config(recipe, words[1:]).accumulate
        assert 1.3 * counted * accumulate / parts[gib] <= gib
        assert 1.3 * counted * accumulate / (parts[gib] / 2) > gib or parts[gib] == accumulate
    assert parts[24] == accumulate


# Setting up


def test_an_old_image_gets_a_python_from_conda(tmp_path):
    machine = Machine(tmp_path, python=False)
    machine.stub("conda", CONDA, folder=machine.home / "miniconda3/bin")
    machine.stub("python", 'case "$*" in *ensurepip*) exit 1 ;; esac\n', folder=machine.home / "miniconda3/bin")
    finish(set_up(machine, SWINIR_CONDA_CHANNEL="https://example.org/conda-forge"))
    (call,) = machine.calls("conda ")
    assert f"--prefix {machine.run}/python" in call
    assert "--channel https://example.org/conda-forge python=3.11" in call
    assert (machine.run / "env/bin/swinir").exists()


def test_uv_is_tried_when_conda_fails(tmp_path):
    machine = Machine(tmp_path, python=False)
    machine.stub("conda", "exit 1\n")
    machine.stub("uv", f"[[ $* == *find* ]] && echo '{machine.folder}/stubs/python3.11'; exit 0\n")
    finish(set_up(machine))
    assert machine.calls("uv ") == ["uv python install 3.11", "uv python find 3.11"]


def test_an_old_image_that_can_fetch_no_python_names_the_settings(tmp_path):
    machine = Machine(tmp_path, python=False)
    machine.fail("python3")
    line = one_line(set_up(machine))
    for setting in ("SWINIR_CONDA_CHANNEL", "UV_PYTHON_INSTALL_MIRROR", "SWINIR_PYTHON"):
        assert setting in line


def test_a_named_python_that_is_too_old_is_refused(machine):
    assert "3.11 to 3.13" in one_line(set_up(machine, SWINIR_PYTHON=f"{machine.bin}/python3"))


def test_everything_large_goes_to_the_data_disk_and_looks_like_the_project(machine):
    finish(set_up(machine, PIP_INDEX_URL="https://example.org/simple"))
    assert {path.name for path in machine.home.iterdir()} == {"autodl-tmp"}
    for name in (
        *("env/bin/swinir", "model_zoo/swinir", "testsets", "datasets"),
        *("configs/debug/tiny.toml", "main_test_swinir.py"),
    ):
        assert (machine.run / name).exists(), name
    torch, project = machine.calls("python -m pip install")
    assert torch.endswith("torch>=2.6,<2.7 torchvision")
    assert "--constraint" in project
    assert f"--editable {ROOT}[" in project
    for line in machine.calls("index="):
        assert line.startswith(f"index=https://example.org/simple cache={machine.run}/")


def test_the_extras_that_are_installed_exist():
    extras = re.search(r"^EXTRAS=(\S+)", (ROOT / "scripts/autodl_setup.sh").read_text(), re.M).group(1).split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)


def test_without_a_data_disk_the_home_folder_or_a_named_one_is_taken(machine):
    (machine.home / "autodl-tmp").rmdir()
    assert f"{machine.home}/swinir-run" in finish(set_up(machine, "--dry-run"))
    finish(set_up(machine, SWINIR_DATA=f"{machine.folder}/other disk/"))
    assert (machine.folder / "other disk/swinir-run/env/bin/swinir").exists()


def test_pytorchs_own_index_is_for_pytorch_alone(machine):
    machine.gpu("470.82.01")
    finish(set_up(machine, SWINIR_TORCH_INDEX="https://example.org/cu118"))
    torch, project = machine.calls("python -m pip install")
    assert "--index-url https://example.org/cu118 torch>=2.6,<2.8" in torch
    assert "example.org" not in project


@pytest.mark.parametrize(
    ("driver", "remedy"), [("470.82.01", "SWINIR_TORCH_INDEX"), ("440.33.01", "rent another machine")]
)
def test_a_driver_that_is_too_old_is_named_with_a_remedy(machine, driver, remedy):
    machine.gpu(driver)
    done = set_up(machine)
    assert done.returncode == 2
    assert driver in one_line(done)
    assert remedy in one_line(done)
    assert not machine.run.exists()


def test_a_machine_without_a_gpu_is_told_of_no_gpu_mode(machine):
    machine.fail("nvidia-smi", "No devices were found")
    assert "No devices were found" in one_line(set_up(machine))
    (machine.bin / "nvidia-smi").unlink()
    assert "--no-gpu" in one_line(set_up(machine))


@pytest.mark.parametrize("driver", ["525.60.13", "580.65.06"])
def test_an_environment_made_without_a_gpu_serves_with_it(machine, driver):
    finish(set_up(machine, "--no-gpu"))
    assert machine.calls("nvidia-smi") == []
    machine.gpu(driver)
    machine.forget()
    assert "already done" in finish(set_up(machine))
    assert machine.calls("python -m pip") == []


def test_an_environment_made_with_a_gpu_stays_without_it(machine):
    machine.gpu("580.65.06")
    finish(set_up(machine))
    assert "environment: already done" in finish(set_up(machine, "--no-gpu"))


def test_a_gpu_that_pytorch_does_not_reach_is_named(machine):
    machine.fail("cuda")
    line = one_line(set_up(machine))
    assert "550.90.07" in line
    assert "RTX 3090" in line
    machine.mend("cuda")
    assert "environment: done" in finish(set_up(machine))


def test_packages_that_do_not_match_are_noticed_and_installed_again(machine):
    machine.fail("load")
    assert "SWINIR_TORCH_INDEX" in one_line(set_up(machine, "--cpu"))
    machine.mend("load")
    machine.forget()
    finish(set_up(machine, "--cpu"))
    assert len(machine.calls("python -m pip")) == 2


def test_a_small_disk_and_a_dry_run_write_nothing(machine):
    assert "torch>=2.6,<2.7" in finish(set_up(machine, "--dry-run"))
    machine.free(11)
    line = one_line(set_up(machine))
    assert "11 GiB free" in line
    assert "SWINIR_DATA" in line
    assert not machine.run.exists()


def test_without_network_the_mirror_is_named_and_the_same_command_resumes(machine):
    machine.fail("pip", "Could not fetch")
    done = set_up(machine)
    assert done.returncode == 1
    assert "PIP_INDEX_URL" in one_line(done)
    assert "Could not fetch" in (machine.run / "logs/setup.log").read_text()
    machine.mend("pip")
    finish(set_up(machine))


def copy_of_the_project(folder):
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "swinir" / "weights").mkdir(parents=True)
    weights = ("swinir/weights/released_weights.csv", "swinir/weights/zoo.py")
    for name in ("pyproject.toml", "main_test_swinir.py", *weights):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_other_requirements_are_installed_and_pytorch_stays(machine, tmp_path):
    project = copy_of_the_project(tmp_path / "a project")
    finish(set_up(machine, project=project))
    (project / "pyproject.toml").write_text("[project]\n")
    machine.forget()
    assert "environment: already done" not in finish(set_up(machine, project=project))
    (call,) = machine.calls("python -m pip")
    assert "--editable" in call


def test_another_build_starts_from_an_empty_environment(machine):
    finish(set_up(machine))
    (machine.run / "env/left over").touch()
    finish(set_up(machine, SWINIR_TORCH="torch==2.7.1"))
    assert not (machine.run / "env/left over").exists()
    assert machine.calls("python -m pip install")[2].endswith("torch==2.7.1 torchvision")


# Reproducing

# `swinir data check` with names fails for a set that is missing, without names it does not.
MISSING_SET = '[[ "$1 $2 $*" != "data check "*Manga109* ]] || { echo "Manga109: missing"; exit 1; }\n'


def test_it_does_not_start_unasked(machine):
    assert "--yes" in one_line(reproduce(machine))
    assert not machine.run.exists()


def test_a_dry_run_prints_estimates_and_writes_nothing(machine):
    text = finish(reproduce(machine, "--dry-run", *DIV2K, SWINIR_PRICE_PER_HOUR="2"))
    assert "not measured here" in text
    assert re.search(r"div2k_x2.toml --set accumulate=4: 121 to 480 hours, 242.00 to 960.00 at 2 an hour", text)
    assert "1,5" in one_line(reproduce(machine, "--dry-run", SWINIR_PRICE_PER_HOUR="1,5"))
    assert not machine.run.exists()


def test_all_stages_run_in_order_and_leave_an_archive(machine):
    options = ("--train", "configs/classical_sr/div2k_x4.toml", "--figure", "figure3a")
    text = finish(reproduce(machine, "--yes", *options))
    # the help is the check that the environment answers
    ran = [" ".join(call.split()[1:3]) for call in machine.calls("swinir ") if call != "swinir --help"]
    assert ran == [
        *("train --config", "zoo download", "data check"),
        *("reproduce all", "train --config", "reproduce figure3a"),
    ]
    assert machine.calls("swinir zoo download") == ["swinir zoo download released"]
    assert "--set accumulate=4" in machine.calls("swinir train")[1]
    with tarfile.open(machine.run / "swinir-results.tar.gz") as archive:
        names = archive.getnames()
    assert [name for name in names if name.endswith("table2.json")]
    assert {"runs/recipe/recipe.pth", "logs/reproduce.log"} <= set(names)
    assert not any("states" in name for name in names)
    assert "== tables" in (machine.run / "logs/reproduce.log").read_text()
    assert "all done" in text


def test_finished_stages_are_skipped(machine):
    finish(reproduce(machine, "--yes"))
    machine.forget()
    text = finish(reproduce(machine, "--yes"))
    assert "weights: already done" in text
    assert "tables: already done" in text
    assert machine.calls("swinir reproduce") == machine.calls("python -m pip") == machine.calls("swinir zoo") == []


def test_a_failed_stage_is_tried_again_and_those_before_it_are_not(machine):
    machine.fail("swinir-reproduce-all")
    done = reproduce(machine, "--yes")
    assert done.returncode == 1
    assert "run the same command to resume" in one_line(done)
    assert "stopped in tables" in done.stdout
    machine.mend("swinir-reproduce-all")
    machine.forget()
    finish(reproduce(machine, "--yes"))
    assert len(machine.calls("swinir reproduce all")) == 1
    assert machine.calls("swinir zoo") == []


def start_slowly(machine, *options):
    """Start the script and wait until the tables are being measured."""
    (machine.folder / "slow").touch()
    started = machine.start("reproduce_all.sh", "--yes", *options)
    while started.poll() is None and not (machine.folder / "slow.started").exists():
        time.sleep(0.02)
    return started


@pytest.mark.parametrize(("kind", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_it_lets_the_program_save_its_state_and_resumes(machine, kind, status):
    started = start_slowly(machine, "--shutdown")
    started.send_signal(kind)
    output, _ = started.communicate(timeout=30)
    assert started.returncode == status, output
    assert "stopped in tables" in output
    assert "swinir was told to stop" in machine.calls()
    assert machine.calls("shutdown") == []  # a user who stops it wants to use the machine
    (machine.folder / "slow").unlink()
    machine.forget()
    finish(reproduce(machine, "--yes"))
    assert machine.calls("swinir zoo") == []
    assert len(machine.calls("swinir reproduce all")) == 1


def test_a_second_process_is_refused(machine):
    first = start_slowly(machine)
    try:
        assert "is running" in one_line(reproduce(machine, "--yes"))
    finally:
        first.terminate()
        first.communicate(timeout=30)


def test_a_changed_project_is_measured_into_another_folder(machine, tmp_path):
    project = copy_of_the_project(tmp_path / "a project")
    finish(reproduce(machine, "--yes", project=project))
    with (project / "swinir/weights/zoo.py").open("a") as stream:
        stream.write("# changed\n")
    machine.forget()
    finish(reproduce(machine, "--yes", project=project))
    assert len(machine.calls("swinir reproduce all")) == 1
    assert machine.calls("swinir zoo") == machine.calls("python -m pip") == []
    assert len(list(machine.run.glob("results/reproduction-*/table2.json"))) == 2
    assert (machine.run / "results/reproduction").resolve().is_dir()


def test_added_sets_are_measured_into_the_same_folder(machine):
    finish(reproduce(machine, "--yes"))
    (machine.run / "testsets/Set5").mkdir()
    (machine.run / "testsets/Set5/baby.png").touch()
    machine.forget()
    finish(reproduce(machine, "--yes"))
    assert len(machine.calls("swinir reproduce all")) == 1
    assert len(list(machine.run.glob("results/reproduction-*"))) == 1


def test_missing_sets_stop_it_unless_partial_results_are_wanted(machine):
    machine.stub("swinir", MISSING_SET + SWINIR, folder=machine.folder / "stubs")
    done = reproduce(machine, "--yes")
    assert "--partial" in one_line(done)
    assert "Manga109: missing" in done.stdout
    assert machine.calls("swinir reproduce") == []
    machine.fail("swinir-reproduce-all", "missing: Manga109")  # it exits 1 when cells lack their images
    finish(reproduce(machine, "--yes", "--partial"))
    assert (machine.run / "swinir-results.tar.gz").exists()
    machine.mend("swinir-reproduce-all")
    machine.forget()
    finish(reproduce(machine, "--yes", "--partial"))
    assert machine.calls("swinir reproduce")


def test_partial_results_are_not_none_at_all(machine):
    machine.stub("swinir", '[[ "$1 $2" != "reproduce all" ]] || exit 2\n' + SWINIR, folder=machine.folder / "stubs")
    assert "the tables failed" in one_line(reproduce(machine, "--yes", "--partial"))


@pytest.mark.parametrize("options", [(), ("--partial",)], ids=str)
def test_wrong_sets_stop_it_in_any_case(machine, options):
    machine.fail("swinir-data-check", "Set5: baby.png is another image")
    done = reproduce(machine, "--yes", *options)
    assert "testsets" in one_line(done)
    assert "baby.png" in done.stdout


def test_the_scripts_sets_and_weights_are_the_projects():
    text = (ROOT / "scripts/reproduce_all.sh").read_text()
    named = re.search(r"local sets=\((.*)\)", text).group(1).split()
    assert named == [row.name for row in BENCHMARK_SETS.values() if row.reference and row.name != "CC15"]
    assert f"weights ({len(RELEASED)} released files)" in text


def test_weights_that_cannot_be_downloaded_name_the_mirror(machine):
    machine.fail("swinir-zoo-download", "no connection")
    done = reproduce(machine, "--yes")
    assert done.returncode == 1
    assert "SWINIR_ZOO_MIRROR" in one_line(done)


def test_the_mirror_of_the_weights_is_passed_on_and_needs_no_proxy(machine):
    turbo = machine.folder / "network turbo"
    turbo.write_text("export https_proxy=http://proxy:1\n")
    mirror = "https://example.org/weights"
    finish(reproduce(machine, "--yes", SWINIR_ZOO_MIRROR=mirror, SWINIR_NETWORK_TURBO=str(turbo)))
    assert f"proxy= mirror={mirror}" in machine.calls()


def test_the_providers_proxy_serves_the_weights_and_nothing_else(machine):
    turbo = machine.folder / "network turbo"
    turbo.write_text("false\nexport https_proxy=http://proxy:1 http_proxy=$undefined\n")
    noting = 'printf "proxy=%s\\n" "${https_proxy:-}" >>"$here/calls.log"\n'
    machine.stub("swinir", noting, folder=machine.folder / "stubs")
    finish(reproduce(machine, "--yes", SWINIR_NETWORK_TURBO=str(turbo)))
    calls = machine.calls()
    with_proxy = [calls[k - 1].split()[1:3] for k, line in enumerate(calls) if line == "proxy=http://proxy:1"]
    assert with_proxy == [["zoo", "download"]]


def test_a_training_without_its_images_is_refused_before_the_tables(machine):
    machine.fail("swinir-train---config", "no images in datasets/DIV2K/HR")
    done = reproduce(machine, "--yes", *DIV2K)
    assert "datasets" in one_line(done)
    assert "no images in datasets/DIV2K/HR" in done.stdout
    assert machine.calls("swinir reproduce") == []
    done = reproduce(machine, "--yes", "--train", "configs/nothing.toml")
    assert "configs/nothing.toml" in one_line(done)
    assert done.returncode == 2


def test_preparing_without_a_gpu_stops_before_the_tables(machine):
    (machine.bin / "nvidia-smi").unlink()
    assert "--prepare" in one_line(reproduce(machine, "--yes", "--no-gpu"))
    finish(reproduce(machine, "--yes", "--no-gpu", "--prepare"))
    assert machine.calls("swinir zoo download")
    assert machine.calls("swinir reproduce") == []


def test_the_disk_must_hold_everything_that_was_asked_for(machine):
    machine.free(25)
    assert "25 GiB free" in one_line(reproduce(machine, "--yes", *DIV2K))
    finish(reproduce(machine, "--yes"))


@pytest.mark.parametrize("broken", [None, "swinir-reproduce-all"])
def test_the_machine_is_powered_off_at_the_end_and_after_a_failure(machine, broken):
    if broken:
        machine.fail(broken)
    reproduce(machine, "--yes", "--shutdown")
    assert machine.calls("shutdown") == ["shutdown "]


# The guides

GUIDES = [ROOT / "docs/autodl.md", ROOT / "docs/autodl.zh-CN.md"]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.name)
def test_the_tables_of_a_guide_are_what_the_scripts_choose_and_calculate(guide):
    text = guide.read_text()
    recipes = re.findall(r"^\| `(configs/\S+)` \|[^|]*\| `(\S+)` \| `(\S+)` \| (\d+)\D+(\d+) \|$", text, re.M)
    assert len(recipes) == 8
    for recipe, large, small, *hours in recipes:
        assert ask_library(f"one_gpu_options '{ROOT}/{recipe}' 24576").stdout == f"--set {large}\n"
        assert ask_library(f"one_gpu_options '{ROOT}/{recipe}' 12288").stdout == f"--set {small}\n"
        assert ask_library(f"training_hours '{ROOT}/{recipe}'").stdout.split() == hours
    drivers = re.findall(r"^\| (\d+[\d.]*)\D.*\| (2\.[^|]+) \| ([\d.]+) \|$", text, re.M)
    assert len(drivers) == 5
    for driver, versions, cuda in drivers:
        found, torch = build(f"{driver} 2.31", SWINIR_TORCH_INDEX="x")
        first, last = re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", torch).groups()
        minors = re.findall(r"2\.(\d+)", versions)
        assert (minors[0], minors[-1]) == (first, str(int(last) - 1))
        assert found.split(".")[0] == cuda.split(".")[0]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.name)
def test_the_errors_of_a_guide_are_lines_that_the_scripts_print(guide):
    scripts = "".join(path.read_text() for path in SCRIPTS)
    table = guide.read_text().rpartition("\n## ")[2]
    quoted = [text for row in re.findall(r"^\| (`[^|]+) \|", table, re.M) for text in re.findall("`([^`]+)`", row)]
    pieces = [piece.strip() for text in quoted for piece in re.split(r"\.\.\.|\b[NM]\b", text) if piece.strip()]
    assert len(pieces) > 15
    foreign = {"Killed", "CUDA out of memory"}
    assert [piece for piece in pieces if piece not in scripts and piece not in foreign] == []


def test_both_guides_have_the_same_commands():
    first, second = (re.findall(r"^```bash\n(.*?)^```", guide.read_text(), re.M | re.S) for guide in GUIDES)
    assert first == second
    assert len(first) >= 8
