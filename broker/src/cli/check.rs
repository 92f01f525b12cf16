//! `broker check FILE`: every mistake of a topology file, or a summary of what it declares.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::plugins::Plugins;
use super::{exit, print_report};
use crate::{
    config::{self, Diagnostic},
    topology::schema::Topology,
};

/// Help of the command; the first line of it stands in the list of commands.
pub(super) const LONG_ABOUT: &str = "\
Read a topology file and report every mistake in it, without running anything.

Environment variables that the file refers to must be set, as for a run. Hook scripts are compiled. \
Plugins that the file names are inspected, which runs nothing of them; so it is not known which exchange types they bring, and \
the report says what it did not judge. With --load-plugins they are loaded as for a run, and judged, too.

Exit code 0: the broker can start with it; warnings do not change that. 65: it has mistakes. 66: it cannot be read.";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The topology file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Folder with plugins, as for a run
    #[arg(long, value_name = "DIR", env = "BROKER_PLUGIN_DIR", value_delimiter = ':')]
    plugin_dir: Vec<PathBuf>,

    /// Load the plugins, which runs their code, to know which exchange types they bring
    #[arg(long)]
    load_plugins: bool,
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    let plugins = Plugins { folders: &args.plugin_dir, load: args.load_plugins };
    let (report, code) = report(&args.file, plugins, &|name| std::env::var(name).ok());
    print_report(&report, code)
}

/// The whole output with the exit code.
pub(super) fn report(file: &Path, plugins: Plugins<'_>, environment: &dyn Fn(&str) -> Option<String>) -> (String, u8) {
    let name = file.display();
    let mut report = String::new();
    let loaded = match config::load(file, environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            append(&mut report, &diagnostics);
            if has_place(&diagnostics) {
                let _ = writeln!(report, "{name}: {}", counts(&diagnostics));
            }
            return (report, exit_code(&diagnostics));
        }
    };
    let mut diagnostics = loaded.warnings.clone();
    let unjudged = plugins.check(&loaded, &mut diagnostics);
    diagnostics.extend(super::script::compile_errors(&loaded));
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    append(&mut report, &diagnostics);
    if diagnostics.iter().any(Diagnostic::is_error) {
        let _ = writeln!(report, "{name}: {}", counts(&diagnostics));
        return (report, exit::DATA);
    }
    if !unjudged.is_empty() {
        let types = unjudged.join(", ");
        let _ = writeln!(
            report,
            "{name}: not judged, because plugins have to bring them: exchange types {types}; --load-plugins judges them"
        );
    }
    let _ = writeln!(report, "{name}: {}, {}", summary(&loaded.topology), counts(&diagnostics));
    (report, exit::OK)
}

/// 66 when there is nothing but the file itself to complain about, 65 otherwise.
pub(super) fn exit_code(diagnostics: &[Diagnostic]) -> u8 {
    if has_place(diagnostics) { exit::DATA } else { exit::NO_INPUT }
}

fn has_place(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.line.is_some())
}

fn append(report: &mut String, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let _ = writeln!(report, "{diagnostic}");
    }
}

/// `2 vhosts, 5 exchanges, …`
fn summary(topology: &Topology) -> String {
    let sum =
        |count: fn(&crate::topology::schema::VhostDecl) -> usize| topology.vhosts.iter().map(count).sum::<usize>();
    let mut parts = vec![
        counted(topology.vhosts.len(), "vhost"),
        counted(sum(|vhost| vhost.exchanges.len()), "exchange"),
        counted(sum(|vhost| vhost.queues.len()), "queue"),
        counted(sum(|vhost| vhost.bindings.len()), "binding"),
        counted(topology.users.len(), "user"),
    ];
    let hooks = (topology.hooks.len(), "hook");
    let plugins = (topology.plugins.len(), "plugin");
    parts
        .extend([hooks, plugins].into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(count, what)));
    parts.join(", ")
}

/// `3 errors, 1 warning`, or `no errors`.
fn counts(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let errors = if errors == 0 { "no errors".to_owned() } else { counted(errors, "error") };
    if warnings == 0 { errors } else { format!("{errors}, {}", counted(warnings, "warning")) }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
