//! `sluicebox deploy`, `rollback` and `versions`: another version of a handler for a pipeline that runs.
//!
//! Of several hosts none is switched before each has admitted the component, unless that is asked for.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::args::{DeployArgs, OutputForm, RemoteArgs, RollbackArgs, VersionsArgs};
use super::exit::Exit;
use super::remote::{Body, Refusal, Remote, remotes, shown};
use super::status::number;
use crate::admin::view::{ComponentView, DeployRequest, OperationView, PipelineList, VersionList, short};
use crate::config;

/// Where a command puts what it has to say.
struct Out<'a> {
    form: OutputForm,
    data: &'a mut dyn Write,
    talk: &'a mut dyn Write,
    /// More than one host is told.
    several: bool,
    /// What each host came to.
    ended: Vec<Value>,
}

impl Out<'_> {
    fn refused(&mut self, refusal: &Refusal) -> io::Result<Exit> {
        self.talk.write_all(refusal.text().as_bytes())?;
        Ok(refusal.exit)
    }

    /// A step of an operation, for people who wait.
    fn step(&mut self, operation: &OperationView) -> io::Result<()> {
        if operation.state == "running" && !operation.says.is_empty() {
            writeln!(self.talk, "  {}", shown(&operation.says))?;
        }
        Ok(())
    }

    fn done(&mut self, host: &Remote, name: &str, operation: OperationView) -> io::Result<()> {
        if self.form == OutputForm::Text {
            let place = if self.several { format!("   {}", host.url) } else { String::new() };
            writeln!(self.data, "{name}  {}{place}", shown(&operation.says))?;
            // Of a plan.
            for line in operation.result["lines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                writeln!(self.data, "  {}", shown(line))?;
            }
        }
        self.ended.push(json!({ "host": host.url, "operation": operation }));
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        match self.form {
            OutputForm::Json => writeln!(self.data, "{:#}", json!({ "hosts": self.ended })),
            OutputForm::Text => Ok(()),
        }
    }
}

/// A host with what is known of it before anything is done.
struct Target<'r> {
    host: &'r Remote,
    generation: u64,
}

/// Runs `deploy`.
pub(super) fn deploy(
    args: &DeployArgs,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let (name, path) = match args.what() {
        Ok(what) => what,
        Err(fault) => return refuse(talk, &Refusal::new(Exit::Usage, fault, "sluicebox deploy NAME PATH")),
    };
    let Content { named, manifest, component } = match content(path, args.settings_only) {
        Ok(content) => content,
        Err(refusal) => return refuse(talk, &refusal),
    };
    let name = name.or(named);
    let request = |digest: Option<String>| DeployRequest {
        digest,
        manifest: manifest.clone(),
        strategy: args.strategy.map(|strategy| strategy.word().to_owned()),
        canary_percent: args.canary,
        canary_seconds: args.canary_for.map(|time| time.as_secs().max(1)),
        timeout_seconds: args.timeout.map(|timeout| timeout.as_secs().max(1)),
        ..DeployRequest::default()
    };
    let hosts = match remotes(&args.remote) {
        Ok(hosts) => hosts,
        Err(refusal) => return refuse(talk, &refusal),
    };
    let name = match name.map_or_else(|| the_only_pipeline(&hosts, path), Ok) {
        Ok(name) => name,
        Err(refusal) => return refuse(talk, &refusal),
    };
    let component = |host: &Remote| {
        let Some(bytes) = &component else { return Ok(request(None)) };
        let sent: ComponentView = host.post("/v1/components", Body::Component(bytes.clone()), None)?;
        Ok(request(Some(sent.digest)))
    };
    let out = Out { form, data, talk, several: hosts.len() > 1, ended: Vec::new() };
    let all = All { name: &name, verb: "deployments", plan: args.plan, force: args.force };
    all.run(&hosts, component, out)
}

/// What is to be deployed.
struct Content {
    /// The pipeline that a manifest names.
    named: Option<String>,
    manifest: Option<String>,
    /// Nothing: the one that serves.
    component: Option<Bytes>,
}

