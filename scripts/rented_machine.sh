# shellcheck shell=bash
# Functions of autodl_setup.sh and reproduce_all.sh: builds of PyTorch by driver, disk space, estimates, finished stages,
# logs and signals. To be sourced.
# shellcheck disable=SC2034 # the scripts that source this use what it sets

# PyTorch by driver, best first: CUDA release, lowest driver, lowest glibc, versions of torch. The default package index
# and its mirrors have one CUDA build for each version of torch, so the version decides about CUDA.
# Drivers: NVIDIA, "CUDA Toolkit Release Notes", table "CUDA Toolkit and Corresponding Driver Versions" for 12.6 and 12.8,
#   and "Minor Version Compatibility", table 1, for the families: any CUDA 12 from 525.60.13, any CUDA 13 from 580.
# CUDA of each version: the metadata of its wheels (nvidia-cuda-runtime-cu12 12.4.127 in torch 2.6.0, 12.6.77 in 2.7.1,
#   12.8.90 in 2.8.0 to 2.10.0; cuda-toolkit 13.0.2 in 2.11.0, 13.2.2 in 2.15.0). glibc: the tags of the wheels'
#   names, manylinux_2_28 from 2.7 on; 2.6's build for 12.4 is the older manylinux.
TORCH_BUILDS=(
    "13.x 580       2.28 torch>=2.11,<2.16"
    "12.8 570.26    2.28 torch>=2.8,<2.11"
    "12.6 560.28.03 2.28 torch>=2.7,<2.8"
    "12.4 525.60.13 2.17 torch>=2.6,<2.7"
)
# CUDA 11.8 needs driver 450.80.02 (same table). Its builds of torch, the last one 2.7.1, are in a separate index, given by
# SWINIR_TORCH_INDEX.
TORCH_BUILD_OWN_INDEX="11.8 450.80.02 2.17 torch>=2.6,<2.8"

# Required free GiB. An environment with PyTorch for CUDA 13 takes 6.0 (measured), and as much for its packages during the
# installation; the 31 weights take about 2; the rest is reserve. A training needs the images of DIV2K, their decoded
# cache of 9 GB, and states.
ENVIRONMENT_GIB=12
TABLES_GIB=8
TRAINING_GIB=20

# Megapixels of low-quality input of SwinIR-M in each table. Ground truth: Set5 0.6, Set14 3.2, BSD100 15.4,
# Urban100 about 78, Manga109 about 105, DIV2K's validation images about 277, Set12 1.8, BSD68 and CBSD68 10.5,
# Kodak24 9.4, McMaster 4.5, classic5 1.3, LIVE1 10.4. Super-resolution at x2, x3 and x4 takes 1/4 + 1/9 + 1/16 of it, for
# two training sets in table 2 and div2k; the other tasks take all of it at each of 3 or 4 levels. Table 3 is SwinIR-S,
# with 0.66 of SwinIR-M's time (0.929 s and 1.408 s on an RTX 4090, a published benchmark).
TABLE_MEGAPIXELS=(
    "table2 172"
    "table3 57"
    "table4 47"
    "table5 271"
    "table6 307"
    "color_jpeg 41"
    "div2k 235"
)
# With --self-ensemble each cell is measured a second time, with eight passes for each image.
SELF_ENSEMBLE_PASSES=9
# Published: SwinIR-M takes 0.539 s for 256x256 on one RTX 2080 Ti. An RTX 3090 is faster.
SECONDS_PER_MEGAPIXEL=8.22

say() {
    printf '%s\n' "$*"
}

# fail MESSAGE [STATUS]: print one line with the error and a remedy, and exit; by default with 2, wrong usage or machine.
fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-2}"
}

