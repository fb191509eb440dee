"""Every command and every line of Python in the documentation parses, and links lead somewhere."""

import ast
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from swinir.cli.main import app
from swinir.cli.test import expand_bare_tile

ROOT = Path(__file__).parents[1]
DOCS = ("docs/ablations.md", "docs/autodl.md", "docs/autodl.zh-CN.md", "docs/joint.md", "docs/training.md")
NAMES = ("README.md", "CONTRIBUTING.md", *DOCS, "model_zoo/README.md", "testsets/README.md")
PAGES = [ROOT / name for name in NAMES]


def blocks(language):
    return [
        block
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    ]


def config_commands():
    lines = [line for file in ROOT.glob("configs/**/*.toml") for line in file.read_text().splitlines()]
    return [line.split("Command:")[1] for line in lines if line.startswith("# Command:")]


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()] + config_commands()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.strip()[:60])
def test_command_parses(command):
    words = shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):  # a setting for one command
        setting, words = words[0].partition("=")[0], words[1:]
        assert setting in (ROOT / words[1]).read_text()
    if words[0] in ("cd", "source", "cp", "tmux"):
        return
    if words[0] == "bash":
        accept(ROOT / words[1], words[2:])
        return
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets)
        return
    if words[0] == "pip":
        assert words[1] == "install"
        return
    if words[:2] == ["python", "main_test_swinir.py"]:
        words = ["swinir", "test", *words[2:]]
    if words[0] == "torchrun":
        words = ["swinir", *words[words.index("swinir") + 1 :]]
    if words[0] == "python" and words[1].startswith("scripts/"):
        specification = importlib.util.spec_from_file_location("script", ROOT / words[1])
        script = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(script)
        parse(script.app, words[2:])
        return
    assert words[0] == "swinir", f"what runs {words[0]}?"
    parse(app, expand_bare_tile(words[1:]))


def accept(script, words):
    """Let a script of bash read its arguments, without doing anything."""
    line = 'source "$1" && parse_arguments "${@:2}"'
    done = subprocess.run(["bash", "-c", line, "-", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def parse(app, words):
    """Walk down to the subcommand and let it parse its options, without running it."""
    command, name = typer.main.get_command(app), "the command"
    if words == ["--help"]:
        return
    context = None
    while hasattr(command, "commands"):
        assert words, f"{name} needs a subcommand"
        assert words[0] in command.commands, f"{name} has no subcommand {words[0]}"
        command, name, words = command.commands[words[0]], words[0], words[1:]
    context = command.make_context(name, list(words))
    assert not context.args


def test_the_parser_of_this_test_can_fail():
    for words in (["nonsense"], ["zoo"], ["test", "--no-such-option"], ["train"], ["zoo", "info"]):
        with pytest.raises(Exception):  # noqa: B017, PT011 - the parser's own errors are private to typer
            parse(app, words)


def test_the_check_of_scripts_can_fail():
    with pytest.raises(AssertionError, match="unknown option --nonsense"):
        accept(ROOT / "scripts/reproduce_all.sh", ["--nonsense"])


@pytest.mark.parametrize("code", blocks("python"))
def test_python_example_parses_and_names_what_exists(code):
    import swinir

    tree = ast.parse(code)
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "swinir"
    }
    assert names
    for name in names:
        assert callable(getattr(swinir, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
