//! Scenario files: wire behaviour as text that runs on the broker and on a RabbitMQ alike (`tests/scenarios/README.md`).

pub mod connection;
pub mod literal;
pub mod parse;
pub mod run;
pub mod settings;

use parse::Action;
pub use parse::{Scenario, User, parse};
pub use run::run;

use std::path::Path;

/// Every scenario below `folder`, in the order of their names.
///
/// # Errors
/// With file and line of the first mistake.
pub fn load_all(folder: &Path) -> Result<Vec<Scenario>, String> {
    let mut files = Vec::new();
    for chapter in read_dir(folder)?.into_iter().filter(|path| path.is_dir()) {
        files.extend(
            read_dir(&chapter)?.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "scenario")),
        );
    }
    files
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let relative = path.strip_prefix(folder).unwrap_or(path).with_extension("");
            parse(&relative.to_string_lossy(), &text)
        })
        .collect()
}

fn read_dir(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

impl Scenario {
    /// The vhost that belongs to this scenario alone, so that scenarios share one server without meeting.
    pub fn vhost(&self) -> String {
        format!("scenario.{}", self.name.replace('/', "."))
    }

    /// The name on the server of a user that the scenario calls `name`.
    pub fn user_name(&self, name: &str) -> String {
        format!("{name}.{}", self.name.replace('/', "."))
    }

    /// Whether it raises an alarm, which everybody on the same server feels.
    pub fn raises_alarms(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::MemoryAlarm(_)))
    }

    /// Whether it can run on `target` at all.
    pub fn runs_on(&self, target: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == target)
    }
}

/// The password of every user that a scenario declares.
pub const USER_PASSWORD: &str = "secret";
