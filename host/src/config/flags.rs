//! The pipeline of `--plugin` and its companions, and what flags add to clusters.
//!
//! Each flag becomes a text of its own with a place in it, so that an error about a flag reads like
//! one about a file.

use std::collections::BTreeMap;

use super::codes;
use super::diagnostic::{Diagnostic, Origin, Origins, Report, SourceText};
use super::names::{as_pipeline_name, listed, topic_fault};
use super::request::{InlinePipeline, LoadRequest, Outside};
use super::schema::{ClusterDraft, DEFAULT_HEADER_PREFIX, bootstrap_fault, group_fault, property_fault};
use super::start::{START_FORM, parse_start};
use super::table::Located;
use super::types::{
    Ack, Compression, DEFAULT_CLUSTER, DeadLetter, Dev, Errors, Fetch, HandlerLimits, Hold, Isolation, LostOffset,
    Output, OutputTimestamp, Pipeline, Process, Protocol, Recycle, Secret, Source, Start, Swap, Then,
};

/// A flag as it was written, and the place of its value (or of a part of it).
fn flag_at(flag: &str, value: &str, part: &str) -> Origin {
    let text = format!("{flag} {value}");
    let start = flag.len() + 1 + value.find(part).unwrap_or(0);
    SourceText::flag(flag, &text).at(start..(start + part.len()).min(text.len()))
}

fn flag(flag: &str, value: &str) -> Origin {
    flag_at(flag, value, value)
}

/// The pipeline that the flags describe; its faults are in the report.
pub fn inline_pipeline(inline: &InlinePipeline, report: &mut Report) -> Pipeline {
    let plugin = inline.plugin.display().to_string();
    let mut origins = Origins::new(flag("--plugin", &plugin));
    origins.insert("handler.component", flag("--plugin", &plugin));
    origins.insert("source.group", flag("--group", &inline.group));
    if let Some(fault) = group_fault(&inline.group) {
        let found = Diagnostic::error(codes::BAD_NAME, "this cannot be a consumer group");
        report.push(found.at(flag("--group", &inline.group)).label(fault));
    }
    let topics = inline.topics.join(",");
    origins.insert("source.topics", flag("--topics", &topics));
    let source = SourceText::flag("--topics", &format!("--topics {topics}"));
    let mut start = "--topics ".len();
    for (index, topic) in inline.topics.iter().enumerate() {
        origins.insert(format!("source.topics.{index}"), source.at(start..start + topic.len()));
        start += topic.len() + 1;
    }
    let mut errors = Errors::default();
    if let Some(topic) = &inline.dead_letter {
        origins.insert("errors.dead_letter.topic", flag("--dead-letter", topic));
        errors.then = Then::DeadLetter(DeadLetter {
            cluster: DEFAULT_CLUSTER.to_owned(),
            topic: topic.clone(),
            header_prefix: DEFAULT_HEADER_PREFIX.to_owned(),
        });
    }
    let outputs = inline_outputs(inline, &mut origins, report);
    let settings = inline_settings(inline, report);
    let name = match as_pipeline_name(&inline.group).as_str() {
        "" => "pipeline".to_owned(),
        name => name.to_owned(),
    };
    Pipeline {
        name,
        description: String::new(),
        component: inline.plugin.clone(),
        settings,
        limits: HandlerLimits::default(),
        recycle: Recycle::default(),
        source: Source {
            cluster: DEFAULT_CLUSTER.to_owned(),
            topics: inline.topics.clone(),
            group: inline.group.clone(),
            start: inline_start(inline, &mut origins, report),
            on_lost_offset: LostOffset::Earliest,
            isolation: Isolation::ReadCommitted,
            protocol: Protocol::Cooperative,
            instance_id: None,
            session_timeout: std::time::Duration::from_secs(45),
            linger: std::time::Duration::ZERO,
            fetch: Fetch::default(),
        },
        process: Process::default(),
        batchers: Vec::new(),
        ack: Ack::default(),
        hold: Hold::default(),
        swap: Swap::default(),
        tick: None,
        deterministic: false,
        http: None,
        errors,
        outputs,
        build: None,
        dev: Dev::default(),
        deployed: None,
        origin: origins,
    }
}

fn inline_start(inline: &InlinePipeline, origins: &mut Origins, report: &mut Report) -> Start {
    let Some(text) = &inline.start else {
        return Start::Earliest;
    };
    let origin = flag("--start", text);
    origins.insert("source.start", origin.clone());
    parse_start(text).unwrap_or_else(|error| {
        let found = Diagnostic::error(codes::BAD_CHOICE, format!("`{text}` is not a value of --start"));
        report.push(found.at(origin).label(error.to_string()).note(format!("--start takes {START_FORM}")));
        Start::Earliest
    })
}

