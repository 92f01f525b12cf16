//! A page of metrics, read as Prometheus reads it, strictly: every family has one type, every series belongs to its family, no series
//! comes twice.

use std::collections::BTreeMap;

/// The labels of a series, in their order.
pub(crate) type Labels = Vec<(String, String)>;

/// What a page says.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The type of each family.
    pub(crate) types: BTreeMap<String, String>,
    /// Each series by its name.
    pub(crate) series: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a name");
                family = name.to_owned();
                let before = page.types.insert(family.clone(), kind.to_owned());
                assert_eq!(before, None, "family {family} comes twice");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(rest.starts_with(&format!("{family} ")), "help of another family: {line}");
                continue;
            }
            let (name, labels, value) = series(line);
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{name} stands in {family}"));
            let suffixes = match page.types[&family].as_str() {
                "histogram" => &["_bucket", "_sum", "_count"][..],
                "summary" => &["_sum", "_count"][..],
                _ => &[""][..],
            };
            assert!(suffixes.contains(&suffix), "{name} is no series of the {} {family}", page.types[&family]);
            let all = page.series.entry(name.clone()).or_default();
            assert!(all.iter().all(|(known, _)| *known != labels), "{line} comes twice");
            all.push((labels, value));
        }
        page
    }

    /// The only value of a series without labels.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.value_of(name, &[])
    }

    /// The value of the series with exactly these labels.
    pub(crate) fn value_of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.series.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let is_it = |known: &Labels| {
            known.len() == labels.len()
                && labels.iter().all(|(name, value)| known.contains(&((*name).into(), (*value).into())))
        };
        let found = all.iter().find(|(known, _)| is_it(known));
        found.unwrap_or_else(|| panic!("{name} has no series {labels:?}: {all:?}")).1
    }

    /// The names of labels that series of this name have, each set once.
    pub(crate) fn label_sets(&self, name: &str) -> Vec<Vec<&str>> {
        let all = self.series.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let mut sets: Vec<Vec<&str>> =
            all.iter().map(|(labels, _)| labels.iter().map(|(name, _)| name.as_str()).collect()).collect();
        sets.sort();
        sets.dedup();
        sets
    }

    /// The values of a label, in their order.
    pub(crate) fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        let all = self.series.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let of = |labels: &'_ Labels| labels.iter().position(|(known, _)| known == label);
        all.iter().filter_map(|(labels, _)| of(labels).map(|at| labels[at].1.as_str())).collect()
    }
}

fn series(line: &str) -> (String, Labels, f64) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or_else(|| panic!("no series: {line}")));
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (Vec::new(), rest),
    };
    let value = value.trim().parse().unwrap_or_else(|_| panic!("no value: {line}"));
    (name.to_owned(), labels, value)
}

/// Reads labels up to the closing brace; returns what stands behind it.
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Vec::new();
    let mut rest = text;
    while !rest.starts_with('}') {
        let (name, quoted) = rest.split_once("=\"").expect("a label has a value");
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next().expect("a value ends") {
                (at, '"') => break at,
                (_, '\\') => match characters.next().expect("something is escaped").1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &quoted[end + 1..];
    }
    (labels, &rest[1..])
}
