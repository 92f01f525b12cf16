//! Plays a scenario against a target.

use super::connection::{Connection, Event, Incoming, Login, describe};
use super::literal::{Literal, Variables, to_properties};
use super::parse::{Action, Content, Expect, Fields, Guard, Scenario, Send, Step};
use crate::transport::Target;
use crate::wire::spec::{Kind, Method};
use crate::wire::value::Value;
use crate::wire::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, Field, encode_header, spec};
use std::collections::HashMap;

/// Plays `scenario`; the error holds the line, what came instead, and what went over the connections.
///
/// # Errors
/// When any expectation does not come true, or something comes that nobody expects.
pub fn run(scenario: &Scenario, target: &dyn Target) -> Result<(), String> {
    let vhost = scenario.vhost();
    let mut variables = Variables::from([("vhost".to_owned(), vhost.clone().into_bytes())]);
    for user in &scenario.users {
        variables.insert(user.name.clone(), scenario.user_name(&user.name).into_bytes());
    }
    let mut player = Player { target, vhost, variables, connections: HashMap::new() };
    let mut outcome = Ok(());
    for step in &scenario.steps {
        let applies = match &step.guard {
            None => true,
            Some(Guard::Only(only)) => only == target.kind(),
            Some(Guard::Otherwise(differing)) => differing != target.kind(),
        };
        if applies && let Err(message) = player.step(step) {
            outcome = Err(format!("{}:{}: {}\n  {message}", scenario.name, step.line, step.source.trim()));
            break;
        }
    }
    if outcome.is_ok() {
        outcome = player.finish().map_err(|message| format!("{}: at the end: {message}", scenario.name));
    }
    if outcome.is_err() && scenario.raises_alarms() {
        // The others on this server go on; if that fails, too, their failures tell.
        let _ = target.set_memory_alarm(false);
    }
    outcome.map_err(|message| format!("{message}\n{}", player.transcripts()))
}

