//! The two pages that people are sent to: what the API has (`/api/`), and how to use it from a shell (`/cli/`). Plain HTML that loads nothing and asks for no
//! login, as RabbitMQ's; whatever is more of a web interface stands elsewhere.

use std::fmt::Write as _;

use axum::body::Body;

use super::endpoints::TABLE;
use super::reply::Reply;

/// The page at a path, if it is one of them.
pub(super) fn page(path: &str) -> Option<Reply> {
    let html = match path {
        "/api/index.html" => api(),
        "/cli/index.html" => html("Command line", CLI),
        _ => return None,
    };
    Some(Reply::stream("text/html; charset=utf-8", Body::from(html)))
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>{title}</title></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// Every path with its methods; names of parts stand in braces.
fn api() -> String {
    let mut rows = String::new();
    for endpoint in TABLE {
        let methods: Vec<&str> = endpoint.verbs().map(|verb| verb.name()).collect();
        // Paths are constants without a character that means something in HTML. Writing into a string cannot fail.
        let _ = writeln!(rows, "<tr><td>{}</td><td><code>/api{}</code></td></tr>", methods.join(", "), endpoint.path);
    }
    let body = format!(
        "<p>RabbitMQ's management API. Requests carry a name and a password (HTTP Basic); bodies and answers are JSON. In paths a vhost named \
         <code>/</code> is <code>%2F</code>. What begins with <code>/api/x/</code> is this broker's own.</p>\n<table>\n{rows}</table>\n"
    );
    html("Management API", &body)
}

const CLI: &str = "<p>The broker's binary is its command line, too: <code>broker --help</code>, for example <code>broker list queues</code>. \
                   RabbitMQ's <code>rabbitmqadmin</code> works as it is.</p>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_api_names_every_path_and_is_sound_html() {
        let text = api();
        for endpoint in TABLE {
            assert!(text.contains(&format!("<code>/api{}</code>", endpoint.path)), "{}", endpoint.path);
        }
        assert!(TABLE.iter().all(|endpoint| !endpoint.path.contains(['<', '>', '&'])));
        assert_eq!(text.matches("<tr>").count(), text.matches("</tr>").count());
    }
}
