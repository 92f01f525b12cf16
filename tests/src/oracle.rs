//! A real RabbitMQ as behaviour oracle: one node of its own, reachable on loopback only, gone with the value.
//!
//! It needs Debian's `rabbitmq-server` on the machine (`tests/run` installs it) and never touches a node that the
//! system runs: name, ports, cookie, data and epmd are its own.

use crate::scenario::settings::Policy;
use crate::scenario::{Scenario, USER_PASSWORD};
use crate::temp::TempDir;
use crate::transport::{SocketTarget, Target, Transport};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// A RabbitMQ boots in 5 to 15 seconds on a free core, and makes 3 to 10 vhosts a second, each with a few log lines; the others
/// may be compiling. So what counts is how long it says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a node says when it serves, in its log and below its banner. Either will do: of the log lines of hundreds of vhosts Erlang's logger
/// throws some away, and the one that matters may be among them.
const BOOTED: [&str; 2] = ["Server startup complete", " completed with "];

/// The exchange types that come with RabbitMQ and are not enabled by themselves.
const PLUGINS: &str = "rabbitmq_consistent_hash_exchange,rabbitmq_random_exchange,rabbitmq_recent_history_exchange,\
                       rabbitmq_sharding";

/// What a node has beside what every RabbitMQ has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugins {
    /// [`PLUGINS`].
    ExchangeTypes,
    /// These, and the management plugin.
    Management,
}

/// More than a node takes that scenarios run on.
const MEMORY_WATERMARK: &str = "2GB";

/// What scenarios call this target; the prefix of its version, because that is what differences depend on.
pub const KIND: &str = "rabbitmq-3.10";

/// Vhosts and users that a node starts with, beside `/` and guest.
#[derive(Debug, Default)]
pub struct Definitions {
    vhosts: Vec<(String, bool)>,
    users: Vec<(String, String)>,
    permissions: Vec<(String, String, [String; 3])>,
    /// By the keys of RabbitMQ's definitions.
    others: HashMap<&'static str, Vec<Value>>,
    user_limits: HashMap<String, Value>,
}

impl Definitions {
    /// A vhost where guest may do everything.
    pub fn vhost(&mut self, name: &str) {
        self.vhosts.push((name.to_owned(), false));
        self.permission("guest", name, ["", "", ""].map(|_| ".*".to_owned()));
    }

    /// A user with these tags, the password of all scenario users and no permissions yet.
    pub fn user(&mut self, name: &str, tags: &str) {
        self.users.push((name.to_owned(), tags.to_owned()));
    }

    /// What `user` may configure, write and read in `vhost`.
    pub fn permission(&mut self, user: &str, vhost: &str, patterns: [String; 3]) {
        self.permissions.push((user.to_owned(), vhost.to_owned(), patterns));
    }

    /// Everything that `scenario` needs.
    pub fn scenario(&mut self, scenario: &Scenario) {
        self.vhost(&scenario.vhost());
        if let Some((_, is_traced)) = self.vhosts.last_mut() {
            *is_traced = scenario.is_traced;
        }
        for user in &scenario.users {
            let name = scenario.user_name(&user.name);
            self.user(&name, &user.tags);
            if let Some(patterns) = &user.permissions {
                self.permission(&name, &scenario.vhost(), patterns.clone());
            }
        }
        self.settings(scenario);
    }

    fn settings(&mut self, scenario: &Scenario) {
        let vhost = scenario.vhost();
        let mut add = |category, value| self.others.entry(category).or_default().push(value);
        for policy in &scenario.settings.policies {
            if policy.is_operator {
                let (component, value) = ("operator_policy", policy.to_json());
                add("parameters", json!({"vhost": vhost, "component": component, "name": policy.name, "value": value}));
            } else {
                let mut value = policy.to_json();
                value.extend([("vhost".to_owned(), json!(vhost)), ("name".to_owned(), json!(policy.name))]);
                add("policies", Value::Object(value));
            }
        }
        if !scenario.settings.limits.is_empty() {
            let value = &scenario.settings.limits;
            add("parameters", json!({"vhost": vhost, "component": "vhost-limits", "name": "limits", "value": value}));
        }
        for (user, exchange, [write, read]) in &scenario.settings.topics {
            let user = scenario.user_name(user);
            let value = json!({"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": read});
            add("topic_permissions", value);
        }
        for (user, limits) in &scenario.settings.user_limits {
            self.user_limits.insert(scenario.user_name(user), Value::Object(limits.clone()));
        }
    }

