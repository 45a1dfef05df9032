//! Checks that need more than one value: across keys, files, clusters and flags.
//!
//! Runs on whatever could be read, so that one pass finds everything; an empty value was reported
//! where it was read and is skipped here. Pure but for looking whether files exist.

use std::collections::BTreeMap;
use std::path::Path;

use super::codes;
use super::diagnostic::{Diagnostic, Origin, Report};
use super::limits::check_limits;
use super::names::{listed, nearest, topic_fault};
use super::outbound::check_outbound;
use super::request::Purpose;
use super::schema::{ClusterDraft, HostFile};
use super::types::{AckMode, DEFAULT_CLUSTER, Pipeline, Protocol, Then};
use super::units::format_duration;

/// All that one pipeline is compared with.
pub struct Against<'a> {
    pub purpose: Purpose,
    pub host: &'a HostFile,
    /// `None`: clusters are not known yet and not compared.
    pub clusters: Option<&'a BTreeMap<String, ClusterDraft>>,
}

/// Compares the pipelines with each other.
pub fn check_all(pipelines: &[Pipeline], report: &mut Report) {
    let mut names: BTreeMap<&str, Origin> = BTreeMap::new();
    let mut groups: BTreeMap<(&str, &str), (&str, Origin)> = BTreeMap::new();
    for pipeline in pipelines.iter().filter(|pipeline| !pipeline.name.is_empty()) {
        let origin = pipeline.origin.of("name");
        if let Some(first) = names.get(pipeline.name.as_str()) {
            let message = format!("two pipelines are named `{}`", pipeline.name);
            let found = Diagnostic::error(codes::SAME_NAME, message)
                .at(origin)
                .label("this one")
                .related(first.clone(), format!("the other one, in {}", first.file()));
            report.push(found.help("rename one; give it the old name as `group` to keep its offsets"));
            continue;
        }
        names.insert(&pipeline.name, origin);
        let source = &pipeline.source;
        let key = (source.cluster.as_str(), source.group.as_str());
        let origin = pipeline.origin.get("source.group").cloned();
        let origin = origin.unwrap_or_else(|| pipeline.origin.of("name"));
        if let Some((other, first)) = groups.get(&key) {
            let message = format!("`{}` and `{other}` are in one consumer group", pipeline.name);
            let found = Diagnostic::error(codes::SAME_GROUP, message)
                .at(origin)
                .related(first.clone(), format!("group of `{other}`"))
                .note("Kafka would split the partitions between them, and each would see a part");
            report.push(found.help("give each pipeline a group of its own"));
            continue;
        }
        groups.insert(key, (&pipeline.name, origin));
    }
}

/// Checks one pipeline, and lowers limits that it did not ask for to the operator's ceilings.
pub fn check_pipeline(pipeline: &mut Pipeline, against: &Against<'_>, report: &mut Report) {
    check_component(pipeline, against.purpose, report);
    check_topics(pipeline, report);
    check_loops(pipeline, report);
    if let Some(clusters) = against.clusters {
        check_clusters(pipeline, clusters, report);
    }
    check_limits(pipeline, against, report);
    check_outbound(pipeline, against, report);
    check_waits(pipeline, report);
    check_ack(pipeline, report);
    check_dev(pipeline, report);
}

fn check_component(pipeline: &Pipeline, purpose: Purpose, report: &mut Report) {
    let path = &pipeline.component;
    // The component of a manifest that was deployed came with it, or serves already.
    if path.as_os_str().is_empty() || purpose == Purpose::Dev || pipeline.deployed.is_some() {
        return;
    }
    let why = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => return,
        Ok(_) => "it is not a file",
        Err(_) => "there is no such file",
    };
    let found = Diagnostic::error(codes::MISSING_FILE, "the component cannot be read")
        .at(pipeline.origin.component())
        .label(why)
        .note(format!("looked for {}", path.display()));
    report.push(match (&pipeline.build, cargo_build(path)) {
        (Some(build), _) => {
            let here = build.workdir.as_os_str().is_empty();
            let directory = if here { Path::new(".") } else { &build.workdir };
            found.help(format!("build it: {} (in {})", build.command, directory.display()))
        }
        (None, Some(command)) => found.help(format!("build it: {command}")),
        (None, None) => found,
    });
}

