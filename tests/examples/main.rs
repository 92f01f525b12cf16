//! Runs every example: its topology in a broker, its programs as its README says, with what they print compared.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

mod tutorial;

use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tests::broker_process::{BrokerOptions, BrokerProcess, repository, signal_group};
use tests::http::Http;
use tests::temp::TempDir;

/// An example with its broker.
struct Example {
    folder: PathBuf,
    broker: BrokerProcess,
    /// Instead of a folder beside the example, which is the user's.
    data: TempDir,
}

impl Example {
    fn start(name: &str) -> Self {
        let folder = repository().join("examples").join(name);
        let data = TempDir::new("example");
        let broker = Self::broker(&folder, &data);
        Self { folder, broker, data }
    }

    fn broker(folder: &Path, data: &TempDir) -> BrokerProcess {
        BrokerOptions::default()
            .topology(folder.join("topology.yaml"))
            .http()
            .argument("--data")
            .argument(data.path().display().to_string())
            .start()
            .expect("the broker starts")
    }

    fn restart(self) -> Self {
        let Self { folder, broker, data } = self;
        assert!(broker.terminate().expect("the broker ends in time").success());
        Self { broker: Self::broker(&folder, &data), folder, data }
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(repository())
            .env("AMQP_HOST", self.broker.address().ip().to_string())
            .env("AMQP_PORT", self.broker.address().port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = self.interpreter();
        command.arg(self.folder.join(script)).args(arguments);
        command
    }

    /// A program that comes as a Python module: `python -m MODULE ARGUMENTS…`.
    fn python_module(&self, module: &str, arguments: &[&str]) -> Command {
        let mut command = self.interpreter();
        command.args(["-m", module]).args(arguments);
        command
    }

    fn interpreter(&self) -> Command {
        let python =
            std::env::var_os("TEST_PYTHON").map_or_else(|| repository().join("tests/.venv/bin/python"), PathBuf::from);
        assert!(python.exists(), "{} is missing; `tests/run --setup` makes it", python.display());
        let mut command = self.command(python);
        command.arg("-B");
        command
    }

    /// Celery's own program, with the arguments of one of its commands.
    fn celery(&self, arguments: &[&str]) -> Command {
        let mut command = self.python_module("celery", &["--workdir"]);
        command.arg(&self.folder).args(["-A", "tasks"]).args(arguments);
        command
    }

    /// A worker in one process, so that killing it ends the task as well.
    fn celery_worker(&self, name: &str) -> Background {
        Background::start(
            self.celery(&["worker", "--concurrency", "1", "--hostname", &format!("worker@{name}")])
                .stderr(Stdio::null()),
        )
    }

    fn node(&self, script: &str, arguments: &[&str]) -> Command {
        let modules = repository().join("tests/clients/amqplib/node_modules");
        assert!(modules.exists(), "{} is missing; `tests/run --setup` makes it", modules.display());
        let mut command = self.command("node");
        command.env("NODE_PATH", modules).arg(self.folder.join(script)).args(arguments);
        command
    }

    fn rust(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO"));
        command.args(["run", "--quiet", "--package", "tests", "--example", name, "--"]).args(arguments);
        command
    }
}

/// Runs a program that must succeed, and returns its lines.
fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Runs a program that must fail, and returns what it complains.
fn complaint(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("the program runs");
    assert!(!status.success(), "{command:?} succeeds");
    String::from_utf8_lossy(&stderr).into_owned()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// A program that goes on while others run; killed when dropped, with all processes that it has made.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).spawn().expect("the program starts"))
    }

    fn output(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("the output is taken once"))
    }
}

/// Reads until this line has come.
fn wait_for(output: &mut BufReader<ChildStdout>, wanted: &str) {
    let mut heard = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        if line == wanted {
            return;
        }
        heard.push(line);
    }
    panic!("the program ends without \"{wanted}\", after {heard:?}");
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = signal_group(self.0.id(), "KILL");
        let _ = self.0.wait();
    }
}

#[test]
fn quickstart() {
    let mut example = Example::start("quickstart");
    // Its data folder is there the second time.
    for _ in 0..2 {
        assert_eq!(
            lines(&mut example.python("shop.py", &[])),
            [
                "orders.eu: order.eu.new",
                "orders.us: order.us.rush",
                "orders.rush: order.us.rush",
                "audit.all: order.eu.new",
                "audit.all: order.us.rush",
                "tenants.acme: acme.order.created",
            ]
        );
        example = example.restart();
    }
}

