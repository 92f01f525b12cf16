//! Round trips, hostile bytes, and the small operations of tables.

use super::*;

/// One value of each type with the bytes it has on the wire.
fn every_type() -> Vec<(Value, Vec<u8>)> {
    let nested = Table::new().with("k", Value::Void);
    vec![
        (Value::Bool(true), b"t\x01".to_vec()),
        (Value::I8(-2), b"b\xfe".to_vec()),
        (Value::U8(254), b"B\xfe".to_vec()),
        (Value::I16(-2), b"s\xff\xfe".to_vec()),
        (Value::U16(65534), b"u\xff\xfe".to_vec()),
        (Value::I32(-2), b"I\xff\xff\xff\xfe".to_vec()),
        (Value::U32(7), b"i\0\0\0\x07".to_vec()),
        (Value::I64(-2), b"l\xff\xff\xff\xff\xff\xff\xff\xfe".to_vec()),
        (Value::F32(1.5), b"f\x3f\xc0\0\0".to_vec()),
        (Value::F64(-0.0), b"d\x80\0\0\0\0\0\0\0".to_vec()),
        (Value::Decimal { scale: 2, value: 314 }, b"D\x02\0\0\x01\x3a".to_vec()),
        (Value::LongString(b"h\xffi".to_vec()), b"S\0\0\0\x03h\xffi".to_vec()),
        (Value::Bytes(vec![]), b"x\0\0\0\0".to_vec()),
        (Value::Array(vec![Value::Void, Value::Bool(false)]), b"A\0\0\0\x03Vt\0".to_vec()),
        (Value::Timestamp(u64::MAX), b"T\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        (Value::Table(Table::new()), b"F\0\0\0\0".to_vec()),
        (Value::Table(nested), b"F\0\0\0\x03\x01kV".to_vec()),
        (Value::Void, b"V".to_vec()),
    ]
}

fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(key.len()).unwrap()];
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes
}

fn encoded(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    table.encode(&mut out);
    out
}

/// A table that holds an array that holds a table …, `depth` levels in all.
fn nested(depth: usize) -> Vec<u8> {
    (1..depth).rev().fold(Vec::new(), |inner, level| {
        let level_is_table = level % 2 == 1;
        let mut value = vec![if level_is_table { b'A' } else { b'F' }];
        value.extend_from_slice(&u32::try_from(inner.len()).unwrap().to_be_bytes());
        value.extend_from_slice(&inner);
        if level_is_table { entry(b"k", &value) } else { value }
    })
}

#[test]
fn every_type_round_trips_with_its_letter() {
    for (value, bytes) in every_type() {
        let wire = entry(b"key", &bytes);
        let table = Table::decode(&wire).unwrap();
        assert_eq!(table.get("key"), Some(&value));
        assert_eq!(encoded(&table), wire, "{value:?}");
        let seen = TableRef::new(&wire).get("key").unwrap();
        assert_eq!(seen.to_owned().unwrap(), value);
    }
}

#[test]
fn second_letter_for_64_bits_is_written_as_the_first() {
    let table = Table::decode(b"\x01kL\0\0\0\0\0\0\0\x09").unwrap();
    assert_eq!(table.get("k"), Some(&Value::I64(9)));
    assert_eq!(encoded(&table), b"\x01kl\0\0\0\0\0\0\0\x09");
}

#[test]
fn any_octet_but_zero_is_true() {
    assert_eq!(Table::decode(b"\x01kt\x02").unwrap().get("k"), Some(&Value::Bool(true)));
}

#[test]
fn duplicates_and_keys_that_are_not_text_are_kept() {
    let wire = [entry(b"a", b"V"), entry(b"\xff\xfe", b"t\x01"), entry(b"a", b"t\x01"), entry(b"", b"V")].concat();
    let table = Table::decode(&wire).unwrap();
    assert_eq!(table.len(), 4);
    assert_eq!(encoded(&table), wire);
}

#[test]
fn every_cut_is_refused() {
    let wire: Vec<u8> = every_type().iter().flat_map(|(_, bytes)| entry(b"key", bytes)).collect();
    let ends: Vec<usize> = every_type()
        .iter()
        .scan(0, |end, (_, bytes)| {
            *end += bytes.len() + 4;
            Some(*end)
        })
        .collect();
    for length in 1..wire.len() {
        let cut = &wire[..length];
        let whole = ends.contains(&length);
        assert_eq!(Table::decode(cut).is_ok(), whole, "cut at {length}");
        assert_eq!(TableRef::new(cut).check(TABLE_DEPTH_MAX).is_ok(), whole, "cut at {length}");
    }
}

