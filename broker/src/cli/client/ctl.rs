//! `broker ctl`: the commands of `rabbitmqctl` that scripts and client suites use, with its names and forms (semantics 33.11).

use clap::Args;
use serde_json::{Value as Json, json};

use super::http::{Api, Failure, path};
use super::output::{self, Format};
use super::{Remote, access, delete, list, tell, with_api};
use crate::cli::{exit, print_report};

#[derive(Debug, Args)]
pub(in crate::cli) struct CtlArgs {
    /// Ignored: there is one node
    #[arg(short, long, value_name = "NODE", hide = true)]
    node: Option<String>,
    /// Results alone
    #[arg(short, long)]
    quiet: bool,
    /// As -q, and no head line
    #[arg(short, long)]
    silent: bool,
    /// The vhost
    #[arg(short = 'p', long, value_name = "VHOST", default_value = "/")]
    vhost: String,
    /// The command with its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(in crate::cli) fn ctl(args: &CtlArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let words = Words::parse(args)?;
        run(api, &words)
    })
}

/// What stands on the line, with options taken out of wherever they stand.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    command: String,
    vhost: String,
    is_silent: bool,
    priority: i64,
    apply_to: String,
    words: Vec<String>,
}

impl Words {
    fn parse(args: &CtlArgs) -> Result<Self, Failure> {
        let mut parsed =
            Self { vhost: args.vhost.clone(), is_silent: args.silent, apply_to: "all".to_owned(), ..Self::default() };
        let mut rest = args.words.iter();
        while let Some(word) = rest.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                let given = value.clone().or_else(|| rest.next().cloned());
                given.ok_or_else(|| Failure::Usage(format!("{name} wants a value behind it")))
            };
            match name {
                "-p" | "--vhost" => parsed.vhost = value()?,
                "-n" | "--node" | "-t" | "--timeout" | "--formatter" => drop(value()?),
                "-q" | "--quiet" | "-l" | "--longnames" => {}
                "-s" | "--silent" | "--no-table-headers" => parsed.is_silent = true,
                "--priority" => {
                    let text = value()?;
                    parsed.priority =
                        text.parse().map_err(|_| Failure::Usage(format!("--priority {text} is no number")))?;
                }
                "--apply-to" => parsed.apply_to = value()?,
                _ => parsed.words.push(word.clone()),
            }
        }
        if parsed.words.is_empty() {
            return Err(Failure::Usage("no command was given".to_owned()));
        }
        parsed.command = parsed.words.remove(0);
        Ok(parsed)
    }

    /// So many arguments, no more and no fewer.
    fn exactly<const N: usize>(&self, usage: &str) -> Result<[&str; N], Failure> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        words.try_into().map_err(|_| self.usage(usage))
    }

    fn usage(&self, usage: &str) -> Failure {
        Failure::Usage(format!("it is: broker ctl {} {usage}", self.command))
    }
}

