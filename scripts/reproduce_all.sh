#!/usr/bin/env bash
# Reproduces the paper's tables on a rented machine: environment, released weights, test sets, tables, trainings, archive.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/rented_machine.sh
source "$REPO/scripts/rented_machine.sh"

usage() {
    cat <<'TEXT'
Usage: bash scripts/reproduce_all.sh [--yes] [--dry-run] [options]

Runs all stages. Finished stages are skipped, so the same command resumes after an interruption.

  --yes             do not ask for confirmation
  --dry-run         print the stages with estimated hours and cost, and stop
  --prepare         stop after environment, weights and test sets; with --no-gpu for cheap hours without a GPU
  --partial         continue without missing test sets
  --self-ensemble   measure each cell with self-ensemble, too (the paper's "+")
  --train CONFIG    also train this recipe; can be given several times
  --set KEY=VALUE   override a value in every training, as `swinir train --set`
  --figure NAME     also train the networks of this figure, such as figure3a; can be given several times
  --shutdown        power the machine off at the end and after a failure, to stop the costs
  --no-gpu, --cpu   as in scripts/autodl_setup.sh
  --help            print this text

Settings, as environment variables, in addition to those of scripts/autodl_setup.sh:
  SWINIR_PRICE_PER_HOUR  price of the machine per hour, for the estimate
  SWINIR_ZOO_MIRROR      address of the released weights, in place of the release page
  SWINIR_NETWORK_TURBO   file that sets a proxy for the release page; default: AutoDL's /etc/network_turbo
TEXT
}

parse_arguments() {
    YES='' DRY_RUN='' PREPARE='' PARTIAL='' SHUTDOWN='' ENSEMBLE=() MODE=gpu TRAIN=() FIGURES=() SETS=()
    while (($#)); do
        case $1 in
        --yes) YES=1 ;;
        --dry-run) DRY_RUN=1 ;;
        --prepare) PREPARE=1 ;;
        --partial) PARTIAL=1 ;;
        --self-ensemble) ENSEMBLE=(--self-ensemble) ;;
        --shutdown) SHUTDOWN=1 ;;
        --no-gpu) MODE=no-gpu ;;
        --cpu) MODE=cpu ;;
        --train | --set | --figure)
            (($# >= 2)) || fail "$1 needs a value; see bash scripts/reproduce_all.sh --help"
            case $1 in
            --train) TRAIN+=("$2") ;;
            --set) SETS+=(--set "$2") ;;
            --figure) FIGURES+=("$2") ;;
            esac
            shift
            ;;
        --help | -h) usage && exit 0 ;;
        *) fail "unknown option $1; see bash scripts/reproduce_all.sh --help" ;;
        esac
        shift
    done
    local config
    for config in "${TRAIN[@]}"; do
        [[ -f $REPO/$config ]] || fail "no recipe $config; give a path relative to the project's folder, such as configs/classical_sr/div2k_x2.toml"
    done
    [[ -z ${SWINIR_PRICE_PER_HOUR:-} || $SWINIR_PRICE_PER_HOUR =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        fail "SWINIR_PRICE_PER_HOUR must be a number such as 1.50, got '$SWINIR_PRICE_PER_HOUR'"
    [[ $MODE != no-gpu || -n $PREPARE || -n $DRY_RUN ]] ||
        fail "nothing can be measured without a GPU; use --prepare with --no-gpu, and run it again with the GPU"
}

setup_options() {
    [[ $MODE == gpu ]] || printf -- '--%s\n' "$MODE"
}

print_plan() {
    local low high config passes=1
    say "stages: environment, weights (31 released files), test sets$([[ -n $PREPARE ]] || printf ', tables 2 to 6, color_jpeg and div2k')"
    say "folder: $RUN ($(free_gib "$RUN") GiB free; about $(needed_gib) GiB needed)"
    [[ -z $PREPARE ]] || return 0
    say "Estimates from published figures of others, not measured here:"
    ((${#ENSEMBLE[@]} == 0)) || passes=$SELF_ENSEMBLE_PASSES
    say "  tables: $(cost "$(table_hours "$passes")")"
    say "    (from SwinIR-M's 0.539 s for 256x256 on an RTX 2080 Ti; a 3090 is faster; metrics, files, and repeated"
    say "    measurements of cells that differ from the paper take additional time)"
    for config in "${TRAIN[@]}"; do
        read -r low high <<<"$(training_hours "$REPO/$config")" || true
        if [[ -n $low ]]; then
            say "  $config $(one_gpu_options "$REPO/$config" "$GPU_MIB"): $(cost "$low" "$high")"
            say "    (from users' reports on RTX 4060 Ti and RTX 3090, scaled by the recipe's size)"
        else
            say "  $config: no published figure"
        fi
    done
    for config in "${FIGURES[@]}"; do
        say "  $config: about an hour for each point; see configs/ablations/1h-gpu.toml"
    done
    [[ -n ${SWINIR_PRICE_PER_HOUR:-} ]] || say "  set SWINIR_PRICE_PER_HOUR to print the cost, too"
}

needed_gib() {
    local gib=$TABLES_GIB
    [[ -f $RUN/stamps/environment ]] || gib=$((gib + ENVIRONMENT_GIB))
    ((${#TRAIN[@]} + ${#FIGURES[@]} == 0)) || gib=$((gib + TRAINING_GIB))
    say "$gib"
}

ask() {
    [[ -z $YES ]] || return 0
    [[ -t 0 ]] || fail "no terminal to ask for confirmation; use --yes to start unattended, or --dry-run to see the plan"
    local answer
    read -r -p "start? [y/N] " answer
    [[ $answer == [yY]* ]] || fail "not started" 1
}

# stage NAME FINGERPRINT FUNCTION [ARGUMENT...]: run a function unless it has finished for the same fingerprint.
stage() {
    local name=$1 print=$2
    shift 2
    if is_done "$name" "$print"; then
        say "== $name: already done"
        return 0
    fi
    CURRENT=$name UNFINISHED=''
    say "== $name: $(date '+%F %T')"
    "$@"
    [[ -n $UNFINISHED ]] || mark_done "$name" "$print"
    CURRENT=
}

# through_proxy COMMAND...: run with the provider's proxy for the release page, unless another proxy or mirror is set.
through_proxy() {
    local turbo=${SWINIR_NETWORK_TURBO-/etc/network_turbo} status=0
    if [[ -z $turbo || ! -f $turbo || -n ${https_proxy:-}${HTTPS_PROXY:-}${SWINIR_ZOO_MIRROR:-} ]]; then
        run "$@"
        return
    fi
    say "using the provider's proxy ($turbo)"
    set +eu # the provider's file may fail
    # shellcheck disable=SC1090
    source "$turbo" >/dev/null
    set -eu
    run "$@" || status=$?
    unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY # package mirrors are faster without it
    return "$status"
}

get_weights() {
    through_proxy swinir zoo download released ||
        fail "weights are missing (see above); set SWINIR_ZOO_MIRROR to another address, or put the files into $RUN/model_zoo/swinir, and run the same command to resume" 1
}

# check_sets: check the sets of the tables, which must all be present; with --partial, those that are present.
check_sets() {
    local sets=(Set5 Set14 BSD100 Urban100 Manga109 DIV2K-val Set12 BSD68 CBSD68 Kodak24 McMaster classic5 LIVE1)
    [[ -z $PARTIAL ]] || sets=()
    run swinir data check "${sets[@]}" && return 0
    [[ -z $PARTIAL ]] || fail "test sets are wrong (see above); correct them, or move them out of $RUN/testsets" 1
    fail "test sets are missing or wrong (see above); \`swinir data prepare SET SOURCE\` prepares them in $RUN/testsets, --partial continues without missing ones" 1
}

# make_tables CODE: measure into a folder for this version of the project, so that two versions never mix.
make_tables() {
    local results=$RUN/results/reproduction-$1 status=0
    mkdir -p "$results"
    ln -sfn "reproduction-$1" "$RUN/results/reproduction"
    run swinir reproduce all --weights released "${ENSEMBLE[@]}" -o "$results" || status=$?
    ((status)) || return 0
    if [[ -n $PARTIAL && $status == 1 ]]; then # some cells lack images; 2 means that nothing was measured
        UNFINISHED=1
        say "continuing; the missing cells are listed above, and tried again next time"
        return 0
    fi
    fail "the tables failed in part (see above); finished cells are kept in $results, run the same command to resume" 1
}

train() {
    local options=()
    read -r -a options <<<"$(one_gpu_options "$1" "$GPU_MIB")"
    run swinir train --config "$1" "${options[@]}" "${SETS[@]}" ||
        fail "training $1 stopped (see above); its states are in $RUN/runs, run the same command to resume; if memory ran out: --set accumulate=8 or --set precision=bf16" 1
}

make_figure() {
    run swinir reproduce "$1" --scale 1h-gpu ||
        fail "$1 stopped (see above); finished runs are kept, run the same command to resume" 1
}

pack_results() {
    local files
    mapfile -t files < <(find results logs runs ! -type d ! -path 'runs/*/states/*' ! -name '.*' | LC_ALL=C sort)
    printf '%s\n' "${files[@]}" | tar -czf .swinir-results.tar.gz -T - ||
        fail "the archive could not be written; $(free_gib "$RUN") GiB are free in $RUN" 1
    mv .swinir-results.tar.gz swinir-results.tar.gz
    say "== results: $RUN/swinir-results.tar.gz ($(du -h swinir-results.tar.gz | cut -f 1))"
}

# only_one: refuse a second process that would write the same files.
only_one() {
    command -v flock >/dev/null || return 0
    exec 9>"$RUN/.lock"
    flock -n 9 || fail "another reproduce_all.sh is running in $RUN; wait for it, or stop it first"
}

leave() {
    local status=$?
    if ((status)) && [[ -n $CURRENT ]]; then
        say "== stopped in $CURRENT (status $status); run the same command to resume"
    fi
    if [[ -n $SHUTDOWN && -z $STOPPED && -n $STARTED ]]; then
        say "== powering the machine off"
        end_log
        shutdown || say "shutdown failed; stop the machine on the provider's page"
    fi
    end_log
    exit "$status"
}

main() {
    parse_arguments "$@"
    CURRENT='' STARTED=''
    local options code config
    RUN=$(data_disk)/swinir-run
    GPU_MIB=24000
    [[ $MODE != gpu ]] || read_gpu
    mapfile -t options < <(setup_options)
    if [[ -n $DRY_RUN ]]; then
        bash "$REPO/scripts/autodl_setup.sh" "${options[@]}" --dry-run
        print_plan
        return 0
    fi
    print_plan
    ask
    require_disk "$RUN" "$(needed_gib)" "all that was asked for"
    mkdir -p "$RUN"
    only_one
    STARTED=1
    trap leave EXIT
    stop_on_signals
    CURRENT=environment
    run bash "$REPO/scripts/autodl_setup.sh" "${options[@]}" || exit $?
    start_log "$RUN/logs/reproduce.log"
    cd "$RUN"
    export PATH="$RUN/env/bin:$PATH"

    code=$(fingerprint "$REPO" swinir pyproject.toml)
    for config in "${TRAIN[@]}"; do # report missing data of a training before the hours of the tables
        CURRENT="check of $config"
        run swinir train --config "$config" "${SETS[@]}" --dry-run >/dev/null ||
            fail "$config cannot be trained yet (see above); its header states the images for $RUN/datasets" 1
    done
    stage weights "$(fingerprint "$REPO" swinir/weights/released_weights.csv)" get_weights
    CURRENT="test sets"
    check_sets # every time: it is quick, and users add sets
    CURRENT=
    if [[ -z $PREPARE ]]; then
        stage tables "$code $(find -L testsets -type f | LC_ALL=C sort | sha256sum | cut -c 1-8)${ENSEMBLE[*]}" make_tables "$code"
        for config in "${TRAIN[@]}"; do
            stage "train-$(basename "$(dirname "$config")")-$(basename "$config" .toml)" "$(fingerprint "$REPO" "$config") ${SETS[*]}" train "$config"
        done
        for config in "${FIGURES[@]}"; do
            stage "$config" "1h-gpu" make_figure "$config"
        done
        pack_results
    fi
    say "== all done; download the results, then stop the machine on the provider's page, or use --shutdown next time"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
    exit # so that bash does not read on in a file that was updated meanwhile
fi
