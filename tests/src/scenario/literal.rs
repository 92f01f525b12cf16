//! The literals of scenario lines: what stands behind the `=` of a field.
//!
//! A literal is a template: `$name` stands for a variable, and in expectations `*` matches any run of bytes and a bare
//! `$name` that is still unknown captures. Whether a bare word is a number or text is decided where its type is known.

use crate::wire::spec::Kind;
use crate::wire::value::{Table, Value, quote};
use crate::wire::{Field, Properties};
use std::collections::HashMap;

/// Variables of a running scenario.
pub type Variables = HashMap<String, Vec<u8>>;

/// A parsed literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Text { pieces: Vec<Piece>, is_quoted: bool },
    Table { entries: Vec<(String, Self)>, is_open: bool },
    Array(Vec<Self>),
    Repeat(usize, Box<Self>),
}

/// A part of a text literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Bytes(Vec<u8>),
    Variable(String),
    Star,
}

impl Literal {
    /// The bytes this literal sends; stars are plain stars here.
    pub fn to_bytes(&self, variables: &Variables) -> Result<Vec<u8>, String> {
        match self {
            Self::Text { pieces, .. } => {
                let mut bytes = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Bytes(plain) => bytes.extend_from_slice(plain),
                        Piece::Star => bytes.push(b'*'),
                        Piece::Variable(name) => bytes.extend_from_slice(lookup(variables, name)?),
                    }
                }
                Ok(bytes)
            }
            Self::Repeat(count, inner) => Ok(inner.to_bytes(variables)?.repeat(*count)),
            Self::Table { .. } | Self::Array(_) => Err("text is wanted here".to_owned()),
        }
    }

    /// The text of this literal, for names, numbers and switches.
    pub fn to_text(&self, variables: &Variables) -> Result<String, String> {
        String::from_utf8(self.to_bytes(variables)?).map_err(|_| "UTF-8 is wanted here".to_owned())
    }

    /// The method argument or property of type `kind` that this literal sends.
    pub fn to_field(&self, kind: Kind, variables: &Variables) -> Result<Field, String> {
        Ok(match kind {
            Kind::Bit => Field::Bit(match self.to_text(variables)?.as_str() {
                "true" => true,
                "false" => false,
                other => return Err(format!("true or false is wanted, not {other}")),
            }),
            Kind::Octet | Kind::Short | Kind::Long | Kind::LongLong => {
                let text = self.to_text(variables)?;
                Field::Number(text.parse().map_err(|_| format!("a number is wanted, not {text}"))?)
            }
            Kind::ShortString | Kind::LongString => Field::String(self.to_bytes(variables)?),
            Kind::Table => match self.to_value(variables)? {
                Value::Table(table) => Field::Table(table),
                other => return Err(format!("a table is wanted, not {other}")),
            },
        })
    }

    /// The field-table value that this literal sends.
    pub fn to_value(&self, variables: &Variables) -> Result<Value, String> {
        Ok(match self {
            Self::Table { entries, .. } => Value::Table(
                entries
                    .iter()
                    .map(|(key, literal)| Ok((key.clone().into_bytes(), literal.to_value(variables)?)))
                    .collect::<Result<Table, String>>()?,
            ),
            Self::Array(literals) => {
                Value::Array(literals.iter().map(|literal| literal.to_value(variables)).collect::<Result<_, _>>()?)
            }
            Self::Text { is_quoted: true, .. } | Self::Repeat(..) => Value::Text(self.to_bytes(variables)?),
            Self::Text { is_quoted: false, .. } => bare_value(&self.to_text(variables)?)?,
        })
    }

    /// Whether `actual` is what this literal expects; captures into `variables`.
    pub fn matches_field(&self, actual: &Field, variables: &mut Variables) -> Result<bool, String> {
        match actual {
            Field::String(text) => self.matches_text(text, variables),
            Field::Bit(_) | Field::Number(_) => self.matches_text(actual.to_string().as_bytes(), variables),
            Field::Table(table) => self.matches_value(&Value::Table(table.clone()), variables),
        }
    }

    /// As [`Self::matches_field`] for bytes.
    pub fn matches_text(&self, actual: &[u8], variables: &mut Variables) -> Result<bool, String> {
        match self {
            Self::Text { pieces, is_quoted: false } if matches!(pieces.as_slice(), [Piece::Variable(_)]) => {
                let [Piece::Variable(name)] = pieces.as_slice() else { unreachable!("checked by the guard") };
                match variables.get(name) {
                    Some(known) => Ok(known == actual),
                    None => {
                        variables.insert(name.clone(), actual.to_vec());
                        Ok(true)
                    }
                }
            }
            Self::Text { pieces, .. } => glob(pieces, actual, variables),
            Self::Repeat(..) => Ok(self.to_bytes(variables)? == actual),
            Self::Table { .. } | Self::Array(_) => Ok(false),
        }
    }

    fn matches_value(&self, actual: &Value, variables: &mut Variables) -> Result<bool, String> {
        match (self, actual) {
            (Self::Text { pieces, is_quoted: false }, _) if pieces.as_slice() == [Piece::Star] => Ok(true),
            (Self::Text { pieces, is_quoted: false }, _) if matches!(pieces.as_slice(), [Piece::Variable(_)]) => {
                match actual {
                    Value::Text(text) => self.matches_text(text, variables),
                    other => self.matches_text(other.to_string().as_bytes(), variables),
                }
            }
            (Self::Table { entries, is_open }, Value::Table(table)) => {
                if !is_open && entries.len() != table.len() {
                    return Ok(false);
                }
                for (key, literal) in entries {
                    let Some((_, value)) = table.iter().find(|(present, _)| present == key.as_bytes()) else {
                        return Ok(false);
                    };
                    if !literal.matches_value(value, variables)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Self::Array(literals), Value::Array(values)) => {
                if literals.len() != values.len() {
                    return Ok(false);
                }
                for (literal, value) in literals.iter().zip(values) {
                    if !literal.matches_value(value, variables)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Self::Text { is_quoted: true, .. }, Value::Text(text)) => self.matches_text(text, variables),
            (Self::Text { is_quoted: false, .. }, Value::Text(text)) => {
                Ok(matches!(self.to_value(variables), Ok(Value::Text(_))) && self.matches_text(text, variables)?)
            }
            (Self::Table { .. } | Self::Array(_), _) => Ok(false),
            _ => Ok(self.to_value(variables)? == *actual),
        }
    }
}

/// Encodes the properties of a content line.
pub fn to_properties(literals: &[(String, Literal)], variables: &Variables) -> Result<Properties, String> {
    literals
        .iter()
        .map(|(name, literal)| {
            let (name, kind) = crate::wire::spec::PROPERTIES
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| format!("{name} is no property"))?;
            Ok((*name, literal.to_field(*kind, variables)?))
        })
        .collect()
}

