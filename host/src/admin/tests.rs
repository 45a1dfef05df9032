//! The pages as a client sees them, over loopback; those under `/v1` in `tests/control.rs`.

mod control;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::families::{FAMILIES, WASMTIME};
use super::steer::Steer;
use super::{Admin, Managed, Port};
use crate::config::HandlerLimits;
use crate::delivery::retention::Danger;
use crate::delivery::stall::Cause;
use crate::handler_metrics::NewMetric;
use crate::pipeline::control::Progress;
use crate::pipeline::lane::LaneState;
use crate::pipeline::status::{
    Figures, GapFigures, LaneFigures, OutputFigures, PipelineStatus, Stalled, State, TopicFigures,
};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn lane(topic: &str, partition: i32, state: LaneState, lag: Option<u64>) -> LaneFigures {
    LaneFigures {
        topic: topic.into(),
        partition,
        state,
        version: "c0ffee".into(),
        committed: Some(5),
        committable: Some(5),
        open: 1,
        lag,
        stalled: None,
        danger: Danger::None,
    }
}

fn pipeline(name: &str, state: State, reason: Option<&str>, figures: Figures) -> Arc<PipelineStatus> {
    let status = PipelineStatus::new(name, &format!("{name}-group"), "c0ffee");
    status.set(state, reason.map(str::to_owned));
    status.publish(figures);
    Arc::new(status)
}

fn held() -> Stalled {
    Stalled { cause: Cause::Held, reason: "the handler holds 2 messages".to_owned(), time: Duration::from_secs(75) }
}

/// Every figure differs, so that none can be taken for another.
fn figures() -> Figures {
    let topic =
        TopicFigures { consumed: 1000, consumed_bytes: 50_000, settled: 900, dead_lettered: 7, dropped: 3, lag: 42 };
    let output = |name: &str, produced| OutputFigures {
        name: name.to_owned(),
        produced,
        produced_bytes: produced * 100,
        refused: produced / 100,
    };
    Figures {
        topics: [("orders".into(), topic), ("quiet".into(), TopicFigures::default())].into(),
        outputs: vec![output("enriched", 800), output("dead-letter", 7)],
        late_acks: 6,
        late_results: [2, 4],
        retries: [("retry", 11), ("trap", 2), ("zz_new", 1)].into(),
        faults: [("trap", 3), ("wall_clock", 1)].into(),
        broker_errors: [(("default".to_owned(), "unreachable".to_owned()), 4)].into(),
        batches: [((1, "size"), (8, 800)), ((1, "timeout"), (2, 20))].into(),
        batchers: vec!["default".to_owned(), "by-customer".to_owned()],
        commits: [31, 1],
        rebalances: [4, 3, 2],
        lost_offsets: [("orders".into(), 13)].into(),
        renewed: 5,
        pauses: 8,
        swaps: [14, 15],
        gaps: GapFigures { counts: [4, 3, 0, 2, 1, 0, 0, 1, 5], nanos: 17_000_000 },
        lanes: vec![
            lane("orders", 10, LaneState::Running, Some(40)),
            lane("orders", 2, LaneState::Blocked("reject: bad amount (offset 17, attempt 1)".to_owned()), Some(2)),
            LaneFigures {
                danger: Danger::Soon,
                ..lane("orders", 3, LaneState::BackingOff("retry: later".to_owned()), None)
            },
            LaneFigures { stalled: Some(held()), danger: Danger::Gone, ..lane("orders", 4, LaneState::Running, None) },
            lane("quiet", 0, LaneState::Draining, Some(0)),
        ],
        buffer_bytes: 65_536,
        handler_memory: 1_048_576,
        in_flight: 55,
        uncommitted: 66,
        calls: [(500, 1_250_000_000), (10, 2_000_000)],
    }
}

/// Takes no orders.
struct Deaf;

impl Steer for Deaf {
    fn pause(&self, _: &str) {}
    fn resume(&self) {}
    fn progress(&self) -> Progress {
        nothing_ordered()
    }
}

fn nothing_ordered() -> Progress {
    Progress::nothing(&"c0ffee".into())
}

fn port(address: SocketAddr) -> Port {
    Port { address, token_file: None, read_only_token_file: None }
}

