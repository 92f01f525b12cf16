//! The text of a scenario file to steps. The format is described in `tests/scenarios/README.md`.

use super::literal::{Literal, Piece, Variables, parse_hex};
use super::settings::{Policy, Settings, parse_limits};
use crate::wire::spec::{self, Method};
use std::iter::Peekable;
use std::str::Chars;

/// One scenario file.
#[derive(Debug)]
pub struct Scenario {
    /// Folder and file without its extension, such as `09-queues/passive_missing`.
    pub name: String,
    /// The only kind of target it can run on, if it says so.
    pub only: Option<String>,
    /// Users beside `guest`, each with its permissions in the scenario's vhost.
    pub users: Vec<User>,
    /// Whether its vhost is traced.
    pub is_traced: bool,
    /// Policies, limits and topic permissions that are there from the start.
    pub settings: Settings,
    pub steps: Vec<Step>,
}

/// A user that a scenario asks for; `permissions` are configure, write, read, or none at all.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    /// Separated by commas.
    pub tags: String,
    pub permissions: Option<[String; 3]>,
}

/// One line that does something.
#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub source: String,
    /// Whether the line is for one target only.
    pub guard: Option<Guard>,
    pub connection: String,
    pub channel: u16,
    pub action: Action,
}

/// Restricts a line to a target that differs, or to all the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    Only(String),
    Otherwise(String),
}

#[derive(Debug)]
pub enum Action {
    Connect,
    Login(Fields),
    Drop,
    Barrier,
    /// A policy is set while the scenario runs.
    PutPolicy(Policy),
    /// A policy of that name is taken away; whether it is an operator policy.
    DeletePolicy(String, bool),
    /// The memory alarm is raised, or cleared.
    MemoryAlarm(bool),
    Send(Send),
    Expect(Expect),
    /// Expectations on one channel that may come true in any order.
    AnyOrder(Vec<(usize, String, Expect)>),
}

/// `name=literal` pairs.
pub type Fields = Vec<(String, Literal)>;

