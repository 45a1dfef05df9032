//! Pipelines under `/v1`: what they say, and what they can be told.

use std::sync::Mutex;

use super::*;
use crate::admin::view::{OperationView, PartitionList, PipelineList, PipelineView};

/// Does what it is told, as a pipeline does.
struct Obedient {
    status: Arc<PipelineStatus>,
    /// The reason of every pause, and `None` for every end of one.
    told: Mutex<Vec<Option<String>>>,
}

impl Steer for Obedient {
    fn pause(&self, reason: &str) {
        self.told.lock().expect("whole").push(Some(reason.to_owned()));
        self.status.set(State::Paused, Some(reason.to_owned()));
    }

    fn resume(&self) {
        self.told.lock().expect("whole").push(None);
        self.status.set(State::Running, None);
    }

    fn progress(&self) -> Progress {
        nothing_ordered()
    }
}

fn obedient(status: &Arc<PipelineStatus>) -> (Admin, Arc<Obedient>) {
    let control = Arc::new(Obedient { status: Arc::clone(status), told: Mutex::default() });
    let managed = Managed { status: Arc::clone(status), control: Arc::clone(&control) as Arc<dyn Steer>, book: None };
    (Admin::start(&port(ANY_PORT), vec![managed]).expect("a free port"), control)
}

fn post(admin: &Admin, path: &str, body: &str) -> Answer {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{kind}Content-Length: {length}\r\n\r\n", admin.address());
    send(admin, &format!("{head}{body}"))
}

fn ended(admin: &Admin, begun: &Answer) -> OperationView {
    assert_eq!(begun.status, 202, "{}", begun.body);
    let operation: OperationView = serde_json::from_str(&begun.body).expect("an operation");
    assert!(begun.has(&format!("location: /v1/operations/{}", operation.id)), "{}", begun.head);
    loop {
        let answer = get(admin, &format!("/v1/operations/{}?wait=2", operation.id));
        let seen: OperationView = serde_json::from_str(&answer.body).expect("an operation");
        if seen.state != "running" {
            return seen;
        }
    }
}

/// Proves: everything that is not as it should be is said with its reason and a command.
#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let admin = start(&[pipeline("orders", State::Running, None, figures())]);
    let view: PipelineView = serde_json::from_str(&get(&admin, "/v1/pipelines/orders").body).expect("a pipeline");
    assert_eq!((view.state.as_str(), view.version.as_str(), view.lag), ("running", "c0ffee", 42));
    let counts = &view.partitions;
    assert_eq!((counts.assigned, counts.running, counts.blocked, counts.backing_off), (5, 2, 1, 1));
    assert_eq!((counts.draining, counts.stalled), (1, 1));
    assert_eq!((view.records.consumed, view.records.settled, view.records.dead_lettered), (1000, 900, 7));
    let why: Vec<_> = view.why.iter().map(|why| (why.partition.as_deref().unwrap_or(""), why.cause.as_str())).collect();
    let causes = [
        ("orders[2]", "blocked"),
        ("orders[3]", "retry"),
        ("orders[4]", "held"),
        ("orders[3]", "retention"),
        ("orders[4]", "retention"),
    ];
    assert_eq!(why, causes);
    assert!(view.why.iter().all(|why| !why.reason.is_empty() && !why.next.is_empty()), "{:?}", view.why);
    assert_eq!(view.why[0].reason, "reject: bad amount (offset 17, attempt 1)");
    assert_eq!(view.why[2].seconds, Some(75));

    let list: PipelineList = serde_json::from_str(&get(&admin, "/v1/pipelines").body).expect("a list");
    assert_eq!(list.pipelines.len(), 1);
    let text = get(&admin, "/v1/pipelines/orders/partitions").body;
    let PartitionList { partitions } = serde_json::from_str(&text).expect("a list");
    let states: Vec<_> = partitions.iter().map(|partition| partition.state.as_str()).collect();
    assert_eq!(states, ["running", "blocked", "backing_off", "running", "draining"]);
    assert_eq!((partitions[0].committed, partitions[0].open, partitions[0].lag), (Some(5), 1, Some(40)));
    assert_eq!(
        (partitions[3].stalled_seconds, partitions[3].reason.as_deref()),
        (Some(75), Some("the handler holds 2 messages"))
    );
}

/// Proves: no state but running is without a reason and a next step, whether the pipeline gave a reason or not.
#[test]
fn every_other_state_has_a_reason_and_a_next_step() {
    for state in State::ALL {
        for reason in [None, Some("the reason")] {
            let admin = start(&[pipeline("p", state, reason, Figures::default())]);
            let view: PipelineView = serde_json::from_str(&get(&admin, "/v1/pipelines/p").body).expect("a pipeline");
            assert_eq!(view.why.is_empty(), state == State::Running && reason.is_none(), "{state:?}");
            let said = view.why.iter().all(|why| why.cause == state.name() && !why.next.is_empty());
            assert!(said && view.why.iter().all(|why| why.reason == reason.unwrap_or(&why.reason)), "{:?}", view.why);
        }
    }
}

#[test]
fn reasons_are_bounded() {
    let lanes = (0..1_000).map(|partition| lane("t", partition, LaneState::Blocked("é".repeat(5_000)), None)).collect();
    let admin = start(&[pipeline("p", State::Running, None, Figures { lanes, ..Figures::default() })]);
    let view: PipelineView = serde_json::from_str(&get(&admin, "/v1/pipelines/p").body).expect("a pipeline");
    assert_eq!((view.why.len(), view.unlisted, view.partitions.blocked), (100, 900, 1_000));
    assert_eq!(view.why[99].reason.chars().count(), 1_001);
}

