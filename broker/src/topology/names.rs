//! Names that were declared, and what to say about one that was not.

use std::collections::HashMap;

use super::check::RESERVED_PREFIX;

/// How many declared names a message lists.
const LISTED_MAX: usize = 8;

/// The known word that was probably meant: a slip or two away, more for long words.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let slips_max = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|known| (distance(&word, known), known))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, known)| known)
}

/// `declared here: orders, audit`, the most similar first; long lists are cut.
#[must_use]
pub fn declared_here<'a>(word: &str, declared: impl IntoIterator<Item = &'a str>) -> String {
    let word = word.to_lowercase();
    let mut declared: Vec<&str> = declared.into_iter().collect();
    declared.sort_by_cached_key(|name| distance(&word, name));
    let more = if declared.len() > LISTED_MAX { ", …" } else { "" };
    declared.truncate(LISTED_MAX);
    match declared.as_slice() {
        [] => "none is declared here".to_owned(),
        names => format!("declared here: {}{more}", names.join(", ")),
    }
}

/// Names of one kind, each with the index of its first declaration.
#[derive(Debug, Default)]
pub(super) struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    /// Adds a name; `Err` holds the index of an earlier declaration.
    pub(super) fn add(&mut self, name: &'a str, index: usize) -> Result<(), usize> {
        match self.0.get(name) {
            Some(first) => Err(*first),
            None => {
                self.0.insert(name, index);
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    /// In the order of declaration, so that messages are the same every time; without names that could not be declared.
    pub(super) fn in_order(&self) -> Vec<&'a str> {
        let mut names: Vec<_> = self.0.iter().map(|(name, index)| (*index, *name)).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).filter(|name| !name.starts_with(RESERVED_PREFIX)).collect()
    }
}

fn distance(lowercase_word: &str, known: &str) -> usize {
    strsim::damerau_levenshtein(lowercase_word, &known.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_one_slip_away_in_short_words() {
        let known = ["exchanges", "queues", "bindings", "ttl"];
        let check = |word: &str, expected| assert_eq!(nearest(word, known), expected, "{word}");
        check("exchagnes", Some("exchanges"));
        check("Queues", Some("queues"));
        check("queue", Some("queues"));
        check("tll", Some("ttl"));
        check("x", None);
        check("policies", None);
    }

    #[test]
    fn declared_names_are_listed_by_similarity() {
        assert_eq!(declared_here("ordres", ["audit", "orders"]), "declared here: orders, audit");
        assert_eq!(declared_here("x", []), "none is declared here");
        let many: Vec<String> = (0..20).map(|n| format!("q{n}")).collect();
        let text = declared_here("q7", many.iter().map(String::as_str));
        assert!(text.starts_with("declared here: q7, ") && text.ends_with(", …"), "{text}");
    }
}