#[derive(Debug)]
pub enum Send {
    Raw(Vec<u8>),
    Heartbeat,
    Frame(Fields),
    Header(Fields, Fields),
    Body(Literal),
    Method { method: &'static Method, fields: Fields, content: Option<Content> },
}

#[derive(Debug)]
pub enum Expect {
    Raw(Vec<u8>),
    Eof,
    Heartbeat,
    Method {
        method: &'static Method,
        fields: Fields,
        is_open: bool,
        content: Option<Content>,
    },
    /// Publisher confirms for these sequence numbers, however they are coalesced.
    Confirmed {
        tags: Vec<u64>,
        is_ack: bool,
    },
}

/// Properties and body of a message; `is_open` lets properties be there that are not named.
#[derive(Debug)]
pub struct Content {
    pub properties: Fields,
    pub is_open: bool,
    pub body: Option<Literal>,
}

/// Parses a scenario file.
///
/// # Errors
/// With the line that is wrong and why.
pub fn parse(name: &str, text: &str) -> Result<Scenario, String> {
    let mut scenario = Scenario {
        name: name.to_owned(),
        only: None,
        users: Vec::new(),
        is_traced: false,
        settings: Settings::default(),
        steps: Vec::new(),
    };
    let mut differs: Option<String> = None;
    let mut group: Option<Step> = None;
    for (index, source) in text.lines().enumerate() {
        let line = index + 1;
        let fail = |message: String| format!("{name}:{line}: {message}\n    {source}");
        let trimmed = source.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix("differs:") {
            differs = Some(reasoned(rest).map_err(fail)?);
        } else if let Some(rest) = trimmed.strip_prefix("only:") {
            scenario.only = Some(reasoned(rest).map_err(fail)?);
        } else if let Some(rest) = trimmed.strip_prefix("user:") {
            scenario.users.push(parse_user(rest).map_err(fail)?);
        } else if trimmed == "tracing: on" {
            scenario.is_traced = true;
        } else if let Some(setting) = parse_setting(trimmed, &mut scenario).map_err(fail)? {
            if let Some(action) = setting {
                let (connection, source) = (String::new(), source.to_owned());
                scenario.steps.push(Step { line, source, guard: None, connection, channel: 0, action });
            }
        } else if trimmed == "any order" {
            group = Some(Step {
                line,
                source: source.to_owned(),
                guard: None,
                connection: String::new(),
                channel: 0,
                action: Action::AnyOrder(Vec::new()),
            });
        } else if trimmed == "end" {
            scenario.steps.push(group.take().ok_or_else(|| fail("end without any order".to_owned()))?);
        } else {
            let step = parse_step(line, source, differs.as_deref()).map_err(fail)?;
            match &mut group {
                None => scenario.steps.push(step),
                Some(group) => add_to_group(group, step).map_err(fail)?,
            }
        }
    }
    match group {
        Some(group) => Err(format!("{name}:{}: any order has no end", group.line)),
        None => Ok(scenario),
    }
}

/// What the vhost and its users are set to. Policies behind the first step are steps of their own. None when the line is about something else.
fn parse_setting(text: &str, scenario: &mut Scenario) -> Result<Option<Option<Action>>, String> {
    let Some((what, rest)) = text.split_once(':') else { return Ok(None) };
    let (name, fields) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    let is_operator = what.ends_with("operator-policy");
    match what {
        "policy" | "operator-policy" => {
            let policy = Policy::parse(name, &Parser::new(fields).fields()?.0, is_operator)?;
            if !scenario.steps.is_empty() {
                return Ok(Some(Some(Action::PutPolicy(policy))));
            }
            scenario.settings.policies.push(policy);
        }
        "no policy" | "no operator-policy" => {
            return Ok(Some(Some(Action::DeletePolicy(name.to_owned(), is_operator))));
        }
        "memory alarm" => {
            return match name {
                "on" => Ok(Some(Some(Action::MemoryAlarm(true)))),
                "off" => Ok(Some(Some(Action::MemoryAlarm(false)))),
                other => Err(format!("the memory alarm is on or off, not '{other}'")),
            };
        }
        "limits" => {
            let fields = Parser::new(rest).fields()?.0;
            scenario.settings.limits = parse_limits(&fields, &["max-connections", "max-queues"])?;
        }
        "user-limits" => {
            let limits = parse_limits(&Parser::new(fields).fields()?.0, &["max-connections", "max-channels"])?;
            scenario.settings.user_limits.push((name.to_owned(), limits));
        }
        "topic" => {
            let fields = Parser::new(fields).fields()?.0;
            let text = |wanted: &str| match fields.iter().find(|(field, _)| field == wanted) {
                Some((_, literal)) => literal.to_text(&Variables::new()),
                None => Err(format!("{wanted}= is missing")),
            };
            let patterns = [text("write")?, text("read")?];
            scenario.settings.topics.push((name.to_owned(), text("exchange")?, patterns));
        }
        _ => return Ok(None),
    }
    Ok(Some(None))
}

fn reasoned(rest: &str) -> Result<String, String> {
    match rest.trim().split_once(' ') {
        Some((target, reason)) if !reason.trim().is_empty() => Ok(target.to_owned()),
        _ => Err("a target and a reason are wanted".to_owned()),
    }
}

fn parse_user(rest: &str) -> Result<User, String> {
    let (name, rest) = rest.trim().split_once(' ').ok_or("name and permissions are wanted")?;
    let name = name.to_owned();
    let (fields, is_none) = match rest.trim().strip_suffix("none") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let fields = Parser::new(fields).fields()?.0;
    let no_variables = Variables::new();
    let text = |wanted: &str| match fields.iter().find(|(field, _)| field == wanted) {
        Some((_, literal)) => literal.to_text(&no_variables).map(Some),
        None => Ok(None),
    };
    let pattern = |wanted: &str| text(wanted)?.ok_or_else(|| format!("{wanted}= is missing"));
    let permissions = if is_none { None } else { Some([pattern("configure")?, pattern("write")?, pattern("read")?]) };
    Ok(User { name, tags: text("tags")?.unwrap_or_default(), permissions })
}

fn add_to_group(group: &mut Step, step: Step) -> Result<(), String> {
    let Action::AnyOrder(expectations) = &mut group.action else { unreachable!("a group holds expectations") };
    let Action::Expect(expect) = step.action else { return Err("a group holds expectations only".to_owned()) };
    if expectations.is_empty() {
        (group.connection, group.channel) = (step.connection, step.channel);
    } else if (&group.connection, group.channel) != (&step.connection, step.channel) {
        return Err("a group is about one channel: others have no order between them anyway".to_owned());
    }
    expectations.push((step.line, step.source, expect));
    Ok(())
}

fn parse_step(line: usize, source: &str, differs: Option<&str>) -> Result<Step, String> {
    let mut rest = source.trim();
    let mut guard = None;
    if let Some((target, tail)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let differing = differs.ok_or("a line for one target needs a header that says what differs and why")?;
        guard = Some(match target {
            "otherwise" => Guard::Otherwise(differing.to_owned()),
            _ if target == differing => Guard::Only(target.to_owned()),
            _ => return Err(format!("the header names {differing}, not {target}")),
        });
        rest = tail.trim();
    }
    let (actor, rest) = rest.split_once(' ').ok_or("a connection and what it does are wanted")?;
    let (connection, channel) = match actor.split_once('.') {
        Some((connection, channel)) => (connection, channel.parse().map_err(|_| format!("{channel} is no channel"))?),
        None => (actor, 0),
    };
    let action = parse_action(rest.trim())?;
    Ok(Step { line, source: source.to_owned(), guard, connection: connection.to_owned(), channel, action })
}

fn parse_action(text: &str) -> Result<Action, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    Ok(match verb {
        "connect" => Action::Connect,
        "login" => Action::Login(Parser::new(rest).fields()?.0),
        "drop" => Action::Drop,
        "barrier" => Action::Barrier,
        ">" => Action::Send(parse_send(rest)?),
        "<" => Action::Expect(parse_expect(rest)?),
        other => return Err(format!("{other} is no action")),
    })
}

