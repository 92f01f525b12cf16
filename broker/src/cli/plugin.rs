//! `broker plugin …`: plugins without a broker, and those of one.

mod new;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use plugin_api::abi::{ABI_MAJOR, ABI_MINOR, StampInfo, offers};
use serde_json::{Value as Json, json};

use super::client::{Remote, output, with_api};
use super::{exit, print_report};
use crate::config;
use crate::plugin_host::inspect::{Inspected, inspect};
use crate::plugin_host::{LoadError, LoadRequest, PluginStatus, Registry};

#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Write a crate that is a plugin: it builds, passes its suite and can be loaded
    New(new::NewArgs),
    /// Say what a plugin's file is and whether this broker takes it, without running any of it
    Inspect(InspectArgs),
    /// List the plugins of a running broker, or those that a topology file names
    List(ListArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The plugin's file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Load it, which runs its code, to know the names of what it offers
    #[arg(long)]
    load: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The plugins that this file names, without a running broker; they are inspected and not run
    #[arg(short, long, value_name = "FILE")]
    topology: Option<PathBuf>,

    #[command(flatten)]
    output: output::Output,

    #[command(flatten)]
    remote: Remote,
}

pub(super) fn plugin(args: &PluginArgs) -> u8 {
    match &args.command {
        PluginCommand::New(args) => new::new(args),
        PluginCommand::Inspect(args) => inspected(args),
        PluginCommand::List(args) => list(args),
    }
}

fn inspected(args: &InspectArgs) -> u8 {
    let found = match inspect(&args.file, None) {
        Ok(found) => found,
        Err(error) => return refused(&error),
    };
    let mut report = facts(&found);
    if args.load {
        match load(&args.file) {
            Ok(names) => report.push_str(&names),
            Err(error) => {
                print_report(&report, exit::OK);
                return refused(&error);
            }
        }
    }
    print_report(&report, exit::OK)
}

fn refused(error: &LoadError) -> u8 {
    eprintln!("broker: {error}");
    match error {
        LoadError::Missing { .. } | LoadError::Unreadable { .. } | LoadError::NotAFile { .. } => exit::NO_INPUT,
        _ => exit::DATA,
    }
}

fn facts(found: &Inspected) -> String {
    let StampInfo { abi_major, abi_minor, is_debug_build, crate_name, version, .. } = &found.stamp;
    let build = if *is_debug_build { "debug, which is slow: build it with --release" } else { "release" };
    let mut out = String::new();
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{what:<8} {value}");
    };
    line("name", crate_name);
    line("version", version);
    line("offers", &offered(&found.stamp));
    line("abi", &format_args!("{abi_major}.{abi_minor} (this broker: {ABI_MAJOR}.{ABI_MINOR})"));
    line("build", &build);
    line("file", &found.path.display());
    line("sha256", &found.sha256);
    out
}

/// The kinds that the stamp names.
fn offered(stamp: &StampInfo) -> String {
    let kinds = [
        (offers::EXCHANGE_TYPES, "exchange types"),
        (offers::STORAGES, "storages"),
        (offers::AUTH_BACKENDS, "auth backends"),
    ];
    let names: Vec<&str> = kinds.iter().filter(|(bit, _)| stamp.offers & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "only the running plugin says it: use --load".to_owned() } else { names.join(", ") }
}

fn load(file: &Path) -> Result<String, LoadError> {
    let mut registry = Registry::empty();
    let loaded = registry.load_file(&LoadRequest { path: file.to_owned(), ..LoadRequest::default() })?;
    let mut out = String::new();
    let kinds = [
        ("exchange type", &loaded.exchange_types),
        ("storage", &loaded.storages),
        ("auth backend", &loaded.auth_backends),
    ];
    for (kind, names) in kinds {
        for name in names {
            let _ = writeln!(out, "{kind:<14} {name}");
        }
    }
    Ok(out)
}

const COLUMNS: [output::Column<'static>; 6] = [
    ("name", "name"),
    ("version", "version"),
    ("state", "state"),
    ("offers", "offers"),
    ("faults", "faults"),
    ("path", "path"),
];

fn list(args: &ListArgs) -> u8 {
    if let Some(file) = &args.topology {
        return of_topology(file, args.output);
    }
    with_api(&args.remote, |api| {
        let answer = api.get("/x/plugins")?;
        let rows: Vec<Json> = answer.as_array().into_iter().flatten().cloned().map(with_offers).collect();
        output::print(args.output, &COLUMNS, &rows)
    })
}

fn with_offers(mut row: Json) -> Json {
    let names = ["exchange_types", "storages", "auth_backends"].iter().filter_map(|key| row[*key].as_array());
    let names: Vec<&str> = names.flatten().filter_map(Json::as_str).collect();
    row["offers"] = Json::from(names.join(", "));
    if row["path"].is_null() {
        row["path"] = Json::from("built in");
    }
    row
}

/// What is built in, and what the file names, as far as that is known without running it.
fn of_topology(file: &Path, output: output::Output) -> u8 {
    let loaded = match config::load(file, &|name| std::env::var(name).ok()) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            return exit::DATA;
        }
    };
    let builtin = match Registry::builtin() {
        Ok(registry) => registry.status(),
        Err(error) => return refused(&error),
    };
    let mut rows: Vec<Json> = builtin.iter().map(built_in).collect();
    let mut code = exit::OK;
    for plugin in &loaded.topology.plugins {
        rows.push(match inspect(&plugin.path, plugin.sha256.as_deref()) {
            Ok(found) => json!({
                "name": found.stamp.crate_name, "version": found.stamp.version, "state": "loadable",
                "offers": offered(&found.stamp), "path": found.path.display().to_string(),
            }),
            Err(error) => {
                eprintln!("broker: {error}");
                code = if plugin.required { exit::DATA } else { code };
                json!({"name": "?", "state": "refused", "path": plugin.path.display().to_string()})
            }
        });
    }
    match output::print(output, &COLUMNS, &rows) {
        Ok(printed) if code == exit::OK => printed,
        Ok(_) => code,
        Err(failure) => {
            eprintln!("broker: {failure}");
            failure.exit_code()
        }
    }
}

fn built_in(status: &PluginStatus) -> Json {
    with_offers(json!({
        "name": status.name, "version": status.version, "state": "built in", "exchange_types": status.exchange_types,
        "storages": status.storages, "auth_backends": status.auth_backends, "path": null,
    }))
}
