//! What the broker says to a client.

use tests::wire::incoming::{Assembled, Incoming};
use tests::wire::{Field, Frame};

use super::channel::Request;
use super::connection::{Phase, SETUP_CHANNEL};
use super::{Client, Context, setup};
use crate::facts::{Answer, Death, Delivery, PublishId, Settled, Taker};
use crate::history::Event;
use crate::message;
use crate::plan::{DEAD, QueueIndex};

/// The arguments of a method, taken from the front.
struct Fields<'a>(std::slice::Iter<'a, Field>);

impl Fields<'_> {
    fn number(&mut self) -> u64 {
        self.0
            .by_ref()
            .find_map(|field| if let Field::Number(number) = field { Some(*number) } else { None })
            .unwrap_or(0)
    }

    fn bit(&mut self) -> bool {
        self.0.by_ref().find_map(|field| if let Field::Bit(bit) = field { Some(*bit) } else { None }).unwrap_or(false)
    }

    fn text(&mut self) -> String {
        let text = self.0.by_ref().find_map(|field| if let Field::String(text) = field { Some(text) } else { None });
        text.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    }
}

/// A delivery as the wire has it.
struct Arrival<'a> {
    queue: QueueIndex,
    taker: Taker,
    tag: u64,
    redelivered: bool,
    no_ack: bool,
    exchange: String,
    routing_key: String,
    incoming: &'a Incoming,
}

impl Client {
    /// A frame has come.
    ///
    /// # Errors
    /// When no client could make sense of it.
    pub(super) fn on_frame(&mut self, context: &mut Context<'_>, frame: Frame) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        let number = frame.channel;
        let Assembled::Method(incoming) = conn.assembler.take(frame)? else { return Ok(()) };
        context.history.trace.line(context.now_ms, &format!("client {}.{number}", self.index), || {
            let mut line = format!("< {}", incoming.method.name);
            for ((name, _), field) in incoming.method.arguments.iter().zip(&incoming.fields) {
                if !matches!(field, Field::Table(_)) {
                    line.push_str(&format!(" {name}={field}"));
                }
            }
            line
        });
        if number == 0 {
            self.on_connection_method(context, &incoming)
        } else {
            self.on_method(context, number, &incoming)
        }
    }

    fn on_connection_method(&mut self, context: &mut Context<'_>, incoming: &Incoming) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        let id = conn.id;
        let mut fields = Fields(incoming.fields.iter());
        match incoming.method.name {
            "connection.close" => {
                let (code, text) = (fields.number(), fields.text());
                let is_expected =
                    context.history.facts.connections[id.0].end.begun.is_some() || is_store_failure(code, &text);
                context.history.note(Event::ConnectionEnding(id));
                self.call(context, 0, "connection.close-ok", &[]);
                if !is_expected {
                    return Err(format!("the broker closes connection {}: {code} {text}", id.0));
                }
            }
            "connection.close-ok" if conn.phase == Phase::Closing => {
                // The client closes the socket, and the broker finds it closed.
                conn.link.borrow_mut().close();
                self.die(context.now_ms);
            }
            "connection.blocked" if !conn.is_blocked => conn.is_blocked = true,
            "connection.unblocked" if conn.is_blocked => conn.is_blocked = false,
            name => return self.on_handshake(context, name),
        }
        Ok(())
    }

    fn on_method(&mut self, context: &mut Context<'_>, number: u16, incoming: &Incoming) -> Result<(), String> {
        let name = incoming.method.name;
        let Some(channel) = self.channel(number) else {
            return Err(format!("{name} comes on the closed channel {number}"));
        };
        let mut fields = Fields(incoming.fields.iter());
        match name {
            "channel.close" => self.on_channel_close(context, number, fields.number(), &fields.text()),
            // What comes behind the client's own channel.close is not looked at.
            _ if channel.is_closing && name != "channel.close-ok" => Ok(()),
            "basic.ack" => self.on_confirm(context, number, fields.number(), fields.bit(), Answer::Acked),
            "basic.nack" => self.on_confirm(context, number, fields.number(), fields.bit(), Answer::Nacked),
            "basic.return" => {
                let Content { publish, .. } = identify(context, incoming)?;
                context.history.note(Event::Returned(publish));
                Ok(())
            }
            "basic.deliver" => self.on_deliver(context, number, incoming),
            "basic.cancel" => {
                let tag = fields.text();
                let Some(consuming) = channel.consumers.remove(&tag) else {
                    return Err(format!("the broker cancels the consumer '{tag}', which is none"));
                };
                channel.subscribed.remove(&consuming.queue);
                context.history.note(Event::Cancelled(consuming.id));
                if context.plan.queues[consuming.queue.0].is_deleted {
                    Ok(())
                } else {
                    Err(format!("the broker cancels the consumer '{tag}', whose queue nobody deleted"))
                }
            }
            "basic.get-empty" if matches!(channel.request, Some((Request::Get { .. }, _))) => {
                self.on_reply(context, number, incoming)
            }
            _ if channel.request.as_ref().is_some_and(|(request, _)| request.reply() == name) => {
                self.on_reply(context, number, incoming)
            }
            _ => Err(format!("{name} comes on channel {number}, which waits for {:?}", channel.request)),
        }
    }

