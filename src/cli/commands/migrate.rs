//! `migrate`: a guest is sent to another host over a command's standard input and output, or over a socket.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde_json::json;
use uuid::Uuid;

use crate::cli::args::migration::{LimitChoice, MigrateArgs};
use crate::cli::connection::{Connection, find_guest};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::error::{AtStage, Error};
use crate::lifecycle::arrival::Arrival;
use crate::migration::send::{AtLimit, LiveLimits, MigrateJob, migrate};
use crate::migration::wire::Wire;
use crate::os::fd::take;
use crate::os::process::end_child;
use crate::os::wait::{WaitLimit, WaitResult};
use crate::stage::Stage;

/// How long the other side may take to say where the guest is.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of its answer.
const LONGEST_ANSWER: usize = 512;

/// How long the command may take to end once its connection is closed.
const LAST_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn run(reporter: &Reporter, arguments: &MigrateArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let start = Instant::now();
    let at_limit = match arguments.at_limit {
        LimitChoice::Suspend => AtLimit::Suspend,
        LimitChoice::GiveUp => AtLimit::GiveUp,
    };
    let limits = LiveLimits {
        most_rounds: arguments.max_rounds,
        downtime: arguments.max_downtime.map(Duration::from_millis),
        at_limit,
    };
    let job = MigrateJob {
        domain: &domain,
        live: (!arguments.no_live).then_some(limits),
        suspend_timeout: arguments.suspend_timeout,
        timeout: arguments.timeout,
        answer_timeout: arguments.answer_timeout,
    };
    let migrated = {
        let (command, mut wire) = connect(arguments, &connection).at(Stage::CheckInput)?;
        let migrated = migrate(&connection.context(), &job, &mut wire, &|| ask(arguments, domain.uuid));
        drop(wire);
        drop(command);
        migrated?
    };
    reporter.clear_line();
    let object = json!({
        "domid": domain.domid,
        "uuid": domain.uuid,
        "downtime_ms": migrated.downtime_ms,
        "rounds": migrated.rounds,
        "pages_sent_live": migrated.pages_sent_live,
        "total_ms": start.elapsed().as_millis(),
    });
    let to = arguments.host.as_deref().unwrap_or("the other side");
    let summary = format!(
        "domain {} runs at {to}: it stood still for {:.1} s of {:.1} s, after {} rounds",
        domain.domid,
        seconds(migrated.downtime_ms),
        start.elapsed().as_secs_f64(),
        migrated.rounds
    );
    print::finish(json, &object, &summary)
}

fn seconds(milliseconds: u128) -> f64 {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX)).as_secs_f64()
}

/// The command that reaches the other host. Dropping it waits for its end, and ends it.
struct Reach(Child);

impl Drop for Reach {
    fn drop(&mut self) {
        let start = Instant::now();
        while start.elapsed() < LAST_WAIT {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        log::warn!("the command that reaches the other host does not end: it is killed");
        if let Err(error) = end_child(&mut self.0, LAST_WAIT) {
            log::error!("cannot end the command that reaches the other host: {error}");
        }
    }
}

fn connect(arguments: &MigrateArgs, connection: &Connection<'_>) -> Result<(Option<Reach>, Wire), Error> {
    let wire = |input, output| Wire::new(input, output, &connection.cancel, arguments.timeout);
    if let Some(number) = arguments.fd {
        let socket = take(number).map_err(|error| Error::BadConfig(error.to_string()))?.fd;
        let copy = socket.try_clone().map_err(Error::io("copy the connection"))?;
        return Ok((None, wire(socket, copy)));
    }
    let host = arguments.host.as_deref().unwrap_or_default();
    let started = || -> io::Result<(Child, OwnedFd, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &line(arguments, host)]);
        // A signal is for this run: it tells the other side what to do.
        shell.stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?))).stdout(Stdio::from(OwnedFd::from(theirs)));
        let child = shell.spawn()?;
        Ok((child, ours.try_clone()?.into(), ours.into()))
    };
    let (child, input, output) = started().map_err(Error::io("start the command that reaches the other host"))?;
    Ok((Some(Reach(child)), wire(input, output)))
}

