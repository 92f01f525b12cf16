//! RabbitMQ's vectors, a plain matcher as oracle, and patterns made to be slow.

use plugin_api::testing::Random;

use super::*;

fn matches(trie: &Trie, key: &str) -> Vec<u32> {
    let mut found = Vec::new();
    trie.walk(key.as_bytes(), |slots| found.extend(slots.iter().map(|slot| slot.0)));
    found.sort_unstable();
    found
}

/// One pattern alone against keys that fit and keys that do not.
fn check(pattern: &str, fitting: &[&str], others: &[&str]) {
    let mut trie = Trie::new();
    trie.insert(pattern.as_bytes(), BindingSlot(3));
    for key in fitting {
        assert_eq!(matches(&trie, key), [3], "'{pattern}' fits '{key}'");
    }
    for key in others {
        assert!(matches(&trie, key).is_empty(), "'{pattern}' does not fit '{key}'");
    }
    trie.remove(BindingSlot(3));
    assert!(trie.is_bare(), "'{pattern}' leaves nothing behind");
}

#[test]
fn star_matches_exactly_one_word() {
    check("*", &["one", "*", "#"], &["", "a.b", "."]);
    check("*.stock.#", &["us.stock", "us.stock.nyse", "us.stock.a.b"], &["stock", "eu.us.stock", "us.stocks"]);
    check("a.*.c", &["a.b.c", "a..c"], &["a.c", "a.b.b.c", "a.b.c.d"]);
}

#[test]
fn hash_matches_any_number_of_words() {
    check("#", &["", "a", "a.b.c", ".", "..", "#"], &[]);
    check("#.#", &["", "a", "a.b.c"], &[]);
    check("a.#", &["a", "a.b", "a.b.c"], &["b", "", "ab"]);
    check("a.#.b", &["a.b", "a.x.b", "a.x.y.b", "a.b.b"], &["a", "b", "a.b.c"]);
    check("*.#", &["a", "a.b", ".", "..."], &[""]);
    check("#.*.#", &["a", "a.b", "a.b.c"], &[""]);
    check("#.*.#.*.#", &["a.b", "a.b.c"], &["", "a"]);
    check("#.a.#.b.#.c.#", &["a.b.c", "x.a.y.b.z.c.w"], &["a.c.b", "a.b"]);
}

#[test]
fn empty_words_are_words() {
    check("", &[""], &[".", "a"]);
    check(".", &["."], &["", "..", "a"]);
    check("a..b", &["a..b"], &["a.b", "a.x.b"]);
    check("*.*", &[".", "a.", ".b"], &["", "a", ".."]);
}

#[test]
fn wildcards_are_whole_words_of_patterns_only() {
    check("a*.b#", &["a*.b#"], &["ax.by", "a.b"]);
    check("A", &["A"], &["a"]);
}

#[test]
fn bindings_of_one_pattern_are_all_found() {
    let mut trie = Trie::new();
    (0..4).for_each(|slot| trie.insert(b"a.#", BindingSlot(slot)));
    trie.insert(b"a.b", BindingSlot(4));
    assert_eq!(matches(&trie, "a.b"), [0, 1, 2, 3, 4]);
    trie.remove(BindingSlot(1));
    trie.remove(BindingSlot(1));
    assert_eq!(matches(&trie, "a.b"), [0, 2, 3, 4]);
    assert_eq!(matches(&trie, "a"), [0, 2, 3]);
}

/// The definition, word by word.
fn fits(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&b"#", pattern_rest)), _) => {
            fits(pattern_rest, key) || key.split_first().is_some_and(|(_, key_rest)| fits(pattern, key_rest))
        }
        (Some((&b"*", pattern_rest)), Some((_, key_rest))) => fits(pattern_rest, key_rest),
        (Some((word, pattern_rest)), Some((other, key_rest))) => word == other && fits(pattern_rest, key_rest),
        _ => false,
    }
}

#[test]
fn walk_equals_the_definition_on_random_patterns() {
    let mut random = Random::new(11);
    let text = |random: &mut Random, words: &[&str], length_max: u32| {
        let length = random.below(length_max + 1);
        (0..length).map(|_| *random.pick(words)).collect::<Vec<_>>().join(".")
    };
    for _ in 0..300 {
        let mut trie = Trie::new();
        let mut patterns = vec![None; 24];
        for _ in 0..60 {
            let slot = random.below(24);
            let place = &mut patterns[slot as usize];
            if place.take().is_some() {
                trie.remove(BindingSlot(slot));
            } else {
                let pattern = text(&mut random, &["a", "b", "*", "#", "#", ""], 6);
                trie.insert(pattern.as_bytes(), BindingSlot(slot));
                *place = Some(pattern);
            }
            let key = text(&mut random, &["a", "b", "c", ""], 6);
            let words: Vec<&[u8]> = split(key.as_bytes()).collect();
            let fitting = |pattern: &Option<String>| {
                let pattern = pattern.as_deref()?;
                Some(fits(&split(pattern.as_bytes()).collect::<Vec<_>>(), &words))
            };
            let expected: Vec<u32> = (0..24).filter(|slot| fitting(&patterns[*slot as usize]) == Some(true)).collect();
            assert_eq!(matches(&trie, &key), expected, "'{key}' among {patterns:?}");
        }
        (0..24).for_each(|slot| trie.remove(BindingSlot(slot)));
        assert!(trie.is_bare());
    }
}

#[test]
fn many_hashes_cost_no_more_than_nodes_times_words() {
    let mut trie = Trie::new();
    // A walk that tries every way for every `#` would not end before the stars go out.
    for (slot, word) in ["a", "*", "a.b", "*.*"].into_iter().enumerate() {
        let pattern = format!("{}z", format!("#.{word}.").repeat(20));
        trie.insert(pattern.as_bytes(), BindingSlot(u32::try_from(slot).unwrap()));
    }
    let key = vec!["a"; 120].join(".");
    assert!(matches(&trie, &key).is_empty());
    assert_eq!(matches(&trie, &format!("{key}.z")), [0, 1, 3]);
}