/// The command that makes a file below `target/`, as cargo lays it out.
fn cargo_build(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let at = parts.iter().rposition(|part| part == "target")?;
    let [triple, profile, _file] = parts.get(at + 1..)? else {
        return None;
    };
    if !triple.starts_with("wasm32-") {
        return None;
    }
    let profile = match profile.as_ref() {
        "debug" => String::new(),
        "release" => " --release".to_owned(),
        other => format!(" --profile {other}"),
    };
    Some(format!("cargo build --target {triple}{profile}"))
}

fn check_topics(pipeline: &Pipeline, report: &mut Report) {
    let origin = &pipeline.origin;
    let topics = &pipeline.source.topics;
    for (index, topic) in topics.iter().enumerate() {
        let place = origin.of(&format!("source.topics.{index}"));
        if let Some(first) = topics[..index].iter().position(|other| other == topic) {
            let message = format!("the topic `{topic}` is named twice");
            let first = origin.of(&format!("source.topics.{first}"));
            let found = Diagnostic::error(codes::DUPLICATE, message).at(place.clone());
            report.push(found.related(first, "the first time"));
        }
        check_topic(topic, place, report);
    }
    for output in pipeline.outputs.iter().filter(|output| !output.topic.is_empty()) {
        check_topic(&output.topic, origin.of(&format!("output.{}.topic", output.name)), report);
    }
    if let Then::DeadLetter(letter) = &pipeline.errors.then {
        let written = origin.get("errors.dead_letter.topic").is_some();
        if written {
            check_topic(&letter.topic, origin.of("errors.dead_letter.topic"), report);
        }
    }
}

fn check_topic(topic: &str, origin: Origin, report: &mut Report) {
    if let Some(fault) = topic_fault(topic) {
        let message = format!("`{topic}` is no legal topic name");
        report.push(Diagnostic::error(codes::BAD_TOPIC, message).at(origin).label(fault));
    }
}

/// A pipeline that reads what it writes never ends: with one output, every emission that names none
/// would come back, and a poisoned record would be dead-lettered for ever. Nobody needs it – retries
/// are built in – so it is an error, not a warning that fills a disk overnight.
fn check_loops(pipeline: &Pipeline, report: &mut Report) {
    let source = &pipeline.source;
    let mut targets: Vec<(&str, &str, Origin)> = Vec::new();
    for output in &pipeline.outputs {
        let place = pipeline.origin.of(&format!("output.{}.topic", output.name));
        targets.push((&output.cluster, &output.topic, place));
    }
    if let Then::DeadLetter(letter) = &pipeline.errors.then {
        let place = pipeline.origin.of("errors.dead_letter.topic");
        targets.push((&letter.cluster, &letter.topic, place));
    }
    for (cluster, topic, place) in targets {
        let read = source.topics.iter().position(|read| read == topic);
        if let Some(index) = read.filter(|_| cluster == source.cluster) {
            let message = format!("the pipeline would read its own output `{topic}`");
            let found = Diagnostic::error(codes::LOOP, message)
                .at(place)
                .related(pipeline.origin.of(&format!("source.topics.{index}")), "read here")
                .note("each record would come back without end");
            report.push(found.help("write to another topic; retries need none, they are built in"));
        }
    }
}

fn check_clusters(pipeline: &Pipeline, clusters: &BTreeMap<String, ClusterDraft>, report: &mut Report) {
    let origin = &pipeline.origin;
    let mut uses = vec![("source.cluster".to_owned(), pipeline.source.cluster.as_str())];
    for output in &pipeline.outputs {
        uses.push((format!("output.{}.cluster", output.name), &output.cluster));
    }
    if let Then::DeadLetter(letter) = &pipeline.errors.then
        && origin.get("errors.dead_letter.cluster").is_some()
    {
        uses.push(("errors.dead_letter.cluster".to_owned(), &letter.cluster));
    }
    let mut default_reported = false;
    for (path, cluster) in uses.into_iter().filter(|(_, cluster)| !clusters.contains_key(*cluster)) {
        // The missing default is one mistake, however many places rely on it.
        if cluster == DEFAULT_CLUSTER && std::mem::replace(&mut default_reported, true) {
            continue;
        }
        report.push(unknown_cluster(cluster, origin.of(&path), clusters));
    }
}

