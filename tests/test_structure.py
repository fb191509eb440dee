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
# From the ground up: a package imports itself and those before it.
ORDER = (
    "version",
    "atomic",
    "strict_json",
    "locks",
    "environment",
    "models",
    "tasks",
    "image_io",
    "degradations",
    "weights",
    "metrics",
    "inference",
    "photos",
    "video",
    "cluster",
    "testsets",
    "evaluation",
    "bench",
    "train",
    "report",
    "reproduce",
    "service",
    "cli",
    "__main__",
)


def room(module):
    """Name of the package or root module that a module belongs to."""
    return module.split(".")[1]


def imports(module):
    """Our modules that a module imports, at its top or anywhere in it."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
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


def test_no_package_imports_a_later_one():
    wrong = [
        f"{module} imports {imported}"
        for module in INNER
        for imported in imports(module)
        if imported != "swinir" and ORDER.index(room(imported)) > ORDER.index(room(module))
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter({m: set(imports(m)) - {m} for m in INNER}).prepare()


def test_every_package_has_its_place_in_the_order():
    assert {room(module) for module in INNER} == set(ORDER)


def test_every_module_says_what_it_is_for():
    for module, path in MODULES.items():
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text, module
        assert text.splitlines()[0].endswith((".", ":")), module


def test_no_docstring_begins_with_a_question():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            name = getattr(node, "name", "its first line")
            assert not text or text.split()[0] not in ("What", "Whether", "Of", "How", "Why"), f"{module}: {name}"


def test_the_plain_network_shares_no_code_with_the_rest():
    tree = ast.parse(MODULES["swinir.models.reference"].read_text())
    imported = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("swinir" in line or "timm" in line or "einops" in line for line in imported)


def called(node):
    """The dotted name of a call, as written."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def test_only_the_command_line_prints_parses_and_exits():
    for module, path in MODULES.items():
        if module.startswith("swinir.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = called(node)
            assert name not in ("print", "input", "exit", "quit", "sys.exit", "os._exit", "SystemExit"), (module, name)
            assert not name.startswith(("sys.stdout.", "sys.stderr.")), (module, name)
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {"typer", "click", "argparse"} & {name.split(".")[0] for name in names}, module


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
