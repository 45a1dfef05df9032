//! Health and metrics: what they say agrees with what Kafka says, and a port that cannot be had ends the start.

use std::collections::BTreeSet;
use std::net::TcpListener;

use crate::check::{Stage, wait_committed};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::Tools;

/// What a script reads when the state forbids the start.
const PRECONDITION: i32 = 5;

/// A host with these arguments about the admin port.
fn start(stage: &Stage<'_>, admin: &[&str]) -> SluiceHost {
    let plugin = guest("forward").display().to_string();
    let mut arguments = vec!["host", "--plugin", &plugin, "--topics", &stage.input, "--group", &stage.group];
    arguments.extend(["--output", &stage.output, "--bootstrap", stage.kafka.bootstrap()]);
    arguments.extend(admin);
    SluiceHost::start(&arguments)
}

/// Proves: a port in use ends the start with an exit code of its own and both ways out, and nothing was joined.
#[test]
fn a_port_in_use_ends_the_start() {
    let kafka = kafka_or_not_run!("a_port_in_use_ends_the_start");
    let stage = Stage::new(kafka, "port", 1);
    stage.produce(&["not to be read"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let host = start(&stage, &["--admin", &address]);
    let exit = host.wait_exit(PATIENCE);
    assert_eq!(exit.status.code(), Some(PRECONDITION), "{}", host.tail());
    let said = host.output().join("\n");
    for word in [address.as_str(), "in use", "--admin", "--no-admin"] {
        assert!(said.contains(word), "the error does not say {word}:\n{said}");
    }
    assert!(!Tools(kafka).group_exists(&stage.group), "it joined its group");
}

/// Proves: with `--no-admin` a host works and listens nowhere.
#[test]
fn without_an_admin_port_it_listens_nowhere() {
    let kafka = kafka_or_not_run!("without_an_admin_port_it_listens_nowhere");
    let stage = Stage::new(kafka, "no-admin", 1);
    stage.produce(&["one"]);
    let [with, without] = [start(&stage, &["--admin", "127.0.0.1:0"]), start(&stage, &["--no-admin"])];
    stage.wait_committed();
    assert_eq!(with.get("/livez").status, 200);
    // Where the kernel tells.
    if let Some(ports) = listening(&with) {
        assert_eq!(ports, BTreeSet::from([with.admin().port()]), "the admin port and no other");
        without.wait_for_line("running", PATIENCE);
        assert_eq!(listening(&without), Some(BTreeSet::new()));
    }
    with.stop();
    without.stop();
    assert!(!without.output().join("\n").contains("admin http"), "{}", without.tail());
}

/// The ports on which a process listens, as Linux knows; `None` elsewhere.
fn listening(host: &SluiceHost) -> Option<BTreeSet<u16>> {
    let directory = format!("/proc/{}", host.process().pid());
    let links = std::fs::read_dir(format!("{directory}/fd")).ok()?;
    let sockets: BTreeSet<String> = links
        .filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("{directory}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            // Number, local address, remote address, state (0A = listening), …, inode.
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[3] == "0A" && sockets.contains(words[9]) {
                let port = words[1].rsplit(':').next().unwrap_or_default();
                ports.insert(u16::from_str_radix(port, 16).expect("a port in hexadecimal"));
            }
        }
    }
    Some(ports)
}

/// Proves: after a run the figures are those of Kafka's own tools: consumed is what the input has, produced what output and
/// dead-letter topic have, and no lag is none.
#[test]
fn the_figures_of_a_run_are_kafkas() {
    const RECORDS: u64 = 20_000;
    let kafka = kafka_or_not_run!("the_figures_of_a_run_are_kafkas");
    let stage = Stage::new(kafka, "figures", 4);
    let dead = stage.topic("dead", 1);
    Producer::new(kafka).fill(&stage.input, RECORDS, |n, key, value| {
        key.extend_from_slice(format!("key-{}", n % 100).as_bytes());
        value.extend_from_slice(if n % 1000 == 0 { b"reject" } else { b"good" });
    });
    let host = stage.host(&guest("faulty")).dead_letter(&dead).start();
    wait_committed(kafka, &stage.group, &stage.input);
    let tools = Tools(kafka);
    let count = |topic: &str| tools.end_offsets(topic).iter().sum::<i64>() as f64;
    let (input, output, letters) = (count(&stage.input), count(&stage.output), count(&dead));
    assert_eq!((input, letters), (RECORDS as f64, RECORDS as f64 / 1000.0));
    let topic = format!("topic=\"{}\"", stage.input);
    let own = format!("output=\"{}\"", stage.output);
    host.wait_for_metric("sluicebox_messages_consumed_total", &[&topic], input);
    host.wait_for_metric("sluicebox_messages_processed_total", &[&topic, "outcome=\"ok\""], output);
    host.wait_for_metric("sluicebox_messages_processed_total", &[&topic, "outcome=\"dead_letter\""], letters);
    host.wait_for_metric("sluicebox_messages_produced_total", &[&own, "result=\"ok\""], output);
    host.wait_for_metric("sluicebox_messages_produced_total", &["output=\"dead-letter\"", "result=\"ok\""], letters);
    host.wait_for_metric("sluicebox_messages_produced_total", &["result=\"refused\""], 0.0);
    host.wait_for_metric("sluicebox_consumer_lag_messages", &[&topic], 0.0);
    host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], 4.0);
    for nothing in ["sluicebox_uncommitted_messages", "sluicebox_in_flight_messages", "sluicebox_handler_traps_total"] {
        host.wait_for_metric(nothing, &[], 0.0);
    }
    assert_eq!(host.metric_with("sluicebox_commits_total", &["result=\"error\""]), Some(0.0));
    assert_eq!(host.get("/livez").status, 200);
    host.wait_for_answer("/readyz", "that it is ready", |answer| answer.status == 200);
    let positions = tools.describe_group(&stage.group);
    assert!(positions.len() == 4 && positions.iter().all(|position| position.lag == Some(0)), "{positions:?}");
    host.stop();
}

/// Proves: the lag of a blocked partition is what `kafka-consumer-groups` says of it, and `/readyz` names partition and
/// reason.
#[test]
fn the_lag_of_a_blocked_partition_is_kafkas() {
    let kafka = kafka_or_not_run!("the_lag_of_a_blocked_partition_is_kafkas");
    let stage = Stage::new(kafka, "lag", 2);
    let on = |partition: i32, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let mut records = vec![on(0, "good"); 7];
    records.push(on(0, "reject"));
    records.extend(vec![on(0, "good"); 20]);
    records.extend(vec![on(1, "good"); 50]);
    Producer::new(kafka).send(&stage.input, &records);
    let host = stage.host(&guest("faulty")).start();
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| {
        commits.last(&stage.input, 0) == Some(7) && commits.last(&stage.input, 1) == Some(50)
    });
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    let positions = Tools(kafka).describe_group(&stage.group);
    assert_eq!(positions.iter().map(|position| position.lag).collect::<Vec<_>>(), [Some(21), Some(0)]);
    for (partition, lag) in [(0, 21.0), (1, 0.0)] {
        let labels = [format!("topic=\"{}\"", stage.input), format!("partition=\"{partition}\"")];
        host.wait_for_metric("sluicebox_partition_lag_messages", &[&labels[0], &labels[1]], lag);
    }
    host.wait_for_metric("sluicebox_consumer_lag_messages", &[], 21.0);
    let place = format!("{}[0] is blocked", stage.input);
    host.wait_for_answer("/readyz", "what blocks the partition", |answer| {
        answer.body.contains(&place) && answer.body.contains("the value asks for it")
    });
    host.stop();
}
