//! Throughput, latency, backlog and routing: messages that flow, looked at from four sides.

use std::time::{Duration, Instant};

use clap::Args;

use super::error::BenchError;
use super::flow::{ExchangeKind, Flow, FlowArgs, Outcome, Part, Phase, Routing};
use super::report::Report;
use super::{Setting, interrupted};

#[derive(Args, Clone, Debug)]
pub(super) struct LatencyArgs {
    /// Messages a second in all
    #[arg(short, long, value_name = "PER_SECOND", default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    flow: FlowArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct BacklogArgs {
    #[command(flatten)]
    flow: FlowArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct RoutingArgs {
    /// The type of the exchange
    #[arg(short = 't', long, value_name = "TYPE", value_enum, default_value = "topic")]
    exchange_type: ExchangeKind,
    /// Bindings of the exchange; with fanout there is one for each queue
    #[arg(short, long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    bindings: u32,
    #[command(flatten)]
    flow: FlowArgs,
}

const LATENCIES: [&str; 5] =
    ["latency_p50_us", "latency_p95_us", "latency_p99_us", "latency_p999_us", "latency_max_us"];
const CONFIRMS: [&str; 5] = ["confirm_p50_us", "confirm_p95_us", "confirm_p99_us", "confirm_p999_us", "confirm_max_us"];
const LATE: [&str; 5] =
    ["sent_late_p50_us", "sent_late_p95_us", "sent_late_p99_us", "sent_late_p999_us", "sent_late_max_us"];
const CPU: (&str, &str) = ("broker_cpu_us_per_message", "broker_cpu_cores");

/// As fast as it goes.
pub(super) fn throughput(setting: &Setting, args: &FlowArgs) -> Result<Report, BenchError> {
    let report = setting.report("throughput");
    flow(setting, args, None, None, report)
}

/// At a fixed rate.
pub(super) fn latency(setting: &Setting, args: &LatencyArgs) -> Result<Report, BenchError> {
    let mut report = setting.report("latency");
    report.measured("rate_per_sec", args.rate);
    flow(setting, &args.flow, None, Some(args.rate), report)
}

/// Through an exchange with many bindings.
pub(super) fn routing(setting: &Setting, args: &RoutingArgs) -> Result<Report, BenchError> {
    let mut report = setting.report("routing");
    let bindings = if args.exchange_type == ExchangeKind::Fanout { u32::from(args.flow.queues) } else { args.bindings };
    report.put("exchange_type", args.exchange_type.name());
    report.put("bindings", bindings);
    flow(setting, &args.flow, Some(Routing { kind: args.exchange_type, bindings }), None, report)
}

fn flow(
    setting: &Setting,
    args: &FlowArgs,
    routing: Option<Routing>,
    per_sec: Option<f64>,
    mut report: Report,
) -> Result<Report, BenchError> {
    describe(&mut report, args);
    let mut flow = Flow::declare(args, routing, &setting.target, &setting.processes)?;
    let result = flow.run(Phase { part: Part::Both, per_sec, expected: 0 });
    let faults = result.as_ref().ok().map(|outcome| flow.judge(&outcome.sent, &outcome.arrivals, outcome.faults));
    if let Some(routing) = routing {
        report.rate("bindings_made_per_sec", u64::from(routing.bindings), flow.binding_secs);
    }
    flow.delete();
    let outcome = result?;
    counts(&mut report, &outcome);
    report.rate("published_per_sec", outcome.published, outcome.publish_secs);
    report.rate("delivered_per_sec", outcome.delivered, outcome.deliver_secs);
    report.quantiles(LATENCIES, outcome.figures.delivery.as_ref());
    report.quantiles(CONFIRMS, outcome.figures.confirm.as_ref());
    report.quantiles(LATE, outcome.figures.late.as_ref());
    let count = outcome.published.max(outcome.delivered);
    report.cpu(CPU, (outcome.before, outcome.after), count, outcome.secs());
    report.memory("broker_memory_mib", outcome.after);
    report.verdict(&faults.unwrap_or_default());
    Ok(report)
}

/// What was asked for.
fn describe(report: &mut Report, args: &FlowArgs) {
    report.put("publishers", args.publishers);
    report.put("consumers", args.consumers());
    report.put("queues", args.queues);
    report.put("body_bytes", args.size);
    report.put("persistent", args.persistent);
    report.put("confirm_window", args.confirm_window);
    report.put("ack_every", args.ack_every);
    report.put("prefetch", args.prefetch);
}

fn counts(report: &mut Report, outcome: &Outcome) {
    report.put("published", outcome.published);
    report.put("delivered", outcome.delivered);
    if outcome.was_blocked {
        report.put("note", "the broker has stopped publishers with connection.blocked");
    }
}

/// First everything in, then everything out.
pub(super) fn backlog(setting: &Setting, args: &BacklogArgs) -> Result<Report, BenchError> {
    let mut args = args.flow.clone();
    args.count.get_or_insert(BACKLOG);
    let mut report = setting.report("backlog");
    describe(&mut report, &args);
    let mut flow = Flow::declare(&args, None, &setting.target, &setting.processes)?;
    let result = fill_and_drain(&mut flow, &args);
    let faults = result.as_ref().ok().map(|(fill, drain)| {
        let mut faults = fill.faults;
        faults.add(&drain.faults);
        flow.judge(&fill.sent, &drain.arrivals, faults)
    });
    flow.delete();
    let (fill, drain) = result?;
    report.put("published", fill.published);
    report.put("delivered", drain.delivered);
    report.rate("filled_per_sec", fill.published, fill.publish_secs);
    report.cpu(
        ("fill_cpu_us_per_message", "fill_cpu_cores"),
        (fill.before, fill.after),
        fill.published,
        fill.publish_secs,
    );
    report.memory("broker_memory_before_mib", fill.before);
    report.memory("broker_memory_filled_mib", fill.after);
    report.memory("broker_memory_drained_mib", drain.after);
    report.rate("drained_per_sec", drain.delivered, drain.deliver_secs);
    let of_drain = (drain.before, drain.after);
    report.cpu(("drain_cpu_us_per_message", "drain_cpu_cores"), of_drain, drain.delivered, drain.deliver_secs);
    report.verdict(&faults.unwrap_or_default());
    Ok(report)
}

/// Enough that a broker has to decide where to keep it, and few enough for a small machine.
const BACKLOG: u64 = 1_000_000;

fn fill_and_drain(flow: &mut Flow, args: &FlowArgs) -> Result<(Outcome, Outcome), BenchError> {
    let fill = flow.run(Phase { part: Part::Publishers, per_sec: None, expected: 0 })?;
    let expected = fill.published - fill.faults.nacked;
    // Without confirms what was sent may still be on its way.
    let (mut ready, mut since) = (flow.ready()?, Instant::now());
    while ready < expected && since.elapsed().as_secs_f64() < args.drain_timeout && !interrupted() {
        std::thread::sleep(LOOK);
        let now = flow.ready()?;
        if now != ready {
            (ready, since) = (now, Instant::now());
        }
    }
    let drain = flow.run(Phase { part: Part::Consumers, per_sec: None, expected })?;
    Ok((fill, drain))
}

/// How often a queue is asked for its length.
const LOOK: Duration = Duration::from_millis(50);

/// Messages a second that make sense.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1e8).contains(&rate) => Ok(rate),
        _ => Err("is no number of messages a second from 0.01 to 100000000".to_owned()),
    }
}