/// Proves: a pause and its end are operations that end when the pipeline says so; the reason is seen.
#[test]
fn a_pipeline_is_paused_and_goes_on() {
    let status = pipeline("orders", State::Running, None, figures());
    let (admin, control) = obedient(&status);
    let begun = post(&admin, "/v1/pipelines/orders/pause", r#"{"reason": "the table is being moved"}"#);
    let paused = ended(&admin, &begun);
    assert_eq!((paused.kind.as_str(), paused.pipeline.as_str(), paused.state.as_str()), ("pause", "orders", "done"));
    assert_eq!(paused.says, "paused; 55 records are being finished");
    let view: PipelineView = serde_json::from_str(&get(&admin, "/v1/pipelines/orders").body).expect("a pipeline");
    assert_eq!(view.reason.as_deref(), Some("by its operator: the table is being moved"));
    assert_eq!(view.why[0].next[0], "sluicebox resume orders");
    let resumed = ended(&admin, &post(&admin, "/v1/pipelines/orders/resume", ""));
    assert_eq!((resumed.kind.as_str(), resumed.state.as_str(), resumed.says.as_str()), ("resume", "done", "running"));
    let without = ended(&admin, &post(&admin, "/v1/pipelines/orders/pause", ""));
    assert_eq!(without.state, "done");
    let told = control.told.lock().expect("whole").clone();
    let reasons = ["by its operator: the table is being moved", "by its operator"];
    assert_eq!(told, [Some(reasons[0].to_owned()), None, Some(reasons[1].to_owned())]);
}

/// Proves: a pipeline that cannot run now is told all the same, and one that has ended is not.
#[test]
fn orders_for_pipelines_that_do_not_run() {
    let status = pipeline("p", State::Waiting, Some("no broker"), Figures::default());
    let ended_one = pipeline("gone", State::Stopped, Some("policy"), Figures::default());
    let admin = start(&[Arc::clone(&status), ended_one]);
    let paused = ended(&admin, &post(&admin, "/v1/pipelines/p/pause", ""));
    assert_eq!((paused.state.as_str(), paused.says.as_str()), ("done", "it is waiting, and pauses as soon as it runs"));
    let refused = post(&admin, "/v1/pipelines/gone/pause", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("ended")));
    assert_eq!(refused.json()["detail"], "pipeline `gone` has ended: policy");
}

/// Proves: what is not understood is refused in the one form of errors, with what to do, and nothing is done.
#[test]
fn mistakes_are_problems() {
    let status = pipeline("orders", State::Running, None, Figures::default());
    let (admin, control) = obedient(&status);
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(501));
    for (answer, status, code) in [
        (get(&admin, "/v1/pipelines/order"), 404, "no_pipeline"),
        (post(&admin, "/v1/pipelines/order/pause", ""), 404, "no_pipeline"),
        (post(&admin, "/v1/pipelines/orders/pause", r#"{"raison": "x"}"#), 422, "body"),
        (post(&admin, "/v1/pipelines/orders/pause", "reason"), 422, "body"),
        (post(&admin, "/v1/pipelines/orders/pause", &long), 422, "too_long"),
        (post(&admin, "/v1/pipelines/orders", ""), 405, "method"),
        (get(&admin, "/v1/pipelines/orders/pause"), 405, "method"),
        (get(&admin, "/v1/operations/none"), 404, "no_operation"),
        (get(&admin, "/v1/operations/none?wait=3600"), 400, "query"),
        (get(&admin, "/v1/nothing"), 404, "no_page"),
    ] {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.body);
        assert!(answer.has("content-type: application/problem+json"), "{}", answer.head);
        assert!(answer.json()["detail"].is_string() && answer.json()["status"] == status, "{}", answer.body);
    }
    assert_eq!(get(&admin, "/v1/pipelines/order").json()["hint"], "did you mean `orders`?");
    let foreign = "POST /v1/pipelines/orders/pause HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n";
    let refused = send(&admin, foreign);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("foreign_origin")));
    assert!(control.told.lock().expect("whole").is_empty(), "nothing was done");
}

/// Proves: every page that the document names is there, by the method that it names.
#[test]
fn every_page_is_there() {
    let admin = start(&[pipeline("orders", State::Running, None, Figures::default())]);
    let document = get(&admin, "/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 10, "{document}");
    for (path, methods) in paths {
        let place = path.replace("{name}", "orders").replace("{id}", "none");
        for method in methods.as_object().expect("methods").keys() {
            let answer = match method.as_str() {
                "get" => get(&admin, &place),
                "post" => post(&admin, &place, ""),
                other => {
                    let method = other.to_uppercase();
                    send(&admin, &format!("{method} {place} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                }
            };
            let missing = answer.body.contains("no_page") || answer.status == 405;
            assert!(!missing, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
    // And the one method only.
    for path in paths.keys() {
        let place = path.replace("{name}", "orders").replace("{id}", "none");
        let other =
            if document["paths"][path].get("get").is_some() { post(&admin, &place, "") } else { get(&admin, &place) };
        assert_eq!(other.status, 405, "{path}");
    }
}