struct Player<'a> {
    target: &'a dyn Target,
    vhost: String,
    variables: Variables,
    connections: HashMap<String, Connection>,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Connect => {
                let connection = self.connect(&step.connection)?;
                connection.is_manual = true;
                Ok(())
            }
            Action::Login(options) => {
                let login = self.login_options(options)?;
                self.connect(&step.connection)?.login(&login)
            }
            Action::Drop => self.connections.remove(&step.connection).map(drop).ok_or("no such connection".to_owned()),
            Action::PutPolicy(policy) => self.target.put_policy(&self.vhost, policy),
            Action::DeletePolicy(name, is_operator) => self.target.delete_policy(&self.vhost, name, *is_operator),
            Action::MemoryAlarm(is_raised) => self.target.set_memory_alarm(*is_raised),
            Action::Barrier => self.channel(&step.connection, step.channel, true)?.barrier(step.channel),
            Action::Send(send) => self.send(step, send),
            Action::Expect(expect) => self.expect(step, expect),
            Action::AnyOrder(expectations) => self.expect_any_order(step, expectations),
        }
    }

    fn connect(&mut self, name: &str) -> Result<&mut Connection, String> {
        let transport = self.target.connect().map_err(|error| format!("connecting failed: {error}"))?;
        self.connections.insert(name.to_owned(), Connection::new(transport));
        Ok(self.connections.get_mut(name).expect("just inserted"))
    }

    fn login_options(&self, options: &Fields) -> Result<Login, String> {
        let mut login = Login::guest(&self.vhost);
        for (name, literal) in options {
            let number = || match literal.to_field(Kind::LongLong, &self.variables)? {
                Field::Number(number) => Ok::<u64, String>(number),
                _ => unreachable!("to_field gives a number for a number"),
            };
            match name.as_str() {
                "user" => {
                    login.user = literal.to_text(&self.variables)?;
                    login.password = super::USER_PASSWORD.to_owned();
                }
                "password" => login.password = literal.to_text(&self.variables)?,
                "vhost" => login.vhost = literal.to_text(&self.variables)?,
                "channel-max" => login.channel_max = number()?,
                "frame-max" => login.frame_max = number()?,
                "heartbeat" => login.heartbeat = number()?,
                "capabilities" => match literal.to_value(&self.variables)? {
                    Value::Table(table) => login.capabilities = table,
                    other => return Err(format!("capabilities are a table, not {other}")),
                },
                other => return Err(format!("login knows no {other}")),
            }
        }
        Ok(login)
    }

    /// The connection called `name`, logged in unless the scenario does that itself; with the channel open if asked for.
    fn channel(&mut self, name: &str, channel: u16, opens: bool) -> Result<&mut Connection, String> {
        if !self.connections.contains_key(name) {
            let login = Login::guest(&self.vhost);
            self.connect(name)?.login(&login)?;
        }
        let connection = self.connections.get_mut(name).expect("just made sure");
        if opens && channel != 0 && !connection.is_manual && !connection.opened.contains(&channel) {
            connection.call(channel, "channel.open", &[]);
            connection.wait_for(channel, "channel.open-ok")?;
            connection.opened.push(channel);
        }
        Ok(connection)
    }

    fn send(&mut self, step: &Step, send: &Send) -> Result<(), String> {
        let variables = self.variables.clone();
        let channel = step.channel;
        // Only an ordinary method opens its channel; frames that are sent by hand are the scenario's own business.
        let opens = matches!(send, Send::Method { method, .. } if method.name != "channel.open");
        let connection = self.channel(&step.connection, channel, opens)?;
        match send {
            Send::Raw(bytes) => connection.send_raw(bytes),
            Send::Heartbeat => connection.send_frame(FRAME_HEARTBEAT, channel, Vec::new()),
            Send::Frame(fields) => connection.send_raw(&encode_frame(channel, fields, &variables)?),
            Send::Header(fields, properties) => {
                let number = |name: &str, default: u64| match find(fields, name) {
                    None => Ok(default),
                    Some(literal) => match literal.to_field(Kind::LongLong, &variables)? {
                        Field::Number(number) => Ok(number),
                        _ => Err(format!("{name} is a number")),
                    },
                };
                let (class, weight, size) = (number("class", 60)?, number("weight", 0)?, number("body-size", 0)?);
                let properties = to_properties(properties, &variables)?;
                connection.send_frame(
                    FRAME_HEADER,
                    channel,
                    encode_header(class as u16, weight as u16, size, &properties),
                );
            }
            Send::Body(literal) => connection.send_frame(FRAME_BODY, channel, literal.to_bytes(&variables)?),
            Send::Method { method, fields, content } => {
                let fields = encode_fields(method, fields, &variables)?;
                let content = match content {
                    None => None,
                    Some(content) => Some((
                        to_properties(&content.properties, &variables)?,
                        content.body.as_ref().map_or(Ok(Vec::new()), |body| body.to_bytes(&variables))?,
                    )),
                };
                match method.name {
                    "connection.close" => connection.is_closing = true,
                    "channel.open" => connection.opened.push(channel),
                    "connection.tune-ok" => {
                        if let Some(Field::Number(frame_max)) = fields.get(1) {
                            connection.frame_max = (*frame_max as usize).max(4096);
                        }
                    }
                    _ => {}
                }
                connection.send_method(channel, method, &fields, content);
            }
        }
        Ok(())
    }

    fn expect(&mut self, step: &Step, expect: &Expect) -> Result<(), String> {
        let mut variables = self.variables.clone();
        let connection = self.channel(&step.connection, step.channel, false)?;
        match expect {
            Expect::Raw(wanted) => {
                let bytes = connection.take_raw(wanted.len())?;
                if bytes != *wanted {
                    return Err(format!("came: {bytes:02x?}"));
                }
            }
            Expect::Confirmed { tags, is_ack } => expect_confirms(connection, step.channel, tags, *is_ack)?,
            expect => {
                let mut event = connection.next(step.channel)?;
                // Heartbeats come whenever the server likes; only a line that asks for one looks at them.
                while matches!(event, Event::Heartbeat) && !matches!(expect, Expect::Heartbeat) {
                    event = connection.next(step.channel)?;
                }
                let is_close = matches!(&event, Event::Method(incoming) if incoming.method.name == "connection.close");
                if is_close || matches!(event, Event::Eof) {
                    connection.is_closing = true;
                }
                if !matches(expect, &event, &mut variables)? {
                    return Err(format!("came: {}", describe(&event)));
                }
            }
        }
        self.variables = variables;
        Ok(())
    }

    fn expect_any_order(&mut self, step: &Step, expectations: &[(usize, String, Expect)]) -> Result<(), String> {
        let mut open: Vec<&(usize, String, Expect)> = expectations.iter().collect();
        while !open.is_empty() {
            let mut variables = self.variables.clone();
            let event = self.channel(&step.connection, step.channel, false)?.next(step.channel)?;
            let mut found = None;
            for (index, (_, _, expect)) in open.iter().enumerate() {
                let mut attempt = variables.clone();
                if matches(expect, &event, &mut attempt)? {
                    found = Some(index);
                    variables = attempt;
                    break;
                }
            }
            let Some(index) = found else {
                let lines: Vec<&str> = open.iter().map(|(_, source, _)| source.trim()).collect();
                return Err(format!("came: {}\n  open:\n  {}", describe(&event), lines.join("\n  ")));
            };
            open.remove(index);
            self.variables = variables;
        }
        Ok(())
    }

    /// Closes what is still open and makes sure that nothing came that no line expected.
    fn finish(&mut self) -> Result<(), String> {
        for (name, connection) in &mut self.connections {
            if let Some(leftover) = connection.leftover()? {
                return Err(format!("{name} received {leftover}, which no line expects"));
            }
            if connection.is_manual || connection.is_closing {
                continue;
            }
            connection.call(0, "connection.close", &[("reply-code", Field::Number(200))]);
            connection.wait_for(0, "connection.close-ok")?;
            if let Some(leftover) = connection.leftover()? {
                return Err(format!("{name} received {leftover}, which no line expects"));
            }
        }
        Ok(())
    }

    fn transcripts(&self) -> String {
        let mut text = String::new();
        for (name, connection) in &self.connections {
            let lines = &connection.transcript;
            for line in &lines[lines.len().saturating_sub(30)..] {
                text.push_str(&format!("    {name}{line}\n"));
            }
        }
        text
    }
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a Literal> {
    fields.iter().find(|(field, _)| field == name).map(|(_, literal)| literal)
}

