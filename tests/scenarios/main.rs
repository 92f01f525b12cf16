//! Runs every scenario file against every target: `cargo test -p tests --test scenarios [NAME]`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tests::oracle::{self, Definitions, Oracle};
use tests::scenario::{self, Scenario};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let scenarios = match scenario::load_all(&folder) {
        Ok(scenarios) => Arc::new(scenarios),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let lab = Arc::new(Lab { scenarios: Arc::clone(&scenarios), oracle: Mutex::default() });
    let mut trials = Vec::new();
    for index in 0..scenarios.len() {
        let scenario = &scenarios[index];
        if scenario.runs_on(oracle::KIND) {
            let lab = Arc::clone(&lab);
            trials.push(Trial::test(format!("rabbitmq::{}", scenario.name), move || lab.on_rabbitmq(index)));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the oracle before the process does.
    drop(lab);
    conclusion.exit_code()
}

/// The servers that the trials share, started by the first that needs them.
struct Lab {
    scenarios: Arc<Vec<Scenario>>,
    oracle: Mutex<Option<Result<Arc<Oracle>, String>>>,
}

impl Lab {
    fn on_rabbitmq(&self, index: usize) -> Result<(), Failed> {
        let started =
            self.oracle.lock().expect("starting does not panic").get_or_insert_with(|| self.start_oracle()).clone();
        Ok(scenario::run(&self.scenarios[index], &started?.target())?)
    }

    fn start_oracle(&self) -> Result<Arc<Oracle>, String> {
        let mut definitions = Definitions::default();
        self.scenarios.iter().for_each(|scenario| definitions.scenario(scenario));
        Oracle::start(&definitions).map(Arc::new)
    }
}
