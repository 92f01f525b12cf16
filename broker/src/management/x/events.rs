//! What happens, as it happens (server-sent events): objects that come and go with the names and properties of RabbitMQ's event exchange, and once a second the
//! rates of the broker.
//!
//! While streams are there, and for five minutes after the last one, the last events are kept ([`crate::events::KEPT_MAX`]). Who comes again with
//! `Last-Event-ID` gets what came meanwhile; where something is missing, `missed` says how many, or `null` when nobody knows, and the lists are to be read
//! anew. What an auth backend has not said yet holds the stream up rather than leaving an event out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use hyper::body::Frame;
use serde_json::{Map, Value as Json, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::guard::Tags;
use super::super::reply::Reply;
use super::super::stats;
use crate::events::{Event, Next, Position, Subscription};
use crate::metrics::Stat;
use crate::metrics::read::{Ranges, Reader};
use crate::vhost::json_table::table_to_json;

/// Streams at a time: each has a queue of events, and looks at all queues once a second.
const STREAMS_MAX: usize = 32;
const RATES_EVERY: Duration = Duration::from_secs(1);
/// A client that was away for longer reads everything anew anyway.
const KEEP_MS: u64 = 5 * 60 * 1000;

static STREAMS: AtomicUsize = AtomicUsize::new(0);

pub(in super::super) fn events(call: &Call) -> Answer {
    let place = Place::take().ok_or_else(|| {
        let text = format!("there are {STREAMS_MAX} streams of events, which is the limit");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", text)
    })?;
    let mut ticks = interval(RATES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = &call.broker().events;
    events.keep_for(KEEP_MS);
    let (subscription, missed) = match call.headers.get("last-event-id") {
        None => (events.subscribe(), Some(0)),
        // Whatever else it is, no place is told by it.
        Some(id) => events.subscribe_after(id.to_str().ok().and_then(place_of).unwrap_or_default()),
    };
    let sent = subscription.at();
    let missed = (missed != Some(0)).then_some(missed);
    let stream = Stream { call: call.again(), subscription, ticks, sent, missed, undecided: None, _place: place };
    Ok(Reply::stream("text/event-stream", Body::new(stream)))
}

fn id(position: Position) -> String {
    format!("{}-{}", position.run, position.number)
}

fn place_of(id: &str) -> Option<Position> {
    let (run, number) = id.trim().split_once('-')?;
    Some(Position { run: run.parse().ok()?, number: number.parse().ok()? })
}

/// One of [`STREAMS_MAX`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = STREAMS
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < STREAMS_MAX).then_some(count + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Stream {
    call: Call,
    subscription: Subscription,
    ticks: Interval,
    /// Up to here everything has been sent that the client may see.
    sent: Position,
    /// What could not be kept for a client that has been here before.
    missed: Option<Option<u64>>,
    /// What follows waits for it in the subscription, which has a limit.
    undecided: Option<Undecided>,
    _place: Place,
}

/// An event of a vhost of which an auth backend has not said yet whether the user may enter it.
struct Undecided {
    event: Arc<Event>,
    judging: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        // Who was removed meanwhile, or may not monitor any more, hears no more; who is no administrator any more hears less.
        match this.tags() {
            Some(tags) if tags.is_monitor => this.call.tags = tags,
            Some(_) | None => return Poll::Ready(None),
        }
        if let Some(count) = this.missed.take() {
            return this.frame("missed", &json!({"count": count}));
        }
        while let Poll::Ready(next) = this.poll_next(context) {
            match next {
                Next::Missed(count) => {
                    this.sent = this.subscription.at();
                    return this.frame("missed", &json!({"count": count}));
                }
                Next::News(event) => match this.may_see(&event) {
                    Some(true) => {
                        this.sent = this.subscription.at();
                        return this.event(&event);
                    }
                    Some(false) => this.sent = this.subscription.at(),
                    None => this.undecided = Some(Undecided { event, judging: this.judge() }),
                },
            }
        }
        match this.ticks.poll_tick(context) {
            Poll::Ready(_) => {
                let broker = this.call.broker();
                broker.events.keep_for(KEEP_MS);
                // Answers of a backend have their time, also while nothing happens.
                broker.access.lapse(&this.call.user, broker.clock.wall_ms());
                let rates = rates(&this.call);
                this.frame("rates", &rates)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Stream {
    /// What waited for an answer and has it, or else the next.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next<Event>> {
        let Some(undecided) = &mut self.undecided else { return self.subscription.poll_next(context) };
        if undecided.judging.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.undecided.take().map_or(Poll::Pending, |undecided| Poll::Ready(Next::News(undecided.event)))
    }

    fn event(&self, event: &Event) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut data = Map::new();
        data.insert("timestamp".to_owned(), json!(event.at_ms));
        data.insert("vhost".to_owned(), json!(event.vhost));
        data.insert("properties".to_owned(), Json::Object(table_to_json(&event.properties)));
        self.frame(event.kind.key(), &Json::Object(data))
    }

    /// Every frame says how far the client has come, so that one that saw only rates has not missed what came before.
    fn frame(&self, kind: &str, data: &Json) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = format!("event: {kind}\nid: {}\ndata: {data}\n\n", id(self.sent));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }

    /// What the user may do by now; none for one that is gone. What a backend has said of a user holds as long as it said.
    fn tags(&self) -> Option<Tags> {
        if let Some(foreign) = &self.call.user.foreign {
            let now_ms = self.call.broker().clock.wall_ms();
            return foreign.expires_at_ms().is_none_or(|at| at > now_ms).then_some(self.call.tags);
        }
        let user = self.call.broker().access.user(&self.call.user.name)?;
        Some(Tags::of(&user.tags))
    }

    /// What happens in a vhost is for who may enter it; what happens to users and permissions, and in no vhost, for administrators. Who monitors sees connections.
    /// None when a backend has to be asked.
    fn may_see(&self, event: &Event) -> Option<bool> {
        if self.call.tags.is_administrator {
            return Some(true);
        }
        let key = event.kind.key();
        match &event.vhost {
            _ if key.starts_with("alarm.") || key.starts_with("connection.") || key.starts_with("channel.") => {
                Some(true)
            }
            _ if key.starts_with("user.") || key.starts_with("permission.") || key.starts_with("topic.") => Some(false),
            Some(vhost) => {
                let may_enter = self.call.may_enter(vhost);
                let is_undecided = self.call.user.foreign.as_ref().is_some_and(|foreign| foreign.has_unasked());
                (may_enter || !is_undecided).then_some(may_enter)
            }
            None => Some(false),
        }
    }

    /// Asks the backend. It always comes to an end, and then everything is answered: what a backend cannot say is a no.
    fn judge(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let call = self.call.again();
        Box::pin(async move { call.broker().access.judge(&call.user).await })
    }
}

/// What changes all the time.
fn rates(call: &Call) -> Json {
    let facts = Reader::new(call.broker(), Ranges::default()).overview();
    let mut message_stats = Map::new();
    for stat in Stat::ALL {
        stats::put(&mut message_stats, stat.name(), facts.message_stats.get(stat));
    }
    let totals = facts.object_totals;
    json!({
        "timestamp": call.broker().clock.wall_ms(),
        "message_stats": message_stats,
        "queue_totals": {
            "messages": facts.queue_totals.get(0).value,
            "messages_ready": facts.queue_totals.get(1).value,
            "messages_unacknowledged": facts.queue_totals.get(2).value,
        },
        "object_totals": {
            "connections": totals.connections, "channels": totals.channels, "queues": totals.queues,
            "exchanges": totals.exchanges, "consumers": totals.consumers,
        },
        "alarms": call.broker().alarms.reason(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let position = Position { run: 1_700_000_000_000, number: 12 };
        assert_eq!((id(position).as_str(), place_of(&id(position))), ("1700000000000-12", Some(position)));
        for foreign in ["", "7", "-", "a-b", "1-", "-1", "1-2-3"] {
            assert_eq!(place_of(foreign), None, "{foreign}");
        }
    }
}
