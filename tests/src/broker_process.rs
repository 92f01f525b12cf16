//! The broker as its own process on a free port of the loopback, with its log in reach; ended with the value.

use crate::http::Http;
use crate::scenario::settings::Policy;
use crate::scenario::{Scenario, USER_PASSWORD};
use crate::temp::TempDir;
use crate::transport::{SocketTarget, Target, Transport};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What scenarios call this target.
pub const KIND: &str = "broker";

/// Until the first log line that says where it listens, and for everything that tests wait for in the log.
const DEADLINE: Duration = Duration::from_secs(20);

/// How to start a broker. Everything that is not set has the broker's own default.
#[derive(Debug, Default)]
pub struct BrokerOptions {
    topology: Option<PathBuf>,
    arguments: Vec<String>,
    has_http: bool,
    has_metrics: bool,
    under: Vec<String>,
    log_level: Option<String>,
}

impl BrokerOptions {
    /// Starts with this topology file.
    pub fn topology(mut self, path: impl Into<PathBuf>) -> Self {
        self.topology = Some(path.into());
        self
    }

    /// Adds an argument to the command line.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Serves the management API on a free port.
    pub fn http(mut self) -> Self {
        self.has_http = true;
        self
    }

    /// Serves metrics on a free port.
    pub fn metrics(mut self) -> Self {
        self.has_metrics = true;
        self
    }

    /// Logs at this level, rather than everything.
    pub fn log_level(mut self, level: impl Into<String>) -> Self {
        self.log_level = Some(level.into());
        self
    }

    /// Starts it by this command, which gets the broker's own as its last arguments. The process has to become the broker.
    pub fn under(mut self, command: Vec<String>) -> Self {
        self.under = command;
        self
    }

    /// Starts the broker and waits until it listens.
    ///
    /// # Errors
    /// When it ends or says nothing; the text is its log.
    pub fn start(self) -> Result<BrokerProcess, String> {
        let binary = binary()?;
        let mut command = match self.under.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let log_level = self.log_level.as_deref().unwrap_or("debug");
        command.args(["--listen", "127.0.0.1:0", "--log", log_level]).args(&self.arguments);
        command.args(["--http", if self.has_http { "127.0.0.1:0" } else { "off" }]);
        command.args(["--metrics", if self.has_metrics { "127.0.0.1:0" } else { "off" }]);
        if let Some(topology) = &self.topology {
            command.arg("--topology").arg(topology);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the broker does not start: {error}"))?;
        let log = Log::collect(child.stderr.take().ok_or("the broker has no stderr")?);
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = BrokerProcess { child, log, address: none, http: none, metrics: none };
        broker.address = broker.address_in_log("listening")?;
        if self.has_http {
            broker.http = broker.address_in_log("management API")?;
        }
        if self.has_metrics {
            broker.metrics = broker.address_in_log("metrics")?;
        }
        Ok(broker)
    }
}

/// A running broker.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    log: Log,
    address: SocketAddr,
    http: SocketAddr,
    metrics: SocketAddr,
}

/// A broker whose settings are changed over its management API.
#[derive(Debug)]
pub struct BrokerTarget {
    socket: SocketTarget,
    http: Http,
}

impl BrokerTarget {
    fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<(), String> {
        let answer = self.http.try_send(method, path, body)?;
        match answer.status {
            200..=299 => Ok(()),
            status => Err(format!("{method} {path}: {status} {}", answer.text())),
        }
    }
}

impl Target for BrokerTarget {
    fn kind(&self) -> &str {
        self.socket.kind()
    }

    fn connect(&self) -> io::Result<Box<dyn Transport>> {
        self.socket.connect()
    }

    fn put_policy(&self, vhost: &str, policy: &Policy) -> Result<(), String> {
        let body = Value::Object(policy.to_json()).to_string();
        self.request("PUT", &policy_path(vhost, &policy.name, policy.is_operator), body.as_bytes())
    }

