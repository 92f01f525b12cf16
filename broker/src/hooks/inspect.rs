//! Scripts outside of a broker: which hooks a file has, and what a call of each costs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::value::Table;

use super::chain::HookChain;
use super::decl::{HookDecl, Scope, Site};
use super::error::{ErrorKind, HookError};
use super::facts::{Connecting, DeclaredKind, Declaring};
use super::point::Point;
use super::script::Script;
use super::set::HookSet;
use super::view::{Origin, Publish};

/// A script that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The file.
    pub script: PathBuf,
    /// The points that it has, or what is wrong with it.
    pub points: Result<Vec<Point>, HookError>,
}

/// Reads, compiles and runs each script once, as a broker does when it starts. A file that another one requires is no script
/// of its own and is left out, unless it is the only one.
#[must_use]
pub fn inspect(scripts: &[PathBuf]) -> Vec<Inspected> {
    let mut required = BTreeSet::new();
    let mut inspected = Vec::new();
    for path in scripts {
        let points = Script::load(&decl(path), Arc::default()).map_err(|failure| failure.of(&stem(path), path));
        let points = points.map(|script| {
            required.extend(script.program.modules().map(|name| script.folder().join(format!("{name}.lua"))));
            script.points
        });
        inspected.push(Inspected { script: path.clone(), points });
    }
    inspected.retain(|one| {
        let is_module = one.points.as_ref().is_err_and(|error| error.kind == ErrorKind::Declaration);
        !(is_module && required.contains(&one.script))
    });
    inspected
}

/// What one hook of a script takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Which.
    pub point: Point,
    /// The best round's mean, in nanoseconds: the machine's other work only ever adds time.
    pub nanos: f64,
    /// How the calls ended: `passed`, `rewritten` and so on.
    pub result: &'static str,
}

/// Calls every hook of a script with `message` for about `time` each.
///
/// # Errors
/// The script cannot be loaded.
pub fn measure(script: &Path, message: &Publish<'_>, time: Duration) -> Result<Vec<Measured>, HookError> {
    let fallback = |errors: Vec<HookError>| {
        errors.into_iter().next().unwrap_or_else(|| HookError {
            hook: stem(script),
            file: script.to_path_buf(),
            line: None,
            kind: ErrorKind::File,
            text: "cannot be loaded".to_owned(),
        })
    };
    let set = HookSet::load(&[decl(script)]).map_err(fallback)?;
    let chain = |point| Some((point, chain_of(&set, point, message)?));
    let measured = Point::ALL.into_iter().filter_map(chain).map(|(point, chain)| {
        let nanos = best_round(&chain, point, message, time);
        let status = set.status().into_iter().find(|status| status.point == point);
        let counts = status.map(|status| status.counts).unwrap_or_default();
        // What most calls came to.
        let result = [
            (counts.passed, "passed"),
            (counts.rewritten, "rewritten"),
            (counts.dropped, "dropped"),
            (counts.rejected, "rejected"),
            (counts.dead_lettered, "dead_lettered"),
            (counts.failed, "failed"),
        ];
        let result = result.into_iter().max_by_key(|(count, _)| *count).map_or("passed", |(_, result)| result);
        Measured { point, nanos, result }
    });
    Ok(measured.collect())
}

fn chain_of(set: &HookSet, point: Point, message: &Publish<'_>) -> Option<Arc<HookChain>> {
    let site = match point {
        Point::Publish => Site::Exchange(message.exchange),
        Point::Deliver | Point::DeadLetter | Point::Declare => Site::Queue("queue"),
        Point::Connect => Site::Vhost,
    };
    set.chain_at(point, message.vhost, site)
}

/// Calls the hooks of a point once; whether there are any.
#[cfg(test)]
pub(super) fn call_once(set: &HookSet, point: Point, message: &Publish<'_>) -> bool {
    chain_of(set, point, message).is_some_and(|chain| {
        call(&chain, point, message);
        true
    })
}

fn best_round(chain: &HookChain, point: Point, message: &Publish<'_>, time: Duration) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || start.elapsed() < time {
        let round = Instant::now();
        for _ in 0..CALLS_PER_ROUND {
            call(chain, point, message);
        }
        best = best.min(round.elapsed().as_nanos() as f64 / f64::from(CALLS_PER_ROUND));
    }
    best
}

fn call(chain: &HookChain, point: Point, message: &Publish<'_>) {
    let no_properties = Table::new();
    match point {
        Point::Publish => drop(chain.on_publish(message)),
        Point::Deliver | Point::DeadLetter => {
            let reason = (point == Point::DeadLetter).then_some("rejected");
            drop(chain.on_message(message, Some(&Origin { queue: "queue", redelivered: false, reason })));
        }
        Point::Connect => drop(chain.on_connect(&Connecting {
            vhost: message.vhost,
            user: message.user,
            peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
            mechanism: "PLAIN",
            properties: &no_properties,
        })),
        Point::Declare => drop(chain.on_declare(&Declaring {
            vhost: message.vhost,
            user: message.user,
            kind: DeclaredKind::Queue,
            name: "queue",
            type_name: "classic",
            durable: true,
            auto_delete: false,
            exclusive: false,
            internal: false,
            arguments: &no_properties,
            binding: None,
        })),
    }
}

fn decl(script: &Path) -> HookDecl {
    HookDecl {
        body: true,
        dead_letter_exchange: Some("dead".to_owned()),
        ..HookDecl::new(stem(script), script, Scope::Broker)
    }
}

fn stem(script: &Path) -> String {
    script.file_stem().unwrap_or(script.as_os_str()).to_string_lossy().into_owned()
}

/// A round of an empty hook takes a tenth of a millisecond, so that there are many of them even where a call takes long.
const CALLS_PER_ROUND: u32 = 1_000;
