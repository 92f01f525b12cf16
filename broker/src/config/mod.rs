//! The topology file: YAML in, [`Topology`] and diagnostics out.
//!
//! This is the only module that sees the YAML library. A file is parsed once into a tree of values with their places; each
//! section has a reader that turns its part of the tree into typed data and goes on after a mistake, so that one run reports
//! all of them. What depends on several declarations is checked on the typed data by `topology::check`. The keys are
//! described in `broker/src/topology/README.md`.

mod address;
mod arguments;
mod auth;
mod bindings;
mod diagnostic;
mod environment;
mod hooks;
mod includes;
mod json_schema;
mod management;
mod metrics;
mod parameters;
pub(crate) mod plain;
mod policies;
mod queues;
mod reader;
mod route_tests;
mod settings;
mod source;
mod tls;
mod units;
mod users;
mod vhosts;
mod yaml;

use std::path::Path;

pub(crate) use self::address::parse_listen_at;
pub use self::{address::parse_listen, diagnostic::Diagnostic, json_schema::json_schema};
use self::{
    reader::{Hint, Places, Reader, Section, folder_of},
    source::Source,
    yaml::Node,
};
use crate::plugin_host::Registry;
pub use crate::topology::check::Severity;
use crate::topology::{
    check,
    schema::{Defaults, MixedDurability, Topology, UserDecl, VhostDecl},
};

/// A file that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What it declares.
    pub topology: Topology,
    /// What is doubtful about it.
    pub warnings: Vec<Diagnostic>,
    source: Source,
    places: Places,
}

/// Keys of the file itself.
const TOP: Section = Section {
    what: "the file",
    keys: &[
        "node",
        "tls",
        "listeners",
        "management",
        "metrics",
        "limits",
        "storage",
        "plugins",
        "auth",
        "users",
        "hooks",
        "vhosts",
        "bindings",
        "definitions",
        "parameters",
        "owner",
        "tests",
        "include",
    ],
    hints: &[
        ("exchanges", Hint::Instead("exchanges belong into a vhost: 'vhosts: { /: { exchanges: … } }'")),
        ("queues", Hint::Instead("queues belong into a vhost: 'vhosts: { /: { queues: … } }'")),
        ("permissions", Hint::Instead("permissions belong into a user: 'users: { app: { permissions: … } }'")),
        ("durability", Hint::Instead("it belongs into a vhost or a queue")),
        ("policies", Hint::Instead("policies belong into a vhost: 'vhosts: { /: { policies: … } }'")),
        ("operator_policies", Hint::Instead("they belong into a vhost: 'vhosts: { /: { operator_policies: … } }'")),
        ("load_definitions", Hint::Instead("did you mean 'definitions'?")),
        ("ssl", Hint::Instead("did you mean 'tls'?")),
        ("test", Hint::Instead("did you mean 'tests'?")),
        ("includes", Hint::Instead("did you mean 'include'?")),
    ],
};

const BINDINGS: Section = Section {
    what: "the settings of bindings",
    keys: &["mixed_durability"],
    hints: &[("source", Hint::Instead("bindings themselves belong into a vhost: 'vhosts: { /: { bindings: … } }'"))],
};

const MIXED_DURABILITY: &[(&str, MixedDurability)] =
    &[("warn", MixedDurability::Warn), ("refuse", MixedDurability::Refuse)];

/// Reads and checks a topology file; `environment` gives the variables that it refers to.
///
/// Exchange types are not checked, because they depend on plugins: see [`Loaded::check_exchange_types`].
///
/// # Errors
/// All diagnostics in the order of the file, warnings included, when at least one is an error.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let source = Source::read(path).map_err(|diagnostic| vec![*diagnostic])?;
    read(source, environment)
}

/// As [`load`], for a text that somebody has sent: it refers to no files and no environment. `name` stands for it in diagnostics.
///
/// # Errors
/// As [`load`].
pub fn load_text(name: &str, text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    read(Source::foreign(name, text.to_owned()), &|_| None)
}

