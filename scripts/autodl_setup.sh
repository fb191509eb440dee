#!/usr/bin/env bash
# Makes the environment on a rented machine (AutoDL's RTX 3090 and others), from whatever image it was started with.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/rented_machine.sh
source "$REPO/scripts/rented_machine.sh"

EXTRAS=baselines # RCAN, for the figures that compare with it

usage() {
    cat <<'TEXT'
Usage: bash scripts/autodl_setup.sh [--no-gpu] [--cpu] [--dry-run]

Makes a Python environment of its own with a PyTorch that the machine's driver runs, on the data disk. What is finished
stays; run it again after a failure, or when the project has changed.

  --no-gpu    the machine was started without its card (AutoDL's no-GPU mode): a build for any driver from 525.60.13 on
  --cpu       a machine that has no GPU at all
  --dry-run   print what would be done
  --help      this text

Settings, as environment variables:
  SWINIR_DATA            folder for everything large; $HOME/autodl-tmp where there is one, else $HOME
  SWINIR_PYTHON          a Python 3.11 to 3.13; without it one is looked for, or made by conda or uv
  SWINIR_TORCH           requirement for PyTorch, in place of the choice by driver: torch==2.7.1
  SWINIR_TORCH_INDEX     address of an index that has it, such as PyTorch's own for cu118
  PIP_INDEX_URL          mirror of the package index
  SWINIR_CONDA_CHANNEL   conda channel or mirror that has Python; conda-forge without it
  UV_PYTHON_INSTALL_MIRROR   mirror of the builds of Python that uv fetches
TEXT
}

parse_arguments() {
    MODE=gpu DRY_RUN=''
    while (($#)); do
        case $1 in
        --no-gpu) MODE=no-gpu ;;
        --cpu) MODE=cpu ;;
        --dry-run) DRY_RUN=1 ;;
        --help | -h) usage && exit 0 ;;
        *) fail "unknown option $1; bash scripts/autodl_setup.sh --help lists them" ;;
        esac
        shift
    done
}

