//! `broker delete`, `broker purge` and `broker close`: what destroys. Each can say beforehand what would be lost.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Value as Json, json};
use ureq::http::Method;

use super::declare::BindingArgs;
use super::http::{Api, Failure, path, segment};
use super::{InVhost, Remote, complete, list, table, tell, with_api};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    #[command(subcommand)]
    what: Delete,
    /// Only say what would be lost
    #[arg(short = 'n', long, global = true)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum Delete {
    /// A queue with its messages and bindings
    Queue {
        #[arg(add = ArgValueCompleter::new(complete::queues))]
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Only when nothing is in it
        #[arg(long)]
        if_empty: bool,
        /// Only when nobody consumes from it
        #[arg(long)]
        if_unused: bool,
    },
    /// An exchange with its bindings
    Exchange {
        #[arg(add = ArgValueCompleter::new(complete::exchanges))]
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Only when it has no bindings
        #[arg(long)]
        if_unused: bool,
    },
    /// A binding
    Binding(BindingArgs),
}

pub(in crate::cli) fn delete(args: &DeleteArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let path = match &args.what {
            Delete::Queue { name, vhost, if_empty, if_unused } => {
                let path = path("queues", &[vhost.name(api), name]);
                if args.dry_run {
                    return Ok(tell(&queue_loss(api, name, &path)?));
                }
                format!("{path}?if-empty={if_empty}&if-unused={if_unused}")
            }
            Delete::Exchange { name, vhost, if_unused } => {
                let path = path("exchanges", &[vhost.name(api), name]);
                if args.dry_run {
                    api.get(&path)?;
                    let count = |end: &str| Ok(list::array(api.get(&format!("{path}/bindings/{end}"))?).len());
                    let (from, to) = (count("source")?, count("destination")?);
                    return Ok(tell(&format!(
                        "exchange '{name}' would be deleted, with {from} bindings from it and {to} to it"
                    )));
                }
                format!("{path}?if-unused={if_unused}")
            }
            Delete::Binding(binding) => {
                let path = binding.path(binding.vhost.name(api));
                let found = find(api, &path, binding)?;
                if args.dry_run {
                    return Ok(tell(&format!("the binding '{}' would be deleted", binding.key)));
                }
                format!("{path}/{}", segment(&found))
            }
        };
        api.delete(&path)?;
        Ok(tell("deleted"))
    })
}

/// The properties key of the binding that is meant.
fn find(api: &Api, path: &str, binding: &BindingArgs) -> Result<String, Failure> {
    let arguments = Json::Object(table(&binding.arguments)?);
    let is_meant = |found: &Json| found["routing_key"] == json!(binding.key) && same(&found["arguments"], &arguments);
    let found = list::array(api.get(path)?).into_iter().find(is_meant);
    let key = found.and_then(|found| found["properties_key"].as_str().map(str::to_owned));
    key.ok_or_else(|| {
        let BindingArgs { source, destination, key, .. } = binding;
        Failure::Data(format!(
            "no binding from '{source}' to '{destination}' has the key '{key}' and these arguments; \
             'broker list bindings' shows what there is"
        ))
    })
}

/// RabbitMQ writes no arguments as an empty list.
fn same(found: &Json, wanted: &Json) -> bool {
    let is_empty = |value: &Json| value.as_object().is_none_or(serde_json::Map::is_empty);
    found == wanted || is_empty(found) && is_empty(wanted)
}

fn queue_loss(api: &Api, name: &str, path: &str) -> Result<String, Failure> {
    let queue = api.get(path)?;
    let bindings = list::array(api.get(&format!("{path}/bindings"))?).len().saturating_sub(1);
    let count = |key: &str| queue[key].as_u64().unwrap_or(0);
    let (ready, unacked, consumers) = (count("messages_ready"), count("messages_unacknowledged"), count("consumers"));
    Ok(format!(
        "queue '{name}' would be deleted, with {ready} ready and {unacked} unacked messages, {consumers} consumers and {bindings} bindings"
    ))
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArgs {
    /// The queue
    #[arg(add = ArgValueCompleter::new(complete::queues))]
    queue: String,
    #[command(flatten)]
    vhost: InVhost,
    /// Only say what would be lost
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(in crate::cli) fn purge(args: &PurgeArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let path = path("queues", &[args.vhost.name(api), &args.queue]);
        let ready = api.get(&path)?["messages_ready"].as_u64().unwrap_or(0);
        if args.dry_run {
            return Ok(tell(&format!("{ready} ready messages of '{}' would be removed", args.queue)));
        }
        api.delete(&format!("{path}/contents"))?;
        Ok(tell(&format!("purged; there were {ready} ready messages a moment before")))
    })
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CloseArgs {
    /// The connection, as 'broker list connections' names it
    #[arg(add = ArgValueCompleter::new(complete::connections), required_unless_present_any = ["of_user", "of_vhost"])]
    name: Option<String>,
    /// All connections of this user
    #[arg(long, value_name = "USER", conflicts_with = "name", add = ArgValueCompleter::new(complete::users))]
    of_user: Option<String>,
    /// All connections to this vhost
    #[arg(long, value_name = "VHOST", conflicts_with = "name", add = ArgValueCompleter::new(complete::vhosts))]
    of_vhost: Option<String>,
    /// What their clients are told
    #[arg(long, value_name = "TEXT", default_value = "closed with 'broker close'")]
    reason: String,
    /// Only say what would be closed
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(in crate::cli) fn close(args: &CloseArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let names = match &args.name {
            Some(name) => vec![name.clone()],
            None => connections(api, args.of_user.as_deref(), args.of_vhost.as_deref())?,
        };
        for name in &names {
            if args.dry_run {
                eprintln!("'{name}' would be closed");
                continue;
            }
            close_one(api, name, &args.reason, args.name.is_some())?;
        }
        let verb = if args.dry_run { "would be closed" } else { "closed" };
        Ok(tell(&format!("{} connections {verb}", names.len())))
    })
}

/// Names of connections.
pub(super) fn connections(api: &Api, user: Option<&str>, vhost: Option<&str>) -> Result<Vec<String>, Failure> {
    let all = list::pages(api, "/connections", "&columns=name,user,vhost")?;
    let is = |row: &Json, key: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| row[key] == json!(wanted));
    let chosen = all.iter().filter(|row| is(row, "user", user) && is(row, "vhost", vhost));
    Ok(chosen.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
}

/// One that has gone by itself meanwhile is closed, unless somebody has named it.
pub(super) fn close_one(api: &Api, name: &str, reason: &str, must_exist: bool) -> Result<(), Failure> {
    match api.send(Method::DELETE, &path("connections", &[name]), None, &[("x-reason", reason)]) {
        Err(failure) if failure.is_not_found() && !must_exist => Ok(()),
        other => other.map(drop),
    }
}