fn read(mut source: Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let (root, mistakes) = includes::parse(&mut source, environment);
    let mut reader = Reader { source: &source, environment, places: Places::default(), diagnostics: Vec::new() };
    let is_broken = root.is_none() && !mistakes.is_empty();
    for mistake in mistakes {
        match mistake {
            includes::Mistake::Unreadable(diagnostic) => reader.diagnostics.push(*diagnostic),
            includes::Mistake::InFile(mistake) => reader.mistake(mistake),
        }
    }
    let topology = match root {
        Some(root) if !root.is_null() => topology(&mut reader, &root),
        _ if is_broken => Topology::default(),
        _ => {
            let cause = "the file is empty; the smallest topology is 'vhosts: { /: {} }'".to_owned();
            return Err(vec![Diagnostic::of_file(&source.path, cause)]);
        }
    };
    for finding in check::check(&topology) {
        reader.finding(finding);
    }
    let Reader { mut diagnostics, places, .. } = reader;
    // The file itself comes first, then what it includes.
    let place = |diagnostic: &Diagnostic| {
        let is_included = diagnostic.path != source.path;
        let path = if is_included { Some(diagnostic.path.clone()) } else { None };
        (is_included, path, diagnostic.line.unwrap_or(usize::MAX), diagnostic.column)
    };
    diagnostics.sort_by_key(place);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    Ok(Loaded { topology, warnings: diagnostics, source, places })
}

impl Loaded {
    /// Reports exchanges of a type that is not among `known`; for when the plugins are known.
    #[must_use]
    pub fn check_exchange_types<S: AsRef<str>>(&self, known: &[S]) -> Vec<Diagnostic> {
        self.diagnostics(check::check_exchange_types(&self.topology, known))
    }

    /// Reports exchanges and bindings that their types refuse.
    #[must_use]
    pub fn judge_exchanges(&self, registry: &Registry, types: check::Types) -> Vec<Diagnostic> {
        self.diagnostics(check::judge_exchanges(&self.topology, registry, types))
    }

    fn diagnostics(&self, findings: Vec<check::Finding>) -> Vec<Diagnostic> {
        let diagnostic = |finding: check::Finding| {
            let span = self.places.span(&finding.place);
            Diagnostic::new(finding.severity, &self.source, span, finding.cause, finding.help)
        };
        findings.into_iter().map(diagnostic).collect()
    }

    /// An error at the place where something of the topology is declared, for what is found only when it is used.
    #[must_use]
    pub fn error_at(&self, place: &check::Place, cause: &str, help: &str) -> Diagnostic {
        Diagnostic::new(Severity::Error, &self.source, self.places.span(place), cause, help)
    }

    /// An error that has no place in the file.
    #[must_use]
    pub fn error_of_file(&self, cause: &str) -> Diagnostic {
        Diagnostic::of_file(&self.source.path, cause.to_owned())
    }

    /// Where a declaration stands, as `FILE:LINE`.
    #[must_use]
    pub fn file_and_line(&self, place: &check::Place) -> String {
        let at = self.places.span(place).start;
        format!("{}:{}", self.source.path_at(at).display(), self.source.position(at).line)
    }

    /// As [`Self::error_at`], for what does not keep the broker from starting.
    #[must_use]
    pub fn warning_at(&self, place: &check::Place, cause: &str, help: &str) -> Diagnostic {
        Diagnostic::new(Severity::Warning, &self.source, self.places.span(place), cause, help)
    }
}