fn content(path: &Path, settings_only: bool) -> Result<Content, Refusal> {
    let unread = |path: &Path, error: &io::Error, hint: &str| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Refusal::new(exit, format!("{} cannot be read: {error}", path.display()), hint)
    };
    if path.extension().is_none_or(|extension| extension != "toml") {
        if settings_only {
            let what = format!("{} is no manifest, so it has no settings", path.display());
            return Err(Refusal::new(Exit::Usage, what, "name a .toml file"));
        }
        let bytes =
            std::fs::read(path).map_err(|error| unread(path, &error, "build the handler, or correct the path"))?;
        return Ok(Content { named: None, manifest: None, component: Some(bytes.into()) });
    }
    let text = std::fs::read_to_string(path).map_err(|error| unread(path, &error, "correct the path"))?;
    let env = |name: &str| std::env::var(name).ok();
    let Some((name, component)) = config::glance(path, &text, &env) else {
        let what = format!("{} names no pipeline", path.display());
        return Err(Refusal::new(Exit::Failed, what, format!("sluicebox check {}", path.display())));
    };
    let hint = "build the handler, or take the settings alone: --settings-only";
    let read = || std::fs::read(&component).map(Bytes::from).map_err(|error| unread(&component, &error, hint));
    let component = if settings_only { None } else { Some(read()?) };
    Ok(Content { named: Some(name), manifest: Some(text), component })
}

/// Runs `rollback`.
pub(super) fn rollback(
    args: &RollbackArgs,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let hosts = match remotes(&args.remote) {
        Ok(hosts) => hosts,
        Err(refusal) => return refuse(talk, &refusal),
    };
    let request = |_: &Remote| Ok(DeployRequest { digest: args.to.clone(), ..DeployRequest::default() });
    let out = Out { form, data, talk, several: hosts.len() > 1, ended: Vec::new() };
    let all = All { name: &args.name, verb: "rollback", plan: args.plan, force: args.force };
    all.run(&hosts, request, out)
}

fn refuse(talk: &mut dyn Write, refusal: &Refusal) -> io::Result<Exit> {
    talk.write_all(refusal.text().as_bytes())?;
    Ok(refusal.exit)
}

/// Without a name there is one pipeline to mean, or none.
fn the_only_pipeline(hosts: &[Remote], path: &Path) -> Result<String, Refusal> {
    let Some(host) = hosts.first() else {
        return Err(Refusal::new(Exit::Usage, "no host is named", "--host URL"));
    };
    let list: PipelineList = host.get("/v1/pipelines")?;
    match &list.pipelines[..] {
        [one] => Ok(one.name.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(|pipeline| pipeline.name.as_str()).collect();
            let what = format!("{} runs {} pipelines: {}", host.url, names.len(), names.join(", "));
            let which = names.first().copied().unwrap_or("NAME");
            Err(Refusal::new(Exit::Usage, what, format!("name one: sluicebox deploy {which} {}", path.display())))
        }
    }
}

/// The same thing, done on all hosts.
struct All<'a> {
    name: &'a str,
    verb: &'static str,
    /// Look only.
    plan: bool,
    /// Switch those that can, though others cannot.
    force: bool,
}