fn start(statuses: &[Arc<PipelineStatus>]) -> Admin {
    let deaf =
        |status: &Arc<PipelineStatus>| Managed { status: Arc::clone(status), control: Arc::new(Deaf), book: None };
    Admin::start(&port(ANY_PORT), statuses.iter().map(deaf).collect()).expect("a free port")
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn has(&self, header: &str) -> bool {
        self.head.to_ascii_lowercase().lines().any(|line| line == header)
    }
}

fn send(admin: &Admin, request: &str) -> Answer {
    let mut stream = TcpStream::connect(admin.address()).expect("listens");
    stream.write_all(request.as_bytes()).expect("takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(admin: &Admin, path: &str) -> Answer {
    send(admin, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address()))
}

#[test]
fn the_metrics_are_those_that_were_promised() {
    let status = pipeline("orders", State::Running, None, figures());
    status.usage.ran(1_500_000_000);
    status.refuses_version();
    status.usage.recycled(crate::handler_usage::Worn::Age);
    let (limits, now) = (HandlerLimits { log_burst: 5, log_rate: 0, ..HandlerLimits::default() }, Instant::now());
    assert_eq!((0..9).filter_map(|_| status.usage.may_write(1, &limits, now)).count(), 5);
    let handler = |kind: NewMetric, name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        status.handler_metrics.series(&kind, name, labels, 100)
    };
    assert!(handler(NewMetric::Counter, "seen", &[("kind", "a\"b")]).is_ok_and(|series| series.add(12)));
    assert!(handler(NewMetric::Gauge, "queue", &[]).is_ok_and(|series| series.set(2.5)));
    let histogram = NewMetric::Histogram(vec![1.0, 10.0]);
    assert!(handler(histogram, "price", &[]).is_ok_and(|series| series.observe(3.0) && series.observe(30.0)));
    assert!(handler(NewMetric::Gauge, "Bad", &[]).is_err());
    let admin = start(&[status]);
    let answer = get(&admin, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", answer.head);
    let expected = include_str!("expected_metrics.txt")
        .replace("HOST_VERSION", env!("CARGO_PKG_VERSION"))
        .replace("WASMTIME_VERSION", WASMTIME);
    for (line, (is, should)) in answer.body.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "line {}", line + 1);
    }
    assert_eq!(answer.body, expected);
}

#[test]
fn every_metric_is_documented_and_nothing_else() {
    let document = include_str!("../../../docs/metrics.md");
    let documented: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `sluicebox_")?.split('`').next()).collect();
    let exported: Vec<&str> = FAMILIES.iter().filter_map(|family| family.name.strip_prefix("sluicebox_")).collect();
    assert_eq!(documented, exported);
    for family in &FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} |", family.name, family.kind.as_str(), labels.join(", "));
        assert!(document.contains(&row.replace("|  |", "| |")), "no row that begins with {row}");
    }
}

#[test]
fn a_hostile_name_stays_inside_its_label() {
    let topic = "a\"} 1\nevil{x=\"\\";
    let figures = Figures { topics: [(topic.into(), TopicFigures::default())].into(), ..Figures::default() };
    let admin = start(&[pipeline("p", State::Running, None, figures)]);
    let text = get(&admin, "/metrics").body;
    let line = r#"sluicebox_messages_consumed_total{pipeline="p",topic="a\"} 1\nevil{x=\"\\"} 0"#;
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(!text.lines().any(|found| found.starts_with("evil")));
}

#[test]
fn outputs_of_one_name_are_one_series() {
    let output = |produced| OutputFigures { name: "dead-letter".to_owned(), produced, ..OutputFigures::default() };
    let admin = start(&[pipeline(
        "p",
        State::Running,
        None,
        Figures { outputs: vec![output(1), output(2)], ..Figures::default() },
    )]);
    let text = get(&admin, "/metrics").body;
    let series = r#"sluicebox_messages_produced_total{pipeline="p",output="dead-letter",result="ok"}"#;
    assert_eq!(text.lines().filter(|line| line.starts_with(series)).collect::<Vec<_>>(), [format!("{series} 3")]);
}