fn topology(reader: &mut Reader<'_>, root: &Node) -> Topology {
    let defaults = Defaults::default();
    let mut topology = Topology { vhosts: Vec::new(), users: Vec::new(), defaults, ..Topology::default() };
    let Some(fields) = reader.fields(root, &TOP) else { return topology };
    let mut read = |key: &str, section: fn(&mut Reader<'_>, &Node, &mut Topology)| {
        if let Some(node) = fields.get(key) {
            section(reader, node, &mut topology);
        }
    };
    read("node", settings::node);
    read("tls", tls::read);
    read("listeners", settings::listeners);
    read("management", management::read);
    read("metrics", metrics::read);
    read("limits", settings::limits);
    read("storage", settings::storage);
    read("plugins", settings::plugins);
    read("auth", auth::read);
    read("bindings", bindings_settings);
    read("definitions", settings::definitions);
    if let Some(node) = fields.get("tls") {
        tls::check_use(reader, node, &topology);
    }
    let mut read = |key: &str, section: fn(&mut Reader<'_>, &Node, &mut Topology)| {
        if let Some(node) = fields.get(key) {
            section(reader, node, &mut topology);
        }
    };
    // Hooks of the broker come first, as they run first.
    read("hooks", hooks::of_broker);
    read("vhosts", vhosts::read);
    read("users", users::read);
    read("parameters", parameters::global);
    // Behind vhosts and users, which they name.
    read("tests", route_tests::read);
    read("owner", owner);
    topology.sections = TOP.keys.iter().copied().filter(|key| fields.get(key).is_some()).collect();
    topology.folder = Some(folder_of(&reader.source.path));
    // What a file does not mention is as without a file; an empty section means none.
    topology.defaults = Defaults { users: fields.get("users").is_none(), vhosts: fields.get("vhosts").is_none() };
    if topology.defaults.vhosts {
        topology.vhosts = vec![VhostDecl { name: "/".to_owned(), ..VhostDecl::default() }];
    }
    if topology.defaults.users {
        topology.users = vec![UserDecl::guest(&topology.vhosts)];
    }
    topology
}

/// The name that what the file declares is marked with.
fn owner(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(name) = reader.text(node) else { return };
    if name.is_empty() || name.len() > OWNER_BYTES_MAX || name.chars().any(char::is_control) {
        let help = format!("give a name of 1 to {OWNER_BYTES_MAX} bytes, such as that of your team");
        return reader.error(node.span, "not a name for an owner", help);
    }
    topology.owner = name;
}

/// It is a part of the name of a parameter.
const OWNER_BYTES_MAX: usize = 100;

fn bindings_settings(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(fields) = reader.fields(node, &BINDINGS) else { return };
    if let Some(mixed) = fields.get("mixed_durability").and_then(|node| reader.choice(node, MIXED_DURABILITY)) {
        topology.bindings_mixed_durability = mixed;
    }
}

/// All sections with their names in the reference, which a test compares, and the schema is made of.
const SECTIONS: &[(&str, &Section)] = &[
    ("top", &TOP),
    ("bindings", &BINDINGS),
    ("node", &settings::NODE),
    ("listeners", &settings::LISTENERS),
    ("tls", &tls::TLS),
    ("management", &management::MANAGEMENT),
    ("metrics", &metrics::METRICS),
    ("limits", &settings::LIMITS),
    ("storage", &settings::STORAGE),
    ("plugins", &settings::PLUGIN),
    ("auth", &auth::AUTH),
    ("backends of auth", &auth::BACKEND),
    ("definitions", &settings::DEFINITIONS),
    ("users", &users::USER),
    ("password", &users::PASSWORD),
    ("permissions", &users::PERMISSION),
    ("topic_permissions", &users::TOPIC_PERMISSION),
    ("limits of a user", &policies::USER_LIMITS),
    ("hooks", &hooks::BROKER_HOOK),
    ("vhosts", &vhosts::VHOST),
    ("policies", &policies::POLICY),
    ("limits of a vhost", &policies::VHOST_LIMITS),
    ("exchanges", &vhosts::EXCHANGE),
    ("queues", &queues::QUEUE),
    ("bindings of a vhost", &bindings::BINDING),
    ("tests", &route_tests::TEST),
    ("properties of tests", &route_tests::PROPERTIES),
    ("expect of tests", &route_tests::EXPECT),
];

#[cfg(test)]
mod tests;
