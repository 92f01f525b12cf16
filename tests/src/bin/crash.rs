//! Runs accidents and judges what is left: `crash kill`, `crash power`, `crash full-disk`, `crash sync-error`.
//!
//! One line a round, a summary at the end, and an exit code other than 0 when anything is wrong. `BROKER_BIN` names the broker
//! to test; without it, cargo builds one.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use tests::crash::lab::{StorageUnderTest, Tamper};
use tests::crash::ledger::{Figures, Kind};
use tests::crash::rounds::{self, Accident};
use tests::crash::volume::FileSystem;
use tests::crash::{full_disk, sync_error};

#[derive(Parser)]
#[command(about = "Runs accidents to a broker and judges what is left")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill the broker with signal 9 while it works
    Kill {
        #[command(flatten)]
        rounds: Rounds,
        /// Take missing redelivered marks for violations: such that a client had the message before the kill
        #[arg(long)]
        check_marks: bool,
    },
    /// Switch its file system off while it works; needs root and loop devices
    Power {
        /// The file system to do it to
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Fs,
        /// Let these syncs of the broker do nothing: succeeds when the rounds notice; needs strace
        #[arg(long, value_enum)]
        skip: Option<Syncs>,
        #[command(flatten)]
        rounds: Rounds,
    },
    /// Fill its disk, a file system of 64 MiB; needs root and loop devices
    FullDisk(Rounds),
    /// Let fdatasync fail with EIO; needs strace, root and loop devices
    SyncError(Rounds),
}

#[derive(clap::Args)]
struct Rounds {
    /// How many rounds
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// What the rounds do; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Store with this plugin, libstorage_NAME.so, instead of the broker's own log
    #[arg(long, value_name = "FILE")]
    storage: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Syncs {
    /// Of contents and of names
    All,
    /// Of contents: fdatasync
    Data,
    /// Of names: fsync
    Folder,
}

fn main() -> ExitCode {
    let is_right = match Arguments::parse().command {
        Command::Kill { rounds, check_marks } => accidents(Accident::Kill, &rounds, None, check_marks),
        Command::Power { fs, skip, rounds } => {
            let file_system = match fs {
                Fs::Ext4 => FileSystem::Ext4,
                Fs::Xfs => FileSystem::Xfs,
            };
            let mutant = skip.map(|skip| match skip {
                Syncs::All => Tamper::SkipSyncs,
                Syncs::Data => Tamper::SkipDataSyncs,
                Syncs::Folder => Tamper::SkipFolderSyncs,
            });
            accidents(Accident::PowerCut(file_system), &rounds, mutant, false)
        }
        Command::FullDisk(rounds) => trials("full disk", &rounds, full_disk::run),
        Command::SyncError(rounds) => trials("sync error", &rounds, sync_error::run),
    };
    match is_right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

fn accidents(accident: Accident, rounds: &Rounds, mutant: Option<Tamper>, checks_marks: bool) -> Result<bool, String> {
    let seed = rounds.seed();
    println!("{accident:?}, {} rounds, seed {seed}", rounds.rounds);
    let storage = rounds.storage()?;
    let summary =
        rounds::run(&rounds::Options { accident, rounds: rounds.rounds, seed, mutant, checks_marks, storage })?;
    println!("{accident:?}: {summary}");
    let Some(mutant) = mutant else {
        return Ok(summary.rounds_with_violations == 0 && summary.rounds > 0);
    };
    let lost = summary.figures.count(Kind::Lost);
    let verdict = if lost > 0 { "noticed" } else { "NOT NOTICED, so these rounds prove nothing" };
    println!("{mutant:?}: {verdict}, {lost} confirmed messages lost");
    Ok(lost > 0)
}

fn trials(
    name: &str,
    rounds: &Rounds,
    run: impl FnOnce(u32, u64, &StorageUnderTest) -> Result<Figures, String>,
) -> Result<bool, String> {
    let seed = rounds.seed();
    println!("{name}, {} rounds, seed {seed}", rounds.rounds);
    let figures = run(rounds.rounds, seed, &rounds.storage()?)?;
    println!("{name}: {} rounds: {figures}", rounds.rounds);
    Ok(figures.violations.is_empty() && rounds.rounds > 0)
}

impl Rounds {
    /// What the broker stores with; the broker looks for the file from elsewhere, so its path is made absolute.
    fn storage(&self) -> Result<StorageUnderTest, String> {
        let Some(file) = &self.storage else { return Ok(StorageUnderTest::Embedded) };
        let file = file.canonicalize().map_err(|error| format!("the plugin '{}': {error}", file.display()))?;
        Ok(StorageUnderTest::Loaded(file))
    }

    /// The seed, or one that is another each time.
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |now| now.as_nanos() as u64 % 1_000_000_000)
        })
    }
}