fn inline_outputs(inline: &InlinePipeline, origins: &mut Origins, report: &mut Report) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    for written in &inline.outputs {
        let (name, topic) = written.split_once('=').unwrap_or((written, written));
        let origin = flag_at("--output", written, name);
        if name != topic
            && let Some(fault) = topic_fault(name)
        {
            let message = format!("`{name}` cannot be the name of an output");
            report.push(Diagnostic::error(codes::BAD_NAME, message).at(origin.clone()).label(fault));
        }
        if outputs.iter().any(|output| output.name == name) {
            let message = format!("two outputs are named `{name}`");
            let found =
                Diagnostic::error(codes::DUPLICATE, message).at(origin).related(origins.output(name), "the other one");
            report.push(found.help("give one a name of its own: --output NAME=TOPIC"));
            continue;
        }
        origins.insert(format!("output.{name}"), origin);
        origins.insert(format!("output.{name}.topic"), flag_at("--output", written, topic));
        outputs.push(Output {
            name: name.to_owned(),
            cluster: DEFAULT_CLUSTER.to_owned(),
            topic: topic.to_owned(),
            timestamp: OutputTimestamp::Record,
            compression: Compression::None,
            provenance: false,
        });
    }
    outputs
}

/// `--set KEY=VALUE`: JSON where the value is JSON, else a string.
fn inline_settings(inline: &InlinePipeline, report: &mut Report) -> serde_json::Value {
    let mut settings = serde_json::Map::new();
    for (key, value) in &inline.settings {
        let text = value.expose();
        let parsed = serde_json::from_str(text);
        let value = parsed.unwrap_or_else(|_| serde_json::Value::String(text.to_owned()));
        if settings.insert(key.clone(), value).is_some() {
            let message = format!("the setting `{key}` is given twice");
            // The value is not quoted: it may be a secret.
            report.push(Diagnostic::error(codes::DUPLICATE, message).at(flag("--set", key)));
        }
    }
    serde_json::Value::Object(settings)
}

/// `--bootstrap` or `SB_BOOTSTRAP`: the default cluster, where the file has none.
pub fn add_bootstrap(
    request: &LoadRequest,
    outside: &Outside<'_>,
    clusters: &mut BTreeMap<String, ClusterDraft>,
    report: &mut Report,
) {
    let (name, value) = match (&request.bootstrap, (outside.env)("SB_BOOTSTRAP")) {
        (Some(value), _) => ("--bootstrap", value.clone()),
        (None, Some(value)) if !value.is_empty() => ("SB_BOOTSTRAP", value),
        _ => return,
    };
    let origin = match name {
        "SB_BOOTSTRAP" => SourceText::variable(name, &value).at(name.len() + 1..name.len() + 1 + value.len()),
        _ => flag(name, &value),
    };
    if let Some(other) = clusters.get(DEFAULT_CLUSTER) {
        // A flag was meant for this run, so dropping it silently would surprise; a variable may be
        // there for other tools.
        let message = format!("the cluster `{DEFAULT_CLUSTER}` has its address in the host's file");
        let found = if name == "SB_BOOTSTRAP" {
            let message = format!("{message}, so SB_BOOTSTRAP is not used");
            Diagnostic::warning(codes::BAD_CLUSTER, message).at(origin)
        } else {
            Diagnostic::error(codes::BAD_CLUSTER, message)
                .at(origin)
                .related(other.origin.clone(), "the cluster of the file")
                .help("leave out --bootstrap, or change the file")
        };
        report.push(found);
        return;
    }
    if let Some(fault) = bootstrap_fault(&value) {
        let message = format!("`{value}` is no list of brokers");
        let found = Diagnostic::error(codes::BAD_CLUSTER, message).at(origin.clone());
        report.push(found.label(fault).help("write HOST:PORT, several separated by commas"));
    }
    let draft = ClusterDraft {
        name: DEFAULT_CLUSTER.to_owned(),
        bootstrap: Some(Located { value, origin: origin.clone() }),
        properties: Vec::new(),
        origin,
    };
    clusters.insert(DEFAULT_CLUSTER.to_owned(), draft);
}

/// `-X KEY=VALUE`: for the default cluster, or for the only one. Never for several: credentials of
/// one cluster must not be sent to another.
pub fn add_properties(request: &LoadRequest, clusters: &mut BTreeMap<String, ClusterDraft>, report: &mut Report) {
    if request.librdkafka.is_empty() {
        return;
    }
    let name = match clusters.keys().next() {
        Some(only) if clusters.len() == 1 => only.clone(),
        _ => DEFAULT_CLUSTER.to_owned(),
    };
    let names = listed(clusters.keys().map(String::as_str));
    let mut target = clusters.get_mut(&name);
    if target.is_none() && !names.is_empty() {
        let message = "it is not clear which cluster -X is for";
        let found = Diagnostic::error(codes::BAD_FLAG, message)
            .at(property_origin(&request.librdkafka[0].0, &request.librdkafka[0].1))
            .note(format!("there are {names}, and none is named `{DEFAULT_CLUSTER}`"))
            .help("put the property into the host's file: librdkafka = { \"KEY\" = \"VALUE\" }");
        report.push(found);
    }
    for (key, value) in &request.librdkafka {
        let origin = property_origin(key, value);
        let known = target.as_ref().map(|cluster| cluster.properties.as_slice()).unwrap_or_default();
        if let Some(found) = property_fault(key, known, "the host's file, or by an earlier -X") {
            report.push(found.at(origin));
        } else if let Some(cluster) = &mut target {
            let value = Located { value: value.clone(), origin };
            cluster.properties.push((key.clone(), value));
        }
    }
}

/// The key is marked, and a secret value is masked by the text itself.
fn property_origin(key: &str, value: &Secret) -> Origin {
    flag_at("-X", &format!("{key}={}", value.expose()), key)
}
