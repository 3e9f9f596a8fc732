#!/usr/bin/env bash
# Step mutants: every step that ci/mutants/*.txt leaves out or swaps, in copies of the sources, must be caught by its test.
# `ci/mutants.sh latest array` tries only those of ci/mutants/latest.txt and array.txt.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# Mutants in ci/mutants. Raise it when a module brings more.
least_step_mutants=189

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/0"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - --ignore-failed-read -- | tar -xf - -C "$copy/0"
cargo build --quiet -p crosslane-checks
keep_stacks
# What core's other tests depend on; what the models do, ci/loom.sh has built.
(cd "$copy/0" && CARGO_TARGET_DIR=$target/plain cargo test --quiet --no-run -p crosslane-core --lib)
"$target/debug/crosslane-checks" steps "$least_step_mutants" "$copy" "$target" "$@"