#[test]
fn length_beyond_the_end_is_refused() {
    for kind in [b'S', b'x', b'A', b'F'] {
        let wire = entry(b"k", &[kind, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(Table::decode(&wire), Err(TableError::Truncated));
    }
}

#[test]
fn unknown_letter_is_refused_also_when_nested() {
    assert_eq!(Table::decode(b"\x01kU\0\0"), Err(TableError::UnknownType(b'U')));
    assert_eq!(TableRef::new(b"\x01kA\0\0\0\x01q").check(64), Err(TableError::UnknownType(b'q')));
    assert_eq!(TableError::UnknownType(7).to_string(), r"unknown field type '\x07'");
}

#[test]
fn depth_is_limited() {
    for (depth, fits) in [(1, true), (2, true), (3, true), (63, true), (64, true), (65, false), (20_000, false)] {
        let wire = nested(depth);
        let expected = if fits { Ok(()) } else { Err(TableError::TooDeep) };
        assert_eq!(TableRef::new(&wire).check(usize::MAX), expected, "{depth} levels");
        assert_eq!(Table::decode(&wire).map(|_| ()), expected, "{depth} levels");
    }
    assert_eq!(TableRef::new(&nested(4)).check(3), Err(TableError::TooDeep));
    assert_eq!(TableRef::new(b"").check(0), Err(TableError::TooDeep));
}

#[test]
fn walk_ends_after_an_error() {
    let wire = [entry(b"a", b"V"), entry(b"b", b"?"), entry(b"c", b"V")].concat();
    let seen: Vec<bool> = TableRef::new(&wire).iter().map(|entry| entry.is_ok()).collect();
    assert_eq!(seen, [true, false]);
    assert_eq!(TableRef::new(&wire).get("c"), None);
}

#[test]
fn insert_replaces_in_place_and_removes_duplicates() {
    let mut table = Table::decode(b"\x01aV\x01bV\x01aV\x01cV").unwrap();
    table.insert("a", 1_i32);
    assert_eq!(table, Table::decode(b"\x01aI\0\0\0\x01\x01bV\x01cV").unwrap());
    table.insert("d", "x");
    assert_eq!(table.iter().last(), Some((&b"d"[..], &Value::from("x"))));
    assert_eq!(table.remove("b"), Some(Value::Void));
    assert_eq!(table.remove("b"), None);
    assert_eq!(table.len(), 3);
}

#[test]
fn long_key_is_cut_at_a_character_by_insert_and_refused_by_push() {
    let long = "é".repeat(200);
    let mut table = Table::new();
    table.insert(&long, true);
    assert_eq!(table.iter().next().unwrap().0.len(), 254);
    table.insert(&long, false);
    assert_eq!(table.len(), 1);
    assert_eq!(table.push(long.as_bytes(), true), Err(TableError::KeyTooLong));
    assert_eq!(Table::decode(&encoded(&table)).unwrap(), table);
}

#[test]
fn equivalence_ignores_order_but_not_types() {
    let check = |left: &[(&str, Value)], right: &[(&str, Value)], expected: bool| {
        let (left, right): (Table, Table) = (left.iter().cloned().collect(), right.iter().cloned().collect());
        assert_eq!(left.equivalent(&right), expected, "{left:?} and {right:?}");
    };
    let one = ("a", Value::I32(1));
    let two = ("b", Value::from("x"));
    check(&[one.clone(), two.clone()], &[two.clone(), one.clone()], true);
    check(std::slice::from_ref(&one), &[("a", Value::I64(1))], false);
    check(std::slice::from_ref(&two), &[("b", Value::Bytes(b"x".to_vec()))], false);
    check(&[one.clone(), two.clone()], std::slice::from_ref(&one), false);
    check(&[("n", Value::F64(f64::NAN))], &[("n", Value::F64(f64::NAN))], true);
    let inner = |entries: [(&str, Value); 2]| Value::Table(entries.into_iter().collect());
    check(&[("t", inner([one.clone(), two.clone()]))], &[("t", inner([two, one]))], true);
}

#[test]
fn numbers_of_all_types_are_floats_too() {
    for (value, expected) in [
        (Value::U8(7), Some(7.0)),
        (Value::I64(-7), Some(-7.0)),
        (Value::F32(0.5), Some(0.5)),
        (Value::Decimal { scale: 2, value: 250 }, Some(2.5)),
        (Value::from("7"), None),
        (Value::Timestamp(7), None),
    ] {
        assert_eq!(value.as_f64(), expected);
        let contents = encoded(&Table::new().with("k", value));
        assert_eq!(TableRef::new(&contents).get("k").unwrap().as_f64(), expected);
    }
}