    fn to_json(&self) -> Value {
        let users = self.users.iter().map(|(name, tags)| (name.as_str(), USER_PASSWORD, tags.as_str()));
        let users: Vec<Value> = users
            .chain([("guest", "guest", "administrator")])
            .map(|(name, password, tags)| {
                let limits = self.user_limits.get(name).cloned().unwrap_or_else(|| json!({}));
                json!({"name": name, "password": password, "tags": tags, "limits": limits})
            })
            .collect();
        let vhosts = self.vhosts.iter().map(|(name, is_traced)| (name.as_str(), *is_traced)).chain([("/", false)]);
        let vhosts: Vec<Value> = vhosts.map(|(name, is_traced)| json!({"name": name, "tracing": is_traced})).collect();
        let all = ["", "", ""].map(|_| ".*".to_owned());
        let permissions: Vec<Value> = self
            .permissions
            .iter()
            .map(|(user, vhost, patterns)| (user.as_str(), vhost.as_str(), patterns))
            .chain([("guest", "/", &all)])
            .map(|(user, vhost, [configure, write, read])| {
                json!({"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read})
            })
            .collect();
        let mut definitions = json!({"users": users, "vhosts": vhosts, "permissions": permissions});
        for (category, values) in &self.others {
            definitions[*category] = json!(values);
        }
        definitions
    }
}

/// A running RabbitMQ.
#[derive(Debug)]
pub struct Oracle {
    supervisor: Child,
    address: SocketAddr,
    http: Option<SocketAddr>,
    node: String,
    epmd_port: u16,
    // Dropped last: the node writes into it until it has ended.
    folder: TempDir,
}

impl Oracle {
    /// Boots a node with these definitions and waits until it serves.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not come up; the text holds its last output.
    pub fn start(definitions: &Definitions) -> Result<Self, String> {
        Self::start_with(definitions, Plugins::ExchangeTypes)
    }

    /// As [`Self::start`], with the management plugin.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_with_management(definitions: &Definitions) -> Result<Self, String> {
        Self::start_with(definitions, Plugins::Management)
    }

    fn start_with(definitions: &Definitions, plugins: Plugins) -> Result<Self, String> {
        if !Path::new(SERVER).exists() {
            return Err("rabbitmq-server is not installed; `tests/run --setup` does that".to_owned());
        }
        let folder = TempDir::new("oracle");
        let [port, dist_port, epmd_port, http_port] = free_ports();
        folder.write("definitions.json", &definitions.to_json().to_string());
        let http = match plugins {
            Plugins::ExchangeTypes => None,
            Plugins::Management => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, http_port))),
        };
        let management = if http.is_some() { ",rabbitmq_management" } else { "" };
        folder.write("enabled_plugins", &format!("[{PLUGINS}{management}].\n"));
        folder.write("env.conf", "");
        folder.write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\n\
                 load_definitions = {}/definitions.json\n\
                 vm_memory_high_watermark.absolute = {MEMORY_WATERMARK}\n\
                 disk_free_limit.absolute = 1MB\n\
                 log.console = true\n\
                 log.console.level = info\n\
                 log.file = false\n\
                 {}",
                folder.path().display(),
                http.map_or_else(String::new, |http| {
                    format!("management.tcp.ip = {}\nmanagement.tcp.port = {}\n", http.ip(), http.port())
                }),
            ),
        );
        let node = format!("oracle-{port}@localhost");
        let mut supervisor = supervise(&folder, &node, port, dist_port, epmd_port)?;
        let output = supervisor.stdout.take().ok_or("the node has no output")?;
        let oracle =
            Self { supervisor, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), http, node, epmd_port, folder };
        wait_for_boot(output)?;
        Ok(oracle)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its management API is, if it has one.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The node as a target of scenarios.
    pub fn target(&self) -> OracleTarget<'_> {
        OracleTarget { socket: SocketTarget { kind: KIND, address: self.address }, oracle: self }
    }

    /// Runs `rabbitmqctl` on this node and returns what it prints.
    ///
    /// # Errors
    /// When it fails; the text is its error output.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(CTL)
            .args(["-n", &self.node, "-q"])
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .output()
            .map_err(|error| format!("{CTL}: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// A node whose policies can be changed by its command line.
#[derive(Debug)]
pub struct OracleTarget<'a> {
    socket: SocketTarget,
    oracle: &'a Oracle,
}

impl Target for OracleTarget<'_> {
    fn kind(&self) -> &str {
        self.socket.kind()
    }

    fn connect(&self) -> io::Result<Box<dyn Transport>> {
        self.socket.connect()
    }

    fn put_policy(&self, vhost: &str, policy: &Policy) -> Result<(), String> {
        let command = if policy.is_operator { "set_operator_policy" } else { "set_policy" };
        let definition = Value::Object(policy.definition.clone()).to_string();
        let priority = policy.priority.to_string();
        let options = ["-p", vhost, "--priority", &priority, "--apply-to", &policy.apply_to];
        let arguments = [policy.name.as_str(), &policy.pattern, &definition];
        self.oracle.ctl(&[&[command], &options[..], &arguments].concat()).map(drop)
    }

    fn delete_policy(&self, vhost: &str, name: &str, is_operator: bool) -> Result<(), String> {
        let command = if is_operator { "clear_operator_policy" } else { "clear_policy" };
        self.oracle.ctl(&[command, "-p", vhost, name]).map(drop)
    }

    fn set_memory_alarm(&self, is_raised: bool) -> Result<(), String> {
        let size = if is_raised { "10" } else { MEMORY_WATERMARK };
        self.oracle.ctl(&["set_vm_memory_high_watermark", "absolute", size]).map(drop)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Closing its input makes the supervisor end the node and epmd; see `supervise`.
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Starts epmd and the node below a shell that ends both as soon as its input closes, so that nothing stays behind even
/// when the test process is killed. The node may be killed: nobody reads its data again.
fn supervise(folder: &TempDir, node: &str, port: u16, dist_port: u16, epmd_port: u16) -> Result<Child, String> {
    // The trap interrupts the read: a signal to the whole group of the test must not end the supervisor before its work.
    const SUPERVISOR: &str = r#"
        trap : HUP INT TERM
        epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >/dev/null 2>&1 & epmd=$!
        setsid "$0" </dev/null & node=$!
        read -r _
        kill -KILL "-$node"
        kill -TERM "$epmd"
        wait
    "#;
    let path = |name: &str| folder.path().join(name);
    Command::new("sh")
        .args(["-c", SUPERVISOR, SERVER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env("HOME", folder.path())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("RABBITMQ_NODENAME", node)
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", dist_port.to_string())
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", path("env.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", path("data"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        )
        .spawn()
        .map_err(|error| format!("sh: {error}"))
}

fn wait_for_boot(output: std::process::ChildStdout) -> Result<(), String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        // Reads on after the boot as well, so that the node never blocks on a full pipe.
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) if BOOTED.iter().any(|text| line.contains(text)) => return Ok(()),
            Ok(line) => seen.push(line),
            Err(_) => {
                let tail = &seen[seen.len().saturating_sub(20)..];
                return Err(format!("RabbitMQ did not come up; it said:\n{}", tail.join("\n")));
            }
        }
    }
}

/// Ports that nobody uses right now. Held open together, so that they differ.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports"));
    listeners.map(|listener| listener.local_addr().expect("a bound listener has an address").port())
}
