//! `sluicebox pause` and `sluicebox resume`: told to each host that is named, one after the other.

use std::io::{self, Write};

use serde_json::json;

use super::args::{OutputForm, PauseArgs, RemoteArgs, ResumeArgs};
use super::exit::Exit;
use super::remote::{Body, Refusal, Remote, remotes, shown};
use crate::admin::view::{OperationView, PauseRequest};

/// Runs `pause`.
pub(super) fn pause(
    args: &PauseArgs,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let body = Body::json(&PauseRequest { reason: args.reason.clone() });
    tell(&args.remote, &args.name, "pause", &body, form, data, talk)
}

/// Runs `resume`.
pub(super) fn resume(
    args: &ResumeArgs,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    tell(&args.remote, &args.name, "resume", &Body::None, form, data, talk)
}

fn tell(
    remote: &RemoteArgs,
    name: &str,
    verb: &str,
    body: &Body,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let hosts = match remotes(remote) {
        Ok(hosts) => hosts,
        Err(refusal) => {
            talk.write_all(refusal.text().as_bytes())?;
            return Ok(refusal.exit);
        }
    };
    let mut exit = Exit::Ok;
    let mut ended = Vec::new();
    for host in &hosts {
        match one(host, name, verb, body) {
            Ok(operation) => {
                if form == OutputForm::Text {
                    let place = if hosts.len() > 1 { format!("   {}", host.url) } else { String::new() };
                    writeln!(data, "{name}  {}{place}", shown(&operation.says))?;
                }
                ended.push(json!({ "host": host.url, "operation": operation }));
            }
            // The others are told all the same: what was asked for is the same on each.
            Err(refusal) => {
                talk.write_all(refusal.text().as_bytes())?;
                exit = refusal.exit;
            }
        }
    }
    if form == OutputForm::Json {
        writeln!(data, "{:#}", json!({ "hosts": ended }))?;
    }
    Ok(exit)
}

fn one(host: &Remote, name: &str, verb: &str, body: &Body) -> Result<OperationView, Refusal> {
    let begun = host.post(&format!("/v1/pipelines/{name}/{verb}"), body.clone(), None)?;
    host.follow(begun, |_| {})
}
