//! The rules of matching one by one, and a plain matcher as oracle.

use plugin_api::message::{Properties, PropertiesBuf};
use plugin_api::testing::Random;
use plugin_api::value::{Table, Value};

use super::*;

fn matches(index: &Index, headers: Option<&Table>) -> Vec<u32> {
    let raw = PropertiesBuf { headers: headers.cloned(), ..PropertiesBuf::default() }.encode();
    let mut found = Vec::new();
    Routes::append_to(&mut found, |routes| index.walk(Properties::from_raw(&raw).headers(), routes));
    found.sort_unstable();
    found.dedup();
    found
}

fn insert(index: &mut Index, slot: u32, arguments: &Table) {
    index.insert(BindingSlot(slot), &Matching::of(arguments).unwrap());
}

/// Arguments or headers from pairs of a name and a value.
fn table(entries: &[(&str, Value)]) -> Table {
    entries.iter().cloned().collect()
}

/// One binding alone against headers that fit and headers that do not.
fn check(arguments: &[(&str, Value)], fitting: &[&[(&str, Value)]], others: &[&[(&str, Value)]]) {
    let mut index = Index::default();
    insert(&mut index, 3, &table(arguments));
    for headers in fitting {
        assert_eq!(matches(&index, Some(&table(headers))), [3], "{arguments:?} fits {headers:?}");
    }
    for headers in others {
        assert!(matches(&index, Some(&table(headers))).is_empty(), "{arguments:?} does not fit {headers:?}");
    }
    index.remove(BindingSlot(3));
    assert!(index.headers.is_empty() && index.free.len() == index.conditions.len(), "{arguments:?} leaves nothing");
}

fn mode(text: &str) -> (&'static str, Value) {
    ("x-match", Value::from(text))
}

#[test]
fn all_wants_every_header() {
    let (a, b) = (("a", Value::I32(1)), ("b", Value::from("x")));
    let both: &[_] = &[b.clone(), ("c", Value::Void), a.clone()];
    check(&[mode("all"), a.clone(), b.clone()], &[both], &[std::slice::from_ref(&a), std::slice::from_ref(&b), &[]]);
    check(std::slice::from_ref(&a), &[both, std::slice::from_ref(&a)], &[&[("a", Value::I32(2))], &[b]]);
}

#[test]
fn any_wants_one_header() {
    let (a, b) = (("a", Value::I32(1)), ("b", Value::from("x")));
    let arguments = [mode("any"), a.clone(), b.clone()];
    check(&arguments, &[&[a.clone(), b.clone()], &[a], &[b]], &[&[], &[("a", Value::I32(2)), ("b", Value::Void)]]);
}

#[test]
fn without_conditions_all_matches_everything_and_any_nothing() {
    let some: &[_] = &[("a", Value::I32(1))];
    check(&[], &[&[], some], &[]);
    check(&[mode("all"), ("x-a", Value::I32(1))], &[&[], some], &[]);
    check(&[mode("any"), ("x-a", Value::I32(1))], &[], &[&[], some, &[("x-a", Value::I32(1))]]);
}

#[test]
fn headers_with_x_count_with_the_modes_that_say_so() {
    let x: &[_] = &[("x-a", Value::I32(1))];
    check(&[mode("all-with-x"), ("x-a", Value::I32(1))], &[x], &[&[]]);
    check(&[mode("any-with-x"), ("x-a", Value::I32(1)), ("b", Value::Void)], &[x, &[("b", Value::F32(0.5))]], &[&[]]);
}

#[test]
fn void_tests_presence_only() {
    check(&[("a", Value::Void)], &[&[("a", Value::I32(1))], &[("a", Value::Void)]], &[&[], &[("b", Value::Void)]]);
    check(&[("a", Value::I32(1))], &[], &[&[("a", Value::Void)]]);
}

#[test]
fn values_are_equal_across_widths_but_not_across_classes() {
    check(&[("a", Value::I64(1))], &[&[("a", Value::U8(1))]], &[&[("a", Value::F64(1.0))], &[("a", Value::from("1"))]]);
    check(&[("a", Value::from("x"))], &[&[("a", Value::Bytes(b"x".to_vec()))]], &[&[("a", Value::from("X"))]]);
    check(&[("a", Value::Timestamp(7))], &[&[("a", Value::Timestamp(7))]], &[&[("a", Value::I64(7))]]);
}

#[test]
fn message_without_headers_matches_only_without_conditions() {
    let mut index = Index::default();
    insert(&mut index, 0, &Table::new());
    insert(&mut index, 1, &Table::new().with("a", Value::Void));
    insert(&mut index, 2, &Table::new().with("x-match", "any"));
    assert_eq!(matches(&index, None), [0]);
}

#[test]
fn index_equals_the_definition_on_random_bindings() {
    let mut random = Random::new(7);
    let names = ["a", "b", "c", "x-d"];
    let values = [Value::Void, Value::I32(1), Value::I64(1), Value::I32(2), Value::from("1"), Value::Bool(true)];
    let some = |random: &mut Random| {
        let count = random.below(4);
        (0..count).map(|_| (*random.pick(&names), random.pick(&values).clone())).collect::<Table>()
    };
    for _ in 0..300 {
        let mut index = Index::default();
        let mut bindings = vec![None; 24];
        for _ in 0..60 {
            let slot = random.below(24);
            let place = &mut bindings[slot as usize];
            if place.take().is_some() {
                index.remove(BindingSlot(slot));
            } else {
                let mode = *random.pick(&["all", "any", "all-with-x", "any-with-x"]);
                let arguments = some(&mut random).with("x-match", mode);
                insert(&mut index, slot, &arguments);
                *place = Some(arguments);
            }
            let headers = some(&mut random);
            let fits =
                |slot: &u32| bindings[*slot as usize].as_ref().is_some_and(|arguments| fits(arguments, &headers));
            let expected: Vec<u32> = (0..24).filter(fits).collect();
            assert_eq!(matches(&index, Some(&headers)), expected, "{headers:?} among {bindings:?}");
        }
        (0..24).for_each(|slot| index.remove(BindingSlot(slot)));
        assert!(index.headers.is_empty() && index.free.len() == index.conditions.len());
    }
}

/// The definition, header by header.
fn fits(arguments: &Table, headers: &Table) -> bool {
    let mode = arguments.get("x-match").and_then(Value::as_str).unwrap_or("all");
    let is_compared = |name: &[u8]| name != b"x-match" && (mode.ends_with("-with-x") || !name.starts_with(b"x-"));
    let mut conditions = arguments.iter().filter(|(name, _)| is_compared(name));
    let holds = |(name, wanted): (&[u8], &Value)| {
        let value = headers.get(std::str::from_utf8(name).unwrap());
        match (wanted, value) {
            (Value::Void, value) => value.is_some(),
            (wanted, Some(value)) if wanted.as_i64().is_some() => wanted.as_i64() == value.as_i64(),
            (wanted, value) => Some(wanted) == value,
        }
    };
    if mode.starts_with("all") { conditions.all(holds) } else { conditions.any(holds) }
}
