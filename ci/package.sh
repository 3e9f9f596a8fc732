#!/usr/bin/env bash
# What would be published: each crate packs whole, with its licences, and nothing speaks of a machine or of work undone.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

crates=(crosslane-derive crosslane-core crosslane-sync crosslane-shm crosslane)
for crate in "${crates[@]}"; do
    list=$(cargo package --quiet --allow-dirty --list -p "$crate")
    for file in Cargo.toml LICENSE-MIT LICENSE-APACHE src/lib.rs; do
        grep -qx "$file" <<<"$list" || {
            echo "fault: $crate would be published without $file"
            exit 1
        }
    done
    strays=$(grep -E '^(ci|\.ci|fuzz|benches/compare|target)/' <<<"$list" || true)
    if [ -n "$strays" ]; then
        echo "fault: $crate would be published with: $strays"
        exit 1
    fi
    echo "$crate: $(wc -l <<<"$list") files"
done

args=()
for crate in "${crates[@]}"; do
    args+=(-p "$crate")
done
CARGO_TARGET_DIR="$target/package" cargo package --quiet --allow-dirty --no-verify "${args[@]}"
echo "packed, each with the others' versions"

# Written so that this file does not match itself.
patterns='(^|[^[:alnum:]_./-])/(wor[k]|hom[e]|roo[t])(/|[^[:alnum:]_-]|$)|\bTOD[O]\b|\bFIXM[E]\b|\btodo[!]|unimplemented[!]'
if git grep -nIE "$patterns" -- . ':!LICENSE-*' ':!Cargo.lock'; then
    echo "fault: the lines above name a path of a machine, or work that is not done"
    exit 1
fi
echo "no path of a machine, nothing left to do"