    fn on_confirm(
        &mut self,
        context: &mut Context<'_>,
        number: u16,
        tag: u64,
        multiple: bool,
        answer: Answer,
    ) -> Result<(), String> {
        let Some(channel) = self.channel(number) else { return Ok(()) };
        let first = if multiple { 0 } else { tag };
        let id = channel.id;
        let settled: Vec<(u64, PublishId)> = channel.unconfirmed.range(first..=tag).map(|(n, id)| (*n, *id)).collect();
        for (number, _) in &settled {
            channel.unconfirmed.remove(number);
        }
        context.history.note(Event::ConfirmFrame { channel: id, tag, multiple, answer });
        for (_, publish) in settled {
            context.history.answer(publish, answer);
        }
        Ok(())
    }

    fn on_deliver(&mut self, context: &mut Context<'_>, number: u16, incoming: &Incoming) -> Result<(), String> {
        let Some(channel) = self.channel(number) else { return Ok(()) };
        let mut fields = Fields(incoming.fields.iter());
        let consumer_tag = fields.text();
        let Some(consuming) = channel.consumers.get(&consumer_tag) else {
            return Err(format!("a delivery for the consumer '{consumer_tag}', which is none"));
        };
        if !consuming.is_registered {
            return Err(format!("a delivery for the consumer '{consumer_tag}' before its consume-ok"));
        }
        let (queue, taker, no_ack) = (consuming.queue, Taker::Consumer(consuming.id), consuming.no_ack);
        let (tag, redelivered, exchange, routing_key) = (fields.number(), fields.bit(), fields.text(), fields.text());
        self.on_arrival(
            context,
            number,
            Arrival { queue, taker, tag, redelivered, no_ack, exchange, routing_key, incoming },
        )
    }

    fn on_arrival(&mut self, context: &mut Context<'_>, number: u16, arrival: Arrival<'_>) -> Result<(), String> {
        let Content { publish, death, returns } = identify(context, arrival.incoming)?;
        let route = &context.history.facts.publish(publish).route;
        let route = match death {
            None => route.clone(),
            Some(_) if arrival.queue != DEAD => {
                return Err(format!("message {} has died and is in a queue of the living", publish.0));
            }
            Some(death) => context.plan.queues[death.queue.0].route_of_dead(&route.1),
        };
        let come = (arrival.exchange, arrival.routing_key);
        if route != come {
            return Err(format!("message {} is delivered with the route {come:?}, not {route:?}", publish.0));
        }
        let step = context.history.facts.step;
        let Some(channel) = self.channel(number) else { return Ok(()) };
        if arrival.tag != channel.last_tag + 1 {
            return Err(format!("delivery tag {} follows {} on channel {number}", arrival.tag, channel.last_tag));
        }
        channel.last_tag = arrival.tag;
        let delivery = Delivery {
            publish,
            death,
            queue: arrival.queue,
            taker: arrival.taker,
            channel: channel.id,
            redelivered: arrival.redelivered,
            no_ack: arrival.no_ack,
            returns,
            at: step,
            settled: None,
        };
        let id = context.history.deliver(delivery);
        let Some(channel) = self.channel(number).filter(|_| !arrival.no_ack) else { return Ok(()) };
        if matches!(channel.request, Some((Request::Recover, _))) {
            // It goes back with everything else that was sent before the answer.
            context.history.note(Event::Settled { deliveries: vec![id], how: Settled::Requeue });
        } else {
            channel.unacked.insert(arrival.tag, id);
        }
        Ok(())
    }

