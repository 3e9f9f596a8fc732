#!/usr/bin/env bash
# Every fuzz target for FUZZ_SECONDS (6) under the address sanitizer, from its committed corpus: nothing may be found, and
# enough inputs must have run. Then each target with its planted bug, which must be found from nothing.
#
# New inputs go to a directory that is removed at the end; FUZZ_KEEP=DIR keeps them (and crashes) there.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

seconds=${FUZZ_SECONDS:-6}
# Longest search for a planted bug: how long one takes is chance, and most take a second or two.
planted_seconds=300
# Target, and the fewest inputs for each second of CPU time (a tenth of what was measured): how busy the machine is says nothing
# about a target.
targets=(
    "spsc_ops 500"
    "record_ops 500"
    "mpmc_ops 500"
    "hostile_spsc 500"
    "hostile_mpmc 500"
    "hostile_record 500"
    "hostile_words 500"
    "scribble 20"
    "segment_open 50"
    "names 500"
    "hostile_slab 15"
    "hostile_frozen 100"
    "hostile_raw 60"
    "array_ops 500"
    "latest_ops 500"
    "lock_ops 200"
    "hostile_locks 80"
    "call_ops 200"
)

nightly
cargo_install cargo-fuzz 300
for file in fuzz/fuzz_targets/*.rs; do
    [[ " ${targets[*]}" == *" $(basename "$file" .rs) "* ]] || {
        echo "fault: $file is not in the list of this script"
        exit 1
    }
done

(cd fuzz && cargo +nightly fuzz build --target-dir "$target/fuzz" 2>&1 | tail -n 1)
binaries=$(dirname "$(find "$target/fuzz" -path '*/release/spsc_ops' -type f | head -n 1)")
work=${FUZZ_KEEP:-$(mktemp -d)}
[ -n "${FUZZ_KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
# The quarantine is most of what the sanitizer keeps in memory.
export ASAN_OPTIONS=quarantine_size_mb=16:detect_leaks=1
# Long inputs from the start: a hostile peer needs several stores, and some operations after them.
limits=(-timeout=10 -rss_limit_mb=512 -max_len=512 -len_control=0 -print_final_stats=1)

# fuzz NAME SECONDS DIRECTORY...: prints libFuzzer's report and the CPU time; its exit status. New inputs go to the first directory.
fuzz() {
    local name=$1 seconds=$2
    shift 2
    mkdir -p "$1"
    local TIMEFORMAT='CPU seconds: %U %S'
    {
        time timeout $((2 * seconds + 60)) "$binaries/$name" "${limits[@]}" -max_total_time="$seconds" \
            -artifact_prefix="$1-" "$@"
    } 2>&1
}

# fuzz_all PREFIX SECONDS [CORPUS]: every target with a directory of that prefix, from its corpus in CORPUS if there is one. A target
# is one thread: as many at once as there are CPUs. What each said, its exit status and its seconds are read afterwards.
fuzz_all() {
    local prefix=$1 seconds=$2 corpus=${3:-} row name
    for row in "${targets[@]}"; do
        read -r name _ <<<"$row"
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
            wait -n || true
        done
        {
            status=0
            began=$SECONDS
            fuzz "$name" "$seconds" "$work/$prefix$name" ${corpus:+"$corpus/$name"} >"$work/reports/$prefix$name" || status=$?
            echo "$status $((SECONDS - began))" >"$work/reports/$prefix$name.status"
        } &
    done
    wait
}

mkdir "$work/reports"
fuzz_all "" "$seconds" fuzz/corpus
CROSSLANE_PLANTED=1 fuzz_all planted- "$planted_seconds"

failed=0
total=0
for row in "${targets[@]}"; do
    read -r name floor <<<"$row"
    read -r status _ <"$work/reports/$name.status"
    report=$(cat "$work/reports/$name")
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$report")
    runs=${runs:-0}
    total=$((total + runs))
    rate=$(awk -v runs="$runs" '/^CPU seconds:/ { print int(runs / ($3 + $4 + 0.001)) }' <<<"$report")
    printf '%-15s %9d inputs %7d in a second of CPU time\n' "$name" "$runs" "$rate"
    if [ "$status" != 0 ]; then
        tail -n 60 <<<"$report"
        for crash in "$work/$name"-*; do
            [ ! -f "$crash" ] || echo "$crash: $(base64 -w 0 "$crash")"
        done
        failed=1
    elif [ "$rate" -lt "$floor" ]; then
        echo "fault: $name ran fewer than $floor inputs in a second of CPU time"
        failed=1
    fi
done

for row in "${targets[@]}"; do
    read -r name _ <<<"$row"
    read -r status took <"$work/reports/planted-$name.status"
    report=$(cat "$work/reports/planted-$name")
    if [ "$status" = 0 ] || ! grep -qE 'AddressSanitizer|deadly signal|panicked' <<<"$report"; then
        echo "fault: the planted bug of $name was not found in $planted_seconds s"
        failed=1
    else
        echo "found the planted bug of $name in $took s: $(grep -m 1 -E 'panicked|ERROR: AddressSanitizer' <<<"$report" | cut -c 1-110)"
    fi
done

# A crate outside the workspace fuzzes a message type of its own through a ring: nothing is found, then its planted bug is.
downstream() {
    local name=messages
    cp fuzz/Cargo.lock tests/downstream/messages/Cargo.lock
    (cd tests/downstream/messages/fuzz &&
        cargo +nightly fuzz build --target-dir "$target/fuzz" ${1:+--features planted} 2>&1 | tail -n 1)
    binaries=$(dirname "$(find "$target/fuzz" -path "*/release/$name" -type f | head -n 1)")
    fuzz "$name" "$2" "$work/downstream$1" tests/downstream/messages/fuzz/corpus/messages
}
if ! report=$(downstream "" 5); then
    tail -n 60 <<<"$report"
    failed=1
elif report=$(downstream planted "$planted_seconds") || ! grep -q panicked <<<"$report"; then
    echo "fault: the planted bug of tests/downstream/messages was not found in $planted_seconds s"
    failed=1
else
    echo "a crate of its own: found its planted bug: $(grep -m 1 panicked <<<"$report" | cut -c 1-110)"
fi
echo "$total inputs, ${#targets[@]} targets"
exit "$failed"
