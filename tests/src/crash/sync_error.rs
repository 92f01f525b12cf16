//! A disk that says EIO to fdatasync: nothing is confirmed after it, and the broker ends so that somebody looks.
//!
//! strace lets the call fail without doing it. In every other round the file system is then switched off, so that what was not
//! synced is gone: a confirm that went out after the failure would be found missing.

use super::client::{Client, DEADLINE};
use super::definitions::Definitions;
use super::inspect::{Afterwards, look};
use super::lab::{Lab, SEGMENT_BYTES, StorageUnderTest, Tamper};
use super::ledger::{Figures, Kind, Ledger, RoundLog, Spared, Violation};
use super::volume::{Access, FileSystem, Volume};
use super::workload::{self, Consumers, Plan, Workload};
use plugin_api::testing::Random;
use std::time::Instant;

const VOLUME_MIB: u64 = 512;
/// `EX_IOERR`: what the broker ends with when its store has failed.
const EXIT_CODE: i32 = 74;

/// Runs the rounds, with a line for each.
///
/// # Errors
/// When a round cannot be run at all, or the broker does not do what has to be waited for.
pub fn run(rounds: u32, seed: u64, storage: &StorageUnderTest) -> Result<Figures, String> {
    let mut all = Figures::default();
    let volume = Volume::new(FileSystem::Ext4, VOLUME_MIB)?;
    let lab = Lab::new(volume.path().join("data"), &SEGMENT_BYTES, storage);
    let mut ledger = Ledger::default();
    prepare(&lab, seed)?;
    for round in 0..rounds {
        let started = Instant::now();
        let (figures, note) = one(&lab, &volume, &mut ledger, round, seed.wrapping_add(u64::from(round)))
            .map_err(|error| format!("round {round}, seed {seed}: {error}"))?;
        println!("round {round}: {note}, {:.1?} in all: {figures}", started.elapsed());
        for violation in &figures.violations {
            println!("  {}: {}", violation.kind, violation.text);
        }
        all += figures;
    }
    Ok(all)
}

fn prepare(lab: &Lab, seed: u64) -> Result<(), String> {
    let broker = lab.start(&mut Random::new(seed), None)?;
    let mut client = Client::connect(broker.address())?;
    client.open(1)?;
    workload::declare(&mut client)?;
    drop(client);
    broker.terminate().map(drop)
}

fn one(lab: &Lab, volume: &Volume, ledger: &mut Ledger, round: u32, seed: u64) -> Result<(Figures, String), String> {
    let mut random = Random::new(seed);
    let mut figures = Figures::default();
    let from = 1 + random.below(100);
    let mut note = format!("fdatasync fails from call {from} of a thread on");
    let tamper = Tamper::FailSyncs { from };
    let (mut log, mut definitions) = (RoundLog::default(), None);
    match lab.start(&mut random, Some(&tamper)) {
        Ok(mut broker) => {
            let declaring = Definitions::start(broker.address(), round, random.next_u64());
            let plan = Plan {
                round,
                seed: random.next_u64(),
                publishers: 3,
                consumers: Consumers::ByFate,
                messages_max: u32::MAX,
            };
            // The failure may come while the clients connect.
            let work = Workload::start(broker.address(), plan);
            let status = broker.wait_for_end()?;
            if let Ok(work) = work {
                log = work.finish();
            }
            definitions = declaring.ok().map(Definitions::finish);
            if status.code() != Some(EXIT_CODE) {
                let text = format!("the broker ends with {status}, not with code {EXIT_CODE}");
                figures.violations.push(Violation::new(Kind::Rule, text));
            }
        }
        // It is the start that meets the failure.
        Err(_) => {
            let end = lab.start_in_vain(&mut random, Some(&tamper), DEADLINE)?;
            note.push_str(&format!(", so it does not start (code {:?})", end.code));
            if end.code != Some(EXIT_CODE) {
                let text = format!("a start whose sync fails ends with {:?}: {}", end.code, end.errors);
                figures.violations.push(Violation::new(Kind::Rule, text));
            }
        }
    }
    let mut spared = Spared::System;
    if random.below(2) == 0 {
        spared = Spared::DiskAtAnyTime;
        note.push_str(", then the power fails");
        volume.cut_power().map_err(|error| format!("the file system cannot be switched off: {error}"))?;
        volume.mount_again(Access::ReadWrite)?;
    }
    let broker = lab.start(&mut random, None).map_err(|error| format!("{note}: no start afterwards: {error}"))?;
    let (found, violations) = look(broker.address(), Afterwards::Drain)?;
    // All confirms count, those behind the failure more than any.
    figures += ledger.judge(log, &found, spared);
    ledger.on_drained();
    figures.violations.extend(violations);
    if let Some(definitions) = definitions {
        figures.violations.extend(definitions.check(broker.address(), spared)?);
    }
    let status = broker.terminate()?;
    ledger.on_clean_end();
    if !status.success() {
        figures.violations.push(Violation::new(Kind::Rule, format!("the clean end answers {status}")));
    }
    Ok((figures, note))
}
