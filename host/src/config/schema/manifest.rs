//! `pipeline.toml`, section by section in the order of the file.
//!
//! Returns a pipeline even when errors were found: what could not be read has its default or is
//! empty, so that `check` can still compare the rest. Only a report without errors makes it a
//! checked one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::http::read_allow;
use super::words::{
    ACK_MODE, ACKS, COMPRESSION, GROUP_BY, ISOLATION, MODE, ON_LOST_OFFSET, ON_STATE_REFUSED, ORDERING, PARTITIONER,
    PROTOCOL, THEN, TIMESTAMP, ThenWord,
};
use super::{GIB, HOUR, MILLISECOND, SECOND, check_schema, parse, read_limits, read_vars, suggested_name};
use crate::config::codes;
use crate::config::diagnostic::{Diagnostic, Origin, Origins, Report, SourceText};
use crate::config::names::{listed, pipeline_fault, topic_fault};
use crate::config::table::{Located, Reader, Table};
use crate::config::types::{
    Ack, Batcher, Breaker, Build, Canary, Compression, DEFAULT_CLUSTER, DeadLetter, Dev, Errors, Fetch, HandlerLimits,
    Hold, Isolation, KIB, LostOffset, Output, OutputTimestamp, Pace, Pipeline, Process, Protocol, Recycle, Source,
    Start, Swap, Then,
};
use crate::config::vars::Env;
use crate::outbound::Grant;

/// Reads one manifest. `None` when it is not TOML at all.
pub fn read_manifest(path: &Path, text: &str, env: Env<'_>, report: &mut Report) -> Option<Pipeline> {
    let source = SourceText::file(path, text);
    let document = parse(text, &source, report)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let reader = Reader::new(source);
    let mut pipeline = {
        let mut root = reader.root(&document);
        *reader.vars.borrow_mut() = read_vars(&mut root, directory, env);
        read_root(&mut root, path, directory)
    };
    let (found, origins) = reader.finish();
    pipeline.origin = origins;
    report.extend(found);
    Some(pipeline)
}

fn read_root(root: &mut Table<'_>, path: &Path, directory: &Path) -> Pipeline {
    check_schema(root);
    let name = read_name(root, path);
    let description = root.string("description").map(|text| text.value).unwrap_or_default();
    for key in ["telemetry", "profile"] {
        root.not_yet(key, "");
    }
    let handler = read_handler(root, directory);
    let source = read_source(root, &name);
    let errors = read_errors(root, &source.cluster);
    Pipeline {
        name,
        description,
        component: handler.component,
        settings: handler.settings,
        limits: handler.limits,
        recycle: handler.recycle,
        build: handler.build,
        process: read_process(root),
        batchers: read_batchers(root),
        ack: read_ack(root),
        hold: read_hold(root),
        tick: handler.tick,
        deterministic: handler.deterministic,
        http: handler.http,
        outputs: read_outputs(root),
        dev: read_dev(root, directory),
        swap: read_swap(root, directory),
        errors,
        source,
        deployed: None,
        origin: Origins::new(root.origin()),
    }
}

fn read_name(root: &mut Table<'_>, path: &Path) -> String {
    let example = format!("name = \"{}\"", suggested_name(path));
    let Some(name) = root.required_string("name", &example) else {
        return String::new();
    };
    if let Some(fault) = pipeline_fault(&name.value) {
        let message = format!("`{}` cannot be the name of a pipeline", name.value);
        let found = Diagnostic::error(codes::BAD_NAME, message)
            .at(name.origin)
            .label(fault)
            .note("it is the default consumer group and a label of every metric");
        root.report(found);
    }
    name.value
}

struct Handler {
    component: PathBuf,
    settings: serde_json::Value,
    limits: HandlerLimits,
    recycle: Recycle,
    tick: Option<Duration>,
    deterministic: bool,
    http: Option<Grant>,
    build: Option<Build>,
}

