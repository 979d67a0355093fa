#!/usr/bin/env bash
# Measures an index of a set that was made in each mode: locally, in an enclave,
# and blindly. Prints the table of BENCHMARKS.md, one row a set and mode.
#
# usage: scripts/bench-modes.sh OUTDIR [FOLDER [OPTION...] [-- BUILD-OPTION...]]
#
# FOLDER has base.fvecs, query.fvecs and groundtruth.ivecs (bench-data.sh makes
# such folders). OUTDIR gets a file LABEL-MODE.json of each run; the table is of
# all that lie there, so that sets can be measured one call after the other.
# Without FOLDER it is printed and nothing is measured.
#
#   --modes LIST       local,enclave,blind when not given; a run whose file is
#                      there already is left out
#   --label NAME       what the set is called; the folder's name when not given
#   --metric, -M, -K, --set, --split, --rerank, --probes, --queries, --repeat,
#   --clients, --threads                as `oboro bench` has them (3 repetitions
#                                       when not given)
#   -- BUILD-OPTION    as `oboro build` has them, such as --opq or --sample N
#
# Each role is a process of its own on this machine; the index lies in TMPDIR
# until it has been measured. OBORO names the program; target/release/oboro,
# built first, when not given.
set -euo pipefail

usage() {
    sed -n '2,25s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -ge 1 ] && [[ $1 != -* ]] || usage
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift

if [ $# -ge 1 ]; then
    folder=$1
    shift
    [ -d "$folder" ] || usage
    label=$(basename "$(cd "$folder" && pwd)")
    modes=local,enclave,blind
    options=(--repeat 3)
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        [ $# -ge 2 ] || usage
        case $1 in
            --modes) modes=$2 ;;
            --label) label=$2 ;;
            *) options+=("$1" "$2") ;;
        esac
        shift 2
    done
    if [ -z "${OBORO:-}" ]; then
        (cd "$here/.." && cargo build --release --quiet -p oboro)
        OBORO=$here/../target/release/oboro
    fi
    for mode in ${modes//,/ }; do
        file=$out/$label-$mode.json
        if [ -e "$file" ]; then
            echo "$file is there already" >&2
            continue
        fi
        echo "measuring $label, $mode" >&2
        # A run that is stopped leaves no file that looks like a result.
        "$OBORO" bench --data "$folder" --mode "$mode" --out "$file.partial" --force \
            "${options[@]}" "$@" >&2
        mv "$file.partial" "$file"
    done
fi

python3 - "$out" <<'PYTHON'
import json
import pathlib
import sys

MODES = ["local", "enclave", "blind"]


def recall(value):
    return "-" if value is None else f"{value:.4f}".lstrip("0")


def row(label, run):
    made = run["generation"]
    options = " ".join(made["options"])
    processors = " + ".join(f"{role['processor_seconds']:,.1f}" for role in made["roles"])
    memory = " + ".join(f"{role['peak_bytes'] / 1e6:,.0f}" for role in made["roles"])
    return [
        label,
        f"{run['vectors']:,} x {run['dimension']}",
        f"{run['metric']}, {run['subquantizers']} x {run['centroids']}" + (f", {options}" if options else ""),
        made["mode"],
        f"{run['build_seconds']:,.1f}",
        processors,
        memory,
        f"{run['sequential_qps']:,.0f}",
        f"{run['concurrent_qps']:,.0f}",
        str(run["rerank"]),
        recall(run["recall_10_at_10"]),
        recall(run["recall_1_at_10"]),
        f"{run['index_bytes'] / 1e6:,.1f}",
        f"{run['codes_bytes'] / 1e6:,.1f}",
    ]


runs = []
for path in pathlib.Path(sys.argv[1]).glob("*.json"):
    run = json.loads(path.read_text())
    mode = run.get("generation", {}).get("mode")
    if mode in MODES and path.stem.endswith(f"-{mode}"):
        label = path.stem.removesuffix(f"-{mode}")
        runs.append((run["dimension"], label, MODES.index(mode), run))
runs.sort(key=lambda run: run[:3])

clients = {run[3]["clients"] for run in runs} or {"many"}
head = [
    "set", "vectors", "metric, M x K", "mode", "generation, s", "processors, s", "peak memory, MB",
    "q/s, 1 client", f"q/s, {' or '.join(str(n) for n in sorted(clients))} clients", "re-ranked",
    "10-recall@10", "1-recall@10", "on disk, MB", "codes, MB",
]
print("| " + " | ".join(head) + " |")
print("|" + "---|" * len(head))
for dimension, label, mode, run in runs:
    print("| " + " | ".join(row(label, run)) + " |")
print()
print("Processors and memory of the generation: owner; owner + generator; owner + searcher + keeper.")
for machine in sorted({(run[3]["date"][:10], run[3]["version"], run[3]["executable"][:12], run[3]["processor"], run[3]["cores"]) for run in runs}):
    print("{}, oboro {}, {}, {} ({} cores)".format(*machine))
PYTHON
