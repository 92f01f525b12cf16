//! Plugins of other shapes than today's: longer tables, kinds to come, and defects.

use super::*;
use crate::testing::FakeHost;

/// An item with a field that this host does not know.
#[repr(C)]
struct LongerItem {
    item: PluginItem,
    added_later: [u64; 3],
}

const fn item(kind: u32, name: &'static str) -> LongerItem {
    let item = PluginItem {
        kind,
        reserved: 0,
        name: RawBytes::new(name.as_bytes()),
        description: RawBytes::new(b"to come"),
        table: std::ptr::null(),
        handle: std::ptr::null_mut(),
    };
    LongerItem { item, added_later: [u64::MAX; 3] }
}

/// Leaves a table with `items` as its entry would.
fn leave(plugin: *mut *const PluginTable, items: Vec<LongerItem>, change: impl FnOnce(&mut PluginTable)) -> u32 {
    let items = items.leak();
    let mut table = PluginTable {
        size: size_of::<PluginTable>() as u32 + 8,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        stamp: std::ptr::null(),
        items: items.as_ptr().cast(),
        items_count: items.len(),
        item_size: size_of::<LongerItem>(),
    };
    change(&mut table);
    // SAFETY: the host gave a place to write to.
    unsafe { *plugin = Box::leak(Box::new(table)) };
    status::DONE
}

fn enter(entry: EntryFn) -> Result<Guest, CallError> {
    let host = FakeHost::new().table(Linkage::LinkedIn);
    // SAFETY: the entries below keep to the type of an entry, and their tables are never freed.
    unsafe { Guest::enter(entry, host, &Config::default()) }
}

macro_rules! entry {
    ($plugin:ident => $body:expr) => {{
        unsafe extern "C" fn entry(
            _: *const HostTable,
            _: RawBytes,
            $plugin: *mut *const PluginTable,
            _: *const TextSink,
        ) -> u32 {
            $body
        }
        enter(entry)
    }};
}

#[test]
fn longer_tables_and_unknown_kinds_are_stepped_over() {
    let guest = entry!(plugin => leave(plugin, vec![item(77, "x-one"), item(78, "x-two")], |_| ())).unwrap();
    assert_eq!(guest.unknown_items, ["x-one", "x-two"]);
    assert!(guest.exchange_types.is_empty());
}

#[test]
fn defects_are_told_apart_from_refusals() {
    let broken = |result: Result<Guest, CallError>, expected: &str| {
        assert_eq!(result.unwrap_err(), CallError::Broken(expected.to_owned()));
    };
    broken(entry!(_plugin => status::DONE), "its entry returned no table");
    broken(entry!(_plugin => 99), "unknown status 99");
    broken(
        entry!(plugin => leave(plugin, vec![], |table| table.abi_major += 1)),
        "its table has another shape than its stamp says",
    );
    broken(
        entry!(plugin => leave(plugin, vec![], |table| table.size = 8)),
        "its table has another shape than its stamp says",
    );
    broken(entry!(plugin => leave(plugin, vec![], |table| table.item_size = 8)), "its items are too short");
    broken(
        entry!(plugin => leave(plugin, vec![item(ITEM_EXCHANGE_TYPE, "x-none")], |_| ())),
        "the table of an exchange type is too short",
    );
    assert_eq!(entry!(_plugin => status::REFUSED).unwrap_err(), CallError::Refused(String::new()));
}
