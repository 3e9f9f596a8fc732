#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| crosslane_fuzz_bodies::call_ops::run(data, crosslane_fuzz::planted()));