impl All<'_> {
    fn run(
        &self,
        hosts: &[Remote],
        request: impl Fn(&Remote) -> Result<DeployRequest, Refusal>,
        mut out: Out<'_>,
    ) -> io::Result<Exit> {
        let mut exit = Exit::Ok;
        let mut ready = Vec::new();
        for host in hosts {
            let prepared = self.generation(host).and_then(|generation| {
                let request = request(host)?;
                // One host looks when it switches; of several each looks before any switches.
                if self.plan || hosts.len() > 1 {
                    let looked = DeployRequest { dry_run: true, ..request.clone() };
                    let planned = self.tell(host, &looked, generation, &mut out)?;
                    return Ok((Target { host, generation }, request, Some(planned)));
                }
                Ok((Target { host, generation }, request, None))
            });
            match prepared {
                Ok((target, request, planned)) => {
                    if let (true, Some(planned)) = (self.plan, planned) {
                        out.done(target.host, self.name, planned)?;
                    }
                    ready.push((target, request));
                }
                Err(refusal) => exit = out.refused(&refusal)?,
            }
        }
        if self.plan {
            out.end()?;
            return Ok(exit);
        }
        if exit != Exit::Ok && (ready.is_empty() || !self.force) {
            if hosts.len() > 1 {
                writeln!(out.talk, "no host was switched: each has to take it (--force switches those that can)")?;
            }
            return Ok(exit);
        }
        for (target, request) in ready {
            match self.tell(target.host, &request, target.generation, &mut out) {
                Ok(operation) => {
                    if operation.state == "rolled_back" {
                        exit = Exit::Failed;
                    }
                    out.done(target.host, self.name, operation)?;
                }
                Err(refusal) => exit = out.refused(&refusal)?,
            }
        }
        out.end()?;
        Ok(exit)
    }

    fn generation(&self, host: &Remote) -> Result<u64, Refusal> {
        Ok(host.get::<VersionList>(&format!("/v1/pipelines/{}/versions", self.name))?.generation)
    }

    fn tell(
        &self,
        host: &Remote,
        request: &DeployRequest,
        generation: u64,
        out: &mut Out<'_>,
    ) -> Result<OperationView, Refusal> {
        let path = format!("/v1/pipelines/{}/{}", self.name, self.verb);
        let begun = host.post(&path, Body::json(request), Some(generation))?;
        let mut unsaid = Ok(());
        let ended = host.follow(begun, |operation| {
            if unsaid.is_ok() {
                unsaid = out.step(operation);
            }
        })?;
        unsaid.map(|()| ended).map_err(|error| Refusal { exit: Exit::Failed, what: error.to_string(), hint: None })
    }
}

/// Runs `versions`.
pub(super) fn versions(
    args: &VersionsArgs,
    form: OutputForm,
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let mut exit = Exit::Ok;
    let mut lists = Vec::new();
    let RemoteArgs { hosts: urls, .. } = &args.remote;
    let hosts = match remotes(&args.remote) {
        Ok(hosts) => hosts,
        Err(refusal) => return refuse(talk, &refusal),
    };
    for host in &hosts {
        match host.get::<VersionList>(&format!("/v1/pipelines/{}/versions", args.name)) {
            Ok(list) => lists.push((host.url.clone(), list)),
            Err(refusal) => exit = refuse(talk, &refusal)?,
        }
    }
    if form == OutputForm::Json {
        let hosts: Vec<Value> = lists.iter().map(|(url, list)| json!({ "host": url, "versions": list })).collect();
        writeln!(data, "{:#}", json!({ "hosts": hosts }))?;
        return Ok(exit);
    }
    for (url, list) in &lists {
        if urls.len() > 1 {
            writeln!(data, "{url}")?;
        }
        data.write_all(table(list).as_bytes())?;
    }
    Ok(exit)
}

fn table(list: &VersionList) -> String {
    let mut text = format!("{:<12}  {:<12}  {:>12}  {:<20}  {:<8}\n", "VERSION", "SETTINGS", "BYTES", "SINCE", "BY");
    for version in &list.versions {
        let served = if version.current { "served" } else { "" };
        let since = since(version.since);
        let line = format!(
            "{:<12}  {:<12}  {:>12}  {since:<20}  {:<8}  {served}",
            short(&version.digest),
            version.settings.as_deref().map_or("file", short),
            number(version.bytes),
            shown(&version.how)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time in ms since 1970, as `2026-11-21T08:00:00Z`.
fn since(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the March of a leap century, so that a leap day is the last of its year.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::VersionView;

    #[test]
    fn times_are_written_as_calendars_have_them() {
        for (milliseconds, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_248_000_000, "2026-11-21T08:00:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(since(milliseconds), written);
        }
    }

    #[test]
    fn versions_are_a_table() {
        let version = |digest: &str, current| VersionView {
            digest: digest.repeat(16),
            bytes: 98_765,
            since: 0,
            how: "deploy".to_owned(),
            current,
            settings: current.then(|| "9f3c04aa0011".repeat(5)),
        };
        let list = VersionList { generation: 2, versions: vec![version("abcd", true), version("1234", false)] };
        let expected = "VERSION       SETTINGS             BYTES  SINCE                 BY      
abcdabcdabcd  9f3c04aa0011        98,765  1970-01-01T00:00:00Z  deploy    served
123412341234  file                98,765  1970-01-01T00:00:00Z  deploy
";
        assert_eq!(table(&list), expected);
    }
}
