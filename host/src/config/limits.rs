//! Limits against the operator's ceilings, the group's poll interval, and each other.
//!
//! One rule for all three: a value that a manifest wrote and cannot have is an error, a default
//! gives way. So an operator can tighten a host without touching manifests that ask for nothing.

use std::time::Duration;

use super::check::Against;
use super::codes;
use super::diagnostic::{Diagnostic, Origins, Report};
use super::schema::HostFile;
use super::types::{HandlerLimits, Pipeline};
use super::units::{format_duration, format_rate, format_size};

/// librdkafka's `max.poll.interval.ms` when nobody sets it.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Checks all limits of a pipeline and lowers those that nobody asked for. The bounds from outside
/// come first: what is lowered by one must still fit the others.
pub fn check_limits(pipeline: &mut Pipeline, against: &Against<'_>, report: &mut Report) {
    apply_ceilings(pipeline, against.host, report);
    check_poll_interval(pipeline, against, report);
    check_each_other(pipeline, against, report);
}

/// A limit that the manifest asks for and may not have is an error; a default gives way.
fn apply_ceilings(pipeline: &mut Pipeline, host: &HostFile, report: &mut Report) {
    let mut ceilings = Ceilings { origin: &pipeline.origin, host: host.origins.as_ref(), report };
    let HandlerLimits {
        memory,
        running_time,
        batch_running_time,
        wall_time,
        batch_wall_time,
        init_running_time,
        init_wall_time,
        answer_bytes,
        emissions,
        emission_bytes,
        stack,
        memories,
        tables,
        table_elements,
        instances,
        handles,
        log_line,
        log_rate,
        log_burst,
        metric_series,
        cpu_share,
        http_requests,
        http_body,
        http_fields,
        http_time,
        component_size,
        compile_time,
        compile_memory,
    } = &mut pipeline.limits;
    let ceiling = &host.ceilings;
    let sizes = [
        ("memory", memory, ceiling.memory),
        ("answer_bytes", answer_bytes, ceiling.answer_bytes),
        ("emission_bytes", emission_bytes, ceiling.emission_bytes),
        ("stack", stack, ceiling.stack),
        ("log_line", log_line, ceiling.log_line),
        ("log_burst", log_burst, ceiling.log_burst),
        ("http_body", http_body, ceiling.http_body),
        ("http_fields", http_fields, ceiling.http_fields),
        ("component_size", component_size, ceiling.component_size),
        ("compile_memory", compile_memory, ceiling.compile_memory),
    ];
    for (key, value, ceiling) in sizes {
        ceilings.apply(key, value, ceiling, format_size);
    }
    ceilings.apply("log_rate", log_rate, ceiling.log_rate, format_rate);
    let counts = [
        ("emissions", emissions, ceiling.emissions),
        ("memories", memories, ceiling.memories),
        ("tables", tables, ceiling.tables),
        ("table_elements", table_elements, ceiling.table_elements),
        ("instances", instances, ceiling.instances),
        ("handles", handles, ceiling.handles),
        ("metric_series", metric_series, ceiling.metric_series),
        ("cpu_share", cpu_share, ceiling.cpu_share),
        ("http_requests", http_requests, ceiling.http_requests),
    ];
    for (key, value, ceiling) in counts {
        ceilings.apply(key, value, ceiling, |count| count.to_string());
    }
    let times = [
        ("running_time", running_time, ceiling.running_time),
        ("batch_running_time", batch_running_time, ceiling.batch_running_time),
        ("wall_time", wall_time, ceiling.wall_time),
        ("batch_wall_time", batch_wall_time, ceiling.batch_wall_time),
        ("init_running_time", init_running_time, ceiling.init_running_time),
        ("init_wall_time", init_wall_time, ceiling.init_wall_time),
        ("http_time", http_time, ceiling.http_time),
        ("compile_time", compile_time, ceiling.compile_time),
    ];
    for (key, value, ceiling) in times {
        ceilings.apply(key, value, ceiling, format_duration);
    }
}

struct Ceilings<'a> {
    origin: &'a Origins,
    host: Option<&'a Origins>,
    report: &'a mut Report,
}

