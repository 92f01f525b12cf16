//! The command line: as a test runner, or to run the seeds that somebody names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use libtest_mimic::{Arguments as TestArguments, Failed, Trial};

use crate::defect::{DEFECTS, Defect};
use crate::history::Violation;
use crate::oracle;
use crate::phases::{self, Figures, Outcome};
use crate::trace::Mode;

/// Runs of the simulator by hand; without these options it is a test runner.
#[derive(Parser)]
#[command(name = "sim", about = "Simulates brokers and clients, from seeds")]
struct Arguments {
    /// Run this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print whose turn it is, too
    #[arg(long, requires = "trace")]
    turns: bool,
    /// Run so many seeds
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads that run seeds
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Plant this defect
    #[arg(long)]
    defect: Option<String>,
    /// Let this oracle judge alone
    #[arg(long)]
    only: Option<String>,
}

/// What a test runs.
const SEEDS: u64 = 1000;
const SEEDS_A_TEST: u64 = 50;
/// Seeds in which a planted defect must be noticed. Most are in ten; a sync that was skipped shows itself in one of a hundred.
const SEEDS_A_DEFECT: u64 = 600;

pub(crate) fn main() -> ExitCode {
    let is_ours = |argument: &String| ["--seed", "--defect"].iter().any(|name| argument.starts_with(name));
    if std::env::args().any(|argument| is_ours(&argument)) {
        return by_hand(&Arguments::parse());
    }
    let mut trials: Vec<Trial> = (0..SEEDS / SEEDS_A_TEST)
        .map(|part| {
            let (first, last) = (part * SEEDS_A_TEST, (part + 1) * SEEDS_A_TEST - 1);
            Trial::test(format!("promises_are_kept::seeds_{first:04}_to_{last:04}"), move || {
                (first..=last)
                    .try_for_each(|seed| report(seed, &run(seed, None, None, Mode::Off)).map_err(Failed::from))
            })
        })
        .collect();
    for &(name, defect, oracle) in DEFECTS {
        trials.push(Trial::test(format!("defect_is_noticed::{name}"), move || notice(defect, oracle)));
    }
    trials.push(Trial::test("every_oracle_has_a_defect", every_oracle_has_a_defect));
    trials.push(Trial::test("a_seed_does_the_same_again", || (0..20).try_for_each(repeats)));
    libtest_mimic::run(&TestArguments::from_args(), trials).exit_code()
}

fn by_hand(arguments: &Arguments) -> ExitCode {
    let defect = match &arguments.defect {
        None => None,
        Some(wanted) => match DEFECTS.iter().find(|(name, _, _)| name == wanted) {
            Some((_, defect, _)) => Some(*defect),
            None => {
                let names: Vec<&str> = DEFECTS.iter().map(|(name, _, _)| *name).collect();
                eprintln!("there is no defect '{wanted}'; there are {}", names.join(", "));
                return ExitCode::from(64);
            }
        },
    };
    if let Some(seed) = arguments.seed {
        let mode = match (arguments.trace, arguments.turns) {
            (false, _) => Mode::Off,
            (true, false) => Mode::Print,
            (true, true) => Mode::PrintTurns,
        };
        let outcome = run(seed, defect, arguments.only.as_deref(), mode);
        println!("seed {seed}: {:?}", outcome.figures);
        return match report(seed, &outcome) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                println!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    many(arguments, defect)
}

fn many(arguments: &Arguments, defect: Option<Defect>) -> ExitCode {
    let (first, count) = (arguments.first, arguments.seeds.unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let (figures, failures) = (Mutex::new(Figures::default()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, defect, arguments.only.as_deref(), Mode::Off);
                    if let Err(text) = report(seed, &outcome) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("{text}");
                    }
                    if let Ok(mut figures) = figures.lock() {
                        figures.add(outcome.figures);
                    }
                }
            });
        }
    });
    let failures = failures.load(Ordering::Relaxed);
    println!(
        "{count} seeds from {first}, {failures} failed: {:?}",
        figures.lock().map(|figures| *figures).unwrap_or_default()
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a seed; a panic is a violation like any other.
fn run(seed: u64, defect: Option<Defect>, only: Option<&str>, mode: Mode) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| phases::run(seed, defect, only, mode))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let violation = Violation { oracle: "panic", text };
        Outcome { violation: Some(violation), digest: 0, figures: Figures::default() }
    })
}

fn report(seed: u64, outcome: &Outcome) -> Result<(), String> {
    let Some(Violation { oracle, text }) = &outcome.violation else { return Ok(()) };
    Err(format!(
        "seed {seed} breaks {oracle}: {text}\n  replay: cargo test -p tests --test sim -- --seed {seed} --trace"
    ))
}

/// A defect that goes unnoticed means that the runs without it prove nothing.
fn notice(defect: Defect, oracle: &str) -> Result<(), Failed> {
    let mut others = std::collections::BTreeMap::new();
    for seed in 0..SEEDS_A_DEFECT {
        match run(seed, Some(defect), Some(oracle), Mode::Off).violation {
            Some(violation) if violation.oracle == oracle => return Ok(()),
            Some(violation) => *others.entry(violation.oracle).or_insert(0) += 1,
            None => {}
        }
    }
    Err(format!("{oracle} notices nothing in {SEEDS_A_DEFECT} seeds; others did: {others:?}").into())
}

fn every_oracle_has_a_defect() -> Result<(), Failed> {
    let is_tested = |oracle: &str| DEFECTS.iter().any(|(_, _, by)| *by == oracle);
    let untested: Vec<&str> =
        oracle::all().iter().map(|oracle| oracle.name()).filter(|name| !is_tested(name)).collect();
    if untested.is_empty() { Ok(()) } else { Err(format!("no defect shows that {untested:?} can fail").into()) }
}

fn repeats(seed: u64) -> Result<(), Failed> {
    let digest = || run(seed, None, None, Mode::Hash).digest;
    if digest() == digest() { Ok(()) } else { Err(format!("seed {seed} did two different things").into()) }
}
