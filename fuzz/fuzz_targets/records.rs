//! Binary game records: what is read is a legal game, and is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringrift_rules::binary::{MAGIC, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let mut record = MAGIC.to_vec();
    record.extend_from_slice(bytes);
    for bytes in [bytes, &record] {
        if let Ok(game) = decode(bytes) {
            assert_eq!(encode(&game).as_deref(), Ok(bytes));
        }
    }
});
