#!/usr/bin/env bash
# Every ordering has a name, two sides, a row in its module's table and a model; and a copy without one of these fails.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

cargo build --quiet -p crosslane-checks
checks=$target/debug/crosslane-checks
"$checks" edges

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

# planted WHAT FILE SED: the checker must find what the sed script breaks in a copy.
planted() {
    rm -rf "${copy:?}/core"
    mkdir "$copy/core"
    cp -r core/src core/tests "$copy/core"
    sed -i "$3" "$copy/$2"
    if cmp -s "$2" "$copy/$2"; then
        echo "fault: \"$1\" changes nothing in $2"
        exit 1
    fi
    if (cd "$copy" && "$checks" edges) >"$copy/out" 2>&1; then
        echo "fault: the checker does not find: $1"
        exit 1
    fi
    grep -q '^fault: ' "$copy/out"
    echo "planted and found: $1"
}

planted "a site without a comment" core/src/end.rs 's,// ORDERING end.word: Release.*,,'
planted "a comment without an edge" core/src/end.rs 's,// ORDERING end.word: Release,// ORDERING: Release,'
planted "an edge that no table has" core/src/end.rs 's,// ORDERING end.word: ,// ORDERING end.wrod: ,'
planted "a side that is Relaxed" core/src/end.rs 's,Ordering::Release,Ordering::Relaxed,'
# shellcheck disable=SC2016  # the backticks are the table's
planted "a row without a model" core/src/end.rs '/^\/\/! | `end.word`/s,| `[^|]*` |$,| none |,'
# shellcheck disable=SC2016
planted "a model that does not exist" core/src/end.rs '/^\/\/! | `end.word`/s,| `[^|]*` |$,| `no_such_model` |,'
