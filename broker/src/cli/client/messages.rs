//! `broker publish`, `get`, `consume` and `move`: messages by hand.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Value as Json, json};

use super::http::{Api, Failure, exchange, path};
use super::output::{self, Output};
use super::{InVhost, Remote, complete, list, table, tell, with_api};
use crate::cli::exit;
use crate::cli::progress::Progress;

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The exchange; none is the default one, whose keys are names of queues
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true,
          add = ArgValueCompleter::new(complete::exchanges))]
    exchange: String,
    /// The routing key
    #[arg(short, long, value_name = "KEY", default_value = "", hide_default_value = true,
          add = ArgValueCompleter::new(complete::queues))]
    key: String,
    #[command(flatten)]
    vhost: InVhost,
    /// What it says; without this and --file it is read from standard input
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    body: Option<String>,
    /// The file with what it says
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A header, as NAME=VALUE; values are JSON or text
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// A property such as content_type=text/plain, priority=5, expiration=60000 or reply_to=answers
    #[arg(short, long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// It survives the broker's end in durable queues
    #[arg(short = 'P', long)]
    persistent: bool,
    /// So many of them
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    count: u64,
}

pub(in crate::cli) fn publish(args: &PublishArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let mut properties = table(&args.properties)?;
        // These are text whatever they look like.
        for name in ["expiration", "message_id", "correlation_id", "type", "app_id", "user_id", "reply_to"] {
            if let Some(value) = properties.get_mut(name).filter(|value| !value.is_string()) {
                *value = json!(value.to_string());
            }
        }
        if args.persistent {
            properties.insert("delivery_mode".to_owned(), json!(2));
        }
        if !args.headers.is_empty() {
            properties.insert("headers".to_owned(), Json::Object(table(&args.headers)?));
        }
        let (payload, encoding) = payload(&body(args)?);
        let request = json!({"routing_key": args.key, "properties": properties, "payload": payload,
            "payload_encoding": encoding});
        let path = format!("{}/publish", path("exchanges", &[args.vhost.name(api), exchange(&args.exchange)]));
        let mut progress = Progress::new("publishing");
        let mut routed = 0;
        for number in 0..args.count {
            routed += u64::from(api.post(&path, &request)?["routed"] == json!(true));
            progress.set(number + 1, Some(args.count));
        }
        drop(progress);
        if routed < args.count {
            let lost = args.count - routed;
            eprintln!(
                "broker: {lost} of {} messages reached no queue; 'broker list bindings' shows what '{}' is bound to",
                args.count, args.exchange
            );
            return Ok(exit::FAILED);
        }
        Ok(tell(&format!("{routed} published and routed")))
    })
}

fn body(args: &PublishArgs) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &args.body {
        return Ok(text.clone().into_bytes());
    }
    if let Some(file) = &args.file {
        let read = std::fs::read(file);
        return read.map_err(|error| Failure::NoInput(format!("{} cannot be read: {error}", file.display())));
    }
    let mut body = Vec::new();
    let read = std::io::stdin().read_to_end(&mut body);
    read.map_err(|error| Failure::NoInput(format!("standard input cannot be read: {error}")))?;
    Ok(body)
}

/// Text goes as it is, anything else in base64.
fn payload(body: &[u8]) -> (String, &'static str) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), "string"),
        Err(_) => (STANDARD.encode(body), "base64"),
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// The queue
    #[arg(add = ArgValueCompleter::new(complete::queues))]
    queue: String,
    #[command(flatten)]
    vhost: InVhost,
    /// So many at most
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    count: u32,
    /// What becomes of them
    #[arg(short, long, value_enum, default_value_t)]
    mode: Mode,
    #[command(flatten)]
    output: Output,
}

/// What becomes of messages that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// They go back to the queue, marked as redelivered
    #[default]
    Requeue,
    /// They are removed
    Ack,
    /// They are dead-lettered, or removed
    Reject,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Requeue => "ack_requeue_true",
            Self::Ack => "ack_requeue_false",
            Self::Reject => "reject_requeue_false",
        }
    }
}

const MESSAGE: &[output::Column<'_>] = &[
    ("exchange", "exchange"),
    ("routing_key", "routing_key"),
    ("redelivered", "redelivered"),
    ("left", "message_count"),
    ("properties", "properties"),
    ("encoding", "payload_encoding"),
    ("payload", "payload"),
];

pub(in crate::cli) fn get(args: &GetArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let rows = take(api, args.vhost.name(api), &args.queue, args.count, args.mode)?;
        output::print(args.output, MESSAGE, &rows)
    })
}

