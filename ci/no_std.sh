#!/usr/bin/env bash
# core builds where there is no std, no alloc and no operating system, with and without 64-bit atomics.
# With the targets of rustup where they can be had, else with Debian's rustc-web, which builds core from its sources.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

targets=(thumbv7em-none-eabihf aarch64-unknown-none riscv32imac-unknown-none-elf)
export CARGO_TARGET_DIR=$target/no_std
export RUSTFLAGS="-D warnings"

with_rustup() {
    has rustup || return 1
    timeout 60 rustup target add "${targets[@]}" >/dev/null 2>&1 || return 1
    for t in "${targets[@]}"; do
        # Inside of a condition nothing ends by itself.
        cargo build --quiet -p crosslane-core --target "$t" || exit 1
        cargo build --quiet -p crosslane-core --target "$t" --features zerocopy,bytemuck || exit 1
        echo "built for $t with $(rustc --version)"
    done
}

with_debian() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library" ]
}

build_with_debian() {
    for t in "${targets[@]}"; do
        PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
            cargo build --quiet -Zbuild-std=core -p crosslane-core --target "$t"
        echo "built for $t with $(/usr/bin/rustc --version)"
    done
}

if with_rustup; then
    exit 0
fi
with_debian || apt_install rustc-web cargo-web rust-web-src
with_debian || skip "targets ${targets[*]}" "neither with rustup nor with Debian's rustc-web"
build_with_debian
