//! Mixed traffic for minutes or days: `soak --minutes 60`. One line a cycle, and an exit code other than 0 when something was lost, the
//! broker has grown, or its log has errors. `BROKER_BIN` names the broker to test; without it, cargo builds one.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use tests::soak::{self, Options};

#[derive(Parser)]
#[command(about = "Runs mixed traffic for a long time and looks for losses and growth")]
struct Arguments {
    /// How long, at least; the last cycle is brought to its end
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// Seconds of traffic before queues run empty and figures are taken
    #[arg(long, default_value_t = 60)]
    cycle_secs: u64,
    /// Messages a second, in all
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// What the clients do; moments differ all the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments { minutes, cycle_secs, rate, seed } = Arguments::parse();
    let duration = Duration::from_secs_f64(minutes.clamp(0.0, 60.0 * 24.0 * 365.0) * 60.0);
    let options = Options { duration, cycle: Duration::from_secs(cycle_secs), rate, seed };
    match soak::run(&options) {
        Ok(outcome) if outcome.violations.is_empty() => {
            println!("soak: {} cycles, nothing lost and nothing grown", outcome.cycles);
            ExitCode::SUCCESS
        }
        Ok(outcome) => {
            for violation in &outcome.violations {
                eprintln!("soak: {violation}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