# choose_torch: sets TORCH, a requirement, and TORCH_WHY.
choose_torch() {
    local glibc build driver kept=''
    glibc=$(machine_glibc)
    [[ ! -f $RUN/stamps/torch ]] || kept=$(<"$RUN/stamps/torch")
    GPU_NAME="no GPU" GPU_MIB=0 GPU_DRIVER=''
    [[ $MODE != gpu ]] || read_gpu
    if [[ -n ${SWINIR_TORCH:-} ]]; then
        TORCH=$SWINIR_TORCH TORCH_WHY="by SWINIR_TORCH"
    elif [[ $MODE == cpu ]]; then
        TORCH="torch>=2.6" TORCH_WHY="on the CPU"
    else
        # Without a card nothing tells the driver: what is there stays, else the build that the most drivers run.
        driver=${GPU_DRIVER:-525.60.13}
        [[ $MODE == gpu || -z $kept || "${TORCH_BUILDS[*]} " != *" $kept "* ]] || driver=999
        build=$(choose_build "$driver" "$glibc" "$kept") || no_build "$driver" "$glibc"
        TORCH=${build#* } TORCH_WHY="with CUDA ${build%% *}, for ${GPU_DRIVER:+driver $GPU_DRIVER and }glibc $glibc"
    fi
}

python_fits() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# find_python: sets PYTHON to one that fits, or leaves it empty.
find_python() {
    PYTHON=${SWINIR_PYTHON:-}
    if [[ -n $PYTHON ]]; then
        python_fits "$PYTHON" || fail "SWINIR_PYTHON=$PYTHON is no Python 3.11 to 3.13 with venv; name another, or unset it to have one made"
        return 0
    fi
    local candidate
    for candidate in "$RUN/python/bin/python" "$RUN"/python-uv/*/bin/python3.11 python3.12 python3.11 python3.13 python3 "$HOME/miniconda3/bin/python"; do
        if command -v "$candidate" >/dev/null && python_fits "$candidate"; then
            PYTHON=$(command -v "$candidate")
            return 0
        fi
    done
}

find_conda() {
    local candidate
    for candidate in "${CONDA_EXE:-conda}" conda "$HOME/miniconda3/bin/conda" "$HOME/anaconda3/bin/conda" /opt/conda/bin/conda; do
        command -v "$candidate" && return 0
    done
    return 1
}

# make_python: a Python of our own into $RUN/python. The old images' Python 3.8 can run neither the project nor its
# PyTorch, but they carry conda; where that fails too, uv brings a standalone build.
make_python() {
    local conda uv=uv found
    rm -rf "$RUN/python"
    if conda=$(find_conda); then
        say "Python: by $conda, from ${SWINIR_CONDA_CHANNEL:-conda-forge}"
        # One named channel: the default ones ask for terms to be accepted first.
        if CONDA_PKGS_DIRS="$RUN/cache/conda" run "$conda" create --yes --quiet --prefix "$RUN/python" --override-channels \
            --channel "${SWINIR_CONDA_CHANNEL:-conda-forge}" python=3.11 && python_fits "$RUN/python/bin/python"; then
            PYTHON=$RUN/python/bin/python
            return 0
        fi
        say "conda did not bring one; trying uv"
        rm -rf "$RUN/python"
    fi
    if ! command -v uv >/dev/null; then
        uv=$RUN/cache/uv/bin/uv
        run python3 -m pip install --quiet --upgrade --target "$RUN/cache/uv" uv || uv=
    fi
    export UV_PYTHON_INSTALL_DIR="$RUN/python-uv" UV_PYTHON_PREFERENCE=only-managed
    if [[ -n $uv ]] && run "$uv" python install 3.11 && found=$("$uv" python find 3.11) && python_fits "$found"; then
        PYTHON=$found
        return 0
    fi
    fail "no Python 3.11 to 3.13 here, and neither conda nor uv could fetch one (see above); name a mirror by SWINIR_CONDA_CHANNEL or UV_PYTHON_INSTALL_MIRROR, or a Python by SWINIR_PYTHON, and run this again" 1
}

# link_project: the run's folder looks like the project's own, so that every printed command works in it.
link_project() {
    local name
    for name in main_test_swinir.py configs scripts; do
        ln -sfn "$REPO/$name" "$RUN/$name"
    done
    mkdir -p "$RUN/model_zoo/swinir" "$RUN/testsets" "$RUN/datasets" "$RUN/results" "$RUN/runs"
}

PIP_AGAIN="a mirror is named by PIP_INDEX_URL; the same command goes on from here"

# install_torch: an empty environment with PyTorch; gigabytes, so it has a stamp of its own.
install_torch() {
    local index=()
    [[ -z ${SWINIR_TORCH_INDEX:-} ]] || index=(--index-url "$SWINIR_TORCH_INDEX")
    [[ -n $PYTHON ]] || make_python
    say "Python: $("$PYTHON" --version 2>&1) ($PYTHON)"
    run "$PYTHON" -m venv --clear "$RUN/env" || fail "$PYTHON could not make an environment in $RUN/env; name another Python by SWINIR_PYTHON" 1
    # torchvision with it: timm needs the one that belongs to this build.
    run "$RUN/env/bin/python" -m pip install --disable-pip-version-check "${index[@]}" "$TORCH" torchvision ||
        fail "pip could not install $TORCH (see above): no network, or an index that does not have it; $PIP_AGAIN" 1
    mark_done torch "$TORCH"
}

install_project() {
    printf '%s\n' "$TORCH" >"$RUN/cache/constraints.txt"
    run "$RUN/env/bin/python" -m pip install --disable-pip-version-check --constraint "$RUN/cache/constraints.txt" \
        --editable "${REPO}[$EXTRAS]" || fail "pip could not install the project's packages (see above); $PIP_AGAIN" 1
}

# check_environment: whether a network can be loaded, which takes every package.
check_environment() {
    "$RUN/env/bin/python" -c 'import swinir; swinir.load_model("lightweight_sr_x2_tiny")' && return 0
    rm -f "$RUN/stamps/torch"
    fail "the environment $RUN/env can't load a network (see above); an index named by SWINIR_TORCH_INDEX must have the torchvision that belongs to $TORCH; the same command starts over" 1
}

check_card() {
    [[ $MODE == gpu ]] || return 0
    "$RUN/env/bin/python" -c 'import torch; torch.zeros(1, device="cuda").add_(1).item()' ||
        fail "PyTorch ($TORCH) does not reach $GPU_NAME with driver $GPU_DRIVER; restart the machine, or name another build by SWINIR_TORCH" 1
}

make_environment() {
    mkdir -p "$RUN/cache/tmp"
    # System disks of rented machines are small: downloads and unpacked packages go beside the environment.
    export PIP_CACHE_DIR="$RUN/cache/pip" TMPDIR="$RUN/cache/tmp"
    if ! is_done torch "$TORCH" || ! "$RUN/env/bin/python" --version; then install_torch; fi
    install_project
    check_environment
    check_card
    mark_done environment "$1"
    rm -rf "$RUN/cache/pip" "$RUN/cache/tmp" "$RUN/cache/conda" "$RUN/cache/uv"
}

main() {
    parse_arguments "$@"
    DATA=$(data_disk)
    RUN=$DATA/swinir-run
    choose_torch
    find_python
    local wanted done_before=''
    wanted="$(fingerprint "$REPO" pyproject.toml) $EXTRAS $TORCH $REPO"
    is_done environment "$wanted" && "$RUN/env/bin/swinir" --help >/dev/null 2>&1 && done_before=1

    say "machine: $GPU_NAME${GPU_DRIVER:+, driver $GPU_DRIVER, $GPU_MIB MiB}"
    say "folder:  $RUN ($(free_gib "$RUN") GiB free)"
    say "PyTorch: $TORCH, $TORCH_WHY"
    say "Python:  ${PYTHON:-"one of our own, by conda or uv, since there is no 3.11 to 3.13 here"}"
    if [[ -n $DRY_RUN ]]; then
        say "dry run: the environment ${done_before:+is there already, nothing }would be made"
        return 0
    fi
    if [[ -n $done_before ]]; then
        link_project
        check_card
        say "environment: done before"
    else
        require_disk "$RUN" "$ENVIRONMENT_GIB" "the environment"
        mkdir -p "$RUN"
        stop_on_signals
        start_log "$RUN/logs/setup.log"
        trap end_log EXIT
        link_project
        make_environment "$wanted"
        say "environment: done"
    fi
    say "to use it: cd '$RUN' && source env/bin/activate"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
    exit # before bash reads on in a file that an update may have changed meanwhile
fi