fn read_handler(root: &mut Table<'_>, directory: &Path) -> Handler {
    root.require("handler", "[handler]");
    let mut handler = Handler {
        component: PathBuf::new(),
        settings: serde_json::Value::Object(serde_json::Map::new()),
        limits: HandlerLimits::default(),
        recycle: Recycle::default(),
        tick: None,
        deterministic: false,
        http: None,
        build: None,
    };
    let Some(mut table) = root.table("handler") else {
        return handler;
    };
    let example = "component = \"target/wasm32-wasip2/release/NAME.wasm\"";
    if let Some(component) = table.required_string("component", example) {
        handler.component = component_path(&table, &component, directory);
    }
    table.choice("mode", (), &MODE);
    if let Some(settings) = table.json("settings") {
        handler.settings = settings;
    }
    if let Some(mut limits) = table.table("limits") {
        handler.limits = read_limits(&mut limits, HandlerLimits::default());
    }
    if let Some(recycle) = table.table("recycle") {
        handler.recycle = read_recycle(recycle);
    }
    let tick = table.duration("tick", Duration::ZERO, 10 * MILLISECOND..=HOUR);
    handler.tick = Some(tick).filter(|tick| !tick.is_zero());
    handler.deterministic = table.boolean("deterministic", false);
    handler.http = read_allow(&mut table);
    handler.build = table.table("build").map(|build| read_build(build, directory));
    table.not_yet("secrets", "use a variable: `vars.NAME = { secret = \"ENV_NAME\" }`");
    handler
}

fn component_path(table: &Table<'_>, component: &Located<String>, directory: &Path) -> PathBuf {
    let fault = if component.value.starts_with("oci://") {
        let message = "a component from a registry is not supported yet";
        Some(Diagnostic::error(codes::NOT_YET, message).help("name a file"))
    } else if component.value.is_empty() {
        let message = "`handler.component` is empty";
        Some(Diagnostic::error(codes::OUT_OF_RANGE, message))
    } else {
        None
    };
    match fault {
        Some(found) => {
            table.report(found.at(component.origin.clone()));
            PathBuf::new()
        }
        None => directory.join(&component.value),
    }
}

fn read_recycle(mut table: Table<'_>) -> Recycle {
    let default = Recycle::default();
    let age = table.duration("age", default.age.unwrap_or_default(), SECOND..=24 * 366 * HOUR);
    // 0 stands for a key that is not there.
    let calls = u64::from(table.count("calls", 0, 1..=u32::MAX));
    let memory = table.size("memory", 0, 64 * KIB..=4 * GIB);
    let some = |value: u64| Some(value).filter(|value| *value > 0);
    Recycle { age: Some(age), calls: some(calls), memory: some(memory) }
}

fn read_build(mut table: Table<'_>, directory: &Path) -> Build {
    let command = table.required_string("command", "command = \"cargo build --release\"");
    let workdir = table.string("workdir").map(|text| text.value).unwrap_or_default();
    table.not_yet("watch", "");
    table.not_yet("ignore", "");
    Build { command: command.map(|text| text.value).unwrap_or_default(), workdir: directory.join(workdir) }
}

