//! The committed list of what every structure of the ABI looks like: size, alignment, and where each field stands.
//!
//! A change that is not an addition at the end of a table breaks a line here and so does not compile. Lines of the past are not
//! changed; a field that is added gets one more entry, a larger size, and a new `ABI_MINOR`.

// The list is for machines of 64 bits; on others everything but the numbers of bytes is the same.
#![cfg(target_pointer_width = "64")]

use std::mem::offset_of;

use super::raw::{RawBytes, TextSink};
use super::{
    AnswerSink, AuthTypeTable, ExchangeTypeTable, HostTable, MessageView, PluginItem, PluginTable, RawAppend,
    RawDeliveries, RawHostWaker, RawMeta, RawRange, RawRecoveredQueue, RawRoutes, RawStored, RawTarget, RawWanted,
    Stamp, StorageTypeTable,
};

macro_rules! layouts {
    ($($name:ident: size $size:literal, align $align:literal, { $($field:ident $offset:literal),+ $(,)? })+) => {
        $(const _: () = {
            assert!(size_of::<$name>() == $size, concat!("the size of ", stringify!($name)));
            assert!(align_of::<$name>() == $align, concat!("the alignment of ", stringify!($name)));
            $(assert!(offset_of!($name, $field) == $offset, concat!(stringify!($name), "::", stringify!($field)));)+
        };)+
    };
}

layouts! {
    // Since 2.0.
    RawBytes: size 16, align 8, { start 0, length 8 }
    TextSink: size 16, align 8, { context 0, write 8 }
    Stamp: size 128, align 4, {
        magic 0, size 16, abi_major 20, abi_minor 22, flags 24, offers 28, crate_name 32, version 96,
    }
    // `data_folder` and `metric` since 2.3.
    HostTable: size 56, align 8, {
        size 0, abi_major 4, abi_minor 6, is_linked_in 8, reserved 12, context 16, log_is_enabled 24, log 32,
        data_folder 40, metric 48,
    }
    PluginTable: size 40, align 8, {
        size 0, abi_major 4, abi_minor 6, stamp 8, items 16, items_count 24, item_size 32,
    }
    PluginItem: size 56, align 8, { kind 0, reserved 4, name 8, description 24, table 40, handle 48 }
    MessageView: size 72, align 8, { size 0, exchange 8, routing_key 24, properties 40, body 56 }
    // `asked_per` and what follows since 2.1, `restore` since 2.2; `takes` since 2.5, where four bytes were left for alignment.
    ExchangeTypeTable: size 112, align 8, {
        size 0, depends_on 4, validate 8, validate_binding 16, open 24, bind 32, unbind 40, route 48,
        policy_changed 56, close 64, asked_per 72, takes 76, depends_on_for 80, inner 88, bound 96, restore 104,
    }
    // `wish` and `hold` since 2.1, `keep` since 2.2.
    RawRoutes: size 72, align 8, {
        slots 0, count 8, capacity 16, context 24, grow 32, overflowed 40, reserved 44, wish 48, hold 56, keep 64,
    }
    // Since 2.1.
    RawDeliveries: size 16, align 8, { context 0, push 8 }
    // Storages, since 2.1 as they are.
    StorageTypeTable: size 112, align 8, {
        size 0, reserved 4, open 8, promise 16, status 24, append 32, settle 40, delete_queue 48, read 56, mark 64,
        put_meta 72, recover 80, poll 88, drop_future 96, close 104,
    }
    RawAppend: size 88, align 8, {
        targets 0, targets_count 8, stamp 16, exchange 24, routing_key 40, properties 56, body 72,
    }
    RawTarget: size 16, align 8, { queue 0, seq 8 }
    RawRange: size 24, align 8, { queue 0, first 8, last 16 }
    RawWanted: size 40, align 8, { queue 0, first 8, last 16, count_max 24, bytes_max 32 }
    RawMeta: size 40, align 8, { key 0, value 16, has_value 32 }
    RawRecoveredQueue: size 40, align 8, { queue 0, marked 8, is_marked 16, ranges 24, ranges_count 32 }
    RawStored: size 80, align 8, { seq 0, stamp 8, exchange 16, routing_key 32, properties 48, body 64 }
    AnswerSink: size 48, align 8, { size 0, reserved 4, context 8, message 16, meta 24, queue 32, status 40 }
    RawHostWaker: size 32, align 8, { data 0, clone 8, wake 16, drop 24 }
    // Since 2.3.
    AuthTypeTable: size 48, align 8, { size 0, reserved 4, open 8, ask 16, poll 24, drop_future 32, close 40 }
}