    fn delete_policy(&self, vhost: &str, name: &str, is_operator: bool) -> Result<(), String> {
        self.request("DELETE", &policy_path(vhost, name, is_operator), b"")
    }

    fn set_memory_alarm(&self, is_raised: bool) -> Result<(), String> {
        let share = if is_raised { 0.0 } else { 0.6 };
        self.request("PUT", "/x/alarms", json!({"memory_watermark_share": share}).to_string().as_bytes())
    }
}

/// Names of scenarios and their policies need no escapes.
fn policy_path(vhost: &str, name: &str, is_operator: bool) -> String {
    let kind = if is_operator { "operator-policies" } else { "policies" };
    format!("/{kind}/{vhost}/{name}")
}

impl BrokerProcess {
    /// A broker without a topology file.
    ///
    /// # Panics
    /// When it does not start; the panic's text is its log.
    pub fn start() -> Self {
        BrokerOptions::default().start().expect("the broker starts")
    }

    /// A broker with this topology text.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn with_topology(text: &str) -> Self {
        let folder = TempDir::new("topology");
        let path = folder.write("topology.yaml", text);
        BrokerOptions::default().topology(path).start().expect("the broker starts")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the management API is, if it is served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where metrics are, if they are served.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// The address in the log line with this message.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn address_in_log(&self, wanted: &str) -> Result<SocketAddr, String> {
        let line = self.wait_for_log(|line| message(line) == Some(wanted))?;
        let line: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        let address = line["fields"]["address"].as_str().or_else(|| line["address"].as_str()).unwrap_or_default();
        address.parse().map_err(|_| format!("no address in the log line {line}"))
    }

    /// The process id, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn target(&self) -> BrokerTarget {
        BrokerTarget { socket: SocketTarget { kind: KIND, address: self.address }, http: Http::new(self.http) }
    }

    /// Waits for a log line that satisfies `is_wanted`, also among those that have come already, and returns it.
    ///
    /// # Errors
    /// With the whole log when none comes in time or the broker ends.
    pub fn wait_for_log(&self, is_wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        self.log.wait_for(is_wanted)
    }

    /// All log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.0.lock().expect("no reader panics").lines.clone()
    }

    /// Ends it as an operator would and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(mut self) -> Result<ExitStatus, String> {
        signal(self.pid(), "TERM")?;
        self.wait_for_end()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus, String> {
        self.log.wait_for_end()?;
        self.child.wait().map_err(|error| error.to_string())
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it has ended before, and by itself.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process by its id.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, name: &str) -> Result<(), String> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("kill -{name} {pid}: {other:?}")),
    }
}

/// Sends a signal, such as `KILL`, to a process and all that share its group, which it leads.
///
/// # Errors
/// When there is none left.
pub fn signal_group(leader: u32, name: &str) -> Result<(), String> {
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} -- -{leader}")]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("kill -s {name} -- -{leader}: {other:?}")),
    }
}

/// The `message` of a JSON log line.
fn message(line: &str) -> Option<&str> {
    line.split_once("\"message\":\"").and_then(|(_, rest)| rest.split('"').next())
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    is_over: bool,
}

/// Log lines as a thread reads them.
#[derive(Debug, Clone)]
struct Log {
    lines: Arc<(Mutex<LogState>, Condvar)>,
}

impl Log {
    fn collect(input: impl io::Read + Send + 'static) -> Self {
        let log = Self { lines: Arc::default() };
        let shared = Arc::clone(&log.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(input).lines().map_while(Result::ok) {
                shared.0.lock().expect("no waiter panics").lines.push(line);
                shared.1.notify_all();
            }
            shared.0.lock().expect("no waiter panics").is_over = true;
            shared.1.notify_all();
        });
        log
    }

    fn wait_for(&self, is_wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = 0;
        let mut state = self.lines.0.lock().expect("the reader does not panic");
        loop {
            if let Some(line) = state.lines[seen..].iter().find(|line| is_wanted(line)) {
                return Ok(line.clone());
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                let what = if state.is_over { "the broker ended" } else { "no such line came" };
                return Err(format!("{what}; its log:\n{}", state.lines.join("\n")));
            }
            state = self.lines.1.wait_timeout(state, left).expect("the reader does not panic").0;
        }
    }

    /// Waits until the log ends, which it does with the process.
    fn wait_for_end(&self) -> Result<(), String> {
        let state = self.lines.0.lock().expect("the reader does not panic");
        let (state, timeout) = self
            .lines
            .1
            .wait_timeout_while(state, DEADLINE, |state| !state.is_over)
            .expect("the reader does not panic");
        if timeout.timed_out() {
            Err(format!("the broker goes on; its log:\n{}", state.lines.join("\n")))
        } else {
            Ok(())
        }
    }
}