fn read_source(root: &mut Table<'_>, name: &str) -> Source {
    root.require("source", "[source]");
    let mut source = Source {
        cluster: DEFAULT_CLUSTER.to_owned(),
        topics: Vec::new(),
        group: name.to_owned(),
        start: Start::Earliest,
        on_lost_offset: LostOffset::Earliest,
        isolation: Isolation::ReadCommitted,
        protocol: Protocol::Cooperative,
        instance_id: None,
        session_timeout: Duration::from_secs(45),
        linger: Duration::ZERO,
        fetch: Fetch::default(),
    };
    let Some(mut table) = root.table("source") else {
        return source;
    };
    source.cluster = read_cluster(&mut table).unwrap_or(source.cluster);
    source.topics = read_topics(&mut table);
    table.not_yet("topic_pattern", "name each topic: `topics = [\"orders\"]`");
    if let Some(group) = table.string("group") {
        source.group = checked_group(&table, group);
    }
    source.start = table.start("start", source.start);
    source.on_lost_offset = table.choice("on_lost_offset", source.on_lost_offset, &ON_LOST_OFFSET);
    source.isolation = table.choice("isolation", source.isolation, &ISOLATION);
    source.protocol = table.choice("protocol", source.protocol, &PROTOCOL);
    source.instance_id = table.string("instance_id").map(|id| {
        // Kafka holds instance ids to the rules of topic names.
        if let Some(fault) = topic_fault(&id.value) {
            let message = format!("`{}` cannot be an instance id", id.value);
            table.report(Diagnostic::error(codes::BAD_NAME, message).at(id.origin).label(fault));
        }
        id.value
    });
    source.session_timeout = table.duration("session_timeout", source.session_timeout, SECOND..=HOUR);
    source.linger = table.duration("linger", source.linger, Duration::ZERO..=Duration::from_millis(100));
    if let Some(fetch) = table.table("fetch") {
        source.fetch = read_fetch(fetch);
    }
    table.not_yet("decode", "the handler gets bytes");
    source
}

fn read_topics(table: &mut Table<'_>) -> Vec<String> {
    if !table.has("topic_pattern") {
        table.require("topics", "topics = [\"orders\"]");
    }
    let Some(topics) = table.strings("topics") else {
        return Vec::new();
    };
    let empty =
        table.entry("topics").filter(|(value, _)| value.get_ref().as_array().is_some_and(|list| list.is_empty()));
    if let Some((_, origin)) = empty {
        let found = Diagnostic::error(codes::OUT_OF_RANGE, "`source.topics` names no topic");
        table.report(found.at(origin).help("name at least one: `topics = [\"orders\"]`"));
    }
    topics.into_iter().map(|topic| topic.value).collect()
}

pub fn group_fault(group: &str) -> Option<&'static str> {
    match group {
        "" => Some("it is empty"),
        _ if group.chars().any(char::is_control) => Some("it holds a control character"),
        _ => None,
    }
}

fn checked_group(table: &Table<'_>, group: Located<String>) -> String {
    if let Some(fault) = group_fault(&group.value) {
        let found = Diagnostic::error(codes::BAD_NAME, "this cannot be a consumer group");
        table.report(found.at(group.origin).label(fault));
    }
    group.value
}

fn read_fetch(mut table: Table<'_>) -> Fetch {
    let default = Fetch::default();
    // librdkafka's own ranges; the wait stays below its socket timeout of 60 s.
    Fetch {
        min_bytes: table.size("min", default.min_bytes, 1..=100_000_000),
        max_per_partition: table.size("max_per_partition", default.max_per_partition, KIB..=1_000_000_000),
        max_wait: table.duration("max_wait", default.max_wait, Duration::ZERO..=30 * SECOND),
        buffer: table.size("buffer", default.buffer, 64 * KIB..=2 * GIB),
    }
}

/// A million messages a second.
const MOST_PER_HOUR: u64 = 3_600_000_000;

fn read_process(root: &mut Table<'_>) -> Process {
    let mut process = Process::default();
    let Some(mut table) = root.table("process") else {
        return process;
    };
    table.choice("ordering", (), &ORDERING);
    process.max_ahead = table.count("max_ahead", process.max_ahead, 1..=10_000_000);
    table.not_yet("threads", "remove it: handler threads are shared by the whole process");
    process.rate = table.pace("rate", 1..=MOST_PER_HOUR).map(Pace::per_hour);
    process
}

fn read_batchers(root: &mut Table<'_>) -> Vec<Batcher> {
    let mut batchers = Vec::new();
    for (name, mut table) in root.named_tables("batch") {
        check_part_name(&table, "batcher", &name);
        let default = Batcher::default();
        batchers.push(Batcher {
            name: name.value.to_owned(),
            max_messages: table.count("max_messages", default.max_messages, 1..=1_000_000),
            max_bytes: table.size("max_bytes", default.max_bytes, 1..=GIB),
            max_wait: table.duration("max_wait", default.max_wait, Duration::ZERO..=HOUR),
        });
        table.choice("group_by", (), &GROUP_BY);
    }
    batchers
}

