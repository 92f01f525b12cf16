//! Random operations, crashes and reopenings on a simulated disk, against a model that a child could follow.
//!
//! `STORE_SEEDS=100000` runs so many seeds, `STORE_SEED=7` replays one with a line per step. A failing run prints its seed.

mod model;
mod run;

use run::{Plan, run, run_mutant};
use storage_log::Mutant;

#[test]
fn random_runs_agree_with_the_model() {
    if let Some(seed) = number("STORE_SEED") {
        return run(seed, &Plan { is_loud: true, ..Plan::default() }).unwrap_or_else(|error| panic!("{error}"));
    }
    for seed in 0..number("STORE_SEEDS").unwrap_or(1000) {
        run(seed, &Plan::default()).unwrap_or_else(|error| panic!("STORE_SEED={seed} fails: {error}"));
    }
}

#[test]
fn skipped_sync_of_data_is_caught() {
    caught(Mutant::SkipSyncData);
}

#[test]
fn skipped_sync_of_the_folder_is_caught() {
    caught(Mutant::SkipSyncFolder);
}

#[test]
fn dropped_checksums_are_caught() {
    caught(Mutant::SkipChecksums);
}

/// A defect that no seed notices means that the test above proves nothing.
fn caught(mutant: Mutant) {
    let found = (0..200).find_map(|seed| run_mutant(seed, mutant).err().map(|error| (seed, error)));
    let (seed, error) = found.unwrap_or_else(|| panic!("{mutant:?} goes unnoticed by 200 seeds"));
    println!("{mutant:?} is caught by seed {seed}: {error}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
