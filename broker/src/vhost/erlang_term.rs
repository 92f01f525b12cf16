//! JSON values as RabbitMQ prints them in its texts: Erlang terms.
//!
//! Only for messages that people and tools compare with RabbitMQ's; nothing reads this back.

use std::fmt;

use serde_json::Value as Json;

/// A value that displays as the term into which RabbitMQ decodes it: `<<"text">>`, `42`, `true`, `[1,2]`, `#{<<"a">> => 1}`.
#[derive(Clone, Copy, Debug)]
pub struct ErlangTerm<'a>(pub &'a Json);

impl fmt::Display for ErlangTerm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(number) => write!(f, "{number}"),
            Json::String(text) => binary(f, text),
            Json::Array(items) => {
                f.write_str("[")?;
                separated(f, items, |f, item| write!(f, "{}", ErlangTerm(item)))?;
                f.write_str("]")
            }
            Json::Object(fields) => {
                f.write_str("#{")?;
                separated(f, fields, |f, (key, value)| {
                    binary(f, key)?;
                    write!(f, " => {}", ErlangTerm(value))
                })?;
                f.write_str("}")
            }
        }
    }
}

/// Pairs as a property list, which displays as `[{<<"a">>,1},{<<"b">>,2}]`.
#[derive(Clone, Debug)]
pub struct ErlangProplist<'a>(pub Vec<(&'a str, &'a Json)>);

impl fmt::Display for ErlangProplist<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        separated(f, &self.0, |f, (key, value)| {
            f.write_str("{")?;
            binary(f, key)?;
            write!(f, ",{}}}", ErlangTerm(value))
        })?;
        f.write_str("]")
    }
}

fn binary(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    // Where a byte is none of Latin 1's letters, Erlang says so.
    let encoding = if text.is_ascii() { "" } else { "/utf8" };
    write!(f, "<<\"{}\"{encoding}>>", text.escape_debug())
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        each(f, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_terms() {
        let value = json!(["a", 1, -2.5, true, null, {"k": "v"}]);
        assert_eq!(ErlangTerm(&value).to_string(), r#"[<<"a">>,1,-2.5,true,null,#{<<"k">> => <<"v">>}]"#);
        let one = json!(1);
        assert_eq!(ErlangProplist(vec![("foo", &one), ("é", &one)]).to_string(), r#"[{<<"foo">>,1},{<<"é"/utf8>>,1}]"#);
    }
}