# version_at_least HAVE NEED: compare version numbers; 525.105.17 is greater than 525.60.13.
version_at_least() {
    [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

# choose_build DRIVER GLIBC [KEPT]: print the row of TORCH_BUILDS for a machine; KEPT, a row's last field, has priority.
choose_build() {
    local driver=$1 glibc=$2 kept=${3:-} builds=("${TORCH_BUILDS[@]}") row first=
    [[ -z ${SWINIR_TORCH_INDEX:-} && $kept != "${TORCH_BUILD_OWN_INDEX##* }" ]] || builds+=("$TORCH_BUILD_OWN_INDEX")
    for row in "${builds[@]}"; do
        local cuda lowest lowest_glibc torch
        read -r cuda lowest lowest_glibc torch <<<"$row"
        if version_at_least "$driver" "$lowest" && version_at_least "$glibc" "$lowest_glibc"; then
            first=${first:-"$cuda $torch"}
            [[ $torch == "$kept" ]] && first="$cuda $torch" && break
        fi
    done
    [[ -n $first ]] && printf '%s\n' "$first"
}

# no_build DRIVER GLIBC: fail for a machine without a suitable row.
no_build() {
    if ! version_at_least "$2" 2.17; then
        fail "this image's glibc $2 is too old for PyTorch 2.6; choose an image with Ubuntu 20.04 or newer"
    elif version_at_least "$1" 450.80.02; then
        fail "driver $1 supports CUDA 11.8 at most, and the default package index has no PyTorch for it; set SWINIR_TORCH_INDEX to PyTorch's own index for cu118 (see PyTorch's page of previous versions), or rent a machine with driver 525.60.13 or newer"
    fi
    fail "driver $1 is too old: PyTorch 2.6 needs 450.80.02 for CUDA 11.8, 525.60.13 for CUDA 12; the driver belongs to the host, so rent another machine"
}

# machine_glibc: print the version of glibc, 2.31 on Ubuntu 20.04.
machine_glibc() {
    local text
    text=$(getconf GNU_LIBC_VERSION 2>/dev/null) || text=
    [[ $text =~ ([0-9]+\.[0-9]+) ]] || fail "no glibc found here (getconf GNU_LIBC_VERSION); choose an image with Ubuntu 20.04 or newer"
    printf '%s\n' "${BASH_REMATCH[1]}"
}

# read_gpu: set GPU_NAME, GPU_DRIVER and GPU_MIB of the first GPU.
read_gpu() {
    local without="start the machine with its GPU, or use --no-gpu to prepare everything in no-GPU mode"
    command -v nvidia-smi >/dev/null || fail "no nvidia-smi here, so no NVIDIA driver; $without"
    local line
    line=$(nvidia-smi --query-gpu=driver_version,memory.total,name --format=csv,noheader,nounits 2>&1) ||
        fail "nvidia-smi finds no GPU (${line//$'\n'/ }); $without"
    line=${line%%$'\n'*}
    IFS=, read -r GPU_DRIVER GPU_MIB GPU_NAME <<<"${line//, /,}"
    [[ $GPU_DRIVER =~ ^[0-9]+(\.[0-9]+)+$ && $GPU_MIB =~ ^[0-9]+$ ]] ||
        fail "nvidia-smi printed unreadable output ('$line'); $without"
}

# data_disk: print the folder for large files: SWINIR_DATA, AutoDL's data disk, or the home folder.
data_disk() {
    local folder=${SWINIR_DATA:-}
    if [[ -z $folder ]]; then
        folder=$HOME
        [[ -d $HOME/autodl-tmp ]] && folder=$HOME/autodl-tmp
    fi
    [[ $folder == /* ]] || folder=$PWD/$folder
    printf '%s\n' "${folder%/}"
}

# free_gib FOLDER: print the free GiB of the disk of a folder, which need not exist.
free_gib() {
    local folder=$1 kib
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    kib=$(df -k --output=avail "$folder" | tail -n 1) || fail "df cannot read the free space of $folder"
    printf '%s\n' $((kib / 1048576))
}

# require_disk FOLDER GIB WHAT
require_disk() {
    local free
    free=$(free_gib "$1")
    ((free >= $2)) ||
        fail "$1 has $free GiB free, $3 needs about $2; enlarge the data disk on the provider's page, or set SWINIR_DATA to another folder"
}

# table_hours [PASSES]: print the hours of all tables on an RTX 2080 Ti.
table_hours() {
    printf '%s\n' "${TABLE_MEGAPIXELS[@]}" | awk -v pace="$SECONDS_PER_MEGAPIXEL" -v passes="${1:-1}" \
        '{ sum += $2 } END { printf "%.1f\n", sum * passes * pace / 3600 }'
}

# training_hours CONFIG: print the lowest and highest hours of a recipe on one GPU, from the time on eight RTX 2080 Ti in the
# "Hardware" lines of its header; nothing without such lines. Users' reports for classical x2, whose header gives 8 x 1.75
# days = 336 hours: an RTX 4060 Ti did 100,000 of 500,000 iterations in 24 hours (120 hours, factor 0.36), four RTX 3090
# took 60 hours for half the batch (480 hours, factor 1.43).
training_hours() {
    local text number unit
    text=$(sed -n '/^# Hardware:/,/^# Data:/p' "$1" | sed '/^# Data:/d; s/^# *//' | tr '\n' ' ')
    if [[ $text =~ ([0-9.]+)\ (days|hours)\ on\ eight\ RTX ]]; then :; else
        [[ $text == *[Ee]ight\ * && ${text#*[Ee]ight } =~ ([0-9.]+)\ (days|hours) ]] || return 0
    fi
    number=${BASH_REMATCH[1]} unit=${BASH_REMATCH[2]}
    awk -v n="$number" -v u="$unit" 'BEGIN { h = 8 * n * (u == "days" ? 24 : 1); printf "%.0f %.0f\n", 0.36 * h, 1.43 * h }'
}

# one_gpu_options CONFIG MIB: print the overrides that fit a recipe into the memory of one GPU. The "One GPU" line of its
# header gives parts and activations for 24 GB; parts are doubled until 1.3 times the activations fit (weights, CUDA, cuDNN).
one_gpu_options() {
    local line
    line=$(grep -m 1 '^# One GPU:' "$1") || return 0
    [[ $line =~ --set\ accumulate=([0-9]+)\ keeps\ ([0-9]+)\ GB ]] || return 0
    local parts=${BASH_REMATCH[1]} tenths=$((10 * BASH_REMATCH[2]))
    while ((tenths * 13 * 1024 > $2 * 100)); do parts=$((2 * parts)) tenths=$((tenths / 2)); done
    printf -- '--set accumulate=%s\n' "$parts"
}

# cost LOW [HIGH]: print "low to high hours" and their cost at SWINIR_PRICE_PER_HOUR.
cost() {
    awk -v low="$1" -v high="${2:-$1}" -v price="${SWINIR_PRICE_PER_HOUR:-}" 'BEGIN {
        range = low == high ? "%s" : "%s to %s"
        printf range " hours", low, high
        if (price != "") {
            a = sprintf("%.2f", low * price); b = sprintf("%.2f", high * price)
            printf ", " range, a, b
            printf " at %s an hour", price
        }
        print "" }'
}

# fingerprint FOLDER PATH...: print a hash of the contents of files and folders, relative to FOLDER.
fingerprint() {
    local folder=$1
    shift
    (cd "$folder" && find "$@" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
}

# is_done STAGE FINGERPRINT, mark_done STAGE FINGERPRINT: read and write the stamps of finished stages in $RUN/stamps.
is_done() {
    [[ -f $RUN/stamps/$1 && $(<"$RUN/stamps/$1") == "$2" ]]
}

mark_done() {
    mkdir -p "$RUN/stamps"
    printf '%s\n' "$2" >"$RUN/stamps/.$1"
    mv "$RUN/stamps/.$1" "$RUN/stamps/$1"
}

# start_log FILE: copy all further output to a file.
start_log() {
    mkdir -p "$(dirname "$1")"
    exec 3>&1 4>&2
    exec > >(exec tee -ai "$1" >&3) 2>&1 # -i: tee must survive Ctrl-C, which reaches every process
    LOG_PID=$!
}

# end_log: wait until everything is written to the file.
end_log() {
    [[ -n ${LOG_PID:-} ]] || return 0
    exec 1>&3 2>&4
    wait "$LOG_PID" || true
    LOG_PID=
}

CHILD=
STOPPED=
# run COMMAND...: run a program, and forward signals of this script to it, so that it can save its state.
run() {
    "$@" &
    CHILD=$!
    local status=0
    wait "$CHILD" || status=$?
    while [[ -n $STOPPED ]] && kill -0 "$CHILD" 2>/dev/null; do wait "$CHILD" || true; done
    CHILD=
    [[ -z $STOPPED ]] || exit "$STOPPED"
    return "$status"
}

# stop_on_signals: exit with 130 or 143, as all commands of the project.
stop_on_signals() {
    trap 'stopped INT 130' INT
    trap 'stopped TERM 143' TERM
    trap 'stopped HUP 129' HUP
}

stopped() {
    STOPPED=$2
    if [[ -n $CHILD ]]; then
        kill -TERM "$CHILD" 2>/dev/null || true
        return 0
    fi
    exit "$2"
}
