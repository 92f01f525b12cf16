//! Runs a command while a broker, or a RabbitMQ, is up: `with-broker [--rabbitmq] [--topology FILE] COMMAND…`.
//!
//! The command finds it by `AMQP_HOST`, `AMQP_PORT` and `AMQP_TARGET` (`broker` or `rabbitmq-3.10`), and the broker's management API
//! by `AMQP_HTTP_URL`.

use std::process::{Command, ExitCode};
use tests::broker_process::{self, BrokerOptions};
use tests::oracle::{self, Definitions, Oracle};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args().skip(1).peekable();
    let is_rabbitmq = arguments.next_if_eq("--rabbitmq").is_some();
    let topology = arguments.next_if_eq("--topology").and_then(|_| arguments.next());
    let program = arguments.next().ok_or("a command is wanted")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if is_rabbitmq {
        let oracle = Oracle::start(&client_definitions())?;
        return finish(command, oracle.address(), oracle::KIND);
    }
    let mut options = BrokerOptions::default().http();
    if let Some(topology) = topology {
        options = options.topology(topology);
    }
    let broker = options.start()?;
    command.env("AMQP_HTTP_URL", format!("http://{}", broker.http()));
    let code = finish(command, broker.address(), broker_process::KIND)?;
    if code != ExitCode::SUCCESS {
        let log = broker.log();
        let notable: Vec<String> =
            log.into_iter().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect();
        eprintln!("what the broker warned of:\n{}", notable[notable.len().saturating_sub(40)..].join("\n"));
    }
    Ok(code)
}

fn finish(mut command: Command, address: std::net::SocketAddr, target: &str) -> Result<ExitCode, String> {
    let status = command
        .env("AMQP_HOST", address.ip().to_string())
        .env("AMQP_PORT", address.port().to_string())
        .env("AMQP_TARGET", target)
        .status()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What `tests/clients/topology.yaml` declares, as far as a RabbitMQ can.
fn client_definitions() -> Definitions {
    let mut definitions = Definitions::default();
    definitions.user("limited", "");
    definitions.permission("limited", "/", ["^mine", "^(mine|amq\\.default)", "^mine"].map(str::to_owned));
    definitions.vhost("closed");
    definitions
}