fn parse_send(text: &str) -> Result<Send, String> {
    let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match what {
        "raw" => Send::Raw(parse_raw(rest)?),
        "heartbeat" => Send::Heartbeat,
        "frame" => Send::Frame(Parser::new(rest).fields()?.0),
        "header" => {
            let (fields, content) = Parser::new(rest).line()?;
            Send::Header(fields.0, content.map_or_else(Vec::new, |content| content.properties))
        }
        "body" => Send::Body(Parser::new(rest.trim()).literal(false)?),
        name => {
            let method = spec::by_name(name).ok_or_else(|| format!("{name} is no method"))?;
            let ((fields, is_open), content) = Parser::new(rest).line()?;
            if is_open {
                return Err(".. is for expectations".to_owned());
            }
            Send::Method { method, fields: check_fields(method, fields)?, content }
        }
    })
}

fn parse_expect(text: &str) -> Result<Expect, String> {
    let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match what {
        "raw" => Expect::Raw(parse_raw(rest)?),
        "eof" => Expect::Eof,
        "heartbeat" => Expect::Heartbeat,
        "confirmed" | "refused" => Expect::Confirmed { tags: parse_tags(rest)?, is_ack: what == "confirmed" },
        name => {
            let method = spec::by_name(name).ok_or_else(|| format!("{name} is no method"))?;
            let ((fields, is_open), content) = Parser::new(rest).line()?;
            if method.has_content() != content.is_some() {
                return Err("| content belongs to deliver, return and get-ok, and only there".to_owned());
            }
            Expect::Method { method, fields: check_fields(method, fields)?, is_open, content }
        }
    })
}

