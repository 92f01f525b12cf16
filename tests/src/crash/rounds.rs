//! Rounds of work, accident, restart and judgement on one data folder: by `kill -9`, or by a power cut of its file system.

use super::client::Client;
use super::definitions::Definitions;
use super::inspect::{Afterwards, look};
use super::lab::{Lab, SEGMENT_BYTES, StorageUnderTest, Tamper, pause};
use super::ledger::{Figures, Kind, Ledger, RoundLog, Spared, Violation};
use super::volume::{Access, FileSystem, Volume};
use super::workload::{self, Consumers, Plan, Workload};
use crate::broker_process::BrokerProcess;
use crate::temp::TempDir;
use plugin_api::testing::Random;
use std::fmt;
use std::time::{Duration, Instant};

/// What happens to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accident {
    /// The process is killed; what it wrote is in the hands of the operating system.
    Kill,
    /// The file system stops, and what was not synced is gone.
    PowerCut(FileSystem),
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    pub accident: Accident,
    pub rounds: u32,
    pub seed: u64,
    /// A defect that the rounds must notice, or they prove nothing. Each round then stands for itself.
    pub mutant: Option<Tamper>,
    /// Missing redelivered marks are violations, too.
    pub checks_marks: bool,
    /// What the broker stores with.
    pub storage: StorageUnderTest,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    pub figures: Figures,
    pub rounds: u32,
    /// Rounds in which something was wrong.
    pub rounds_with_violations: u32,
    pub slowest_start: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figures, rounds, rounds_with_violations, slowest_start } = self;
        write!(
            f,
            "{rounds} rounds, {rounds_with_violations} with violations, slowest start {slowest_start:.2?}: {figures}"
        )
    }
}

/// XFS has no smaller file systems.
const VOLUME_MIB: u64 = 512;

/// Runs the rounds, with a line for each.
///
/// # Errors
/// When a round cannot be run at all: a tool is missing, or the broker does not start.
pub fn run(options: &Options) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let mut run = None;
    for round in 0..options.rounds {
        let mut current = match run.take() {
            Some(run) => run,
            None => Run::new(options)?,
        };
        let started = Instant::now();
        let result = current.round(round, options);
        let figures = match result {
            Ok((figures, note)) => {
                println!("round {round}: {note}, {:.1?} in all: {figures}", started.elapsed());
                figures
            }
            Err(error) => return Err(format!("round {round}, seed {}: {error}", options.seed)),
        };
        let told_max = if options.mutant.is_some() { 1 } else { TOLD_MAX };
        for violation in figures.violations.iter().take(told_max) {
            println!("  {}: {}", violation.kind, violation.text);
        }
        let figures_are_right = figures.violations.is_empty();
        summary.rounds += 1;
        summary.rounds_with_violations += u32::from(!figures_are_right);
        summary.slowest_start = summary.slowest_start.max(current.slowest_start);
        summary.figures += figures;
        // What went wrong once would go wrong again in every later round.
        if options.mutant.is_none() && figures_are_right {
            run = Some(current);
        }
    }
    Ok(summary)
}

/// Violations of a round that are told in words.
const TOLD_MAX: usize = 12;

/// One data folder over its rounds.
struct Run {
    lab: Lab,
    volume: Option<Volume>,
    /// Keeps the data folder of a run that has no volume.
    _folder: TempDir,
    ledger: Ledger,
    broker: Option<BrokerProcess>,
    slowest_start: Duration,
}

impl Run {
    fn new(options: &Options) -> Result<Self, String> {
        let folder = TempDir::new("data");
        let volume = match options.accident {
            Accident::Kill => None,
            Accident::PowerCut(file_system) => Some(Volume::new(file_system, VOLUME_MIB)?),
        };
        let place = volume.as_ref().map_or_else(|| folder.path().to_path_buf(), Volume::path);
        let lab = Lab::new(place.join("data"), &SEGMENT_BYTES, &options.storage);
        let ledger = Ledger::default();
        if options.mutant.is_some() {
            // The folder is made by a sound broker, so that what is lost is what was confirmed.
            let broker = lab.start(&mut Random::new(options.seed), None)?;
            let mut client = Client::connect(broker.address())?;
            client.open(1)?;
            workload::declare(&mut client)?;
            drop(client);
            broker.terminate()?;
        }
        Ok(Self { lab, volume, _folder: folder, ledger, broker: None, slowest_start: Duration::ZERO })
    }

