#!/usr/bin/env bash
# The thread sanitizer over two threads on one mapping of each protocol of core. It must be quiet; and it must report each
# of six copies of core in which one Release, Acquire or AcqRel is weakened to Relaxed.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# Items of each case; about 60 s for everything.
items=${TSAN_ITEMS:-20000}
cases=(spsc batches loans record record_loans mpmc mpmc_claims mpmc_returns mpmc_bytes latest array mutex)

nightly
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TSAN_OPTIONS="halt_on_error=1 exitcode=66"

# build CORE NAME: core and the program, with every instruction instrumented.
build() {
    local flags=(--edition 2024 -O -C debuginfo=line-tables-only -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer
        --cfg crosslane_tsan --check-cfg "cfg(crosslane_loom, crosslane_tsan)" --cap-lints allow)
    rustc +nightly "${flags[@]}" --crate-type rlib --crate-name crosslane_core "$1/src/lib.rs" \
        --check-cfg 'cfg(feature, values("derive", "loom"))' -o "$work/libcrosslane_core.rlib"
    rustc +nightly "${flags[@]}" ci/tsan/main.rs --extern "crosslane_core=$work/libcrosslane_core.rlib" -o "$work/$2"
}

build core real
for case in "${cases[@]}"; do
    timeout 120 "$work/real" "$case" "$items"
done

# mutant NAME CASE FILE TEXT: TEXT, a Release, Acquire or AcqRel that must stand exactly once in FILE, made Relaxed.
mutant() {
    local name=$1 case=$2 file=$3 text=$4 found report status=0
    rm -rf "$work/core"
    cp -r core "$work/core"
    found=$(grep -cF "$text" "$work/core/src/$file" || true)
    [ "$found" = 1 ] || {
        echo "fault: \"$text\" stands $found times in core/src/$file"
        exit 1
    }
    TEXT=$text perl -0pi -e 's/\Q$ENV{TEXT}\E/$ENV{TEXT} =~ s{Release|AcqRel|Acquire}{Relaxed}r/e' "$work/core/src/$file"
    if grep -qF "$text" "$work/core/src/$file"; then
        echo "fault: \"$text\" was not weakened"
        exit 1
    fi
    build "$work/core" mutant
    report=$(timeout 120 "$work/mutant" "$case" "$items" 2>&1) || status=$?
    if [ "$status" != 66 ] || ! grep -q "ThreadSanitizer: data race" <<<"$report"; then
        echo "fault: the sanitizer did not report $name (status $status)"
        exit 1
    fi
    echo "reported: $name"
}

mutant "an spsc item published with Relaxed" spsc spsc.rs "self.seq(position).store(position + 1, Ordering::Release)"
mutant "a record committed with Relaxed" record record.rs "self.word(position).store(word, Ordering::Release)"
mutant "a mutex unlocked with Relaxed" mutex mutex.rs "self.0.swap(if poison { POISON } else { 0 }, Ordering::Release)"
mutant "an mpmc item claimed with Relaxed" mpmc mpmc/claim.rs \
    "let cas = self.word_of(slot).compare_exchange(word.0, claim.0, Ordering::Acquire, Ordering::Relaxed)"
mutant "a newest value published with Relaxed" latest latest.rs \
    "self.header().newest.0.store(newest.word(), Ordering::Release)"
mutant "an array's element updated with Relaxed" array array/update.rs "place.fetch_add(bits, Ordering::AcqRel)"
echo "${#cases[@]} cases quiet, 6 mutants reported"