impl Ceilings<'_> {
    fn apply<T: Ord + Copy>(&mut self, key: &str, value: &mut T, ceiling: T, show: fn(T) -> String) {
        if *value <= ceiling {
            return;
        }
        let path = format!("handler.limits.{key}");
        if let Some(origin) = self.origin.get(&path) {
            let message = format!("`{path}` is above the operator's ceiling");
            let mut found = Diagnostic::error(codes::ABOVE_CEILING, message)
                .at(origin.clone())
                .label(format!("at most {}", show(ceiling)));
            let set = self.host.and_then(|host| host.get(&format!("limits.ceiling.{key}")));
            found = match set {
                Some(set) => found.related(set.clone(), "the ceiling is set here"),
                None => {
                    found.note(format!("this is the default; `{key}` in [limits.ceiling] of the host's file raises it"))
                }
            };
            self.report.push(found);
        }
        *value = ceiling;
    }
}

/// Limits of one pipeline that contradict each other.
fn check_each_other(pipeline: &mut Pipeline, against: &Against<'_>, report: &mut Report) {
    let (origin, limits) = (&pipeline.origin, &mut pipeline.limits);
    // Time inside the guest is part of the wall clock. A default follows the other key.
    let pairs = [
        ("running_time", &mut limits.running_time, "wall_time", limits.wall_time),
        ("batch_running_time", &mut limits.batch_running_time, "batch_wall_time", limits.batch_wall_time),
        ("init_running_time", &mut limits.init_running_time, "init_wall_time", limits.init_wall_time),
    ];
    for (key, running, wall_key, wall) in pairs {
        if *running <= wall {
            continue;
        }
        let path = format!("handler.limits.{key}");
        if let Some(place) = origin.get(&path) {
            let message = format!("`{path}` is longer than `{wall_key}`");
            let shown = format_duration(wall);
            let found = Diagnostic::error(codes::CONTRADICTION, message).at(place.clone());
            report.push(found.label(format!("`{wall_key}` ends the call after {shown}")));
        }
        *running = wall;
    }
    for batcher in &pipeline.batchers {
        let path = format!("batch.{}.max_bytes", batcher.name);
        if batcher.max_bytes >= limits.memory {
            let message = "a batch would not fit into the handler's memory";
            let found = Diagnostic::error(codes::CONTRADICTION, message).at(origin.of(&path));
            report.push(found.label(format!("memory of the handler: {}", format_size(limits.memory))));
        }
    }
    let fetch = &mut pipeline.source.fetch;
    let budget = against.host.memory_budget;
    if fetch.buffer > budget {
        if let Some(place) = origin.get("source.fetch.buffer") {
            let message = "`source.fetch.buffer` is above the memory of the whole process";
            let found = Diagnostic::error(codes::ABOVE_CEILING, message).at(place.clone());
            report.push(found.label(format!("at most {}", format_size(budget))));
        }
        fetch.buffer = budget;
    }
    if fetch.max_per_partition > fetch.buffer {
        if let Some(place) = origin.get("source.fetch.max_per_partition") {
            let message = "one fetch would not fit into `source.fetch.buffer`";
            let found = Diagnostic::error(codes::CONTRADICTION, message).at(place.clone());
            report.push(found.label(format!("the buffer has {}", format_size(fetch.buffer))));
        }
        fetch.max_per_partition = fetch.buffer;
    }
}