#[test]
fn work_queue() {
    let example = Example::start("work-queue");
    let mut doomed = Background::start(&mut example.python("worker.py", &[]));
    let mut output = doomed.output();
    assert_eq!(
        lines(&mut example.python("new_task.py", &["clean", "cook", "shop"])),
        ["sent clean", "sent cook", "sent shop"]
    );
    let mut first = String::new();
    output.read_line(&mut first).expect("the worker speaks");
    assert_eq!(first, "working on clean\n");
    // It acked nothing that it had not printed, so what is left is between the tasks behind "clean" and all of them.
    drop(doomed);
    lines(&mut example.python("new_task.py", &["last"]));
    assert_eq!(lines(&mut example.python("worker.py", &["1"])).len(), 1);
}

/// What workers in Python and in Node ack is the same to the broker.
#[test]
fn work_queue_in_node() {
    let example = Example::start("work-queue");
    let mut slow = Background::start(&mut example.node("worker.js", &[]));
    let mut output = slow.output();
    wait_for(&mut output, "waiting for tasks");
    // Long enough for everything that follows: it is killed over this one.
    let long = format!("long{}", ".".repeat(240));
    lines(&mut example.node("new_task.js", &[&long]));
    wait_for(&mut output, &format!("working on {long}"));
    // With a prefetch of one, what comes now goes to the other worker.
    lines(&mut example.node("new_task.js", &["one", "two"]));
    assert_eq!(
        lines(&mut example.node("worker.js", &["2"])),
        ["waiting for tasks", "working on one", "working on two"]
    );
    drop(slow);
    assert_eq!(lines(&mut example.python("worker.py", &["1"])), [format!("working on {long}")]);
}

#[test]
fn publish_subscribe() {
    let example = Example::start("publish-subscribe");
    let mut subscribers: Vec<Background> =
        (0..2).map(|_| Background::start(&mut example.node("subscribe.js", &["2"]))).collect();
    let mut outputs: Vec<_> = subscribers.iter_mut().map(Background::output).collect();
    for output in &mut outputs {
        let mut line = String::new();
        output.read_line(&mut line).expect("the subscriber speaks");
        assert_eq!(line, "listening\n");
    }
    lines(&mut example.node("publish.js", &["It rains", "It stopped"]));
    for output in outputs {
        let heard: Vec<String> = output.lines().map_while(Result::ok).collect();
        assert_eq!(heard, ["heard It rains", "heard It stopped"]);
    }
}

#[test]
fn routing() {
    let example = Example::start("routing");
    lines(&mut example.python("log.py", &["error", "disk full"]));
    lines(&mut example.python("log.py", &["info", "all is well"]));
    let complaint = complaint(&mut example.python("log.py", &["gossip", "who said what"]));
    assert!(complaint.contains("nobody wants lines of severity gossip"), "{complaint}");
    assert_eq!(lines(&mut example.python("read.py", &["logs.errors"])), ["error: disk full"]);
    assert_eq!(lines(&mut example.python("read.py", &["logs.archive"])), ["error: disk full", "info: all is well"]);
}

#[test]
fn topics() {
    let example = Example::start("topics");
    lines(&mut example.rust("topics", &["publish", "order.eu.new", "order.us.rush", "order.eu.rush"]));
    assert_eq!(
        lines(&mut example.rust("topics", &["read", "orders.eu"])),
        ["order.eu.new: an order for order.eu.new", "order.eu.rush: an order for order.eu.rush"]
    );
    assert_eq!(
        lines(&mut example.rust("topics", &["read", "orders.rush"])),
        ["order.us.rush: an order for order.us.rush", "order.eu.rush: an order for order.eu.rush"]
    );
}

#[test]
fn rpc() {
    let example = Example::start("rpc");
    let _server = Background::start(&mut example.python("server.py", &[]));
    let answers = lines(&mut example.python("client.py", &["3", "12"]));
    assert_eq!(sorted(answers), ["12 squared is 144", "3 squared is 9"]);
    let answers = lines(&mut example.python("direct_client.py", &["4", "13"]));
    assert_eq!(sorted(answers), ["13 squared is 169", "4 squared is 16"]);
}

#[test]
fn celery() {
    let example = Example::start("celery");
    let worker = example.celery_worker("first");
    assert_eq!(
        lines(&mut example.python("ask.py", &[])),
        ["2 + 3 = 5", "doubles: [2, 4, 6, 8, 10]", "a second later or more: True", "answered after 2 retries"]
    );
    let pings = lines(&mut example.celery(&["inspect", "--timeout", "10", "--destination", "worker@first", "ping"]));
    assert!(pings.iter().any(|line| line.contains("first") && line.contains("OK")), "{pings:?}");

    let mut watcher = Background::start(&mut example.python("watch.py", &["1"]));
    let mut events = watcher.output();
    wait_for(&mut events, "watching");
    let mut customer = Background::start(&mut example.python("pack.py", &["600"]));
    let mut answers = customer.output();
    wait_for(&mut events, "task-started tasks.pack");
    drop(worker);
    // It was not acked, so the broker has it still, and somebody else gets it.
    let _second = example.celery_worker("second");
    wait_for(&mut answers, "packed what somebody else had begun");
    wait_for(&mut events, "task-succeeded tasks.pack");
}