fn run(api: &Api, words: &Words) -> Result<u8, Failure> {
    let vhost = words.vhost.as_str();
    match words.command.as_str() {
        "add_user" => {
            let [name, password] = words.exactly("NAME PASSWORD")?;
            access::add_user(api, name, password, "")?;
        }
        "change_password" => {
            let [name, password] = words.exactly("NAME PASSWORD")?;
            let tags = tags(&api.get(&path("users", &[name]))?);
            access::add_user(api, name, password, &tags)?;
        }
        "delete_user" => {
            let [name] = words.exactly("NAME")?;
            api.delete(&path("users", &[name]))?;
        }
        "set_user_tags" => {
            let Some((name, tags)) = words.words.split_first() else {
                return Err(Failure::Usage("it is: broker ctl set_user_tags NAME [TAG …]".to_owned()));
            };
            let user = api.get(&path("users", &[name]))?;
            let body = json!({"password_hash": user["password_hash"], "hashing_algorithm": user["hashing_algorithm"],
                "tags": tags.join(",")});
            api.put(&path("users", &[name]), &body)?;
        }
        "list_users" => return rows(words, list::array(api.get("/users")?), &["name", "tags"]),
        "set_permissions" => {
            let [name, configure, write, read] = words.exactly("[-p VHOST] USER CONFIGURE WRITE READ")?;
            access::permit(api, vhost, name, [configure, write, read])?;
        }
        "clear_permissions" => {
            let [name] = words.exactly("[-p VHOST] USER")?;
            api.delete(&path("permissions", &[vhost, name]))?;
        }
        "list_permissions" => {
            let all = list::array(api.get(&format!("{}/permissions", path("vhosts", &[vhost])))?);
            return rows(words, all, &["user", "configure", "write", "read"]);
        }
        "set_topic_permissions" => {
            let [name, exchange, write, read] = words.exactly("[-p VHOST] USER EXCHANGE WRITE READ")?;
            let body = json!({"exchange": exchange, "write": write, "read": read});
            api.put(&path("topic-permissions", &[vhost, name]), &body)?;
        }
        "clear_topic_permissions" => {
            let Some((name, exchange)) = words.words.split_first() else {
                return Err(Failure::Usage(
                    "it is: broker ctl clear_topic_permissions [-p VHOST] USER [EXCHANGE]".to_owned(),
                ));
            };
            let mut names = vec![vhost, name.as_str()];
            names.extend(exchange.first().map(String::as_str));
            api.delete(&path("topic-permissions", &names))?;
        }
        "add_vhost" => {
            let [name] = words.exactly("NAME")?;
            api.put(&path("vhosts", &[name]), &json!({}))?;
        }
        "delete_vhost" => {
            let [name] = words.exactly("NAME")?;
            api.delete(&path("vhosts", &[name]))?;
        }
        "list_vhosts" => return rows(words, list::pages(api, "/vhosts", "")?, &["name"]),
        "trace_on" | "trace_off" => {
            let is_on = words.command == "trace_on";
            api.put(&path("vhosts", &[vhost]), &json!({"tracing": is_on}))?;
        }
        "set_policy" | "set_operator_policy" => {
            let [name, pattern, definition] =
                words.exactly("[-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN DEFINITION")?;
            let definition = access::parse_definition(definition)?;
            let body = json!({"pattern": pattern, "definition": definition, "priority": words.priority,
                "apply-to": words.apply_to});
            api.put(&path(policies(&words.command), &[vhost, name]), &body)?;
        }
        "clear_policy" | "clear_operator_policy" => {
            let [name] = words.exactly("[-p VHOST] NAME")?;
            api.delete(&path(policies(&words.command), &[vhost, name]))?;
        }
        "list_policies" | "list_operator_policies" => {
            let all = list::array(api.get(&path(policies(&words.command), &[vhost]))?);
            return rows(words, all, &["vhost", "name", "pattern", "apply-to", "definition", "priority"]);
        }
        "list_queues" => return rows(words, list::pages(api, &path("queues", &[vhost]), "")?, &["name", "messages"]),
        "list_exchanges" => {
            return rows(words, list::pages(api, &path("exchanges", &[vhost]), "")?, &["name", "type"]);
        }
        "list_bindings" => {
            let columns =
                ["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];
            return rows(words, list::array(api.get(&path("bindings", &[vhost]))?), &columns);
        }
        "list_connections" => {
            return rows(words, list::pages(api, "/connections", "")?, &["user", "peer_host", "peer_port", "state"]);
        }
        "list_channels" => {
            let columns = ["pid", "user", "consumer_count", "messages_unacknowledged"];
            return rows(words, list::pages(api, "/channels", "")?, &columns);
        }
        "list_consumers" => {
            let columns =
                ["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"];
            return rows(words, list::array(api.get(&path("consumers", &[vhost]))?), &columns);
        }
        "delete_queue" => {
            let [name] = words.exactly("[-p VHOST] NAME")?;
            api.delete(&path("queues", &[vhost, name]))?;
        }
        "purge_queue" => {
            let [name] = words.exactly("[-p VHOST] NAME")?;
            api.delete(&format!("{}/contents", path("queues", &[vhost, name])))?;
        }
        "close_connection" => {
            let [name, reason] = words.exactly("NAME REASON")?;
            delete::close_one(api, name, reason, true)?;
        }
        "close_all_connections" => {
            let reason = words.words.join(" ");
            for name in delete::connections(api, None, None)? {
                delete::close_one(api, &name, &reason, false)?;
            }
        }
        "set_vm_memory_high_watermark" => {
            let body = match words.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["absolute", size] => json!({"memory_watermark_bytes": size_in_bytes(size)?}),
                [share] => json!({"memory_watermark_share": fraction(share)?}),
                _ => return Err(words.usage("FRACTION | absolute SIZE")),
            };
            api.put("/x/alarms", &body)?;
        }
        "set_disk_free_limit" => {
            let body = match words.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["mem_relative", share] => json!({"disk_free_memory_share": fraction(share)?}),
                [size] => json!({"disk_free_bytes_min": size_in_bytes(size)?}),
                _ => return Err(words.usage("SIZE | mem_relative FRACTION")),
            };
            api.put("/x/alarms", &body)?;
        }
        "status" | "cluster_status" => {
            let text = serde_json::to_string_pretty(&api.get("/overview")?).unwrap_or_default() + "\n";
            return Ok(print_report(&text, exit::OK));
        }
        "await_startup" | "ping" | "await_online_nodes" | "check_running" => {
            api.get("/health/checks/ready-to-serve-clients")?;
        }
        other => {
            return Err(Failure::Usage(format!(
                "'{other}' is not among the rabbitmqctl commands that this broker has; \
                 'broker --help' lists its own"
            )));
        }
    }
    Ok(if words.is_silent { exit::OK } else { tell("done") })
}