fn unknown_cluster(cluster: &str, origin: Origin, clusters: &BTreeMap<String, ClusterDraft>) -> Diagnostic {
    let names = || clusters.keys().map(String::as_str);
    let message = format!("no cluster is named `{cluster}`");
    let mut found = Diagnostic::error(codes::BAD_CLUSTER, message).at(origin);
    if let Some(meant) = nearest(cluster, names()) {
        found = found.label(format!("did you mean `{meant}`?"));
    }
    if !clusters.is_empty() {
        found = found.note(format!("there is {}", listed(names())));
    }
    let in_file = format!("[cluster.{cluster}] bootstrap = \"HOST:PORT\" in the host's file (--config)");
    found.help(match cluster {
        DEFAULT_CLUSTER => format!("give --bootstrap HOST:PORT, or SB_BOOTSTRAP, or {in_file}"),
        _ => format!("define {in_file}"),
    })
}

fn check_waits(pipeline: &Pipeline, report: &mut Report) {
    let (errors, origin) = (&pipeline.errors, &pipeline.origin);
    let (calls, held) = (pipeline.recycle.calls, u64::from(pipeline.hold.max));
    if calls.is_some_and(|calls| calls <= held) {
        let message = "`handler.recycle.calls` is not above `hold.max`";
        let found = Diagnostic::error(codes::CONTRADICTION, message).at(origin.of("handler.recycle.calls"));
        let found = found.label(format!("{held} messages may be held"));
        report
            .push(found.note("each is offered to the next instance in a call of its own, which would be old by that"));
    }
    if errors.backoff > errors.max_backoff {
        let key = ["backoff", "max_backoff"].map(|key| format!("errors.retry.{key}"));
        let written = key.iter().find(|key| origin.get(key).is_some());
        let found = Diagnostic::error(codes::CONTRADICTION, "`errors.retry.backoff` is longer than `max_backoff`");
        let place = origin.of(written.map_or("errors.retry", String::as_str));
        let (first, longest) = (format_duration(errors.backoff), format_duration(errors.max_backoff));
        report.push(found.at(place).label(format!("{first} before the second attempt, {longest} at most")));
    }
    let timeout = origin.get("source.session_timeout");
    if let Some(place) = timeout.filter(|_| pipeline.source.protocol == Protocol::Consumer) {
        let message = "`session_timeout` has no effect with `protocol = \"consumer\"`";
        let found = Diagnostic::error(codes::CONTRADICTION, message).at(place.clone());
        report.push(found.label("the broker sets it").help("remove it"));
    }
}

/// With `mode = "receive"` a record is committed before the handler sees it: nothing can wait for it afterwards.
fn check_ack(pipeline: &Pipeline, report: &mut Report) {
    if pipeline.ack.mode != AckMode::Receive {
        return;
    }
    let origin = &pipeline.origin;
    let receive = || origin.of("ack.mode");
    if pipeline.errors.then == Then::Block {
        let message = "`ack.mode = \"receive\"` cannot block at a record that fails";
        let found = Diagnostic::error(codes::CONTRADICTION, message);
        let found = match origin.get("errors.then") {
            Some(then) => found.at(then.clone()).related(receive(), "committed before the handler sees it"),
            None => found.at(receive()).label("`errors.then` is \"block\" unless a file says otherwise"),
        };
        let help = "say what becomes of it: `then = \"drop\"` or \"stop\" in [errors], or a dead-letter topic";
        report.push(found.help(help));
    }
    if let Some(hold) = origin.get("hold") {
        let message = "`ack.mode = \"receive\"` leaves nothing to hold";
        let found = Diagnostic::error(codes::CONTRADICTION, message).at(hold.clone());
        report.push(found.related(receive(), "committed before the handler sees it").help("remove [hold]"));
    }
}

fn check_dev(pipeline: &Pipeline, report: &mut Report) {
    let topics = || pipeline.source.topics.iter().map(String::as_str);
    for topic in pipeline.dev.samples.keys().filter(|topic| topics().all(|read| read != *topic)) {
        let message = format!("samples for `{topic}`, which the pipeline does not read");
        let found =
            Diagnostic::error(codes::BAD_CHOICE, message).at(pipeline.origin.of(&format!("dev.samples.{topic}")));
        report.push(match nearest(topic, topics()) {
            Some(meant) => found.label(format!("did you mean `{meant}`?")),
            None => found.note(format!("it reads {}", listed(topics()))),
        });
    }
}
