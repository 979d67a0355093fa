#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| oboro_fuzz_cases::learn::recipe(data));