fn policies(command: &str) -> &'static str {
    if command.contains("operator") { "operator-policies" } else { "policies" }
}

fn fraction(text: &str) -> Result<f64, Failure> {
    let share = text.parse::<f64>().ok().filter(|share| share.is_finite());
    share.ok_or_else(|| Failure::Usage(format!("'{text}' is no fraction: write a number such as 0.4")))
}

/// What rabbitmqctl calls a memory size: a number, with one of its units or none.
fn size_in_bytes(text: &str) -> Result<u64, Failure> {
    let rest = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let (digits, unit) = text.split_at(text.len() - rest.len());
    let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim());
    let bytes = known.and_then(|(_, factor)| digits.parse::<u64>().ok()?.checked_mul(*factor));
    bytes.ok_or_else(|| {
        let names: Vec<&str> = SIZE_UNITS.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        Failure::Usage(format!("'{text}' is no size: write bytes, or a whole number with {}", names.join(", ")))
    })
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("k", 1 << 10),
    ("K", 1 << 10),
    ("kiB", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
];

fn tags(user: &Json) -> String {
    match &user["tags"] {
        Json::String(tags) => tags.clone(),
        Json::Array(tags) => tags.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(","),
        _ => String::new(),
    }
}

/// Rows as rabbitmqctl writes them: values between tabs, below their names. Columns are those that were asked for.
fn rows(words: &Words, rows: Vec<Json>, usual: &[&str]) -> Result<u8, Failure> {
    let asked: Vec<&str> = words.words.iter().map(String::as_str).collect();
    let names: Vec<&str> = if asked.is_empty() { usual.to_vec() } else { asked };
    let places: Vec<(&str, &str)> = names.iter().map(|name| (*name, place(name))).collect();
    // Checks that each can be written, and quotes nothing.
    drop(output::render(Format::Json, &places, &rows)?);
    let mut text = String::new();
    if !words.is_silent {
        text += &(names.join("\t") + "\n");
    }
    for row in &rows {
        let cells: Vec<String> = places.iter().map(|(_, place)| cell(output::at(row, place))).collect();
        text += &(cells.join("\t") + "\n");
    }
    Ok(print_report(&text, exit::OK))
}

/// Where the API has what rabbitmqctl calls so.
fn place(name: &str) -> &str {
    match name {
        "pid" => "name",
        "source_name" => "source",
        "destination_name" => "destination",
        "destination_kind" => "destination_type",
        "queue_name" => "queue.name",
        "channel_pid" => "channel_details.name",
        other => other,
    }
}

fn cell(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.replace(['\t', '\n', '\r'], " "),
        Some(Json::Array(values)) => {
            format!("[{}]", values.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(", "))
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Words, String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let args = CtlArgs { node: None, quiet: false, silent: false, vhost: "/".to_owned(), words };
        Words::parse(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn options_may_stand_anywhere() {
        let words =
            parse(&["set_policy", "-p", "v", "--priority=3", "ha", "^a", "{}", "--apply-to", "queues"]).unwrap();
        assert_eq!((words.vhost.as_str(), words.priority, words.apply_to.as_str()), ("v", 3, "queues"));
        assert_eq!((words.command.as_str(), words.words.len()), ("set_policy", 3));
    }

    #[test]
    fn sizes_have_the_units_of_rabbitmqctl() {
        let size = |text| size_in_bytes(text).map_err(|failure| failure.to_string());
        let cases = [("10", 10), ("50MB", 50_000_000), ("2G", 2 << 30), ("1 GiB", 1 << 30), ("3k", 3072), ("0", 0)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "10 X", "99999999999999999999", "99999999999T"] {
            assert!(size(text).unwrap_err().contains("no size"), "{text}");
        }
        for text in ["x", "NaN", "inf", ""] {
            assert!(fraction(text).unwrap_err().to_string().contains("no fraction"), "{text}");
        }
    }

    #[test]
    fn a_wrong_number_of_arguments_tells_the_right_one() {
        let words = parse(&["add_user", "u"]).unwrap();
        let failure = words.exactly::<2>("NAME PASSWORD").unwrap_err();
        assert_eq!(failure.to_string(), "it is: broker ctl add_user NAME PASSWORD");
        assert!(parse(&["-p"]).unwrap_err().contains("-p wants a value"));
    }
}
