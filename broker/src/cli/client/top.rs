//! `broker top`: the busiest queues, again and again.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use super::http::{Api, Failure};
use super::output::{self, Column, Format};
use super::{Remote, list, with_api};
use crate::cli::exit;

#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,
    /// Look once and end
    #[arg(long)]
    once: bool,
    /// So many queues
    #[arg(short, long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// What the busiest have most of
    #[arg(short, long, value_enum, default_value_t)]
    sort: Sort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    #[default]
    Messages,
    Unacked,
    Publish,
    Deliver,
}

const COLUMNS: &[Column<'_>] = &[
    ("vhost", "vhost"),
    ("queue", "name"),
    ("ready", "messages_ready"),
    ("unacked", "messages_unacknowledged"),
    ("in/s", "message_stats.publish_details.rate"),
    ("out/s", "message_stats.deliver_get_details.rate"),
    ("ack/s", "message_stats.ack_details.rate"),
    ("consumers", "consumers"),
];

pub(in crate::cli) fn top(args: &TopArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let is_terminal = std::io::stdout().is_terminal();
        loop {
            let text = screen(api, args)?;
            let mut out = std::io::stdout().lock();
            // To the top left, and clear what was there.
            let clear = if is_terminal && !args.once { "\x1b[H\x1b[2J" } else { "" };
            match out.write_all(format!("{clear}{text}").as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(exit::OK),
                Err(error) => return Err(Failure::Output(format!("it cannot be shown: {error}"))),
            }
            drop(out);
            if args.once {
                return Ok(exit::OK);
            }
            std::thread::sleep(Duration::from_secs_f64(args.interval.clamp(0.2, 3600.0)));
        }
    })
}

fn screen(api: &Api, args: &TopArgs) -> Result<String, Failure> {
    let overview = api.get("/overview")?;
    let place = match args.sort {
        Sort::Messages => "messages",
        Sort::Unacked => "messages_unacknowledged",
        Sort::Publish => "message_stats.publish_details.rate",
        Sort::Deliver => "message_stats.deliver_get_details.rate",
    };
    let lines = args.lines.clamp(1, 500);
    let answer = api.get(&format!("/queues?page=1&page_size={lines}&sort={place}&sort_reverse=true"))?;
    let rows = list::array(answer.get("items").cloned().unwrap_or(answer));
    let rate = |key: &str| {
        let place = format!("message_stats.{key}_details.rate");
        output::at(&overview, &place).and_then(Json::as_f64).unwrap_or(0.0)
    };
    let count = |place: &str| output::at(&overview, place).cloned().unwrap_or(json!(0));
    let head = format!(
        "{}: {} connections, {} queues, {} ready, {} unacked; {:.0}/s in, {:.0}/s out\n\n",
        overview["cluster_name"].as_str().unwrap_or("broker"),
        count("object_totals.connections"),
        count("object_totals.queues"),
        count("queue_totals.messages_ready"),
        count("queue_totals.messages_unacknowledged"),
        rate("publish"),
        rate("deliver_get"),
    );
    Ok(head + &output::render(Format::Table, COLUMNS, &rows)?)
}
