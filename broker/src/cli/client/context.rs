//! `broker context`: which brokers there are, so that their addresses and users need not be named with each command.
//!
//! Contexts are kept in one YAML file of the user's own, which nobody else may read: passwords are in it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::complete;
use super::http::Failure;
use super::output::{self, Output};
use super::tls::TlsArgs;
use super::{Remote, tell};
use crate::config::plain;

#[derive(Debug, Args)]
pub(in crate::cli) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// List contexts; the one in use is marked
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Add a context, or change one: its address, user and certificates are those of --url, --user, --password, --tls, --ca-file, --cert-file,
    /// --key-file and --insecure
    Set {
        /// Its name
        name: String,
        /// The vhost that is meant where none is named
        #[arg(short = 'V', long)]
        vhost: Option<String>,
    },
    /// Use a context from now on
    Use {
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: String,
    },
    /// Forget a context
    Delete {
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: String,
    },
}

/// One broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Context {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::cli) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::cli) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::cli) password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::cli) vhost: Option<String>,
    #[serde(flatten)]
    pub(in crate::cli) tls: TlsArgs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Context>,
}

pub(in crate::cli) fn context(args: ContextArgs, remote: &Remote) -> u8 {
    let done = file().and_then(|file| run(args.command, remote, &file));
    done.unwrap_or_else(|failure| {
        eprintln!("broker: {failure}");
        failure.exit_code()
    })
}

fn run(command: ContextCommand, remote: &Remote, file: &Path) -> Result<u8, Failure> {
    let mut all = load(file)?;
    match command {
        ContextCommand::List { output } => {
            let rows: Vec<_> = all
                .contexts
                .iter()
                .map(|(name, context)| {
                    let Context { url, user, vhost, .. } = context;
                    json!({"name": name, "current": all.current.as_ref() == Some(name), "url": url, "user": user, "vhost": vhost})
                })
                .collect();
            let columns = ["name", "current", "url", "user", "vhost"].map(|name| (name, name));
            return output::print(output, &columns, &rows);
        }
        ContextCommand::Set { name, vhost } => {
            let context = all.contexts.entry(name.clone()).or_default();
            context.url = remote.url.clone().or(context.url.take());
            context.user = remote.user.clone().or(context.user.take());
            context.password = remote.password.clone().or(context.password.take());
            context.vhost = vhost.or(context.vhost.take());
            context.tls = remote.tls.clone().absolute().or(&context.tls);
            // What cannot be used is told now and not with the first command.
            context.tls.config()?;
            all.current.get_or_insert(name);
        }
        ContextCommand::Use { name } => {
            known(&all, &name, file)?;
            all.current = Some(name);
        }
        ContextCommand::Delete { name } => {
            known(&all, &name, file)?;
            all.contexts.remove(&name);
            all.current.take_if(|current| *current == name);
        }
    }
    save(file, &all)?;
    Ok(tell(&format!("written to {}", file.display())))
}

fn known<'a>(all: &'a Contexts, name: &str, file: &Path) -> Result<&'a Context, Failure> {
    all.contexts.get(name).ok_or_else(|| {
        let names: Vec<&str> = all.contexts.keys().map(String::as_str).collect();
        let there =
            if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
        Failure::Usage(format!(
            "no context '{name}' in {}: {there}; add it with 'broker context set {name} --url URL'",
            file.display()
        ))
    })
}

/// What a command is to use: the named context, or the current one, or none.
pub(in crate::cli) fn chosen(name: Option<&str>) -> Result<Context, Failure> {
    // Who names none and has no home for the file has no contexts either.
    let file = match (file(), name) {
        (Ok(file), _) => file,
        (Err(_), None) => return Ok(Context::default()),
        (Err(error), Some(_)) => return Err(error),
    };
    let all = load(&file)?;
    match name.or(all.current.as_deref()) {
        None => Ok(Context::default()),
        Some(name) => known(&all, name, &file).cloned(),
    }
}

pub(super) fn file() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let folder = folder.ok_or_else(|| {
        Failure::Usage("contexts have no place: neither HOME nor XDG_CONFIG_HOME is set; set one of them".to_owned())
    })?;
    Ok(folder.join("broker").join("contexts.yaml"))
}

pub(super) fn load(file: &Path) -> Result<Contexts, Failure> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(Failure::NoInput(format!("{} cannot be read: {error}", file.display()))),
    };
    plain::read(&text).map_err(|error| {
        Failure::Data(format!("{}: {error}; mend the file, or remove it and set the contexts again", file.display()))
    })
}

fn save(file: &Path, all: &Contexts) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::Output(format!("{} cannot be written: {error}", file.display()));
    let text = plain::write(all).map_err(|error| failed(&error))?;
    let write = || -> std::io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Beside it first, so that a full disk does not cost the old one.
        let temporary = file.with_extension("yaml.new");
        let mut new =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        std::fs::rename(&temporary, file)
    };
    write().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_have_certificates_and_no_unknown_keys() {
        let read = |text: &str| plain::read::<Contexts>(text).map_err(|error| error.to_string());
        let text = "contexts:\n  shop:\n    url: https://shop:15671\n    ca_file: /ca.pem\n    insecure: true\n";
        let all = read(text).unwrap();
        let shop = &all.contexts["shop"];
        assert_eq!((shop.tls.ca_file.as_deref(), shop.tls.insecure), (Some(Path::new("/ca.pem")), true));
        assert_eq!(plain::write(&all).map_err(|error| error.to_string()).unwrap(), text);
        let error = read("contexts: { shop: { cafile: x } }").unwrap_err();
        assert!(error.contains("cafile"), "{error}");
    }
}