fn read_ack(root: &mut Table<'_>) -> Ack {
    let mut ack = Ack::default();
    let Some(mut table) = root.table("ack") else {
        return ack;
    };
    ack.mode = table.choice("mode", ack.mode, &ACK_MODE);
    ack.commit_interval = table.duration("commit_interval", ack.commit_interval, 10 * MILLISECOND..=60 * SECOND);
    ack
}

fn read_hold(root: &mut Table<'_>) -> Hold {
    let mut hold = Hold::default();
    let Some(mut table) = root.table("hold") else {
        return hold;
    };
    hold.max = table.count("max", hold.max, 1..=10_000_000);
    hold.timeout = table.duration("timeout", hold.timeout, MILLISECOND..=24 * HOUR);
    hold
}

fn read_errors(root: &mut Table<'_>, source_cluster: &str) -> Errors {
    let mut errors = Errors::default();
    let Some(mut table) = root.table("errors") else {
        return errors;
    };
    if let Some(mut retry) = table.table("retry") {
        errors.attempts = retry.count("attempts", errors.attempts, 1..=1_000_000);
        errors.backoff = retry.duration("backoff", errors.backoff, MILLISECOND..=HOUR);
        errors.max_backoff = retry.duration("max_backoff", errors.max_backoff, MILLISECOND..=HOUR);
        errors.jitter = retry.boolean("jitter", errors.jitter);
    }
    let then = table.choice_at("then", &THEN);
    let dead_letter = table.table("dead_letter").map(|letter| read_dead_letter(letter, source_cluster));
    errors.breaker = read_breaker(&mut table);
    let letter_origin = table.entry("dead_letter").map(|(_, origin)| origin);
    report_then(&table, then.as_ref(), letter_origin);
    errors.then = match (dead_letter, then.map(|then| then.value)) {
        (Some(letter), _) => Then::DeadLetter(letter),
        (None, Some(ThenWord::Drop)) => Then::Drop,
        (None, Some(ThenWord::Stop)) => Then::Stop,
        (None, _) => Then::Block,
    };
    errors
}

fn read_swap(root: &mut Table<'_>, directory: &Path) -> Swap {
    let mut swap = Swap::default();
    let Some(mut table) = root.table("swap") else {
        return swap;
    };
    swap.watch = table.boolean("watch", swap.watch);
    swap.on_state_refused = table.choice("on_state_refused", swap.on_state_refused, &ON_STATE_REFUSED);
    // One is what is served, and there has to be one to go back to.
    swap.keep_versions = table.count("keep_versions", swap.keep_versions, 2..=50);
    swap.sample = table.string("sample").map(|file| directory.join(file.value));
    if let Some(mut canary) = table.table("canary") {
        let default = Canary::default();
        swap.canary = Canary {
            failed: canary.percent("failed", default.failed, 1..=100),
            slower: canary.count("slower", default.slower, 1..=1_000),
            of_at_least: canary.count("of_at_least", default.of_at_least, 1..=1_000_000),
        };
    }
    swap
}

/// `breaker = false`, or a table of what it looks at.
fn read_breaker(table: &mut Table<'_>) -> Option<Breaker> {
    let default = Breaker::default();
    let Some(mut table) = table.table_or_other("breaker") else {
        return table.boolean("breaker", true).then_some(default);
    };
    Some(Breaker {
        percent: table.percent("failed", default.percent, 1..=100),
        of_at_least: table.count("of_at_least", default.of_at_least, 1..=1_000_000),
        window: table.duration("window", default.window, SECOND..=HOUR),
    })
}

