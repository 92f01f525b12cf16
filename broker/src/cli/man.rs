//! `broker man`: manual pages, for packages.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder, which is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn man(args: &ManArgs, command: clap::Command) -> u8 {
    let folder = &args.folder;
    match write(folder, command) {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!("broker: manual pages cannot be written to {}: {error}", folder.display());
            exit::IO
        }
    }
}

/// One page for each command.
fn write(folder: &Path, command: clap::Command) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