/// What a revocation may have to wait for has to end well before the group takes the member for
/// dead. A default gives way, a written value is an error.
fn check_poll_interval(pipeline: &mut Pipeline, against: &Against<'_>, report: &mut Report) {
    let cluster = against.clusters.and_then(|clusters| clusters.get(&pipeline.source.cluster));
    let set = cluster.and_then(|cluster| {
        let (_, value) = cluster.properties.iter().rfind(|(key, _)| key == "max.poll.interval.ms")?;
        Some((Duration::from_millis(value.value.expose().parse().ok()?), value.origin.clone()))
    });
    let interval = set.as_ref().map_or(MAX_POLL_INTERVAL, |(interval, _)| *interval);
    let (limits, origin) = (&mut pipeline.limits, &pipeline.origin);
    let mut waits = vec![
        ("handler.limits.wall_time".to_owned(), &mut limits.wall_time, interval / 2),
        ("handler.limits.batch_wall_time".to_owned(), &mut limits.batch_wall_time, interval / 2),
        ("handler.limits.init_wall_time".to_owned(), &mut limits.init_wall_time, interval / 2),
        ("source.session_timeout".to_owned(), &mut pipeline.source.session_timeout, interval),
    ];
    for batcher in &mut pipeline.batchers {
        waits.push((format!("batch.{}.max_wait", batcher.name), &mut batcher.max_wait, interval / 2));
    }
    for (path, wait, bound) in waits {
        if *wait < bound {
            continue;
        }
        if let Some(place) = origin.get(&path) {
            let message = format!("`{path}` is too long for the consumer group");
            let (has, below) = (format_duration(*wait), format_duration(bound));
            let mut found = Diagnostic::error(codes::POLL_INTERVAL, message)
                .at(place.clone())
                .label(format!("it has {has}, and has to be below {below}"));
            let interval = format_duration(interval);
            found = found.note(if path.starts_with("source.") {
                format!("max.poll.interval.ms of librdkafka is {interval}")
            } else {
                format!("half of librdkafka's max.poll.interval.ms, {interval}: after that the group takes the partitions away")
            });
            if let Some((_, place)) = &set {
                found = found.related(place.clone(), "the interval is set here");
            }
            report.push(found.help("shorten it, or have the operator raise max.poll.interval.ms"));
        }
        *wait = bound.saturating_sub(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LoadRequest, Outside, load};
    use super::HostFile;

    /// Proves: each limit may be asked for up to its ceiling, and not beyond it.
    #[test]
    fn every_limit_up_to_its_ceiling() {
        let ceiling = HostFile::default().ceilings;
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).expect("a ceiling");
        let bytes = [
            ("memory", ceiling.memory),
            ("answer_bytes", ceiling.answer_bytes),
            ("emission_bytes", ceiling.emission_bytes),
            ("stack", ceiling.stack),
            ("log_line", ceiling.log_line),
            ("log_burst", ceiling.log_burst),
            ("http_body", ceiling.http_body),
            ("http_fields", ceiling.http_fields),
            ("component_size", ceiling.component_size),
            ("compile_memory", ceiling.compile_memory),
        ];
        let counts = [
            ("emissions", ceiling.emissions),
            ("memories", ceiling.memories),
            ("tables", ceiling.tables),
            ("table_elements", ceiling.table_elements),
            ("instances", ceiling.instances),
            ("handles", ceiling.handles),
            ("metric_series", ceiling.metric_series),
            ("cpu_share", ceiling.cpu_share),
            ("http_requests", ceiling.http_requests),
        ];
        let times = [
            ("running_time", ceiling.running_time),
            ("batch_running_time", ceiling.batch_running_time),
            ("wall_time", ceiling.wall_time),
            ("batch_wall_time", ceiling.batch_wall_time),
            ("init_running_time", ceiling.init_running_time),
            ("init_wall_time", ceiling.init_wall_time),
            ("http_time", ceiling.http_time),
            ("compile_time", ceiling.compile_time),
        ];
        let directory = tempfile::tempdir().expect("a directory");
        let manifest = directory.path().join("pipeline.toml");
        std::fs::write(directory.path().join("handler.wasm"), "").expect("a file");
        let refused = |key: &str, value: &str| {
            let head = "schema = 1\nname = \"a\"\nsource.topics = [\"in\"]\n[handler]\ncomponent = \"handler.wasm\"\n";
            std::fs::write(&manifest, format!("{head}limits = {{ {key} = {value} }}\n")).expect("a file");
            let request = LoadRequest {
                manifests: vec![manifest.clone()],
                bootstrap: Some("broker.test:9092".to_owned()),
                ..LoadRequest::default()
            };
            let loaded = load(&request, &Outside { env: &|_| None, property_fault: &|_, _| None });
            let said = loaded.map_or_else(|report| report.render(false), |_| String::new());
            said.contains(&format!("`handler.limits.{key}` is above the operator's ceiling"))
        };
        let up_to = |key: &str, ceiling: u64, show: &dyn Fn(u64) -> String| {
            for (value, expected) in [(ceiling - 1, false), (ceiling, false), (ceiling + 1, true)] {
                assert_eq!(refused(key, &show(value)), expected, "{key} = {}", show(value));
            }
        };
        for (key, ceiling) in bytes {
            up_to(key, ceiling, &|value| format!("\"{value}B\""));
        }
        up_to("log_rate", ceiling.log_rate, &|value| format!("\"{value}B/s\""));
        for (key, ceiling) in counts {
            up_to(key, ceiling.into(), &|value| value.to_string());
        }
        for (key, ceiling) in times {
            up_to(key, ms(ceiling), &|value| format!("\"{value}ms\""));
        }
    }
}
