"""Commands and Python in the documentation are valid, links and paths resolve, both READMEs agree, the site builds."""

import ast
import importlib.util
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from scripted import load_script
from skimage import data

import swinir
from swinir.cli.main import app, main
from swinir.cli.restore_options import expand_bare_ray
from swinir.cli.test import expand_bare_tile

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "model_zoo/README.md", ROOT / "testsets/README.md"]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(PAGES)}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(language, names=tuple(TEXTS)):
    """Code blocks of a language, in order."""
    return [code for name in names for kind, code in FENCE.findall(TEXTS[name]) if kind == language]


def commands(names=tuple(TEXTS)):
    return [line for block in blocks("bash", names) for line in block.splitlines() if line.strip()]


def config_commands():
    lines = [line for file in sorted(ROOT.glob("configs/**/*.toml")) for line in file.read_text().splitlines()]
    return [line.split("Command:")[1].strip() for line in lines if line.startswith("# Command:")]


COMMANDS = tuple(dict.fromkeys([*commands(), *config_commands()]))


script_of = cache(load_script)


def check(command):
    """Parse a line of shell as the program that it calls does, without running it."""
    words = shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):  # an environment variable, which the script must know
        variable, words = words[0].partition("=")[0], words[1:]
        assert variable in (ROOT / words[1]).read_text()
    match words:
        case ["cd" | "source" | "cp" | "tmux" | "ray", *_]:
            return
        case ["bash", script, *arguments]:
            accept(ROOT / script, arguments)
        case ["make", *targets]:
            assert set(targets) <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
        case ["pip", action, *_]:
            assert action in ("install", "download")
        case ["python" | "python3", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["python", "main_test_swinir.py", *arguments]:
            parse(app, expand_bare_tile(["test", *arguments]))
        case ["python", script, *arguments]:
            parse(script_of(script).app, arguments)
        case ["torchrun", *arguments]:
            parse(app, arguments[arguments.index("swinir") + 1 :])
        case ["swinir", *arguments]:
            parse(app, expand_bare_ray(expand_bare_tile(arguments)))
        case _:
            raise AssertionError(f"unknown program: {words[0]}")


def accept(script, words):
    """Let a bash script parse its arguments without doing anything."""
    line = 'source "$1" && parse_arguments "${@:2}"'
    done = subprocess.run(["bash", "-c", line, "-", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def parse(app, words):
    """Find the subcommand and let it parse its options without running it."""
    command, name = typer.main.get_command(app), "the command"
    if words == ["--help"]:
        return
    while hasattr(command, "commands"):
        assert words, f"{name} needs a subcommand"
        assert words[0] in command.commands, f"{name} has no subcommand {words[0]}"
        command, name, words = command.commands[words[0]], words[0], words[1:]
    assert not command.make_context(name, list(words)).args


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[:60])
def test_command_parses(command):
    check(command)


@pytest.mark.parametrize(
    "command",
    ["swinir nonsense", "swinir zoo", "swinir test --no-such-option", "swinir info", "make nonsense", "nonsense",
     "bash scripts/reproduce_all.sh --nonsense", "python scripts/fit_niqe.py --nonsense"],
)  # fmt: skip
def test_wrong_command_is_found(command):
    with pytest.raises(Exception):  # noqa: B017, PT011 - the parser's own errors are private to typer
        check(command)


def run(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, "block", "exec"), names)
    return names


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    (code,), (translated,) = (blocks("python", [name]) for name in READMES)
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(translated))
    assert run(code, tmp_path, monkeypatch)["restored"].shape == (1, 3, 240, 320)


