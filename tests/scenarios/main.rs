//! Runs every scenario file against every target: `cargo test -p tests --test scenarios [NAME]`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tests::broker_process::{self, BrokerOptions, BrokerProcess};
use tests::machine::MachineTarget;
use tests::oracle::{self, Definitions, Oracle};
use tests::scenario::{self, Scenario};
use tests::temp::TempDir;

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
    let lab = Arc::new(Lab {
        scenarios: Arc::clone(&scenarios),
        filter: arguments.filter.clone().unwrap_or_default(),
        broker: Mutex::default(),
        oracle: Mutex::default(),
        broker_turns: RwLock::default(),
        oracle_turns: RwLock::default(),
    });
    let mut trials = Vec::new();
    for index in 0..scenarios.len() {
        let scenario = &scenarios[index];
        if scenario.runs_on(broker_process::KIND) {
            let (machine, socket) = (Arc::clone(&lab), Arc::clone(&lab));
            trials.push(Trial::test(format!("machine::{}", scenario.name), move || machine.on_machine(index)));
            trials.push(Trial::test(format!("socket::{}", scenario.name), move || socket.on_broker(index)));
        }
        if scenario.runs_on(oracle::KIND) {
            let lab = Arc::clone(&lab);
            trials.push(Trial::test(trial_on_rabbitmq(scenario), move || lab.on_rabbitmq(index)));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the oracle before the process does.
    drop(lab);
    conclusion.exit_code()
}

fn trial_on_rabbitmq(scenario: &Scenario) -> String {
    format!("rabbitmq::{}", scenario.name)
}

/// The servers that the trials share, started by the first that needs them.
struct Lab {
    scenarios: Arc<Vec<Scenario>>,
    /// The part of a trial's name that was asked for.
    filter: String,
    broker: Mutex<Option<Result<Arc<BrokerProcess>, String>>>,
    oracle: Mutex<Option<Result<Arc<Oracle>, String>>>,
    /// Whoever raises an alarm has a server alone.
    broker_turns: RwLock<()>,
    oracle_turns: RwLock<()>,
}

/// Held while a scenario runs on a shared server: by many at the same time, unless it raises alarms.
#[expect(dead_code, reason = "it is held, not looked at")]
enum Turn<'a> {
    WithOthers(RwLockReadGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

impl<'a> Turn<'a> {
    fn of(scenario: &Scenario, turns: &'a RwLock<()>) -> Self {
        // Whoever panicked has left nothing half done: there is nothing inside.
        if scenario.raises_alarms() {
            Self::Alone(turns.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Self::WithOthers(turns.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

impl Lab {
    fn on_broker(&self, index: usize) -> Result<(), Failed> {
        let started =
            self.broker.lock().expect("starting does not panic").get_or_insert_with(|| self.start_broker()).clone();
        let scenario = &self.scenarios[index];
        let _turn = Turn::of(scenario, &self.broker_turns);
        Ok(scenario::run(scenario, &started?.target())?)
    }

    fn start_broker(&self) -> Result<Arc<BrokerProcess>, String> {
        let folder = TempDir::new("scenarios");
        let path = folder.write("topology.yaml", &broker_process::scenario_topology(self.scenarios.iter()));
        BrokerOptions::default().topology(path).http().start().map(Arc::new)
    }

    /// Each run has a machine of its own: they are cheap, and the clock of one jumps.
    fn on_machine(&self, index: usize) -> Result<(), Failed> {
        let scenario = &self.scenarios[index];
        let folder = TempDir::new("machine");
        let path = folder.write("topology.yaml", &broker_process::scenario_topology([scenario]));
        let loaded = broker::config::load(&path, &|_| None)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<String>())?;
        let machine = MachineTarget::new(&loaded.topology)?;
        Ok(scenario::run(scenario, &machine)?)
    }

    fn on_rabbitmq(&self, index: usize) -> Result<(), Failed> {
        let started =
            self.oracle.lock().expect("starting does not panic").get_or_insert_with(|| self.start_oracle()).clone();
        let scenario = &self.scenarios[index];
        let _turn = Turn::of(scenario, &self.oracle_turns);
        Ok(scenario::run(scenario, &started?.target())?)
    }

    fn start_oracle(&self) -> Result<Arc<Oracle>, String> {
        let mut definitions = Definitions::default();
        // Only what will run, because making a vhost takes long, and a setting that RabbitMQ refuses ends its import without a word.
        let is_wanted =
            |scenario: &&Scenario| scenario.runs_on(oracle::KIND) && trial_on_rabbitmq(scenario).contains(&self.filter);
        self.scenarios.iter().filter(is_wanted).for_each(|scenario| definitions.scenario(scenario));
        Oracle::start(&definitions).map(Arc::new)
    }
}
