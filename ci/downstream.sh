#!/usr/bin/env bash
# A crate whose only dependency is `crosslane` derives, shares and locks; one that embeds only `crosslane-core` needs no std.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# package NAME DEPENDENCY PATH
package() {
    mkdir -p "$work/$1/src"
    printf '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\n%s = { path = "%s" }\n\n[workspace]\n' \
        "$1" "$2" "$3" >"$work/$1/Cargo.toml"
    cp "$root/Cargo.lock" "$work/$1/Cargo.lock"
}

package through-facade crosslane "$root"
cat >"$work/through-facade/src/main.rs" <<'RUST'
use crosslane::{LockError, Mutex, Name, Options, Plain, Spsc};

#[derive(Debug, Clone, Copy, PartialEq, Plain)]
#[repr(C)]
struct Tick {
    price: f64,
    volume: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (name, options) = (Name::random(), Options::new());
    let ring = Spsc::<Tick>::create(&name, 4, &options)?;
    let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    let tick = Tick { price: 1.5, volume: 2 };
    tx.push(tick)?;
    assert_eq!(rx.pop()?, tick);
    assert!(matches!(rx.try_pop(), Err(crosslane::spsc::PopError::Empty)));
    let last = Mutex::create(&Name::random(), tick, &options)?;
    match last.update(|tick| tick.volume += 1) {
        Ok(()) => {}
        Err(LockError::OwnerDied(_)) => unreachable!("nobody died"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(last.read().map_err(|error| error.to_string())?.volume, 3);
    println!("a crate on crosslane alone runs");
    Ok(())
}
RUST

package embeds-core crosslane-core "$root/core"
cat >"$work/embeds-core/src/lib.rs" <<'RUST'
#![no_std]
#![forbid(unsafe_code)]
use crosslane_core::spsc::{PopError, Producer, PushError, Ring};
use crosslane_core::wait::Spin;

pub fn bytes(slots: u32) -> Option<usize> {
    Ring::<u32>::layout(slots).ok().map(|layout| layout.size())
}

pub fn full(producer: &mut Producer<'_, u32, Spin>) -> bool {
    producer.try_push(1) == Err(PushError::Full)
}

pub const NOTHING: PopError = PopError::Empty;
RUST

export CARGO_TARGET_DIR="$target/downstream"
cargo run --quiet --manifest-path "$work/through-facade/Cargo.toml"
cargo build --quiet --manifest-path "$work/embeds-core/Cargo.toml"
# The lock file of who embeds core names nothing else.
if [ "$(grep -c '^name = ' "$work/embeds-core/Cargo.lock")" -gt 2 ]; then
    echo "core brings dependencies along:"
    grep '^name = ' "$work/embeds-core/Cargo.lock"
    exit 1
fi
echo "a crate on crosslane-core alone builds without std"