#[test]
fn partition_series_are_bounded_over_all_pipelines() {
    let lanes = |count| (0..count).rev().map(|partition| lane("t", partition, LaneState::Running, Some(1))).collect();
    let figures = |count| Figures { lanes: lanes(count), ..Figures::default() };
    let admin =
        start(&[pipeline("a", State::Running, None, figures(150)), pipeline("b", State::Running, None, figures(150))]);
    let text = get(&admin, "/metrics").body;
    let series: Vec<_> = text.lines().filter(|line| line.starts_with("sluicebox_partition_lag_messages{")).collect();
    assert_eq!(series.len(), 200);
    assert_eq!(series[0], r#"sluicebox_partition_lag_messages{pipeline="a",topic="t",partition="0"} 1"#);
    assert_eq!(series[199], r#"sluicebox_partition_lag_messages{pipeline="b",topic="t",partition="49"} 1"#);
}

#[test]
fn ready_when_all_run_whether_they_have_partitions_or_not() {
    let admin = start(&[
        pipeline(
            "orders",
            State::Running,
            None,
            Figures { lanes: vec![lane("t", 0, LaneState::Running, None)], ..Figures::default() },
        ),
        pipeline("spare", State::Running, None, Figures::default()),
    ]);
    let answer = get(&admin, "/readyz");
    assert_eq!((answer.status, answer.has("content-type: application/json")), (200, true));
    let mut report = answer.json();
    for pipeline in report["pipelines"].as_array_mut().expect("a list") {
        assert!(pipeline["since_seconds"].take().is_u64());
    }
    let pipeline = |name: &str, partitions| {
        json!({
            "name": name, "group": format!("{name}-group"), "version": "c0ffee", "state": "running", "reason": null,
            "since_seconds": null, "partitions": partitions, "blocked": [],
            "stalled": [],
        })
    };
    assert_eq!(
        report,
        json!({"ready": true, "pipelines": [pipeline("orders", 1), pipeline("spare", 0)], "warnings": []})
    );
}

#[test]
fn not_ready_while_one_waits_and_the_reason_is_said() {
    let waiting =
        pipeline("b", State::Waiting, Some("topic `order` does not exist; did you mean `orders`?"), Figures::default());
    let admin = start(&[pipeline("a", State::Running, None, Figures::default()), Arc::clone(&waiting)]);
    let answer = get(&admin, "/readyz");
    let report = answer.json();
    assert_eq!((answer.status, &report["ready"]), (503, &json!(false)));
    assert_eq!(report["pipelines"][1]["state"], "waiting");
    assert_eq!(report["pipelines"][1]["reason"], "topic `order` does not exist; did you mean `orders`?");
    assert_eq!((get(&admin, "/livez").status, get(&admin, "/startupz").status), (200, 503));

    waiting.set(State::Running, None);
    assert_eq!((get(&admin, "/readyz").status, get(&admin, "/startupz").status), (200, 200));
    waiting.set(State::Waiting, Some("broker down".to_owned()));
    assert_eq!((get(&admin, "/readyz").status, get(&admin, "/startupz").status), (503, 200), "started is for good");
}

#[test]
fn a_blocked_lane_is_ready_and_warned_of() {
    let admin = start(&[pipeline("p", State::Running, None, figures())]);
    let answer = get(&admin, "/readyz");
    let report = answer.json();
    assert_eq!(answer.status, 200);
    let reason = "reject: bad amount (offset 17, attempt 1)";
    assert_eq!(report["pipelines"][0]["blocked"], json!([{"topic": "orders", "partition": 2, "reason": reason}]));
    let held = "the handler holds 2 messages";
    let stalled = json!([{"topic": "orders", "partition": 4, "cause": "held", "reason": held, "seconds": 75}]);
    assert_eq!(report["pipelines"][0]["stalled"], stalled);
    let warnings = [
        format!("orders[2] is blocked: {reason}"),
        format!("orders[4] stands still for 75 s: {held}"),
        "the oldest open message will soon be deleted by retention in 1 partitions".to_owned(),
        "the oldest open message is deleted by retention in 1 partitions".to_owned(),
    ];
    assert_eq!(report["warnings"], json!(warnings.map(|warning| format!("pipeline `p`: {warning}"))));
}

#[test]
fn a_paused_pipeline_is_ready_and_warned_of() {
    let reason = "60 of 100 records failed";
    let paused = pipeline("p", State::Paused, Some(reason), Figures::default());
    let admin = start(&[paused]);
    let answer = get(&admin, "/readyz");
    assert_eq!((answer.status, get(&admin, "/startupz").status), (200, 200));
    assert_eq!(answer.json()["warnings"], json!([format!("pipeline `p`: paused: {reason}")]));
}

#[test]
fn a_report_stays_small() {
    let blocked = |partition| lane("t", partition, LaneState::Blocked("é".repeat(5_000)), None);
    let figures = Figures { lanes: (0..1_000).map(blocked).collect(), ..Figures::default() };
    let report = get(&start(&[pipeline("p", State::Running, None, figures)]), "/readyz").json();
    let listed = report["pipelines"][0]["blocked"].as_array().expect("a list");
    assert_eq!((listed.len(), report["pipelines"][0]["partitions"].as_u64()), (100, Some(1_000)));
    assert_eq!(listed[0]["reason"].as_str().map(|reason| reason.chars().count()), Some(1_001));
    assert_eq!(report["warnings"][100], "pipeline `p`: 900 more partitions are blocked");
}

#[test]
fn other_pages_and_methods_are_refused_with_what_is_possible() {
    let admin = start(&[]);
    assert_eq!((get(&admin, "/livez").body.as_str(), get(&admin, "/").status), ("ok\n", 200));

    let missing = get(&admin, "/metric?x=1");
    assert_eq!((missing.status, missing.has("content-type: application/problem+json")), (404, true));
    assert_eq!(missing.json()["detail"], "there is no page `/metric`");
    for page in ["/livez", "/readyz", "/startupz", "/metrics", "/v1/pipelines"] {
        assert!(missing.json()["hint"].as_str().is_some_and(|hint| hint.contains(page)), "{}", missing.body);
        assert!(get(&admin, "/").body.contains(page));
    }

    let head = send(&admin, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let refused = send(&admin, &format!("{method} /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((refused.status, refused.has("allow: get,head")), (405, true), "{}", refused.head);
        let page = send(&admin, &format!("{method} /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x\r\n\r\n"));
        assert_eq!(page.status, if method == "OPTIONS" { 405 } else { 403 }, "{}", page.head);
        for answer in [refused, page] {
            assert!(!answer.head.to_ascii_lowercase().contains("access-control"));
        }
    }
}

/// Proves: of each path exactly the methods are served that `/openapi.json` has.
#[test]
fn every_method_is_in_the_document() {
    let admin = start(&[pipeline("p", State::Running, None, Figures::default())]);
    let document = get(&admin, "/openapi.json").json();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{name}", "p").replace("{id}", "x");
        let refused = send(&admin, &format!("PATCH {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(refused.status, 405, "{path}");
        let allowed = refused.head.to_ascii_lowercase();
        let allowed = allowed.lines().find_map(|line| line.strip_prefix("allow: ")).expect("a list");
        let mut served: Vec<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        served.sort_unstable();
        let mut said: Vec<&str> = methods.as_object().expect("methods").keys().map(String::as_str).collect();
        said.sort_unstable();
        assert_eq!(served, said, "{path}");
    }
}

#[test]
fn a_name_that_others_could_point_here_is_refused() {
    let admin = start(&[]);
    let status = |host: &str| send(&admin, &format!("GET /livez HTTP/1.1\r\n{host}\r\n")).status;
    for good in ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:9", "10.0.0.7:9"] {
        assert_eq!(status(&format!("Host: {good}\r\n")), 200, "{good}");
    }
    for bad in ["evil.example", "evil.example:9", "localhost.evil.example", "127.0.0.1.evil.example", "x]", "\u{e9}"] {
        assert_eq!(status(&format!("Host: {bad}\r\n")), 403, "{bad}");
    }
    assert_eq!(send(&admin, "GET /livez HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = TcpListener::bind(ANY_PORT).expect("a free port");
    let refused = Admin::start(&port(taken.local_addr().expect("bound")), Vec::new()).map(|_| ());
    assert_eq!(refused.expect_err("taken").kind(), ErrorKind::AddrInUse);
}

#[test]
fn the_port_closes_with_its_owner_and_silent_clients_do_not_hold_it() {
    let admin = start(&[]);
    let address = admin.address();
    let mut silent = TcpStream::connect(address).expect("listens");
    // Answered after the silent one was accepted, since connections are accepted in order.
    assert_eq!(get(&admin, "/livez").status, 200);
    drop(admin);
    assert_eq!(TcpStream::connect(address).map(|_| ()).expect_err("closed").kind(), ErrorKind::ConnectionRefused);
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0) | Err(_)), "let go");
    assert_eq!(start(&[]).address().ip(), address.ip());
}