/// Replaces the short names of close fields and refuses fields that the method has not.
fn check_fields(method: &Method, fields: Fields) -> Result<Fields, String> {
    let mut checked = Fields::new();
    for (name, literal) in fields {
        let name = match name.as_str() {
            "code" => "reply-code".to_owned(),
            "text" => "reply-text".to_owned(),
            "method" if method.name.ends_with(".close") => {
                let text = literal.to_text(&Variables::new())?;
                let failed = spec::by_name(&text).ok_or_else(|| format!("{text} is no method"))?;
                checked.push(("class-id".to_owned(), number(failed.class)));
                checked.push(("method-id".to_owned(), number(failed.id)));
                continue;
            }
            _ => name,
        };
        if !method.arguments.iter().any(|(field, _)| *field == name) {
            return Err(format!("{} has no field {name}", method.name));
        }
        checked.push((name, literal));
    }
    Ok(checked)
}

fn number(n: u16) -> Literal {
    Literal::Text { pieces: vec![Piece::Bytes(n.to_string().into_bytes())], is_quoted: false }
}

fn parse_tags(text: &str) -> Result<Vec<u64>, String> {
    let mut tags = Vec::new();
    for word in text.split_whitespace() {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no sequence number"));
        tags.extend(parse(first)?..=parse(last)?);
    }
    if tags.is_empty() { Err("sequence numbers are wanted".to_owned()) } else { Ok(tags) }
}

/// Hexadecimal words and quoted text, one after the other.
fn parse_raw(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut parser = Parser::new(text);
    while parser.skip_spaces() {
        let literal = parser.literal(false)?;
        let is_text = matches!(literal, Literal::Text { is_quoted: true, .. } | Literal::Repeat(..));
        let plain = literal.to_bytes(&Variables::new())?;
        if is_text {
            bytes.extend(plain);
        } else {
            let digits = String::from_utf8_lossy(&plain).into_owned();
            bytes.extend(parse_hex(&digits).ok_or_else(|| format!("{digits} is not hexadecimal"))?);
        }
    }
    Ok(bytes)
}

