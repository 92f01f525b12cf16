//! `broker list`: what there is.

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use super::http::{Api, Failure, path, segment};
use super::output::{self, Column, Output};
use super::{InVhost, Remote, with_api};
use crate::cli::exit;

/// Objects of a page; what the API allows at most.
const PAGE_SIZE: usize = 500;

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,
    #[command(flatten)]
    vhost: InVhost,
    /// Of all vhosts
    #[arg(short, long, conflicts_with = "vhost")]
    all: bool,
    /// Only names that this regular expression matches
    #[arg(short, long = "match", value_name = "REGEX")]
    pattern: Option<String>,
    /// These fields of the API's objects instead of the usual ones, with dots for what is further in
    #[arg(short, long, value_name = "FIELD", value_delimiter = ',')]
    columns: Vec<String>,
    /// Order by this field
    #[arg(short, long, value_name = "FIELD")]
    sort: Option<String>,
    /// The other way round
    #[arg(short, long, requires = "sort")]
    reverse: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    Queues,
    Exchanges,
    Bindings,
    Connections,
    Channels,
    Consumers,
    Vhosts,
    Users,
    Permissions,
    TopicPermissions,
    Policies,
    OperatorPolicies,
    Parameters,
    VhostLimits,
    UserLimits,
    Nodes,
    FeatureFlags,
    Plugins,
    Hooks,
}

/// How a kind is asked for and shown.
struct Shown {
    path: &'static str,
    /// Its path goes on with a vhost.
    is_of_vhost: bool,
    is_paged: bool,
    columns: &'static [Column<'static>],
}

impl Kind {
    fn shown(self) -> Shown {
        let of_vhost = |path, is_paged, columns| Shown { path, is_of_vhost: true, is_paged, columns };
        let of_node = |path, is_paged, columns| Shown { path, is_of_vhost: false, is_paged, columns };
        match self {
            Self::Queues => of_vhost("queues", true, QUEUES),
            Self::Exchanges => of_vhost("exchanges", true, EXCHANGES),
            Self::Bindings => of_vhost("bindings", false, BINDINGS),
            Self::Connections => of_node("connections", true, CONNECTIONS),
            Self::Channels => of_node("channels", true, CHANNELS),
            Self::Consumers => of_vhost("consumers", false, CONSUMERS),
            Self::Vhosts => of_node("vhosts", true, VHOSTS),
            Self::Users => of_node("users", true, &[("name", "name"), ("tags", "tags")]),
            Self::Permissions => of_node("permissions", false, PERMISSIONS),
            Self::TopicPermissions => of_node("topic-permissions", false, TOPIC_PERMISSIONS),
            Self::Policies => of_vhost("policies", false, POLICIES),
            Self::OperatorPolicies => of_vhost("operator-policies", false, POLICIES),
            Self::Parameters => of_node("parameters", false, PARAMETERS),
            Self::VhostLimits => of_node("vhost-limits", false, &[("vhost", "vhost"), ("limits", "value")]),
            Self::UserLimits => of_node("user-limits", false, &[("user", "user"), ("limits", "value")]),
            Self::Nodes => of_node("nodes", false, NODES),
            Self::FeatureFlags => of_node("feature-flags", false, &[("name", "name"), ("state", "state")]),
            Self::Plugins => of_node("x/plugins", false, PLUGINS),
            Self::Hooks => of_node("x/hooks", false, HOOKS),
        }
    }
}