# Released weights, test sets, training images and several GPUs are not here; the Makefile has tests of its own.
ELSEWHERE = re.compile(
    r"make|python3? |source|pip|torchrun|swinir (zoo download|reproduce)|.* (-n 001_|--set data.train=)"
)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_commands_of_the_readme_run_in_an_empty_folder_with_a_photograph(tmp_path, monkeypatch, capsys, long):
    monkeypatch.chdir(tmp_path)
    pixels = data.astronaut()[:48, 200:264]
    (tmp_path / "scans" / "below").mkdir(parents=True)
    for name in ("photo.jpg", "scans/below/a.png"):
        Image.fromarray(pixels).save(name, quality=90)
    done = []
    for command in commands(READMES[:1]):
        is_long = "train --config" in command  # half a minute
        if not ELSEWHERE.match(command) and is_long == long:
            assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
            done.append(command)
    assert len(done) == (1 if long else 8)
    if not long:
        sizes = {
            "photo.jpg": (64, 48),
            "photo_x2.jpg": (128, 96),
            "photo_x2.5.png": (160, 120),
            "below/a_x2.png": (128, 96),
        }
        assert {name: Image.open(tmp_path / "restored" / name).size for name in sizes} == sizes
        assert "4 of 4 images shown" in (said := capsys.readouterr().out) or "3 of 3 images shown" in said


def test_the_notebook_runs_and_keeps_no_output(tmp_path, monkeypatch, capsys):
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names = run("\n".join("".join(cell["source"]) for cell in cells), tmp_path, monkeypatch)
    assert names["restored"].shape == (1, 3, 128, 128)
    before, after = (swinir.psnr(image, np.asarray(names["original"])) for image in (names["noisy"], names["clean"]))
    assert after > before + 8
    assert re.search(r"^color_dn_noise\S+_tiny: noise 25 was found", capsys.readouterr().out, re.M)


def test_python_of_the_export_page_runs(tmp_path, monkeypatch):
    network = swinir.at_scale(swinir.load_model("lightweight_sr_x1-4_tiny", device="cpu"), 2)
    monkeypatch.setattr(swinir, "load_exported", {"x2.onnx": network}.get, raising=False)  # exporting takes a minute
    (code,) = blocks("python", ["docs/export.md"])
    assert run(code, tmp_path, monkeypatch)["restored"].shape == (1, 3, 240, 320)


def test_every_python_block_is_run():
    assert len(blocks("python")) == len(READMES) + 1


def test_readmes_are_short_and_name_the_same_commands_and_pages():
    assert all(len(TEXTS[name].splitlines()) <= 200 for name in READMES)
    assert commands([READMES[0]]) == commands([READMES[1]])
    first, second = (
        {target for target, _ in links(name) if not target.startswith("README") and "autodl" not in target}
        for name in READMES
    )
    assert first == second


def links(name):
    """Targets inside the repository and their anchors."""
    text = FENCE.sub("", TEXTS[name])
    return [pair for pair in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text) if "://" not in pair[0]]


def anchors(path):
    """Anchors of the headings of a page, as code hosts and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_paths_lead_somewhere(name):
    for target, anchor in links(name):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
    prose = FENCE.sub("", TEXTS[name])
    for path in re.findall(r"`((?:swinir|tests|scripts|configs|docs|model_zoo/bundled)/[^`\s]*)`", prose):
        pattern = re.sub(r"\b[A-Z]{2,}\b", "*", path)  # configs/TASK/...
        assert any(ROOT.glob(pattern)), path
    for dotted in re.findall(r"`(swinir(?:\.\w+)+)`", prose):
        pkgutil.resolve_name(dotted)


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for text in TEXTS.values() for extra in re.findall(r"\.\[(\w+)\]", text)}
    assert "onnx" in named <= set(extras)


def test_api_page_has_the_public_api():
    assert set(re.findall(r"^::: swinir\.(\w+)$", TEXTS["docs/api.md"], re.M)) == set(swinir.__all__)


def test_every_page_is_in_the_navigation():
    pages = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(pages) == sorted(TEXTS)


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    for name in ("docs", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "pages" / name)
    for name in (*TEXTS, "LICENSE", "model_zoo/bundled/index.toml"):
        (tmp_path / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "pages" / name)
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(tmp_path / "pages"), site_dir=str(tmp_path / "site"))
    assert config.strict
    build(config)
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\S*//|<link[^>]*stylesheet[^>]*href=\S*//", html)
        assert not loaded, page
