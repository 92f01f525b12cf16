//! Requests to the service, and what goes wrong with them. Nothing that is said of it holds a parameter: they are secrets.

use std::io::ErrorKind;
use std::sync::Arc;

use plugin_api::auth::AuthError;
use plugin_api::blocking::Threads;

use crate::answer::{self, Decision};
use crate::form::Form;
use crate::settings::Method;

/// Asks by HTTP, on threads of its own.
pub(crate) struct Service {
    agent: ureq::Agent,
    method: Method,
    threads: Threads,
}

impl Service {
    pub(crate) fn new(agent: ureq::Agent, method: Method, connections_max: usize) -> std::io::Result<Self> {
        Ok(Self { agent, method, threads: Threads::start("auth-http", connections_max, WAITING_MAX)? })
    }

    /// Asks one question.
    ///
    /// # Errors
    /// Whenever there is no proper answer; the broker refuses then.
    pub(crate) async fn ask(&self, url: &Arc<str>, form: Form) -> Result<Decision, AuthError> {
        let (agent, method) = (self.agent.clone(), self.method);
        let asked = Arc::clone(url);
        let answer = self.threads.run(move || request(&agent, method, &asked, &form)).await;
        let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
        answer.map_err(|text| AuthError::new(format!("asking {url} failed: {text}")))
    }
}

fn request(agent: &ureq::Agent, method: Method, url: &str, form: &Form) -> Result<Decision, String> {
    let send = || match method {
        Method::Get => agent.get(format!("{url}?{}", form.as_str())).call(),
        Method::Post => agent.post(url).content_type("application/x-www-form-urlencoded").send(form.as_str()),
    };
    let mut sent = send();
    for _ in 0..REPEATS_MAX {
        match &sent {
            Err(error) if was_closed_meanwhile(error) => sent = send(),
            _ => break,
        }
    }
    let mut response = sent.map_err(|error| told(&error))?;
    let status = response.status().as_u16();
    if !matches!(status, 200 | 201) {
        return Err(format!("it answers with status {status}, where 200 is expected"));
    }
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|error| told(&error))?;
    let body = String::from_utf8(body).map_err(|_| WRONG_BODY.to_owned())?;
    answer::parse(&body).ok_or_else(|| WRONG_BODY.to_owned())
}

/// A connection that was kept may be closed by the service in the moment in which it is used again. A question changes nothing, so it may be asked
/// again.
fn was_closed_meanwhile(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

/// An error without anything that the library quotes from the request.
fn told(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Tls(text) => format!("TLS: {text}"),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::BodyExceedsLimit(_) => format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"),
        ureq::Error::Protocol(error) => format!("it does not speak HTTP: {error}"),
        _ => "the request cannot be made".to_owned(),
    }
}

/// So often a question is asked again on another connection.
const REPEATS_MAX: usize = 2;
const WRONG_BODY: &str = "its answer is neither 'allow' nor 'deny'";
/// Words; nobody has so many tags.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// Questions that wait for a connection. Beyond, they are refused at once.
const WAITING_MAX: usize = 10_000;
