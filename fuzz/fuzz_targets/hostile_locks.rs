#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| crosslane_fuzz_bodies::hostile_locks::run(data, crosslane_fuzz::planted()));
