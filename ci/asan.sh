#!/usr/bin/env bash
# The address sanitizer over the test suites of core, sync and shm, with their processes, and over the replay of the fuzz
# corpora. It must also see a planted access out of bounds.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# These count the process's own mappings and pages, of which the sanitizer makes more.
not_here=(--skip ten_thousand_cycles_leave_nothing --skip a_thousand_locks_and_more_killed_holders --skip a_tebibyte_is_refused_before_a_page_is_touched)
# Tests that must have passed. Raise it when there are more.
least_tests=250

nightly
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A fork child that ends by _exit, or is killed, has freed nothing.
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:abort_on_error=0:exitcode=99
export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR="$target/asan"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

# The control: a slot behind the last one of a ring, read through the core's own copy.
mkdir -p "$work/planted/src"
printf '[package]\nname = "planted"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\ncrosslane-core = { path = "%s/core" }\n\n[workspace]\n' \
    "$PWD" >"$work/planted/Cargo.toml"
cp Cargo.lock "$work/planted/Cargo.lock"
cat >"$work/planted/src/main.rs" <<'RUST'
use crosslane_core::prim::{Word, copy_out};
fn main() {
    let words: Vec<Word> = (0..4).map(Word::new).collect();
    let behind = std::hint::black_box(4);
    let mut out = 0_u64;
    let src = std::ptr::NonNull::from(&words[0]);
    unsafe { copy_out((&raw mut out).cast(), src.add(behind), 8) };
    println!("{out}");
}
RUST

log=$work/log
status=0
timeout 900 cargo +nightly test --quiet --target "$host" -p crosslane-core -p crosslane-sync -p crosslane-shm \
    -p crosslane-fuzz-bodies --lib --tests -- "${not_here[@]}" >"$log" 2>&1 || status=$?
tests=$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
if [ "$status" != 0 ] || grep -q "AddressSanitizer" "$log"; then
    tail -n 80 "$log"
    echo "fault: the suites fail under the address sanitizer (status $status)"
    exit 1
fi
if [ "$tests" -lt "$least_tests" ]; then
    echo "fault: $tests tests ran, $least_tests are the least"
    exit 1
fi
echo "$tests tests quiet"

cargo +nightly build --quiet --target "$host" --manifest-path "$work/planted/Cargo.toml"
status=0
report=$("$CARGO_TARGET_DIR/$host/debug/planted" 2>&1) || status=$?
if [ "$status" != 99 ] || ! grep -q "heap-buffer-overflow" <<<"$report"; then
    echo "fault: the sanitizer did not see the planted access (status $status): $report"
    exit 1
fi
echo "reported: a word read behind the end of a ring"