/// `then` and `dead_letter` must say the same.
fn report_then(table: &Table<'_>, then: Option<&Located<ThenWord>>, letter: Option<Origin>) {
    let Some(then) = then else { return };
    let origin = then.origin.clone();
    let found = match (then.value, letter) {
        (ThenWord::DeadLetter, None) => {
            Diagnostic::error(codes::DEAD_LETTER, "`then = \"dead-letter\"` without a topic")
                .at(origin)
                .help("add `dead_letter = { topic = \"...\" }` to [errors]")
        }
        (ThenWord::Block | ThenWord::Drop | ThenWord::Stop, Some(letter)) => {
            let word = THEN.word(&then.value);
            let message = format!("a dead-letter topic that `then = \"{word}\"` never uses");
            Diagnostic::error(codes::DEAD_LETTER, message)
                .at(origin)
                .related(letter, "the dead-letter topic")
                .help("write `then = \"dead-letter\"`, or remove one of the two")
        }
        _ => return,
    };
    table.report(found);
}

fn read_dead_letter(mut table: Table<'_>, source_cluster: &str) -> DeadLetter {
    let cluster = read_cluster(&mut table).unwrap_or_else(|| source_cluster.to_owned());
    let topic = table.required_string("topic", "topic = \"NAME.dead\"");
    let prefix = table.string("headers");
    if let Some(prefix) = prefix.as_ref().filter(|prefix| prefix.value.is_empty()) {
        let found = Diagnostic::error(codes::BAD_NAME, "the header prefix is empty");
        table.report(found.at(prefix.origin.clone()).help("headers = \"sluicebox-error\""));
    }
    table.only("keep_value", true);
    DeadLetter {
        cluster,
        topic: topic.map(|topic| topic.value).unwrap_or_default(),
        header_prefix: prefix.map_or_else(|| DEFAULT_HEADER_PREFIX.to_owned(), |prefix| prefix.value),
    }
}

pub const DEFAULT_HEADER_PREFIX: &str = "sluicebox-error";

fn read_outputs(root: &mut Table<'_>) -> Vec<Output> {
    let mut outputs = Vec::new();
    for (name, mut table) in root.named_tables("output") {
        check_part_name(&table, "output", &name);
        let cluster = read_cluster(&mut table);
        let topic = table.required_string("topic", &format!("topic = \"{}\"", name.value));
        table.choice("partitioner", (), &PARTITIONER);
        let timestamp = table.choice("timestamp", OutputTimestamp::Record, &TIMESTAMP);
        let mut compression = Compression::None;
        if let Some(mut send) = table.table("send") {
            compression = send.choice("compression", compression, &COMPRESSION);
            send.choice("acks", (), &ACKS);
            send.only("idempotent", true);
        }
        let provenance = table.boolean("provenance", false);
        outputs.push(Output {
            name: name.value.to_owned(),
            cluster: cluster.unwrap_or_else(|| DEFAULT_CLUSTER.to_owned()),
            topic: topic.map(|topic| topic.value).unwrap_or_default(),
            timestamp,
            compression,
            provenance,
        });
    }
    outputs
}

fn read_dev(root: &mut Table<'_>, directory: &Path) -> Dev {
    let mut dev = Dev::default();
    let Some(mut table) = root.table("dev") else {
        return dev;
    };
    for (topic, file) in table.string_map("samples") {
        dev.samples.insert(topic.value, directory.join(file.value));
    }
    dev.partitions = table.count("partitions", dev.partitions, 1..=1_000);
    dev
}

fn read_cluster(table: &mut Table<'_>) -> Option<String> {
    table.string("cluster").map(|cluster| cluster.value)
}

/// Batchers and outputs are called by these names across the sandbox, in metrics, and an output
/// without a name of its own has its topic's.
fn check_part_name(table: &Table<'_>, what: &str, name: &Located<&str>) {
    if let Some(fault) = topic_fault(name.value) {
        let message =
            format!("`{}` cannot be the name of a{} {what}", name.value, if what == "output" { "n" } else { "" });
        let found = Diagnostic::error(codes::BAD_NAME, message).at(name.origin.clone());
        table.report(found.label(fault).note(format!("names take {}", listed(["a-z", "A-Z", "0-9", ".", "_", "-"]))));
    }
}

