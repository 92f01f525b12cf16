//! `broker user`, `permission`, `vhost` and `policy`: who may do what where.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Value as Json, json};

use super::http::{Api, Failure, path};
use super::{InVhost, Remote, complete, tell, with_api};

#[derive(Debug, Args)]
pub(in crate::cli) struct UserArgs {
    #[command(subcommand)]
    command: User,
}

#[derive(Debug, Subcommand)]
enum User {
    /// Add a user, or give one another password and other tags
    Add {
        name: String,
        /// The password; without it, it is read from standard input
        new_password: Option<String>,
        /// administrator, monitoring, policymaker, management, impersonator, or your own
        #[arg(short, long, value_name = "TAG", value_delimiter = ',')]
        tags: Vec<String>,
        /// All permissions in this vhost
        #[arg(long, value_name = "VHOST", add = ArgValueCompleter::new(complete::vhosts))]
        grant: Vec<String>,
    },
    /// Delete a user with its permissions
    Delete {
        #[arg(add = ArgValueCompleter::new(complete::users))]
        name: String,
        /// Only say what would be lost
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Limit connections or channels of a user; a negative number takes the limit away
    Limit {
        #[arg(add = ArgValueCompleter::new(complete::users))]
        name: String,
        /// max-connections or max-channels
        limit: String,
        #[arg(allow_negative_numbers = true)]
        value: i64,
    },
}

pub(in crate::cli) fn user(args: &UserArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| match &args.command {
        User::Add { name, new_password, tags, grant } => {
            let password = match new_password {
                Some(password) => password.clone(),
                None => read_line("password")?,
            };
            add_user(api, name, &password, &tags.join(","))?;
            for vhost in grant {
                permit(api, vhost, name, [".*"; 3])?;
            }
            Ok(tell(&format!("user '{name}' may log in")))
        }
        User::Delete { name, dry_run } => {
            let user = path("users", &[name]);
            if *dry_run {
                let count = super::list::array(api.get(&format!("{user}/permissions"))?).len();
                return Ok(tell(&format!("user '{name}' would be deleted, with permissions in {count} vhosts")));
            }
            api.delete(&user)?;
            Ok(tell("deleted"))
        }
        User::Limit { name, limit, value } => set_limit(api, &path("user-limits", &[name, limit]), *value),
    })
}

fn read_line(what: &str) -> Result<String, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| Failure::NoInput(format!("the {what} cannot be read from standard input: {error}")))?;
    let line = line.trim_end_matches(['\r', '\n']);
    match line.is_empty() {
        true => Err(Failure::Usage(format!("no {what} was given, neither as an argument nor on standard input"))),
        false => Ok(line.to_owned()),
    }
}

pub(super) fn add_user(api: &Api, name: &str, password: &str, tags: &str) -> Result<(), Failure> {
    api.put(&path("users", &[name]), &json!({"password": password, "tags": tags})).map(drop)
}

/// Configure, write and read.
pub(super) fn permit(api: &Api, vhost: &str, user: &str, patterns: [&str; 3]) -> Result<(), Failure> {
    let [configure, write, read] = patterns;
    let body = json!({"configure": configure, "write": write, "read": read});
    api.put(&path("permissions", &[vhost, user]), &body).map(drop)
}