/// A reader over the characters of one line.
struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { chars: text.chars().peekable() }
    }

    /// Skips blanks; false at the end of the line.
    fn skip_spaces(&mut self) -> bool {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        self.chars.peek().is_some()
    }

    /// Fields, then the content parts behind `|`.
    fn line(mut self) -> Result<((Fields, bool), Option<Content>), String> {
        let fields = self.fields()?;
        if self.chars.next_if_eq(&'|').is_none() {
            return Ok((fields, None));
        }
        let (mut properties, is_open) = self.fields()?;
        if self.chars.next_if_eq(&'|').is_some() {
            let (body, _) = self.fields()?;
            properties.extend(body);
        }
        let body_at = properties.iter().position(|(name, _)| name == "body");
        let body = body_at.map(|at| properties.remove(at).1);
        for (name, _) in &properties {
            if name != "class" && !spec::PROPERTIES.iter().any(|(known, _)| known == name) {
                return Err(format!("{name} is no property"));
            }
        }
        Ok((fields, Some(Content { properties, is_open, body })))
    }

    /// `name=literal` pairs up to `|` or the end; `..` says that more may be there.
    fn fields(&mut self) -> Result<(Fields, bool), String> {
        let mut fields = Fields::new();
        let mut is_open = false;
        while self.skip_spaces() && self.chars.peek() != Some(&'|') {
            let name = self.word(|c| c == '=' || c.is_whitespace());
            if name == ".." {
                is_open = true;
                continue;
            }
            if self.chars.next_if_eq(&'=').is_none() {
                return Err(format!("= is wanted behind {name}"));
            }
            fields.push((name, self.literal(false)?));
        }
        Ok((fields, is_open))
    }

    fn word(&mut self, is_end: impl Fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| !is_end(*c)) {
            word.push(c);
        }
        word
    }

    /// One literal; inside tables and arrays a bare word also ends at `,`, `}` and `]`.
    fn literal(&mut self, is_nested: bool) -> Result<Literal, String> {
        match self.chars.peek() {
            Some('"') => self.quoted(),
            Some('{') => self.table(),
            Some('[') => self.array(),
            _ => self.bare(is_nested),
        }
    }

    fn quoted(&mut self) -> Result<Literal, String> {
        self.chars.next();
        let mut builder = TextBuilder::default();
        loop {
            match self.chars.next() {
                None => return Err("a quote is not closed".to_owned()),
                Some('"') => return Ok(builder.finish(true)),
                Some(c) => self.text_char(c, &mut builder)?,
            }
        }
    }

    fn bare(&mut self, is_nested: bool) -> Result<Literal, String> {
        let mut builder = TextBuilder::default();
        let mut depth = 0_usize;
        let mut plain = String::new();
        while let Some(&c) = self.chars.peek() {
            let is_end = c.is_whitespace() || (is_nested && depth == 0 && matches!(c, ',' | '}' | ']'));
            if is_end && depth == 0 {
                break;
            }
            self.chars.next();
            depth = match c {
                '(' => depth + 1,
                ')' => depth.saturating_sub(1),
                _ => depth,
            };
            if c == '*' && self.chars.peek() == Some(&'"') {
                let count = plain.parse().map_err(|_| format!("{plain} is no number of repetitions"))?;
                return Ok(Literal::Repeat(count, Box::new(self.quoted()?)));
            }
            plain.push(c);
            self.text_char(c, &mut builder)?;
        }
        Ok(builder.finish(false))
    }

    fn text_char(&mut self, c: char, builder: &mut TextBuilder) -> Result<(), String> {
        match c {
            '*' => builder.piece(Piece::Star),
            '$' => {
                let mut name = String::new();
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                if name.is_empty() {
                    builder.char('$');
                } else {
                    builder.piece(Piece::Variable(name));
                }
            }
            '\\' => match self.chars.next() {
                Some('n') => builder.plain.push(b'\n'),
                Some('r') => builder.plain.push(b'\r'),
                Some('x') => {
                    let digits: String = self.chars.by_ref().take(2).collect();
                    builder.plain.extend(parse_hex(&digits).ok_or("\\x wants two hexadecimal digits")?);
                }
                Some(c) => builder.char(c),
                None => return Err("the line ends behind a backslash".to_owned()),
            },
            c => builder.char(c),
        }
        Ok(())
    }

    fn table(&mut self) -> Result<Literal, String> {
        self.chars.next();
        let (mut entries, mut is_open) = (Vec::new(), false);
        loop {
            if !self.skip_spaces() {
                return Err("a table is not closed".to_owned());
            }
            if self.chars.next_if_eq(&'}').is_some() {
                return Ok(Literal::Table { entries, is_open });
            }
            if self.chars.next_if_eq(&',').is_some() {
                continue;
            }
            let key = self.word(|c| matches!(c, ':' | '}' | ',') || c.is_whitespace());
            if key == ".." {
                is_open = true;
                continue;
            }
            if self.chars.next_if_eq(&':').is_none() {
                return Err(format!(": is wanted behind {key}"));
            }
            self.skip_spaces();
            entries.push((key, self.literal(true)?));
        }
    }

    fn array(&mut self) -> Result<Literal, String> {
        self.chars.next();
        let mut literals = Vec::new();
        loop {
            if !self.skip_spaces() {
                return Err("an array is not closed".to_owned());
            }
            if self.chars.next_if_eq(&']').is_some() {
                return Ok(Literal::Array(literals));
            }
            if self.chars.next_if_eq(&',').is_none() {
                literals.push(self.literal(true)?);
            }
        }
    }
}

#[derive(Default)]
struct TextBuilder {
    pieces: Vec<Piece>,
    plain: Vec<u8>,
}

