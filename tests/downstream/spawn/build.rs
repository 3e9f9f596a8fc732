//! Links a constructor behind all others.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=late.c");
    let object = PathBuf::from(std::env::var_os("OUT_DIR").unwrap()).join("late.o");
    let status = Command::new("cc").args(["-c", "-fPIC", "late.c", "-o"]).arg(&object).status().unwrap();
    assert!(status.success());
    println!("cargo:rustc-link-arg={}", object.display());
}
