//! Field tables: checking, reading in place and reading into memory agree, and none of them runs away.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin_api::value::{TABLE_DEPTH_MAX, Table, TableRef};

fuzz_target!(|bytes: &[u8]| {
    let borrowed = TableRef::new(bytes);
    let checked = borrowed.check(TABLE_DEPTH_MAX);
    match Table::decode(bytes) {
        Ok(table) => {
            assert!(checked.is_ok(), "{checked:?}");
            let mut written = Vec::new();
            table.encode(&mut written);
            let again = Table::decode(&written).expect("what was written can be read");
            let mut twice = Vec::new();
            again.encode(&mut twice);
            assert_eq!(written, twice);
            for (key, _) in table.iter() {
                if let Ok(key) = std::str::from_utf8(key) {
                    assert!(borrowed.get(key).is_some(), "{key} is there");
                }
            }
        }
        Err(error) => assert_eq!(checked.err(), Some(error)),
    }
});
