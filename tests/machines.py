"""Simulated rented machines: a home folder, and a PATH on which the important programs are stubs."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = (
    *("bash", "env", "cat", "sed", "awk", "sort", "head", "tail", "tr", "cut", "find", "xargs", "grep", "date"),
    *("dirname", "basename", "mkdir", "mv", "rm", "ln", "tee", "tar", "gzip", "du", "flock", "sleep", "touch"),
    "sha256sum",
)

# Every stub appends its call to calls.log, and fails if there is a file fail/NAME.
STUB = """#!/bin/bash
here={here}
name=${{0##*/}}
printf '%s\\n' "$name $*" >>"$here/calls.log"
[[ ! -e $here/fail/$name ]] || {{ cat "$here/fail/$name" >&2; exit 1; }}
"""
NVIDIA_SMI = 'cat "$here/nvidia-smi.txt"\n'
DF = '[[ $* == *avail* ]] && printf "Avail\\n%s\\n" "$(($(<"$here/free_gib") * 1048576))"\n'
GETCONF = 'printf "glibc %s\\n" "$(<"$here/glibc")"\n'
# Python: suitable if it is new enough; `-m venv` creates an environment of stubs.
OLD_PYTHON = 'case "$*" in *ensurepip*) exit 1 ;; --version) echo "Python 3.8.10" ;; esac\n'
PYTHON = """case "$1 $2" in
"--version ") echo "Python 3.11.9" ;;
"-m venv")
    folder=${*: -1}
    [[ $* != *--clear* ]] || rm -rf "$folder"
    mkdir -p "$folder/bin"
    cp_stub() { ln -s "$here/stubs/$1" "$folder/bin/$1"; }
    cp_stub python; cp_stub swinir ;;
esac
"""
CONDA = """while (($#)); do [[ $1 == --prefix ]] && prefix=$2; shift; done
mkdir -p "$prefix/bin"
ln -s "$here/stubs/python3.11" "$prefix/bin/python"
"""
# The environment's Python: pip logs its settings; the GPU works unless there is a file fail/cuda.
ENV_PYTHON = """case "$*" in
*'-m pip'*)
    printf '%s\\n' "index=${PIP_INDEX_URL:-} cache=${PIP_CACHE_DIR:-}" >>"$here/calls.log"
    [[ ! -e $here/fail/pip ]] || { cat "$here/fail/pip" >&2; exit 1; } ;;
*cuda*) [[ ! -e $here/fail/cuda ]] ;;
*load_model*) [[ ! -e $here/fail/load ]] ;;
esac
"""
SWINIR = """[[ ! -e $here/fail/swinir-$1-$2 ]] || { cat "$here/fail/swinir-$1-$2" >&2; exit 1; }
case "$1 $2" in
"zoo download") printf 'proxy=%s mirror=%s\\n' "${https_proxy:-}" "${SWINIR_ZOO_MIRROR:-}" >>"$here/calls.log" ;;
"reproduce all")
    mkdir -p "${*: -1}" && echo measured >"${*: -1}/table2.json"
    if [[ -e $here/slow ]]; then
        trap 'echo "swinir was told to stop" >>"$here/calls.log"; exit 143' TERM
        touch "$here/slow.started"
        while :; do sleep 0.05; done
    fi ;;
"train --config")
    [[ $* != *--dry-run* ]] || exit 0
    mkdir -p runs/recipe/states && touch runs/recipe/{recipe.pth,metrics.jsonl,states/large} ;;
esac
"""


class Machine:
    """One machine, with spaces in the names of its folders.

    Attributes:
        home: home folder, with AutoDL's data disk in it.
        run: folder of the scripts' output.
    """

    def __init__(self, folder: Path, *, python: bool = True) -> None:
        self.folder = folder / "a machine"
        self.home = self.folder / "home of a user"
        self.run = self.home / "autodl-tmp" / "swinir-run"
        self.bin = self.folder / "bin"
        for made in (self.home / "autodl-tmp", self.bin, self.folder / "fail", self.folder / "stubs"):
            made.mkdir(parents=True)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"these tests need {tool}"
            (self.bin / tool).symlink_to(found)
        self.gpu("550.90.07")
        self.free(100)
        self.glibc("2.31")
        self.stub("nvidia-smi", NVIDIA_SMI)
        self.stub("df", DF)
        self.stub("getconf", GETCONF)
        self.stub("shutdown", "")
        self.stub("python3", OLD_PYTHON)
        self.stub("python3.11", PYTHON, folder=self.folder / "stubs")
        self.stub("python", ENV_PYTHON, folder=self.folder / "stubs")
        self.stub("swinir", SWINIR, folder=self.folder / "stubs")
        if python:
            self.stub("python3.11", PYTHON)

    def stub(self, name: str, body: str, folder: Path | None = None) -> None:
        """Install a program of that name."""
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STUB.format(here=f"'{self.folder}'") + body)
        path.chmod(0o755)

    def gpu(self, driver: str, *, mib: int = 24576) -> None:
        (self.folder / "nvidia-smi.txt").write_text(f"{driver}, {mib}, NVIDIA GeForce RTX 3090\n")

    def free(self, gib: int) -> None:
        (self.folder / "free_gib").write_text(str(gib))

    def glibc(self, version: str) -> None:
        (self.folder / "glibc").write_text(version)

    def fail(self, name: str, message: str = "it broke") -> None:
        """Let the program of that name fail from now on."""
        (self.folder / "fail" / name).write_text(message + "\n")

    def mend(self, name: str) -> None:
        (self.folder / "fail" / name).unlink()

    def environment(self, **settings: str) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": str(self.bin), "SWINIR_NETWORK_TURBO": "", **settings}

    def script(self, *words: str, project: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the project to its end."""
        return subprocess.run(
            ["bash", str(project / "scripts" / words[0]), *words[1:]],
            env=self.environment(**settings),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a script without waiting for it."""
        return subprocess.Popen(
            ["bash", str(ROOT / "scripts" / words[0]), *words[1:]],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell cannot trap a signal that was ignored when it started, as SIGINT is in background jobs.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def calls(self, beginning: str = "") -> list[str]:
        """Logged calls that begin with a text."""
        log = self.folder / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def forget(self) -> None:
        (self.folder / "calls.log").write_text("")


def ask_library(text: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with the functions of scripts/rented_machine.sh."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'source "$1"; shift; {text}', "-", str(ROOT / "scripts/rented_machine.sh")],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
