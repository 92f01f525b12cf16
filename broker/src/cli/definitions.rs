//! `broker definitions …`: everything but messages, as RabbitMQ's `definitions.json`, into and out of a running broker or a data folder
//! that no broker has open.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::client::{self, Remote};
use super::{exit, print_report};
use crate::config;
use crate::node::{NodeError, Offline};

#[derive(Debug, Args)]
pub(super) struct DefinitionsArgs {
    #[command(subcommand)]
    command: DefinitionsCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum DefinitionsCommand {
    /// Import what a RabbitMQ or 'broker definitions export' has written
    #[command(long_about = IMPORT_ABOUT)]
    Import {
        /// The file, or a folder whose .json files are imported in the order of their names
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Import into this vhost, whatever vhosts the file names or does not name
        #[arg(long, value_name = "VHOST")]
        vhost: Option<String>,
        /// Only say what would be new, what overwritten and what stay; of a running broker
        #[arg(short = 'n', long, conflicts_with = "data")]
        dry_run: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Export everything but messages
    #[command(long_about = EXPORT_ABOUT)]
    Export {
        /// Write here instead of to standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Export this vhost alone, without its name and without users
        #[arg(long, value_name = "VHOST")]
        vhost: Option<String>,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct FolderArgs {
    /// A data folder instead of a running broker; the one that uses it must be stopped
    #[arg(long, value_name = "DIR", env = "BROKER_DATA")]
    pub(super) data: Option<PathBuf>,
    #[command(flatten)]
    pub(super) rest: RestArgs,
}

/// What is needed to judge a folder.
#[derive(Clone, Debug, Args)]
pub(super) struct RestArgs {
    /// With --data: the topology file of the broker; what it declares is in force, but not in the folder
    #[arg(long, value_name = "FILE", env = "BROKER_TOPOLOGY")]
    topology: Option<PathBuf>,
    /// With --data: folder with plugins, as for a run; exchanges of their types cannot be imported without
    #[arg(long, value_name = "DIR", env = "BROKER_PLUGIN_DIR", value_delimiter = ':')]
    plugin_dir: Vec<PathBuf>,
}

const IMPORT_ABOUT: &str = "\
Import what a RabbitMQ ('rabbitmqctl export_definitions') or 'broker definitions export' has written.

The file is judged before anything is changed. Users, permissions, policies and parameters are overwritten; exchanges and queues that are there stay as they \
are; nothing is removed. To import at each start, name the file in the topology ('definitions:') or give --definitions.

Without --data it goes to a running broker over its management API.

Exit code 0: imported; what was left out is named. 65: the file has mistakes. 66: it cannot be read. 74, 78: the data folder cannot be used.";

const EXPORT_ABOUT: &str = "\
Export everything but messages, for a RabbitMQ or for 'broker definitions import'.

Without --data it is asked of a running broker over its management API.

Only reads. Of a folder: transient exchanges and queues are not in the folder. Users, permissions, policies and limits that a topology file declares are in that file and \
not in the folder; give it with --topology to export them, too.

Exit code 0: exported. 66: no such vhost. 74, 78: the data folder cannot be used.";

pub(super) fn definitions(args: DefinitionsArgs) -> u8 {
    let DefinitionsArgs { command, remote } = args;
    match command {
        DefinitionsCommand::Import { file, vhost, dry_run, folder } => match folder.data {
            // The variable of the environment may name a folder; a dry run is never one of it.
            _ if dry_run => client::definitions::import(&remote, &file, vhost.as_deref(), true),
            None => client::definitions::import(&remote, &file, vhost.as_deref(), false),
            Some(data) => import(&file, vhost.as_deref(), data, folder.rest),
        },
        DefinitionsCommand::Export { output, vhost, folder } => match folder.data {
            None => {
                client::definitions::export(&remote, vhost.as_deref(), |exported| write(output.as_deref(), exported))
            }
            Some(data) => export(output.as_deref(), vhost.as_deref(), data, folder.rest),
        },
    }
}

fn import(file: &Path, vhost: Option<&str>, data: PathBuf, rest: RestArgs) -> u8 {
    let offline = match offline(data, rest) {
        Ok(offline) => offline,
        Err(code) => return code,
    };
    match run(offline.import(file, vhost)) {
        Ok(imported) => {
            for note in &imported.notes {
                eprintln!("broker: {note}");
            }
            print_report(&format!("{}: imported {imported}\n", file.display()), exit::OK)
        }
        Err(code) => code,
    }
}

fn export(output: Option<&Path>, vhost: Option<&str>, data: PathBuf, rest: RestArgs) -> u8 {
    let offline = match offline(data, rest) {
        Ok(offline) => offline,
        Err(code) => return code,
    };
    let exported = match run(offline.export(vhost)) {
        Ok(exported) => exported,
        Err(code) => return code,
    };
    write(output, &exported)
}

fn write(output: Option<&Path>, exported: &serde_json::Value) -> u8 {
    let mut text = serde_json::to_string_pretty(exported).unwrap_or_default();
    text.push('\n');
    let Some(path) = output else { return print_report(&text, exit::OK) };
    match write_private(path, &text) {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!("broker: {} cannot be written: {error}", path.display());
            exit::IO
        }
    }
}

/// Hashes of passwords are in it: others have no business with them.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

pub(super) fn offline(data: PathBuf, rest: RestArgs) -> Result<Offline, u8> {
    let RestArgs { topology, plugin_dir } = rest;
    let topology = match topology {
        None => None,
        Some(file) => {
            let loaded = config::load(&file, &|name| std::env::var(name).ok()).map_err(|diagnostics| {
                for diagnostic in &diagnostics {
                    eprintln!("{diagnostic}");
                }
                super::check::exit_code(&diagnostics)
            })?;
            Some(loaded.topology)
        }
    };
    Ok(Offline { data, topology, plugin_dirs: plugin_dir })
}

/// Prints what went wrong and gives the exit code for it.
pub(super) fn run<T>(task: impl Future<Output = Result<T, NodeError>>) -> Result<T, u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| {
        eprintln!("broker: no thread can be started: {error}; check the limits of this account");
        exit::OS
    })?;
    runtime.block_on(task).map_err(|error| {
        eprintln!("broker: {error}");
        error.exit_code()
    })
}
