//! What a route costs at an exchange that is linked in and at the same one loaded from a file: `cargo build --release -p exchange-direct -p exchange-topic
//! -p exchange-headers`, then `cargo bench -p broker --bench exchanges`.
//!
//! Both are asked in turns, and the best round of each is shown: the machine's other work only ever adds time. Exit code 1 where a loaded one costs more than
//! 5 ns beside the linked-in one, or where a route allocates. `list` names the cases; `CASE ROUTES` behind `--` carries out one of them, for profilers and for
//! callgrind, whose count does not depend on the machine's mood: `valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=*measured_routes*'
//! target/release/deps/exchanges-… 'topic, loaded' 20000`. Instructions of a route when this was written, linked in and loaded: direct 347 and 347, topic
//! with 1,000 bindings 1,278 and 1,292, headers 890 and 919.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use broker::plugin_host::{ExchangeInstance, LoadRequest, Registry};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::{Message, PropertiesBuf};
use plugin_api::value::Table;

/// Counts what the broker allocates, and plugins that are linked in. A plugin from a file has an allocator of its own, which is not counted: its code is that
/// of the linked-in one, and what the broker does for it is counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: as the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KINDS: [&str; 3] = ["direct", "topic", "headers"];
const BINDINGS: u32 = 1000;
const ROUTES: u64 = 50_000;
const ROUNDS: usize = 40;
const NANOS_MORE_MAX: f64 = 5.0;
/// A round has a few buffers of its own, and a route nothing.
const ALLOCATIONS_A_ROUTE_MAX: f64 = 0.01;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let cases = KINDS.iter().flat_map(|kind| [format!("{kind}, linked in"), format!("{kind}, loaded")]);
    match words.as_slice() {
        [] => compare(),
        [list] if list == "list" => {
            cases.for_each(|case| println!("{case}"));
            ExitCode::SUCCESS
        }
        [case, routes] => {
            let (kind, how) = case.split_once(", ").expect("a case");
            let exchange = if how == "loaded" { loaded(kind) } else { linked(kind) };
            measured_routes(&exchange, routes.parse().expect("a number of routes"));
            ExitCode::SUCCESS
        }
        other => panic!("{other:?} is none of: nothing, list, CASE ROUTES"),
    }
}

fn compare() -> ExitCode {
    let mut is_good = true;
    println!(
        "{:<10}{:>14}{:>14}{:>14}{:>14}{:>14}",
        "exchange", "linked in, ns", "loaded, ns", "difference", "allocations", "and loaded"
    );
    for kind in KINDS {
        let exchanges = [linked(kind), loaded(kind)];
        let (mut best, mut allocations) = ([f64::INFINITY; 2], [0; 2]);
        exchanges.iter().for_each(|exchange| measured_routes(exchange, 1000));
        for _ in 0..ROUNDS {
            for ((best, allocations), exchange) in best.iter_mut().zip(&mut allocations).zip(&exchanges) {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                let since = Instant::now();
                measured_routes(exchange, ROUTES);
                *best = best.min(since.elapsed().as_nanos() as f64 / ROUTES as f64);
                *allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
            }
        }
        let [linked, loaded] = best;
        let [by_linked, by_loaded] = allocations.map(|count: u64| count as f64 / (ROUNDS as u64 * ROUTES) as f64);
        println!("{kind:<10}{linked:>14.1}{loaded:>14.1}{:>14.1}{by_linked:>14.5}{by_loaded:>14.5}", loaded - linked);
        is_good &= loaded - linked <= NANOS_MORE_MAX;
        is_good &= [by_linked, by_loaded].iter().all(|count| *count < ALLOCATIONS_A_ROUTE_MAX);
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is counted, by this name.
#[inline(never)]
fn measured_routes(exchange: &ExchangeInstance, routes: u64) {
    let headers = Table::new().with("tenant", "t7").with("region", "eu");
    let properties = PropertiesBuf { headers: Some(headers), ..PropertiesBuf::default() }.encode();
    let properties = plugin_api::message::Properties::from_raw(&properties);
    let mut routes_found = Vec::with_capacity(8);
    for _ in 0..routes {
        routes_found.clear();
        let message = Message { properties, ..Message::with_key("order.t7.eu.paid") };
        exchange.route(black_box(&message), &mut routes_found).expect("no panic");
        assert_eq!(black_box(&routes_found).len(), 1);
    }
}

fn linked(kind: &str) -> ExchangeInstance {
    bound(&Registry::builtin().expect("the built-in plugins work"), kind)
}

fn loaded(kind: &str) -> ExchangeInstance {
    let path = library(kind);
    let mut registry = Registry::empty();
    let request = LoadRequest { path, ..LoadRequest::default() };
    registry.load_file(&request).unwrap_or_else(|error| panic!("{error}"));
    bound(&registry, kind)
}

/// Beside the folder of this program.
fn library(kind: &str) -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let folder = program.ancestors().nth(2).expect("it is in target/release/deps");
    folder.join(format!("{}exchange_{kind}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

fn bound(registry: &Registry, kind: &str) -> ExchangeInstance {
    let spec = ExchangeSpec { vhost: "/".into(), name: "orders".into(), kind: kind.into(), ..ExchangeSpec::default() };
    let mut exchange = registry.exchange_type(kind).expect("there is the type").open(&spec).expect("it opens");
    for slot in 0..BINDINGS {
        let key = if kind == "topic" { format!("order.t{slot}.*.paid") } else { format!("order.t{slot}.eu.paid") };
        let tenant = format!("t{slot}");
        let arguments = Table::new().with("x-match", "all").with("tenant", tenant.as_str());
        let binding = BindingSpec { arguments, ..BindingSpec::to_queue("q", key) };
        exchange.bind(slot, &binding).expect("it binds");
    }
    exchange
}
