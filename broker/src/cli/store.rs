//! `broker store …`: a data folder without a broker. Nothing here changes the folder.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{exit, print_report};
use crate::store::owners::Owners;

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Verify every frame of a data folder and report damage by file and offset
    #[command(long_about = CHECK_ABOUT)]
    Check {
        /// The folder that --data or the topology names
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Count what is in a data folder
    Stats {
        /// The folder that --data or the topology names
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

const CHECK_ABOUT: &str = "\
Verify every frame of a data folder and report damage by file and offset.

Only reads. Exit code 0: everything is sound. 65: something is damaged. 66: the folder cannot be read.";

pub(super) fn store(args: &StoreArgs) -> u8 {
    match &args.command {
        StoreCommand::Check { folder } => {
            report(folder, storage_log::check(folder), |report| if report.is_sound() { exit::OK } else { exit::DATA })
        }
        StoreCommand::Stats { folder } => report(folder, stats(folder), |_| exit::OK),
    }
}

/// What is in a folder, and whose the messages are as far as its definitions can be read.
fn stats(folder: &Path) -> Result<String, storage_log::OpenError> {
    let stats = storage_log::stats(folder)?;
    let owners = match Owners::of(&storage_log::contents(folder)?) {
        Ok(owners) => owners.to_string(),
        Err(error) => format!("  {error}"),
    };
    Ok(format!("{stats}\n{owners}"))
}

fn report<R: std::fmt::Display>(
    folder: &Path,
    report: Result<R, storage_log::OpenError>,
    code: impl FnOnce(&R) -> u8,
) -> u8 {
    match report {
        Ok(report) => print_report(&format!("{report}\n"), code(&report)),
        Err(error) => {
            eprintln!("broker: data folder {}: {error}", folder.display());
            exit::NO_INPUT
        }
    }
}