const QUEUES: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("name", "name"),
    ("type", "type"),
    ("durable", "durable"),
    ("ready", "messages_ready"),
    ("unacked", "messages_unacknowledged"),
    ("messages", "messages"),
    ("consumers", "consumers"),
    ("policy", "policy"),
    ("state", "state"),
];
const EXCHANGES: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("name", "name"),
    ("type", "type"),
    ("durable", "durable"),
    ("auto_delete", "auto_delete"),
    ("internal", "internal"),
    ("policy", "policy"),
];
const BINDINGS: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("source", "source"),
    ("destination_type", "destination_type"),
    ("destination", "destination"),
    ("routing_key", "routing_key"),
    ("arguments", "arguments"),
];
const CONNECTIONS: &[Column<'_>] = &[
    ("name", "name"),
    ("user", "user"),
    ("vhost", "vhost"),
    ("state", "state"),
    ("channels", "channels"),
    ("client", "user_provided_name"),
];
const CHANNELS: &[Column<'_>] = &[
    ("name", "name"),
    ("user", "user"),
    ("vhost", "vhost"),
    ("consumers", "consumer_count"),
    ("prefetch", "prefetch_count"),
    ("unacked", "messages_unacknowledged"),
    ("unconfirmed", "messages_unconfirmed"),
    ("confirm", "confirm"),
];
const CONSUMERS: &[Column<'_>] = &[
    ("vhost", "queue.vhost"),
    ("queue", "queue.name"),
    ("tag", "consumer_tag"),
    ("channel", "channel_details.name"),
    ("ack", "ack_required"),
    ("prefetch", "prefetch_count"),
    ("active", "active"),
];
const VHOSTS: &[Column<'_>] =
    &[("name", "name"), ("messages", "messages"), ("tracing", "tracing"), ("description", "description")];
const PERMISSIONS: &[Column<'_>] =
    &[("vhost", "vhost"), ("user", "user"), ("configure", "configure"), ("write", "write"), ("read", "read")];
const TOPIC_PERMISSIONS: &[Column<'_>] =
    &[("vhost", "vhost"), ("user", "user"), ("exchange", "exchange"), ("write", "write"), ("read", "read")];
const POLICIES: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("name", "name"),
    ("pattern", "pattern"),
    ("apply-to", "apply-to"),
    ("priority", "priority"),
    ("definition", "definition"),
];
const PARAMETERS: &[Column<'_>] =
    &[("vhost", "vhost"), ("component", "component"), ("name", "name"), ("value", "value")];
const NODES: &[Column<'_>] = &[
    ("name", "name"),
    ("running", "running"),
    ("uptime_ms", "uptime"),
    ("memory", "mem_used"),
    ("memory_limit", "mem_limit"),
    ("disk_free", "disk_free"),
    ("files", "fd_used"),
];
const PLUGINS: &[Column<'_>] =
    &[("name", "name"), ("kind", "kind"), ("version", "version"), ("state", "state"), ("error", "error")];
const HOOKS: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("name", "name"),
    ("point", "point"),
    ("state", "state"),
    ("calls", "calls"),
    ("errors", "errors"),
];

pub(in crate::cli) fn list(args: &ListArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let rows = args.rows(api)?;
        let chosen: Vec<Column<'_>> = args.columns.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let usual = args.kind.shown().columns;
        output::print(args.output, if chosen.is_empty() { usual } else { &chosen }, &rows)
    })
}

impl ListArgs {
    fn rows(&self, api: &Api) -> Result<Vec<Json>, Failure> {
        let shown = self.kind.shown();
        let first = match shown.is_of_vhost && !self.all {
            true => path(shown.path, &[self.vhost.name(api)]),
            false => path(shown.path, &[]),
        };
        let mut query = String::new();
        if let Some(sort) = &self.sort {
            query = format!("&sort={}&sort_reverse={}", segment(sort), self.reverse);
        }
        if let (Some(pattern), true) = (&self.pattern, shown.is_paged) {
            query += &format!("&use_regex=true&name={}", segment(pattern));
        }
        let mut rows = match shown.is_paged {
            true => pages(api, &first, &query)?,
            false => array(api.get(&format!("{first}?{}", query.trim_start_matches('&')))?),
        };
        if let (Some(pattern), false) = (&self.pattern, shown.is_paged) {
            let regex = fancy_regex::Regex::new(pattern)
                .map_err(|error| Failure::Usage(format!("'{pattern}' is no regular expression: {error}")))?;
            rows.retain(|row| {
                let keys = ["name", "routing_key", "user", "consumer_tag"];
                keys.iter().filter_map(|key| row.get(*key)?.as_str()).any(|text| regex.is_match(text).unwrap_or(false))
            });
        }
        Ok(rows)
    }
}

/// All objects of a list that comes in pages.
pub(super) fn pages(api: &Api, path: &str, query: &str) -> Result<Vec<Json>, Failure> {
    let mut rows = Vec::new();
    let mut progress = super::super::progress::Progress::new("listing");
    for page in 1.. {
        let mut answer = api.get(&format!("{path}?page={page}&page_size={PAGE_SIZE}{query}"))?;
        let count = |key: &str| answer.get(key).and_then(Json::as_u64);
        // What does not know pages has answered with everything.
        let Some(page_count) = count("page_count") else { return Ok(array(answer)) };
        progress.set(rows.len() as u64, count("filtered_count"));
        rows.extend(array(answer["items"].take()));
        if page >= page_count {
            break;
        }
    }
    Ok(rows)
}

/// The objects of a plain list.
pub(super) fn array(answer: Json) -> Vec<Json> {
    match answer {
        Json::Array(rows) => rows,
        Json::Null => Vec::new(),
        one => vec![one],
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// A path of the API, such as /queues/%2F/orders
    path: String,
}

/// `broker api PATH`: an answer of the API as it is.
pub(in crate::cli) fn show(args: &ShowArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let path = args.path.trim_start_matches("/api").trim_start_matches('/');
        let answer = api.get(&format!("/{path}"))?;
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n";
        Ok(super::super::print_report(&text, exit::OK))
    })
}