    fn on_reply(&mut self, context: &mut Context<'_>, number: u16, incoming: &Incoming) -> Result<(), String> {
        let Some(channel) = self.channel(number) else { return Ok(()) };
        let Some((request, sent)) = channel.request.take() else { return Ok(()) };
        let id = channel.id;
        let mut fields = Fields(incoming.fields.iter());
        context.history.note(Event::Processed { channel: id, sent });
        if request.is_risky(context) {
            context.history.note(Event::ChannelSpared(id));
        }
        match request {
            Request::Open
            | Request::ConfirmSelect
            | Request::TxSelect
            | Request::Recover
            | Request::Barrier
            | Request::Qos { global: None } => {}
            Request::Commit => self.on_committed(context, number),
            Request::Rollback => self.on_rolled_back(context, number),
            Request::Close => {
                context.history.note(Event::ChannelEnded(id));
                self.forget_channel(context, number);
            }
            Request::Setup(_) => {
                let mut rest =
                    self.channel(number).map(|channel| std::mem::take(&mut channel.setup)).unwrap_or_default();
                setup::done(context, &request, sent, &mut rest);
                let is_done = rest.is_empty();
                if let Some(channel) = self.channel(number) {
                    channel.setup = rest;
                }
                if let Some(conn) = &mut self.conn {
                    conn.is_set_up |= is_done && number == SETUP_CHANNEL;
                }
            }
            Request::Qos { global: Some(count) } => context.history.note(Event::GlobalLimit { channel: id, count }),
            Request::Consume(consumer) => {
                if let Some(consuming) = self.consuming(number, |consuming| consuming.id == consumer) {
                    consuming.is_registered = true;
                }
                context.history.note(Event::ConsumeOk(consumer));
            }
            Request::Cancel(consumer) => {
                let Some(channel) = self.channel(number) else { return Ok(()) };
                if let Some((_, gone)) =
                    channel.consumers.extract_if(.., |_, consuming| consuming.id == consumer).next()
                {
                    channel.subscribed.remove(&gone.queue);
                }
                context.history.note(Event::Cancelled(consumer));
            }
            Request::Get { queue, no_ack } => {
                if incoming.method.name == "basic.get-empty" {
                    context.history.note(Event::GotEmpty { channel: id, queue });
                    return Ok(());
                }
                let (tag, redelivered, exchange, routing_key) =
                    (fields.number(), fields.bit(), fields.text(), fields.text());
                let taker = Taker::Getter;
                let arrival = Arrival { queue, taker, tag, redelivered, no_ack, exchange, routing_key, incoming };
                return self.on_arrival(context, number, arrival);
            }
            Request::Sweep { queue, is_delete } => {
                context.history.note(Event::SweepDone { queue, is_delete, count: fields.number() });
            }
            Request::Status(queue) => {
                let (ready, consumers) = (fields.number(), fields.number());
                // The answers of others may come when all is quiet, but are older.
                if self.index == context.plan.clients.len() {
                    context.history.note(Event::Status { queue, ready, consumers });
                }
            }
        }
        Ok(())
    }

    fn consuming(
        &mut self,
        number: u16,
        is_it: impl Fn(&super::channel::Consuming) -> bool,
    ) -> Option<&mut super::channel::Consuming> {
        self.channel(number)?.consumers.values_mut().find(|consuming| is_it(consuming))
    }

    fn on_channel_close(
        &mut self,
        context: &mut Context<'_>,
        number: u16,
        code: u64,
        text: &str,
    ) -> Result<(), String> {
        let Some(channel) = self.channel(number) else { return Ok(()) };
        let (id, is_closing, is_doomed) = (channel.id, channel.is_closing, channel.is_doomed);
        let request = channel.request.clone();
        let is_refusal = match request {
            Some((Request::Commit, _)) => code == 406 && text.contains("partial tx completion"),
            _ => [403, 404].contains(&code),
        };
        if is_refusal && matches!(request, Some((Request::Commit, _))) {
            self.on_refused(context, number);
        }
        let has_failed = is_store_failure(code, text);
        let is_expected =
            is_doomed || has_failed || is_refusal && request.is_some_and(|(request, _)| request.is_risky(context));
        self.call(context, number, "channel.close-ok", &[]);
        context.history.note(Event::ChannelEnded(id));
        if is_closing {
            // Both have closed: the answer to the client's own close still comes.
            return if is_expected {
                Ok(())
            } else {
                Err(format!("the broker closes channel {number}: {code} {text}"))
            };
        }
        self.forget_channel(context, number);
        if number == SETUP_CHANNEL && is_expected {
            // A queue was deleted between its declaration and a binding.
            self.new_channel(context, number);
            self.set_up(context, false);
        }
        if is_expected { Ok(()) } else { Err(format!("the broker closes channel {number}: {code} {text}")) }
    }

    fn forget_channel(&mut self, context: &Context<'_>, number: u16) {
        if let Some(conn) = &mut self.conn {
            conn.channels.remove(&number);
        }
        let pause = self.random.below(self.plan.think_ms_max + 1);
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.channel == Some(number)) {
            slot.channel = None;
            slot.open_at_ms = context.now_ms + u64::from(pause);
        }
    }
}

/// Whether the broker says that it will end in a moment.
fn is_store_failure(code: u64, text: &str) -> bool {
    code == 541 && text.contains("the store has failed")
}

/// What is known of a message that has come.
struct Content {
    publish: PublishId,
    death: Option<Death>,
    returns: Option<i64>,
}

fn identify(context: &Context<'_>, incoming: &Incoming) -> Result<Content, String> {
    let Some((properties, body)) = &incoming.content else { return Err("a delivery without content".to_owned()) };
    let id = message::identify(properties, body)?;
    let Some(publish) = context.history.facts.publishes.get(id.0) else {
        return Err(format!("nobody has published message {}", id.0));
    };
    if publish.body_bytes != body.len() {
        return Err(format!("message {} comes with {} bytes of {}", id.0, body.len(), publish.body_bytes));
    }
    let queues = &context.plan.queues;
    let queue_of = |name: &[u8]| queues.iter().position(|queue| queue.name.as_bytes() == name).map(QueueIndex);
    let (death, returns) = message::headers(properties, queue_of)?;
    message::compare(id, publish, death.is_some(), properties)?;
    Ok(Content { publish: id, death, returns })
}