fn set_limit(api: &Api, path: &str, value: i64) -> Result<u8, Failure> {
    if value < 0 {
        api.delete(path)?;
        return Ok(tell("unlimited"));
    }
    api.put(path, &json!({"value": value}))?;
    Ok(tell("limited"))
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PermissionArgs {
    #[command(subcommand)]
    command: Permission,
}

#[derive(Debug, Subcommand)]
enum Permission {
    /// Say what a user may configure, write and read in a vhost, as regular expressions of names
    Set {
        #[arg(add = ArgValueCompleter::new(complete::users))]
        name: String,
        configure: String,
        write: String,
        read: String,
        #[command(flatten)]
        vhost: InVhost,
    },
    /// Take a user's permissions in a vhost away
    Clear {
        #[arg(add = ArgValueCompleter::new(complete::users))]
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Only say what would be taken away
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Say which routing keys a user may write to and read from a topic exchange
    Topic {
        #[arg(add = ArgValueCompleter::new(complete::users))]
        name: String,
        #[arg(add = ArgValueCompleter::new(complete::exchanges))]
        exchange: String,
        write: String,
        read: String,
        #[command(flatten)]
        vhost: InVhost,
    },
}

pub(in crate::cli) fn permission(args: &PermissionArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| match &args.command {
        Permission::Set { name, configure, write, read, vhost } => {
            permit(api, vhost.name(api), name, [configure, write, read])?;
            Ok(tell("permitted"))
        }
        Permission::Clear { name, vhost, dry_run } => {
            let permission = path("permissions", &[vhost.name(api), name]);
            if *dry_run {
                let shown = api.get(&permission)?;
                let [configure, write, read] =
                    ["configure", "write", "read"].map(|key| shown[key].as_str().unwrap_or_default().to_owned());
                return Ok(tell(&format!(
                    "user '{name}' would lose configure '{configure}', write '{write}' and read '{read}'"
                )));
            }
            api.delete(&permission)?;
            Ok(tell("cleared"))
        }
        Permission::Topic { name, exchange, write, read, vhost } => {
            let body = json!({"exchange": exchange, "write": write, "read": read});
            api.put(&path("topic-permissions", &[vhost.name(api), name]), &body)?;
            Ok(tell("permitted"))
        }
    })
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VhostArgs {
    #[command(subcommand)]
    command: Vhost,
}

#[derive(Debug, Subcommand)]
enum Vhost {
    /// Add a vhost, or change what is said of it
    Add {
        name: String,
        #[arg(long)]
        description: Option<String>,
        /// Publish a copy of every message to amq.rabbitmq.trace
        #[arg(long)]
        tracing: bool,
    },
    /// Delete a vhost with everything in it
    Delete {
        #[arg(add = ArgValueCompleter::new(complete::vhosts))]
        name: String,
        /// Only say what would be lost
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Limit connections or queues of a vhost; a negative number takes the limit away
    Limit {
        #[arg(add = ArgValueCompleter::new(complete::vhosts))]
        name: String,
        /// max-connections or max-queues
        limit: String,
        #[arg(allow_negative_numbers = true)]
        value: i64,
    },
}

pub(in crate::cli) fn vhost(args: &VhostArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| match &args.command {
        Vhost::Add { name, description, tracing } => {
            let mut body = json!({"tracing": tracing});
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            api.put(&path("vhosts", &[name]), &body)?;
            Ok(tell(&format!("vhost '{name}' is there")))
        }
        Vhost::Delete { name, dry_run } => {
            let vhost = path("vhosts", &[name]);
            if *dry_run {
                let messages = api.get(&vhost)?["messages"].as_u64().unwrap_or(0);
                let queues = super::list::pages(api, &path("queues", &[name]), "&columns=name")?.len();
                let text = format!("vhost '{name}' would be deleted, with {queues} queues and {messages} messages");
                return Ok(tell(&text));
            }
            api.delete(&vhost)?;
            Ok(tell("deleted"))
        }
        Vhost::Limit { name, limit, value } => set_limit(api, &path("vhost-limits", &[name, limit]), *value),
    })
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyArgs {
    #[command(subcommand)]
    command: Policy,
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Set a policy: settings for all queues or exchanges whose names match
    Set {
        name: String,
        /// A regular expression of names
        pattern: String,
        /// A JSON object, such as '{"max-length": 1000}'
        definition: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Of several that match, the highest counts
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i64,
        /// queues, exchanges, all, classic_queues or quorum_queues
        #[arg(long, default_value = "all")]
        apply_to: String,
        /// An operator policy, which users cannot override
        #[arg(long)]
        operator: bool,
    },
    /// Remove a policy
    Clear {
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// An operator policy
        #[arg(long)]
        operator: bool,
        /// Only say which queues and exchanges it applies to
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

pub(in crate::cli) fn policy(args: &PolicyArgs, remote: &Remote) -> u8 {
    let kind = |is_operator: bool| if is_operator { "operator-policies" } else { "policies" };
    with_api(remote, |api| match &args.command {
        Policy::Set { name, pattern, definition, vhost, priority, apply_to, operator } => {
            let definition = parse_definition(definition)?;
            let body =
                json!({"pattern": pattern, "definition": definition, "priority": priority, "apply-to": apply_to});
            api.put(&path(kind(*operator), &[vhost.name(api), name]), &body)?;
            Ok(tell("set"))
        }
        Policy::Clear { name, vhost, operator, dry_run } => {
            let (policy, vhost) = (path(kind(*operator), &[vhost.name(api), name]), vhost.name(api));
            if *dry_run {
                let pattern = api.get(&policy)?["pattern"].as_str().unwrap_or_default().to_owned();
                let key = if *operator { "operator_policy" } else { "policy" };
                let count = |objects: &str| -> Result<usize, Failure> {
                    let rows = super::list::pages(api, &path(objects, &[vhost]), &format!("&columns={key}"))?;
                    Ok(rows.iter().filter(|row| row.get(key).and_then(Json::as_str) == Some(name)).count())
                };
                let (queues, exchanges) = (count("queues")?, count("exchanges")?);
                return Ok(tell(&format!(
                    "policy '{name}' for '{pattern}' would be removed, which {queues} queues and {exchanges} exchanges have"
                )));
            }
            api.delete(&policy)?;
            Ok(tell("cleared"))
        }
    })
}

pub(super) fn parse_definition(text: &str) -> Result<Json, Failure> {
    serde_json::from_str::<Json>(text).map_err(|error| {
        Failure::Data(format!("the definition is no JSON: {error}; write for example '{{\"max-length\": 1000}}'"))
    })
}