/// Its pages and its API, which ask the workers over AMQP and the management API for queues; not one call may fail.
#[test]
fn celery_flower() {
    let example = Example::start("celery");
    let _worker = example.celery_worker("first");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let mut process = Background::start(
        example
            .celery(&["flower", "--address=127.0.0.1", &format!("--port={}", port.port())])
            .arg(format!("--broker-api=http://celery:celery@{}/api/", example.broker.http()))
            .env("FLOWER_UNAUTHENTICATED_API", "true"),
    );
    let mut log = BufReader::new(process.0.stderr.take().expect("it is piped"));
    assert!(log.by_ref().lines().map_while(Result::ok).any(|line| line.contains("Visit me at")), "flower ends");
    let flower = Http::new(port).anonymous();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // Each of these calls asks the workers and waits for what they answer.
    let queue_of_worker = || {
        let workers = flower.get("/workers?refresh=1");
        workers.get("worker@first")?["active_queues"][0]["name"].as_str().map(str::to_owned)
    };
    while queue_of_worker().is_none_or(|queue| queue != "celery") {
        assert!(std::time::Instant::now() < deadline, "flower does not see the worker");
    }
    let done = flower.send("POST", "/task/apply/tasks.add", br#"{"args": [2, 3]}"#);
    assert_eq!((done.status, &done.json()["result"]), (200, &serde_json::json!(5)), "{}", done.text());
    let queues = flower.get("/queues/length");
    let queue = &queues["active_queues"][0];
    assert_eq!((&queue["name"], &queue["messages"], &queue["consumers"]), (&"celery".into(), &0.into(), &1.into()));
    let page =
        flower.raw(b"GET /broker HTTP/1.1\r\nhost: flower\r\nconnection: close\r\n\r\n", false).expect("an answer");
    assert!(page.text().contains("<tr id=\"celery\">"), "{}", page.text());
    drop(process);
    let mut complaints = String::new();
    log.read_to_string(&mut complaints).expect("a log");
    // A warning is that no worker answers, which is so until the one here is up.
    assert!(!complaints.contains("[E "), "{complaints}");
}

#[test]
fn dramatiq() {
    let example = Example::start("dramatiq");
    let folder = example.folder.display().to_string();
    // What actors print comes among the log's lines.
    let log = ["--log-file", "/dev/stdout"];
    let arguments = [&["--path", &folder, "--processes", "1", "--threads", "2"], &log[..], &["actors"]].concat();
    let mut worker = Background::start(example.python_module("dramatiq", &arguments).stderr(Stdio::null()));
    let mut output = worker.output();
    lines(&mut example.python("ask.py", &[]));
    for done in ["filed a letter", "tea, a second later or more: True", "Ada answered at attempt 3"] {
        wait_for(&mut output, done);
    }
    assert_eq!(lines(&mut example.python("counts.py", &[])), ["0 waiting, 0 delayed, 1 failed"]);
}

#[test]
fn headers() {
    let example = Example::start("headers");
    lines(&mut example.python("send.py", &["a report", "format=pdf", "copies=1"]));
    lines(&mut example.python("send.py", &["a note", "format=txt", "keep=true"]));
    lines(&mut example.python("send.py", &["waste", "format=txt"]));
    assert_eq!(lines(&mut example.python("read.py", &["print"])), ["a report"]);
    assert_eq!(lines(&mut example.python("read.py", &["archive"])), ["a report", "a note"]);
}

#[test]
fn tenant_routing() {
    let example = Example::start("tenant-routing");
    lines(&mut example.python("publish.py", &["order.created", "an order", "--tenant", "globex"]));
    lines(&mut example.python("publish.py", &["order.created", "mine", "--user", "acme:alice", "alice"]));
    let complaint = complaint(&mut example.python("publish.py", &["order.created", "whose?"]));
    assert!(complaint.contains("rejected"), "{complaint}");
    assert_eq!(lines(&mut example.python("read.py", &["acme.events"])), ["acme.order.created: mine"]);
    assert_eq!(lines(&mut example.python("read.py", &["globex.orders"])), ["globex.order.created: an order"]);
}