fn take(api: &Api, vhost: &str, queue: &str, count: u32, mode: Mode) -> Result<Vec<Json>, Failure> {
    let request = json!({"count": count, "ackmode": mode.name(), "encoding": "auto"});
    Ok(list::array(api.post(&format!("{}/get", path("queues", &[vhost, queue])), &request)?))
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConsumeArgs {
    /// The queue
    #[arg(add = ArgValueCompleter::new(complete::queues))]
    queue: String,
    #[command(flatten)]
    vhost: InVhost,
    /// End after so many
    #[arg(short, long, value_name = "COUNT")]
    count: Option<u64>,
    /// End when nothing has come for so many seconds
    #[arg(long, value_name = "SECONDS")]
    idle: Option<f64>,
    /// One JSON object a line instead of the payloads alone
    #[arg(long)]
    json: bool,
}

/// Messages of one request.
const TAKE_MAX: u32 = 100;
/// Between two looks at an empty queue: at first, and at most.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Removes messages and prints them, until it is ended. A message is acked when the API answers with it: for work that must not be lost
/// there are real clients.
pub(in crate::cli) fn consume(args: &ConsumeArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let vhost = args.vhost.name(api);
        let mut rest = args.count.unwrap_or(u64::MAX);
        let (mut wait, mut last) = (LOOK_AGAIN, Instant::now());
        let mut out = std::io::stdout().lock();
        while rest > 0 {
            let count = u32::try_from(rest).unwrap_or(TAKE_MAX).min(TAKE_MAX);
            let rows = take(api, vhost, &args.queue, count, Mode::Ack)?;
            for row in &rows {
                match line(row, args.json).and_then(|line| out.write_all(&line)) {
                    Ok(()) => {}
                    // Whoever reads has seen enough.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(exit::OK),
                    Err(error) => return Err(Failure::Output(format!("a message cannot be written: {error}"))),
                }
            }
            out.flush().map_err(|error| Failure::Output(format!("messages cannot be written: {error}")))?;
            rest = rest.saturating_sub(rows.len() as u64);
            if !rows.is_empty() {
                (wait, last) = (LOOK_AGAIN, Instant::now());
            } else if args.idle.is_some_and(|idle| last.elapsed().as_secs_f64() >= idle) {
                break;
            } else {
                std::thread::sleep(wait);
                wait = (wait * 2).min(LOOK_AGAIN_MAX);
            }
        }
        Ok(exit::OK)
    })
}

fn line(row: &Json, is_json: bool) -> std::io::Result<Vec<u8>> {
    let mut line = match (is_json, row["payload"].as_str(), row["payload_encoding"].as_str()) {
        (true, ..) | (_, None, _) => row.to_string().into_bytes(),
        (false, Some(text), Some("base64")) => STANDARD.decode(text).map_err(std::io::Error::other)?,
        (false, Some(text), _) => text.as_bytes().to_vec(),
    };
    line.push(b'\n');
    Ok(line)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    /// The queue that they are in
    #[arg(add = ArgValueCompleter::new(complete::queues))]
    queue: String,
    #[command(flatten)]
    vhost: InVhost,
    /// To this queue
    #[arg(long, value_name = "QUEUE", add = ArgValueCompleter::new(complete::queues), required_unless_present = "to_exchange")]
    to_queue: Option<String>,
    /// To this exchange
    #[arg(long, value_name = "EXCHANGE", conflicts_with = "to_queue", add = ArgValueCompleter::new(complete::exchanges))]
    to_exchange: Option<String>,
    /// With this routing key instead of their own
    #[arg(short, long, value_name = "KEY", requires = "to_exchange")]
    key: Option<String>,
    /// So many at most
    #[arg(short, long, value_name = "COUNT")]
    count: Option<u64>,
    /// Only say how many there are
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(in crate::cli) fn move_messages(args: &MoveArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let vhost = args.vhost.name(api);
        let queue = path("queues", &[vhost, &args.queue]);
        let ready = api.get(&queue)?["messages_ready"].as_u64().unwrap_or(0);
        let count = args.count.map_or(ready, |count| count.min(ready));
        if args.dry_run {
            return Ok(tell(&format!("{count} of {ready} ready messages of '{}' would be moved", args.queue)));
        }
        let mut request = json!({"count": count});
        for (key, value) in
            [("to_queue", &args.to_queue), ("to_exchange", &args.to_exchange), ("routing_key", &args.key)]
        {
            if let Some(value) = value {
                request[key] = json!(value);
            }
        }
        let answer = api.post(&format!("/x{queue}/move"), &request)?;
        let moved = answer.get("moved").and_then(Json::as_u64).unwrap_or(count);
        Ok(tell(&format!("{moved} messages moved")))
    })
}