    fn round(&mut self, round: u32, options: &Options) -> Result<(Figures, String), String> {
        let mut random = Random::new(options.seed.wrapping_add(u64::from(round)));
        let broker = match self.broker.take() {
            Some(broker) => broker,
            None => self.start(&mut random, options.mutant.as_ref())?,
        };
        let address = broker.address();
        let mut client = Client::connect(address)?;
        client.open(1)?;
        workload::declare(&mut client)?;
        let definitions = Definitions::start(address, round, random.next_u64())?;
        let plan = Plan {
            round,
            seed: random.next_u64(),
            publishers: 1 + u16::try_from(random.below(4)).unwrap_or_default(),
            consumers: Consumers::ByFate,
            messages_max: MESSAGES_MAX,
        };
        let work = Workload::start(address, plan)?;
        let began = Instant::now();
        // Any moment: sometimes as soon as so much is confirmed, sometimes after a time.
        if random.below(3) == 0 {
            let wanted = u64::from(random.below(10_000));
            work.progress.wait(LATEST, |counts| counts.confirmed >= wanted);
        } else {
            pause(Duration::from_micros(u64::from(random.below(1_000_000))));
        }
        let after = began.elapsed();
        let spared = self.strike(broker)?;
        let (log, definitions) = (work.finish(), definitions.finish());
        drop(client);
        if let Some(volume) = &self.volume {
            volume.mount_again(Access::ReadWrite)?;
        }
        let mut note = format!("struck after {after:.2?}");
        if random.below(3) == 0 {
            let after = Duration::from_micros(u64::from(random.below(60_000)));
            note.push_str(&format!(", recovery killed after {after:.0?}"));
            self.lab.start_and_kill(&mut random, after)?;
        }
        let started = Instant::now();
        let mut broker = match self.start(&mut random, None) {
            Ok(broker) => broker,
            // Without syncs nobody may be able to read the folder any more.
            Err(error) if options.mutant.is_some() => {
                let error = error.lines().last().unwrap_or_default().to_owned();
                let violations = vec![Violation::new(Kind::Lost, error)];
                return Ok((Figures { violations, ..Figures::default() }, note));
            }
            Err(error) => return Err(error),
        };
        note.push_str(&format!(", started in {:.2?}", started.elapsed()));
        let mut figures = self.judge(broker.address(), log, spared, &mut random)?;
        figures.violations.extend(definitions.check(broker.address(), spared)?);
        if random.below(4) == 0 {
            note.push_str(", then a clean restart");
            let status = broker.terminate()?;
            if !status.success() {
                let text = format!("a broker that is told to end answers {status}");
                figures.violations.push(Violation::new(Kind::Rule, text));
            }
            self.ledger.on_clean_end();
            broker = self.start(&mut random, None)?;
            let again = self.judge(broker.address(), RoundLog::default(), Spared::System, &mut random)?;
            if again.marks_missing > 0 {
                let text = format!("{} marks are missing after a clean end", again.marks_missing);
                figures.violations.push(Violation::new(Kind::Mark, text));
            }
            figures.violations.extend(again.violations);
        }
        if options.checks_marks && figures.marks_missing > 0 {
            let text = format!("{} marks are missing", figures.marks_missing);
            figures.violations.push(Violation::new(Kind::Mark, text));
        }
        self.broker = if options.mutant.is_some() { None } else { Some(broker) };
        Ok((figures, note))
    }

    fn start(&mut self, random: &mut Random, tamper: Option<&Tamper>) -> Result<BrokerProcess, String> {
        let started = Instant::now();
        let broker = self.lab.start(random, tamper)?;
        self.slowest_start = self.slowest_start.max(started.elapsed());
        Ok(broker)
    }

    /// The accident.
    fn strike(&self, broker: BrokerProcess) -> Result<Spared, String> {
        let Some(volume) = &self.volume else {
            broker.kill()?;
            return Ok(Spared::System);
        };
        let until = Instant::now();
        volume.cut_power().map_err(|error| format!("the file system cannot be switched off: {error}"))?;
        broker.kill()?;
        Ok(Spared::Disk(until))
    }

    fn judge(
        &mut self,
        address: std::net::SocketAddr,
        log: RoundLog,
        spared: Spared,
        random: &mut Random,
    ) -> Result<Figures, String> {
        let afterwards = if random.below(2) == 0 { Afterwards::Drain } else { Afterwards::GiveBack };
        let (found, violations) = look(address, afterwards)?;
        let mut figures = self.ledger.judge(log, &found, spared);
        figures.violations.extend(violations);
        match afterwards {
            Afterwards::Drain => self.ledger.on_drained(),
            Afterwards::GiveBack => self.ledger.on_looked_at(),
        }
        Ok(figures)
    }
}

/// A round ends by its accident, but a fast broker must not fill the memory of the tests.
const MESSAGES_MAX: u32 = 20_000;
/// A round that waits for confirms does not wait for ever.
const LATEST: Duration = Duration::from_secs(2);