/// A manifest with this beside what each one has to say; for tests.
#[cfg(test)]
pub(in crate::config) fn manifest_with(text: &str) -> Pipeline {
    let mut report = Report::default();
    let required = "schema = 1\nname = \"a\"\nhandler.component = \"a.wasm\"\nsource.topics = [\"in\"]\n";
    let read = read_manifest(Path::new("a.toml"), &format!("{required}{text}"), &|_| None, &mut report);
    assert!(!report.has_errors(), "{text}: {report}");
    read.expect("a manifest")
}

#[cfg(test)]
mod tests {
    use super::manifest_with as read;
    use super::*;
    use crate::config::types::AckMode;

    #[test]
    fn the_ways_a_record_may_go_reach_their_types() {
        assert_eq!(read("errors.then = \"drop\"").errors.then, Then::Drop);
        assert_eq!(read("errors.then = \"stop\"").errors.then, Then::Stop);
        assert_eq!(read("errors.then = \"block\"").errors.then, Then::Block);
        let letter = read("errors.dead_letter.topic = \"dead\"").errors.then;
        assert!(matches!(letter, Then::DeadLetter(letter) if letter.topic == "dead"));
        let breaker = |text| read(text).errors.breaker;
        assert_eq!(breaker(""), Some(Breaker::default()));
        assert_eq!(breaker("errors.breaker = true"), Some(Breaker::default()));
        assert_eq!(breaker("errors.breaker = false"), None);
        let minute = Duration::from_secs(60);
        let third = Breaker { percent: 33, of_at_least: 7, window: 2 * minute };
        assert_eq!(breaker("errors.breaker = { failed = 0.333, of_at_least = 7, window = \"2m\" }"), Some(third));
        let all = Breaker { percent: 100, ..Breaker::default() };
        assert_eq!(breaker("errors.breaker.failed = 1"), Some(all));
    }

    #[test]
    fn who_may_be_asked_reaches_its_type() {
        assert_eq!(read("").http, None);
        assert_eq!(read("handler.allow.hosts = []").http, None);
        let grant = read("handler.allow.hosts = [\"api.example.com\", \"http://10.0.0.7:80\"]").http.expect("a grant");
        let sites: Vec<_> = grant.sites.iter().map(ToString::to_string).collect();
        assert_eq!(sites, ["api.example.com:443", "http://10.0.0.7:80"]);
    }

    #[test]
    fn acks_holds_ticks_starts_and_provenance_reach_their_types() {
        assert_eq!(read("ack.mode = \"receive\"").ack.mode, AckMode::Receive);
        assert_eq!(read("").hold, Hold { max: 10_000, timeout: Duration::from_secs(300) });
        let hold = read("hold = { max = 7, timeout = \"9s\" }").hold;
        assert_eq!(hold, Hold { max: 7, timeout: Duration::from_secs(9) });
        assert_eq!((read("").tick, read("").deterministic), (None, false));
        assert!(read("handler.deterministic = true").deterministic);
        assert_eq!(read("handler.tick = \"250ms\"").tick, Some(Duration::from_millis(250)));
        assert_eq!(read("source.start = \"none\"").source.start, Start::None);
        assert_eq!(read("source.start = \"-1h\"").source.start, Start::Ago(HOUR));
        assert_eq!(read("source.start = 1970-01-01T00:00:01Z").source.start, Start::At(1_000));
        assert_eq!(read("").source.on_lost_offset, LostOffset::Earliest);
        assert_eq!(read("source.on_lost_offset = \"stop\"").source.on_lost_offset, LostOffset::Stop);
        let outputs = read("[output.a]\ntopic = \"a\"\n[output.b]\ntopic = \"b\"\nprovenance = true").outputs;
        let provenance: Vec<_> = outputs.iter().map(|output| output.provenance).collect();
        assert_eq!(provenance, [false, true]);
    }
}
