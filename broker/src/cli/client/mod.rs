//! Commands for a running broker, over its management API.
//!
//! Each command knows paths, fields and what people want to see. Requests and their failures are in [`http`], tables and other forms of
//! output in [`output`], and which broker is meant in [`context`]. They work with a RabbitMQ's API as well, but for `move`.

pub(super) mod access;
pub(super) mod complete;
pub(super) mod context;
pub(super) mod ctl;
pub(super) mod declare;
pub(super) mod definitions;
pub(super) mod delete;
pub(super) mod health;
pub(super) mod http;
pub(super) mod list;
pub(super) mod messages;
pub(super) mod output;
pub(super) mod tls;
pub(super) mod top;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Map, Value as Json};

use self::http::{Api, Failure};
use self::tls::TlsArgs;
use super::exit;

/// Which broker, and as whom.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Remote {
    /// Where the management API is, http:// or https:// [default: the context's, or http://127.0.0.1:15672]
    #[arg(long, value_name = "URL", env = "BROKER_URL", global = true, help_heading = "Connection")]
    pub(super) url: Option<String>,
    /// Who asks [default: the context's, or guest]
    #[arg(short, long, value_name = "NAME", env = "BROKER_USER", global = true, help_heading = "Connection")]
    pub(super) user: Option<String>,
    /// The password; better in BROKER_PASSWORD or a context than here, where other users of the machine see it
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "BROKER_PASSWORD",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub(super) password: Option<String>,
    /// Take the rest from this context [default: the one of 'broker context use']
    #[arg(long, value_name = "NAME", env = "BROKER_CONTEXT", global = true, help_heading = "Connection",
          add = ArgValueCompleter::new(complete::contexts))]
    pub(super) context: Option<String>,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// Seconds that an answer may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        global = true,
        help_heading = "Connection",
        hide_short_help = true
    )]
    pub(super) timeout: u64,
}

/// In which vhost.
#[derive(Args, Clone, Debug)]
pub(super) struct InVhost {
    /// In this vhost [default: the context's, or /]
    #[arg(short = 'V', long, value_name = "VHOST", env = "BROKER_VHOST", add = ArgValueCompleter::new(complete::vhosts))]
    pub(super) vhost: Option<String>,
}

impl InVhost {
    pub(super) fn name<'a>(&'a self, api: &'a Api) -> &'a str {
        self.vhost.as_deref().unwrap_or(&api.vhost)
    }
}

/// Runs what needs an API, prints what went wrong, and gives the exit code.
pub(super) fn with_api(remote: &Remote, work: impl FnOnce(&Api) -> Result<u8, Failure>) -> u8 {
    match Api::new(remote).and_then(|api| work(&api)) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("broker: {failure}");
            failure.exit_code()
        }
    }
}

/// Arguments of a declaration: `name=value`, where the value is JSON if it can be read as such and text otherwise.
pub(super) fn table(pairs: &[String]) -> Result<Map<String, Json>, Failure> {
    pairs
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Failure::Usage(format!("'{pair}' is no NAME=VALUE; write for example x-max-length=1000"))
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Says what was done, to standard error: standard output is for results.
pub(super) fn tell(text: &str) -> u8 {
    eprintln!("{text}");
    exit::OK
}
