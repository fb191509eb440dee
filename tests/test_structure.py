"""The rules of the house: who may import whom, who may print, what stays unloaded."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swinir"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# From the ground up. A module imports from its own layer or below, and only from below in the first.
LAYERS = (
    (
        "swinir.models.windows",
        "swinir.image_io.color",
        "swinir.atomic",
        "swinir.models.graphs",
        "swinir.image_io.containers",
        "swinir.image_io.picture",
        "swinir.degradations.estimate",
        "swinir.image_io.spans",
    ),
    (
        "swinir.inference.tiling",
        "swinir.models.swinir",
        "swinir.models.optimized",
        "swinir.models.reference",
        "swinir.models.rcan",
        "swinir.models.multitask",
        "swinir.image_io.exif",
        "swinir.image_io.png",
        "swinir.image_io.tiff",
        "swinir.image_io.reader",
        "swinir.image_io.writer",
        "swinir.image_io.image",
    ),
    (
        "swinir.tasks",
        "swinir.metrics.full_reference",
        "swinir.metrics.niqe",
        "swinir.degrade",
        "swinir.inference.restore",
        "swinir.inference.memory",
        "swinir.models.complexity",
    ),
    (
        "swinir.weights.zoo",
        "swinir.weights.download",
        "swinir.weights.verify",
        "swinir.weights.checkpoint",
        "swinir.weights.infer_config",
        "swinir.weights.safe_load",
        "swinir.evaluation.evaluate",
        "swinir.testsets",
        "swinir.photos.select_models",
        "swinir.bench",
        "swinir.inference.external",
        "swinir.metrics.perceptual",
        "swinir.bench.compare_networks",
        "swinir.inference.runtimes",
        "swinir.inference.export",
    ),
    (
        "swinir.train",
        "swinir.report",
        "swinir.photos.restore_photo",
        "swinir.photos.large",
        "swinir.photos.jobs",
        "swinir.photos.manifest",
        "swinir.photos.batch",
    ),
    ("swinir.reproduce",),
    ("swinir.cli", "swinir.__main__"),
)


def layer(module):
    """Number of a module's layer, that of its nearest listed package."""
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    raise AssertionError(f"{module} stands in no layer; give it a place in {Path(__file__).name}")


def imports(module, *, top_level_only=False):
    """Our modules that a module imports, anywhere in it or only when it is imported itself."""
    tree = ast.parse(MODULES[module].read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if whole in MODULES:
                    yield whole
                elif node.module in MODULES and node.module != "swinir":
                    yield node.module


INNER = [module for module in MODULES if module != "swinir"]


@pytest.mark.parametrize("module", INNER)
def test_imports_point_downwards(module):
    for imported in imports(module):
        if imported != "swinir":
            assert layer(imported) < layer(module) or layer(imported) == layer(module) > 0, (
                f"{module} imports {imported}"
            )


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter({m: set(imports(m, top_level_only=True)) - {m} for m in INNER}).prepare()


def test_every_layers_module_exists():
    assert [name for names in LAYERS for name in names if name not in MODULES] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    text = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert text
    assert text.splitlines()[0].endswith((".", ":"))


def test_the_plain_network_shares_no_code_with_the_rest():
    tree = ast.parse(MODULES["swinir.models.reference"].read_text())
    imported = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("swinir" in line or "timm" in line or "einops" in line for line in imported)


def called(node):
    """The dotted name of a call, as written."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("swinir.cli")])
def test_only_the_command_line_prints_parses_and_exits(module):
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        name = called(node)
        assert name not in ("print", "input", "exit", "quit", "sys.exit", "os._exit", "SystemExit"), name
        assert not name.startswith(("sys.stdout.", "sys.stderr.")), name
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            assert not {"typer", "click", "argparse"} & {name.split(".")[0] for name in names}


def test_the_library_and_the_command_answer_before_torch_is_loaded():
    code = "import sys, swinir, swinir.cli.main; print(sorted({'torch', 'cv2', 'timm', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    import swinir

    for name in swinir.__all__:
        assert getattr(swinir, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = swinir.nonsense


def tracked_files():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_no_file_names_a_folder_of_the_machine_it_was_made_on(folder):
    needle = f"/{folder}/".encode()
    assert [str(path.relative_to(ROOT)) for path in tracked_files() if needle in path.read_bytes()] == []
