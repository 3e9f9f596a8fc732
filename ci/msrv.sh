#!/usr/bin/env bash
# rust-version is stated once, and the workspace builds with exactly that version.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ]
elsewhere=$(git grep -n '^rust-version = "' -- '*Cargo.toml' | grep -v '^Cargo.toml:' || true)
if [ -n "$elsewhere" ]; then
    echo "fault: rust-version stands elsewhere too: $elsewhere"
    exit 1
fi

case "$(rustc --version)" in
"rustc $version."*)
    cargo check --quiet --workspace --all-targets --all-features
    ;;
*)
    has rustup || skip "Rust $version" "not installed (no rustup)"
    rustup run "$version" rustc --version >/dev/null 2>&1 ||
        timeout 300 rustup toolchain install "$version" --profile minimal >/dev/null 2>&1 || true
    rustup run "$version" rustc --version >/dev/null 2>&1 || skip "Rust $version" "not installed"
    CARGO_TARGET_DIR=$target/msrv rustup run "$version" \
        cargo check --quiet --workspace --all-targets --all-features
    ;;
esac
echo "checked with Rust $version"