impl TextBuilder {
    fn char(&mut self, c: char) {
        self.plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn piece(&mut self, piece: Piece) {
        self.flush();
        self.pieces.push(piece);
    }

    fn flush(&mut self) {
        if !self.plain.is_empty() {
            self.pieces.push(Piece::Bytes(std::mem::take(&mut self.plain)));
        }
    }

    fn finish(mut self, is_quoted: bool) -> Literal {
        self.flush();
        Literal::Text { pieces: self.pieces, is_quoted }
    }
}

#[cfg(test)]
mod tests {
    use super::super::literal::Variables;
    use super::*;
    use crate::wire::Field;
    use crate::wire::value::Value;

    fn value(text: &str) -> Value {
        Parser::new(text).literal(true).unwrap().to_value(&Variables::new()).unwrap()
    }

    #[test]
    fn table_values_carry_their_type_letter_behind_the_number() {
        for (text, expected) in [
            ("5", Value::I32(5)),
            ("-5l", Value::I64(-5)),
            ("5B", Value::U8(5)),
            ("1.5", Value::F64(1.5)),
            ("1.5f", Value::F32(1.5)),
            ("T(7)", Value::Timestamp(7)),
            ("D(2,314)", Value::Decimal(2, 314)),
            ("x(00ff)", Value::Bytes(vec![0, 255])),
            ("\"5\"", Value::Text(b"5".to_vec())),
            ("any", Value::Text(b"any".to_vec())),
            ("void", Value::Void),
        ] {
            assert_eq!(value(text), expected, "{text}");
            if text != "any" {
                assert_eq!(value(&expected.to_string()), expected, "{text} printed and read again");
            }
        }
    }

    #[test]
    fn nested_tables_and_arrays_are_read() {
        let Value::Table(table) = value("{a:[1, {b:true}], c:\"x, }\"}") else { panic!("a table") };
        assert_eq!(table[0].1.to_string(), "[1, {b:true}]");
        assert_eq!(table[1].1, Value::Text(b"x, }".to_vec()));
    }

    #[test]
    fn stars_match_in_expectations_unless_escaped() {
        let mut variables = Variables::from([("q".to_owned(), b"name".to_vec())]);
        for (pattern, actual, expected) in [
            ("amq.gen-*", "amq.gen-abc", true),
            ("amq.gen-*", "amq.", false),
            ("\"no queue '$q' *\"", "no queue 'name' here", true),
            ("\\*.b", "a.b", false),
            ("\\*.b", "*.b", true),
            ("*", "", true),
        ] {
            let literal = Parser::new(pattern).literal(false).unwrap();
            assert_eq!(literal.matches_text(actual.as_bytes(), &mut variables), Ok(expected), "{pattern} {actual}");
        }
    }

    #[test]
    fn a_bare_unknown_variable_captures() {
        let mut variables = Variables::new();
        let literal = Parser::new("$tag").literal(false).unwrap();
        assert_eq!(literal.matches_text(b"one", &mut variables), Ok(true));
        assert_eq!(literal.matches_text(b"two", &mut variables), Ok(false));
        let literal = Parser::new("{time:$time}").literal(false).unwrap();
        let field = |seconds| Field::Table(vec![(b"time".to_vec(), Value::Timestamp(seconds))]);
        assert_eq!(literal.matches_field(&field(5), &mut variables), Ok(true));
        assert_eq!(literal.matches_field(&field(6), &mut variables), Ok(false));
    }

    #[test]
    fn a_line_for_one_target_needs_a_reason() {
        assert!(parse("x", "[rabbitmq-3.10] a < eof").is_err());
        assert!(parse("x", "differs: rabbitmq-3.10\n[rabbitmq-3.10] a < eof").is_err());
        assert!(parse("x", "differs: rabbitmq-3.10 it is old\n[rabbitmq-3.10] a < eof").is_ok());
    }

    #[test]
    fn mistakes_name_the_line() {
        for (text, part) in [
            ("a.1 > queue.declare kueue=q", "no field kueue"),
            ("a.1 > queue.decl", "no method"),
            ("\n\na.1 < basic.deliver consumer-tag=c", "x:3:"),
            ("any order", "no end"),
        ] {
            let error = parse("x", text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
