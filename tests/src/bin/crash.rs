//! Runs accidents and judges what is left: `crash kill`, `crash power`, `crash full-disk`, `crash sync-error`.
//!
//! One line a round, a summary at the end, and an exit code other than 0 when anything is wrong. `BROKER_BIN` names the broker
//! to test; without it, cargo builds one.

use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;
use tests::crash::rounds::{Accident, Options, run};
use tests::crash::volume::FileSystem;

#[derive(Parser)]
#[command(about = "Runs accidents to a broker and judges what is left")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill the broker with signal 9 while it works
    Kill(Rounds),
    /// Switch its file system off while it works; needs root and loop devices
    Power {
        /// The file system to do it to
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Fs,
        /// Let all syncs of the broker do nothing: succeeds when the rounds notice
        #[arg(long)]
        skip_syncs: bool,
        #[command(flatten)]
        rounds: Rounds,
    },
}

#[derive(clap::Args)]
struct Rounds {
    /// How many rounds
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// What the rounds do; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Take wrong redelivered marks for violations
    #[arg(long)]
    check_marks: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
}

fn main() -> ExitCode {
    let is_right = match Arguments::parse().command {
        Command::Kill(rounds) => accidents(Accident::Kill, &rounds, false),
        Command::Power { fs, skip_syncs, rounds } => {
            let file_system = match fs {
                Fs::Ext4 => FileSystem::Ext4,
                Fs::Xfs => FileSystem::Xfs,
            };
            accidents(Accident::PowerCut(file_system), &rounds, skip_syncs)
        }
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

fn accidents(accident: Accident, rounds: &Rounds, skips_syncs: bool) -> Result<bool, String> {
    let seed = seed(rounds.seed);
    println!("{accident:?}, {} rounds, seed {seed}", rounds.rounds);
    let options = Options { accident, rounds: rounds.rounds, seed, skips_syncs, checks_marks: rounds.check_marks };
    let summary = run(&options)?;
    println!("{accident:?}: {summary}");
    let is_noticed = summary.rounds_with_violations > 0;
    if skips_syncs {
        println!(
            "without syncs: {}",
            if is_noticed { "noticed" } else { "NOT NOTICED, so these rounds prove nothing" }
        );
    }
    Ok(is_noticed == skips_syncs && summary.rounds > 0)
}

/// The seed, or one that is another each time.
fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64 % 1_000_000_000)
    })
}
