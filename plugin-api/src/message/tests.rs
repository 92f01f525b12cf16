//! Round trips of each property alone and of all, and hostile bytes.

use super::*;
use crate::value::{Table, TableError};

fn all() -> PropertiesBuf {
    PropertiesBuf {
        content_type: Some(b"text/plain".to_vec()),
        content_encoding: Some(b"gzip".to_vec()),
        headers: Some(Table::new().with("a", 1_i32).with("b", "x")),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some(b"c\xff".to_vec()),
        reply_to: Some(b"r".to_vec()),
        expiration: Some(b"1000".to_vec()),
        message_id: Some(b"m".to_vec()),
        timestamp: Some(u64::MAX),
        kind: Some(b"t".to_vec()),
        user_id: Some(b"guest".to_vec()),
        app_id: Some(b"".to_vec()),
        cluster_id: Some(b"k".to_vec()),
    }
}

/// The fourteen properties, each alone.
fn each_alone() -> Vec<PropertiesBuf> {
    let PropertiesBuf {
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        cluster_id,
    } = all();
    let none = PropertiesBuf::default;
    vec![
        PropertiesBuf { content_type, ..none() },
        PropertiesBuf { content_encoding, ..none() },
        PropertiesBuf { headers, ..none() },
        PropertiesBuf { delivery_mode, ..none() },
        PropertiesBuf { priority, ..none() },
        PropertiesBuf { correlation_id, ..none() },
        PropertiesBuf { reply_to, ..none() },
        PropertiesBuf { expiration, ..none() },
        PropertiesBuf { message_id, ..none() },
        PropertiesBuf { timestamp, ..none() },
        PropertiesBuf { kind, ..none() },
        PropertiesBuf { user_id, ..none() },
        PropertiesBuf { app_id, ..none() },
        PropertiesBuf { cluster_id, ..none() },
    ]
}

#[test]
fn all_properties_round_trip() {
    let raw = all().encode();
    let properties = Properties::from_raw(&raw);
    assert_eq!(properties.check(), Ok(()));
    assert_eq!(properties.to_owned().unwrap(), all());
    assert_eq!(properties.headers().unwrap().get("a").unwrap().as_i64(), Some(1));
    assert_eq!(properties.cluster_id(), Some(&b"k"[..]));
}

#[test]
fn each_property_has_its_own_flag() {
    for (index, properties) in each_alone().into_iter().enumerate() {
        let raw = properties.encode();
        assert_eq!(u16::from_be_bytes([raw[0], raw[1]]), 0x8000 >> index);
        assert_eq!(Properties::from_raw(&raw).to_owned().unwrap(), properties);
    }
}

#[test]
fn no_properties_are_two_zero_bytes() {
    assert_eq!(PropertiesBuf::default().encode(), Properties::EMPTY.raw());
    assert_eq!(Properties::EMPTY.to_owned().unwrap(), PropertiesBuf::default());
    assert_eq!(Properties::EMPTY.headers(), None);
}

#[test]
fn every_cut_is_refused_and_never_read_beyond() {
    let raw = all().encode();
    for length in 0..raw.len() {
        let cut = Properties::from_raw(&raw[..length]);
        assert!(cut.check().is_err(), "cut at {length}");
        assert_eq!(cut.cluster_id(), None);
    }
}

#[test]
fn what_is_left_over_is_refused() {
    let mut raw = all().encode();
    raw.extend_from_slice(b"??");
    assert_eq!(Properties::from_raw(&raw).check(), Err(PropertiesError::LeftOver(2)));
}

#[test]
fn flags_of_no_property_are_refused() {
    assert_eq!(Properties::from_raw(&[0, 1]).check(), Err(PropertiesError::UnknownFlags(1)));
    assert_eq!(Properties::from_raw(&[0, 2]).check(), Err(PropertiesError::UnknownFlags(2)));
}

#[test]
fn malformed_headers_are_named() {
    let raw = [0x20, 0, 0, 0, 0, 3, 1, b'k', b'?'];
    assert_eq!(Properties::from_raw(&raw).check(), Err(PropertiesError::Headers(TableError::UnknownType(b'?'))));
}

#[test]
fn long_short_string_is_cut() {
    let raw = PropertiesBuf { app_id: Some(vec![b'a'; 300]), priority: Some(1), ..PropertiesBuf::default() }.encode();
    let properties = Properties::from_raw(&raw);
    assert_eq!(properties.check(), Ok(()));
    assert_eq!(properties.app_id().map(<[u8]>::len), Some(255));
}
