//! `${VAR}` and `${VAR:-default}` in scalars.
//!
//! Expansion happens after parsing, so that a value from the environment can never add keys or lists to the file. `$${`
//! stands for `${`. There is no nesting and no other shell syntax.

/// Where variables come from; the process environment outside tests.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a scalar cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("environment variable '{0}' is not set")]
    Unset(String),
    #[error("'${{' without '}}'")]
    Unclosed,
    #[error("'{0}' is not the name of an environment variable")]
    BadName(String),
}

impl ExpandError {
    pub(super) fn help(&self) -> String {
        match self {
            Self::Unset(name) => format!("set it, or give a default: ${{{name}:-…}}"),
            Self::Unclosed => "close it, or write '$${' for a literal '${'".to_owned(),
            Self::BadName(_) => {
                "use letters, digits and '_', and ':-' before a default; '$${' is a literal '${'".to_owned()
            }
        }
    }
}

/// Expands all variables of a scalar; `None` when there is nothing to do.
///
/// As in a shell, `:-` gives its default also for a variable that is set but empty.
pub(super) fn expand(text: &str, environment: &Environment<'_>) -> Result<Option<String>, ExpandError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            expanded.push_str(literal);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (inside, behind) = after.split_once('}').ok_or(ExpandError::Unclosed)?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(ExpandError::BadName(super::yaml::shorten(name)));
        }
        match (environment(name), default) {
            (Some(value), None) => expanded.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => expanded.push_str(&value),
            (_, Some(default)) => expanded.push_str(default),
            (None, None) => return Err(ExpandError::Unset(name.to_owned())),
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|char: char| char.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "INNER" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults() {
        let check = |text: &str, expected: &str| {
            assert_eq!(expand(text, &variables).unwrap().as_deref().unwrap_or(text), expected, "{text}");
        };
        check("plain", "plain");
        check("${HOST}", "db.example");
        check("a-${HOST}:${PORT:-5672}-z", "a-db.example:5672-z");
        check("${EMPTY}", "");
        check("${EMPTY:-x}", "x");
        check("${MISSING:-}", "");
        check("${MISSING:-a:-b}", "a:-b");
        check("$HOST $5 ${HOST}", "$HOST $5 db.example");
        check("$${HOST}", "${HOST}");
        check("x$${a}${HOST}$${b}", "x${a}db.example${b}");
        check("${INNER}", "${HOST}");
    }

    #[test]
    fn mistakes_have_a_way_out() {
        let check = |text: &str, expected: &str| {
            let error = expand(text, &variables).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(!error.help().is_empty());
        };
        check("${MISSING}", "environment variable 'MISSING' is not set");
        check("${HOST", "'${' without '}'");
        check("${}", "'' is not the name of an environment variable");
        check("${HO ST}", "'HO ST' is not the name of an environment variable");
        check("${1A:-x}", "'1A' is not the name of an environment variable");
    }
}
