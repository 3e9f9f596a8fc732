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
"$target/debug/crosslane-checks" steps "$least_step_mutants" "$copy" "$target" "$@"
