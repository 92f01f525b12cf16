//! What happens, as it happens (server-sent events): objects that come and go with the names and properties of RabbitMQ's event exchange, and once a second the
//! rates of the broker.
//!
//! Events are numbered by the stream alone: who comes again with `Last-Event-ID` is told that it has missed something, and reads the lists anew.

use std::convert::Infallible;
use std::pin::Pin;
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
use super::super::reply::Reply;
use super::super::stats;
use crate::events::{Event, Next, Subscription};
use crate::metrics::Stat;
use crate::metrics::read::{Ranges, Reader};
use crate::vhost::json_table::table_to_json;

/// Streams at a time: each has a queue of events, and looks at all queues once a second.
const STREAMS_MAX: usize = 32;
const RATES_EVERY: Duration = Duration::from_secs(1);

static STREAMS: AtomicUsize = AtomicUsize::new(0);

pub(in super::super) fn events(call: &Call) -> Answer {
    let place = Place::take().ok_or_else(|| {
        let text = format!("there are {STREAMS_MAX} streams of events, which is the limit");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", text)
    })?;
    let mut ticks = interval(RATES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let has_missed = call.headers.contains_key("last-event-id");
    let stream = Stream {
        call: call.again(),
        subscription: call.broker().events.subscribe(),
        ticks,
        number: 0,
        has_missed,
        _place: place,
    };
    Ok(Reply::stream("text/event-stream", Body::new(stream)))
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
    number: u64,
    /// The client has been here before.
    has_missed: bool,
    _place: Place,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        // Who was removed meanwhile, or may not monitor any more, hears no more.
        if !this.is_permitted() {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.has_missed) {
            return this.frame("missed", &json!({"count": null}));
        }
        while let Poll::Ready(next) = this.subscription.poll_next(context) {
            match next {
                Next::Missed(count) => return this.frame("missed", &json!({"count": count})),
                Next::News(event) if this.may_see(&event) => {
                    let mut data = Map::new();
                    data.insert("timestamp".to_owned(), json!(event.at_ms));
                    data.insert("vhost".to_owned(), json!(event.vhost));
                    data.insert("properties".to_owned(), Json::Object(table_to_json(&event.properties)));
                    return this.frame(event.kind.key(), &Json::Object(data));
                }
                Next::News(_) => {}
            }
        }
        match this.ticks.poll_tick(context) {
            Poll::Ready(_) => {
                let rates = rates(&this.call);
                this.frame("rates", &rates)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Stream {
    fn frame(&mut self, kind: &str, data: &Json) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.number += 1;
        let text = format!("event: {kind}\nid: {}\ndata: {data}\n\n", self.number);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }

    fn is_permitted(&self) -> bool {
        if let Some(foreign) = &self.call.user.foreign {
            let now_ms = self.call.broker().clock.wall_ms();
            return foreign.expires_at_ms().is_none_or(|at| at > now_ms);
        }
        let user = self.call.broker().access.user(&self.call.user.name);
        user.is_some_and(|user| super::super::guard::Tags::of(&user.tags).is_monitor)
    }

    /// What happens in a vhost is for who may enter it; what happens to users and permissions, and in no vhost, for administrators. Who monitors sees connections.
    fn may_see(&self, event: &Event) -> bool {
        if self.call.tags.is_administrator {
            return true;
        }
        let key = event.kind.key();
        match &event.vhost {
            _ if key.starts_with("alarm.") || key.starts_with("connection.") || key.starts_with("channel.") => true,
            _ if key.starts_with("user.") || key.starts_with("permission.") || key.starts_with("topic.") => false,
            Some(vhost) => {
                let may_enter = self.call.may_enter(vhost);
                self.ask_backend();
                may_enter
            }
            None => false,
        }
    }

    /// What a backend has not answered yet hides events until it has.
    fn ask_backend(&self) {
        if self.call.user.foreign.as_ref().is_some_and(|foreign| foreign.has_unasked()) {
            let call = self.call.again();
            drop(tokio::spawn(async move { call.broker().access.judge(&call.user).await }));
        }
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
