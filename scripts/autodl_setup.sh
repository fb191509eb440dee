#!/usr/bin/env bash
# Creates a Python environment on a rented machine (AutoDL and others), whatever image it was started with.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/rented_machine.sh
source "$REPO/scripts/rented_machine.sh"

EXTRAS=baselines # RCAN, for the figures that compare with it

usage() {
    cat <<'TEXT'
Usage: bash scripts/autodl_setup.sh [--no-gpu] [--cpu] [--dry-run]

Creates a separate Python environment on the data disk, with a PyTorch that the machine's driver supports. Finished
steps are kept; run it again after a failure, or when the project has changed.

  --no-gpu    the machine was started without its GPU (AutoDL's no-GPU mode): a build for any driver from 525.60.13 on
  --cpu       the machine has no GPU
  --dry-run   print the steps and stop
  --help      print this text

Settings, as environment variables:
  SWINIR_DATA            folder for large files; default: $HOME/autodl-tmp if it exists, else $HOME
  SWINIR_PYTHON          a Python 3.11 to 3.13; default: one that is installed, else one that conda or uv installs
  SWINIR_TORCH           requirement for PyTorch, such as torch==2.7.1; default: chosen by the driver
  SWINIR_TORCH_INDEX     address of an index for PyTorch, such as PyTorch's own index for cu118
  PIP_INDEX_URL          mirror of the package index
  SWINIR_CONDA_CHANNEL   conda channel or mirror with Python; default: conda-forge
  UV_PYTHON_INSTALL_MIRROR   mirror of the Python builds that uv downloads
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

# choose_torch: set TORCH, a requirement, and TORCH_WHY.
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
        # Without a GPU the driver is unknown: keep the installed build, else take the one that most drivers support.
        driver=${GPU_DRIVER:-525.60.13}
        [[ $MODE == gpu || -z $kept || "${TORCH_BUILDS[*]} " != *" $kept "* ]] || driver=999
        build=$(choose_build "$driver" "$glibc" "$kept") || no_build "$driver" "$glibc"
        TORCH=${build#* } TORCH_WHY="with CUDA ${build%% *}, for ${GPU_DRIVER:+driver $GPU_DRIVER and }glibc $glibc"
    fi
}

python_fits() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# find_python: set PYTHON to a suitable one, or leave it empty.
find_python() {
    PYTHON=${SWINIR_PYTHON:-}
    if [[ -n $PYTHON ]]; then
        python_fits "$PYTHON" || fail "SWINIR_PYTHON=$PYTHON is no Python 3.11 to 3.13 with venv; set it to another, or unset it to have one installed"
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

# make_python: install a Python into $RUN/python, by conda, which old images have, else by uv. The Python 3.8 of old
# images supports neither the project nor its PyTorch.
make_python() {
    local conda uv=uv found
    rm -rf "$RUN/python"
    if conda=$(find_conda); then
        say "Python: by $conda, from ${SWINIR_CONDA_CHANNEL:-conda-forge}"
        # One explicit channel: the default channels require accepting terms first.
        if CONDA_PKGS_DIRS="$RUN/cache/conda" run "$conda" create --yes --quiet --prefix "$RUN/python" --override-channels \
            --channel "${SWINIR_CONDA_CHANNEL:-conda-forge}" python=3.11 && python_fits "$RUN/python/bin/python"; then
            PYTHON=$RUN/python/bin/python
            return 0
        fi
        say "conda could not install Python; trying uv"
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
    fail "no Python 3.11 to 3.13 here, and neither conda nor uv could fetch one (see above); set SWINIR_CONDA_CHANNEL or UV_PYTHON_INSTALL_MIRROR to a mirror, or SWINIR_PYTHON to a Python, and run this again" 1
}

# link_project: give the run folder the layout of the project's folder, so that all documented commands work in it.
link_project() {
    local name
    for name in main_test_swinir.py configs scripts; do
        ln -sfn "$REPO/$name" "$RUN/$name"
    done
    mkdir -p "$RUN/model_zoo/swinir" "$RUN/testsets" "$RUN/datasets" "$RUN/results" "$RUN/runs"
}

PIP_AGAIN="set PIP_INDEX_URL to a mirror if needed, and run the same command to resume"

# install_torch: a new environment with PyTorch. Several gigabytes, so this step has its own stamp.
install_torch() {
    local index=()
    [[ -z ${SWINIR_TORCH_INDEX:-} ]] || index=(--index-url "$SWINIR_TORCH_INDEX")
    [[ -n $PYTHON ]] || make_python
    say "Python: $("$PYTHON" --version 2>&1) ($PYTHON)"
    run "$PYTHON" -m venv --clear "$RUN/env" || fail "$PYTHON could not create an environment in $RUN/env; set SWINIR_PYTHON to another Python" 1
    # torchvision too: timm needs the version that matches this build.
    run "$RUN/env/bin/python" -m pip install --disable-pip-version-check "${index[@]}" "$TORCH" torchvision ||
        fail "pip could not install $TORCH (see above): no network, or an index without it; $PIP_AGAIN" 1
    mark_done torch "$TORCH"
}

install_project() {
    printf '%s\n' "$TORCH" >"$RUN/cache/constraints.txt"
    run "$RUN/env/bin/python" -m pip install --disable-pip-version-check --constraint "$RUN/cache/constraints.txt" \
        --editable "${REPO}[$EXTRAS]" || fail "pip could not install the project's packages (see above); $PIP_AGAIN" 1
}

# check_environment: load a network, which needs every package.
check_environment() {
    "$RUN/env/bin/python" -c 'import swinir; swinir.load_model("lightweight_sr_x1-4_tiny")' && return 0
    rm -f "$RUN/stamps/torch"
    fail "the environment $RUN/env can't load a network (see above); an index in SWINIR_TORCH_INDEX must have the torchvision that matches $TORCH; run the same command to reinstall" 1
}

check_card() {
    [[ $MODE == gpu ]] || return 0
    "$RUN/env/bin/python" -c 'import torch; torch.zeros(1, device="cuda").add_(1).item()' ||
        fail "PyTorch ($TORCH) does not reach $GPU_NAME with driver $GPU_DRIVER; restart the machine, or set SWINIR_TORCH to another build" 1
}

make_environment() {
    mkdir -p "$RUN/cache/tmp"
    # System disks of rented machines are small: put downloads and unpacked packages next to the environment.
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
    say "Python:  ${PYTHON:-"none of 3.11 to 3.13 here; conda or uv installs one"}"
    if [[ -n $DRY_RUN ]]; then
        say "dry run: the environment ${done_before:+exists, nothing }would be created"
        return 0
    fi
    if [[ -n $done_before ]]; then
        link_project
        check_card
        say "environment: already done"
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
    exit # so that bash does not read on in a file that was updated meanwhile
fi