/// A frame by hand: `type=`, `payload=` (text), `size=` and `end=` where they lie.
fn encode_frame(channel: u16, fields: &Fields, variables: &Variables) -> Result<Vec<u8>, String> {
    let payload = find(fields, "payload").map_or(Ok(Vec::new()), |literal| literal.to_bytes(variables))?;
    let number = |name: &str, default: u64| match find(fields, name) {
        None => Ok(default),
        Some(literal) => {
            let text = literal.to_text(variables)?;
            text.parse::<u64>().map_err(|_| format!("{name} is a number, not {text}"))
        }
    };
    let mut bytes = vec![number("type", 1)? as u8];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&(number("size", payload.len() as u64)? as u32).to_be_bytes());
    bytes.extend_from_slice(&payload);
    bytes.push(number("end", u64::from(FRAME_END))? as u8);
    Ok(bytes)
}

fn encode_fields(method: &Method, fields: &Fields, variables: &Variables) -> Result<Vec<Field>, String> {
    method
        .arguments
        .iter()
        .map(|(name, kind)| match find(fields, name) {
            Some(literal) => literal.to_field(*kind, variables).map_err(|error| format!("{name}: {error}")),
            None => Ok(Field::default_of(*kind)),
        })
        .collect()
}

fn matches(expect: &Expect, event: &Event, variables: &mut Variables) -> Result<bool, String> {
    match (expect, event) {
        (Expect::Eof, Event::Eof) | (Expect::Heartbeat, Event::Heartbeat) => Ok(true),
        (Expect::Method { method, fields, is_open, content }, Event::Method(incoming)) => {
            if method.name != incoming.method.name {
                return Ok(false);
            }
            for ((name, kind), actual) in method.arguments.iter().zip(&incoming.fields) {
                let is_match = match find(fields, name) {
                    Some(literal) => literal.matches_field(actual, variables)?,
                    None => *is_open || *actual == Field::default_of(*kind),
                };
                if !is_match {
                    return Ok(false);
                }
            }
            match (content, &incoming.content) {
                (Some(content), Some((properties, body))) => matches_content(content, properties, body, variables),
                _ => Ok(true),
            }
        }
        _ => Ok(false),
    }
}

fn matches_content(
    content: &Content,
    properties: &crate::wire::Properties,
    body: &[u8],
    variables: &mut Variables,
) -> Result<bool, String> {
    if !content.is_open && content.properties.len() != properties.len() {
        return Ok(false);
    }
    for (name, literal) in &content.properties {
        let Some((_, actual)) = properties.iter().find(|(present, _)| present == name) else { return Ok(false) };
        if !literal.matches_field(actual, variables)? {
            return Ok(false);
        }
    }
    match &content.body {
        Some(literal) => literal.matches_text(body, variables),
        None => Ok(body.is_empty()),
    }
}

/// Takes acks (or nacks) until each of `tags` is settled exactly once.
fn expect_confirms(connection: &mut Connection, channel: u16, tags: &[u64], is_ack: bool) -> Result<(), String> {
    let wanted = spec::by_name(if is_ack { "basic.ack" } else { "basic.nack" }).expect("a method of the table");
    let mut open: Vec<u64> = tags.to_vec();
    while !open.is_empty() {
        match connection.next(channel)? {
            Event::Heartbeat => {}
            Event::Method(Incoming { method, fields, .. }) if method.name == wanted.name => {
                let (Some(Field::Number(tag)), Some(Field::Bit(multiple))) = (fields.first(), fields.get(1)) else {
                    return Err("a confirm has a tag and a switch".to_owned());
                };
                let before = open.len();
                open.retain(|open| if *multiple { open > tag } else { open != tag });
                if open.len() == before {
                    return Err(format!("{} {tag} multiple={multiple} settles nothing that is open", wanted.name));
                }
            }
            other => return Err(format!("{open:?} are open, came: {}", describe(&other))),
        }
    }
    Ok(())
}
