#!/usr/bin/env bash
# Data and names flow down: which crate may depend on which, what core may name, who may write unsafe, lengths.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# may_use CRATE ALLOWED...: the crate's dependencies of this project, with any feature, are among ALLOWED.
may_use() {
    local crate=$1
    shift
    local found
    found=$(cargo tree --quiet -p "$crate" --edges normal,build --all-features --target all --depth 1 --prefix none |
        tail -n +2 | awk '{ print $1 }' | { grep '^crosslane' || true; } | sort -u)
    for dependency in $found; do
        case " $* " in
        *" $dependency "*) ;;
        *)
            echo "fault: $crate may not depend on $dependency"
            exit 1
            ;;
        esac
    done
    echo "$crate uses: ${found//$'\n'/ }"
}

may_use crosslane-core crosslane-derive
may_use crosslane-derive
may_use crosslane-sync crosslane-core
may_use crosslane-shm crosslane-core crosslane-sync
may_use crosslane crosslane-core crosslane-derive crosslane-sync crosslane-shm

others=$(cargo tree --quiet -p crosslane-core --edges normal,build --no-default-features --target all --prefix none | tail -n +2 |
    { grep -v '^loom ' || true; })
if [ -n "$others" ]; then
    echo "fault: core has dependencies:"
    echo "$others"
    exit 1
fi
echo "core: no dependency without features"

cargo build --quiet -p crosslane-checks
"$target/debug/crosslane-checks" floors
"$target/debug/crosslane-checks" lengths