fn lookup<'a>(variables: &'a Variables, name: &str) -> Result<&'a [u8], String> {
    variables.get(name).map(Vec::as_slice).ok_or_else(|| format!("${name} has no value yet"))
}

fn glob(pieces: &[Piece], actual: &[u8], variables: &Variables) -> Result<bool, String> {
    match pieces {
        [] => Ok(actual.is_empty()),
        [Piece::Star, rest @ ..] => {
            for skipped in 0..=actual.len() {
                if glob(rest, &actual[skipped..], variables)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        [piece, rest @ ..] => {
            let plain = match piece {
                Piece::Variable(name) => lookup(variables, name)?,
                Piece::Bytes(plain) => plain,
                Piece::Star => unreachable!("matched above"),
            };
            match actual.strip_prefix(plain) {
                Some(tail) => glob(rest, tail, variables),
                None => Ok(false),
            }
        }
    }
}

/// What a bare word in a table means: `true`, `void`, a number with its type letter behind, `T(…)`, `D(…,…)`, `x(…)`,
/// and everything else text.
fn bare_value(word: &str) -> Result<Value, String> {
    match word {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "void" => return Ok(Value::Void),
        _ => {}
    }
    if let Some((function, inner)) = word.strip_suffix(')').and_then(|word| word.split_once('(')) {
        return call_value(function, inner).ok_or_else(|| format!("{word} is no value"));
    }
    if !word.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Ok(Value::Text(word.as_bytes().to_vec()));
    }
    number_value(word).ok_or_else(|| format!("{word} is no number; quote it if it is text"))
}

fn call_value(function: &str, inner: &str) -> Option<Value> {
    match function {
        "T" => Some(Value::Timestamp(inner.parse().ok()?)),
        "D" => {
            let (scale, digits) = inner.split_once(',')?;
            Some(Value::Decimal(scale.trim().parse().ok()?, digits.trim().parse().ok()?))
        }
        "x" => Some(Value::Bytes(parse_hex(inner)?)),
        _ => None,
    }
}

fn number_value(word: &str) -> Option<Value> {
    if let Ok(plain) = word.parse() {
        return Some(Value::I32(plain));
    }
    if word.contains('.')
        && let Ok(plain) = word.parse()
    {
        return Some(Value::F64(plain));
    }
    let (number, letter) = word.split_at_checked(word.len() - 1)?;
    Some(match letter {
        "b" => Value::I8(number.parse().ok()?),
        "B" => Value::U8(number.parse().ok()?),
        "s" => Value::I16(number.parse().ok()?),
        "u" => Value::U16(number.parse().ok()?),
        "i" => Value::U32(number.parse().ok()?),
        "l" => Value::I64(number.parse().ok()?),
        "f" => Value::F32(number.parse().ok()?),
        "d" => Value::F64(number.parse().ok()?),
        _ => return None,
    })
}

/// Hexadecimal digits to bytes.
pub fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text { pieces, .. } => pieces.iter().try_for_each(|piece| match piece {
                Piece::Bytes(bytes) => f.write_str(&quote(bytes)),
                Piece::Variable(name) => write!(f, "${name}"),
                Piece::Star => f.write_str("*"),
            }),
            Self::Repeat(count, inner) => write!(f, "{count}*{inner}"),
            Self::Table { .. } => f.write_str("{…}"),
            Self::Array(_) => f.write_str("[…]"),
        }
    }
}
