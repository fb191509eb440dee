#!/usr/bin/env bash
# Measure everything that needs a GPU, then train SwinIR-S x2 for the rest of the time:
#
#   bash scripts/gpu_report.sh 590                 on a GPU, in 590 seconds; results go to $OUT or gpu_report/
#   bash scripts/gpu_report.sh 60 --device cpu --tiny    rehearse it without a GPU
#   bash scripts/gpu_report.sh --pack IMAGES SET5  before: collect wheels, training images and Set5 in gpu_carry/
#   bash scripts/gpu_report.sh --page FILES        after: write the tables and plots of results.jsonl into docs/
#
# A machine without network needs the folder gpu_carry/ beside the project; packages that it lacks are installed from there.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STARTED=${EPOCHREALTIME/[.,]/}
site=

# parse_arguments WORDS: set `program` and `arguments`.
parse_arguments() {
    program=report
    case "${1:-}" in
    --pack | --page) program=${1#--} && shift ;;
    --help | -h) sed -n '2,10s/^# \{0,1\}//p' "$ROOT/scripts/gpu_report.sh" && exit 0 ;;
    *[!0-9]* | "" | 0*)
        echo "error: the first argument must be the seconds, --pack or --page, got '${1:-}'; try --help" >&2
        exit 2 ;;
    esac
    arguments=("$@")
}

main() {
    parse_arguments "$@"
    local python=${PYTHON:-$ROOT/.venv/bin/python}
    [[ -x $(command -v "$python") ]] || python=python3
    if [[ $program == report ]]; then
        install_carried "$python"
        arguments+=(${OUT:+--out "$OUT"} --used "$((${EPOCHREALTIME/[.,]/} - STARTED))e-6")
    fi
    export PYTHONPATH="$ROOT${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
    exec "$python" "$ROOT/scripts/gpu_report/$program.py" "${arguments[@]}"
}

# install_carried PYTHON: install the wheels in gpu_carry/ into a temporary folder, `site`, if packages are missing.
install_carried() {
    compgen -G "$ROOT/gpu_carry/wheels/*.whl" >/dev/null || return 0
    "$1" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' \
        pydantic pyvips spandrel && return 0
    site=$(mktemp -d)
    "$1" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
        "$ROOT"/gpu_carry/wheels/*.whl || echo "warning: the carried packages cannot be installed" >&2
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