/// Asks the other side where the guest is.
fn ask(arguments: &MigrateArgs, uuid: Uuid) -> Result<Arrival, String> {
    let line = question(arguments).ok_or("there is no --ask to do so")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", &line(uuid)]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = shell.spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().map(OwnedFd::from).ok_or("it has no output")?;
    let text = read_answer(output);
    if let Err(error) = end_child(&mut child, LAST_WAIT) {
        log::error!("cannot end the command that asks the other host: {error}");
    }
    serde_json::from_slice(&text.map_err(|error| error.to_string())?)
        .map_err(|_| "the answer is not dombuild's".to_owned())
}

/// Reads a line within the time for it, or less at the end of the output.
fn read_answer(output: OwnedFd) -> io::Result<Vec<u8>> {
    let mut output = File::from(output);
    let start = Instant::now();
    let mut text = Vec::new();
    let mut buffer = [0; LONGEST_ANSWER];
    while text.len() < LONGEST_ANSWER && !text.contains(&b'\n') {
        let left = WaitLimit { timeout: ASK_TIMEOUT.saturating_sub(start.elapsed()), ..WaitLimit::default() };
        if left.wait(&output, PollFlags::POLLIN)? != WaitResult::Ready {
            return Err(ErrorKind::TimedOut.into());
        }
        match output.read(&mut buffer)? {
            0 => break,
            length => text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(text)
}

/// The line for the shell that asks, for the guest of a UUID.
fn question(arguments: &MigrateArgs) -> Option<impl Fn(Uuid) -> String> {
    let before = match (&arguments.ask, &arguments.host) {
        (Some(command), _) => (command.clone(), ""),
        (None, Some(host)) if !arguments.ssh.trim().is_empty() => {
            (format!("{} -- {} '{}", arguments.ssh, quoted(host), inner(&arguments.receiver)), "'")
        }
        _ => return None,
    };
    Some(move |uuid| format!("{} --has {uuid}{}", before.0, before.1))
}

/// Text within the quotes of the shell.
fn inner(text: &str) -> String {
    text.replace('\'', r"'\''")
}

fn quoted(text: &str) -> String {
    format!("'{}'", inner(text))
}

/// The line for the shell. What it starts ignores SIGINT, which a terminal sends to it as well.
fn line(arguments: &MigrateArgs, host: &str) -> String {
    const IGNORING: &str = "trap '' INT QUIT;";
    if arguments.ssh.trim().is_empty() {
        return format!("{IGNORING} {host}");
    }
    format!("{IGNORING} exec {} -- {} {}", arguments.ssh, quoted(host), quoted(&arguments.receiver))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command as Verb};

    fn arguments_of(words: &[&str]) -> MigrateArgs {
        let all = ["dombuild", "migrate", "web"].iter().chain(words);
        match Cli::try_parse_from(all).expect("good flags").command {
            Verb::Migrate(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn line_of(words: &[&str]) -> String {
        let arguments = arguments_of(words);
        line(&arguments, arguments.host.as_deref().expect("a host"))
    }

    #[test]
    fn the_shell_gets_the_host_as_one_word() {
        assert_eq!(line_of(&["it's"]), r"trap '' INT QUIT; exec ssh -- 'it'\''s' 'dombuild migrate-receive'");
        assert_eq!(
            line_of(&["b", "--ssh", "ssh -p 23", "--receiver", "xl migrate-receive"]),
            "trap '' INT QUIT; exec ssh -p 23 -- 'b' 'xl migrate-receive'"
        );
        assert_eq!(line_of(&["nc b 7", "--ssh", ""]), "trap '' INT QUIT; nc b 7");
    }

    #[test]
    fn the_other_side_is_asked_on_the_same_way() {
        let asked = |words: &[&str]| question(&arguments_of(words)).map(|line| line(Uuid::nil()));
        let has = "--has 00000000-0000-0000-0000-000000000000";
        assert_eq!(asked(&["it's"]), Some(format!(r"ssh -- 'it'\''s' 'dombuild migrate-receive {has}'")));
        assert_eq!(asked(&["nc b 7", "--ssh", ""]), None, "it may be anything");
        assert_eq!(asked(&["--fd", "9"]), None);
        assert_eq!(asked(&["--fd", "9", "--ask", "there b"]), Some(format!("there b {has}")));
    }
}