/// The broker's binary: `BROKER_BIN`, or what cargo builds now. Never a stale one: a test of yesterday's binary is worse
/// than none.
///
/// # Errors
/// When it does not build.
pub fn binary() -> Result<PathBuf, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| match std::env::var_os("BROKER_BIN") {
            Some(path) => Ok(PathBuf::from(path)),
            None => build(),
        })
        .clone()
}

fn build() -> Result<PathBuf, String> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "broker", "--bin", "broker", "--message-format", "json"])
        .current_dir(repository())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.ok_or_else(|| format!("cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies below the root")
}

/// A topology with a vhost and the users of each scenario, beside `/` and guest.
pub fn scenario_topology<'a>(scenarios: impl IntoIterator<Item = &'a Scenario>) -> String {
    let mut users = Map::new();
    let mut vhosts = Map::from_iter([("/".to_owned(), json!({}))]);
    let mut guest = Map::from_iter([("/".to_owned(), json!(".*"))]);
    for scenario in scenarios {
        let vhost = scenario.vhost();
        guest.insert(vhost.clone(), json!(".*"));
        for user in &scenario.users {
            let mut permissions = Map::new();
            if let Some([configure, write, read]) = &user.permissions {
                permissions.insert(vhost.clone(), json!({"configure": configure, "write": write, "read": read}));
            }
            let name = scenario.user_name(&user.name);
            let (topics, limits) = user_settings(scenario, &user.name);
            users.insert(
                name,
                json!({
                    "password": USER_PASSWORD, "tags": user.tags, "permissions": permissions,
                    "topic_permissions": {&vhost: topics}, "limits": limits,
                }),
            );
        }
        let policies = |is_operator| -> Vec<Value> {
            let policies = scenario.settings.policies.iter().filter(|policy| policy.is_operator == is_operator);
            policies.map(policy).collect()
        };
        let limits = with_underscores(&scenario.settings.limits);
        vhosts.insert(
            vhost,
            json!({
                "tracing": scenario.is_traced, "limits": limits,
                "policies": policies(false), "operator_policies": policies(true),
            }),
        );
    }
    users.insert("guest".to_owned(), json!({"password": "guest", "tags": "administrator", "permissions": guest}));
    // JSON is YAML.
    json!({"users": users, "vhosts": vhosts}).to_string()
}

/// The topic permissions, by exchange, and the limits of a user.
fn user_settings(scenario: &Scenario, user: &str) -> (Map<String, Value>, Map<String, Value>) {
    let topics = scenario.settings.topics.iter().filter(|(of, ..)| of == user);
    let topics = topics.map(|(_, exchange, [write, read])| (exchange.clone(), json!({"write": write, "read": read})));
    let limits = scenario.settings.user_limits.iter().find(|(of, _)| of == user);
    (topics.collect(), limits.map(|(_, limits)| with_underscores(limits)).unwrap_or_default())
}

fn policy(policy: &Policy) -> Value {
    let mut value = with_underscores(&policy.to_json());
    value.insert("name".to_owned(), json!(policy.name));
    Value::Object(value)
}

/// The keys of a topology are spelt as the rest of the file.
fn with_underscores(values: &Map<String, Value>) -> Map<String, Value> {
    values.iter().map(|(name, value)| (name.replace('-', "_"), value.clone())).collect()
}
