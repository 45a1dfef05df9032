//! The router by its settings, as an operator sees it.

use sluicebox_sdk::json;
use sluicebox_sdk::testing::{self, Outcome, TestHandler, To};

use serde_json::Value;

use crate::settings::Router;

fn router(settings: Value) -> Result<TestHandler<Router>, String> {
    testing::declare(&[("a", 1), ("b", 1), ("c", 1)], &[]);
    testing::handler(settings)
}

fn error(settings: Value) -> String {
    router(settings).unwrap_err()
}

/// Where a record goes when field `/x` has to meet this condition.
fn meets(condition: &Value, record: &Value) -> bool {
    let mut router = router(json!({ "routes": [{ "where": { "/x": condition }, "to": "a" }] })).unwrap();
    !router.message(testing::json_message(record)).emissions().is_empty()
}

#[test]
fn the_first_route_that_fits_takes_the_record() {
    let mut router = router(json!({
        "routes": [
            { "where": { "/type": "order", "/amount": { "gt": 100 } }, "to": "a" },
            { "where": { "/type": "order" }, "to": ["b", "c"] },
            { "where": { "/type": "test" }, "to": "drop" },
        ],
        "default": "reject",
    }))
    .unwrap();
    let mut to = |record: Value| -> Vec<To> {
        router.message(testing::json_message(&record)).emissions().into_iter().map(|sent| sent.to).collect()
    };
    assert_eq!(to(json!({ "type": "order", "amount": 101 })), [To::output("a")]);
    assert_eq!(to(json!({ "type": "order", "amount": 100 })), [To::output("b"), To::output("c")]);
    assert_eq!(to(json!({ "type": "test" })), []);
    let other = router.message(testing::json_message(&json!({ "type": "other" })));
    assert_eq!(other, Outcome::Reject("no route takes it".to_owned()));
}

#[test]
fn a_record_leaves_as_it_came() {
    let mut router = router(json!({ "default": "a" })).unwrap();
    let record = testing::message(" {\"b\":1,  \"a\":2} ").key("k").header("h", [0xff]).timestamp(Some(5));
    let sent = router.message(record).emission();
    assert_eq!((sent.text(), sent.key.as_deref()), (" {\"b\":1,  \"a\":2} ", Some(&b"k"[..])));
    assert_eq!((sent.headers.len(), sent.timestamp), (1, Some(5)));
}

#[test]
fn operators_hold_as_the_readme_says() {
    for (condition, record, expected) in [
        (json!("v"), json!({ "x": "v" }), true),
        (json!(true), json!({ "x": true }), true),
        (json!(1), json!({ "x": 1.0 }), true),
        (json!(1), json!({ "x": "1" }), false),
        (json!({ "eq": null }), json!({ "x": null }), true),
        (json!({ "eq": [1] }), json!({ "x": [1] }), true),
        (json!({ "ne": 1 }), json!({ "x": 2 }), true),
        (json!({ "ne": 1 }), json!({ "x": 1 }), false),
        (json!({ "ne": 1 }), json!({}), true),
        (json!({ "gt": 1 }), json!({ "x": 1 }), false),
        (json!({ "gt": 1 }), json!({ "x": 1.5 }), true),
        (json!({ "ge": 1, "lt": 3 }), json!({ "x": 1 }), true),
        (json!({ "ge": 1, "lt": 3 }), json!({ "x": 3 }), false),
        (json!({ "le": "m" }), json!({ "x": "k" }), true),
        (json!({ "gt": 1 }), json!({ "x": "2" }), false),
        (json!({ "gt": 1 }), json!({}), false),
        (json!({ "gt": u64::MAX - 1 }), json!({ "x": u64::MAX }), true),
        (json!({ "exists": true }), json!({ "x": null }), true),
        (json!({ "exists": false }), json!({}), true),
        (json!({ "exists": false }), json!({ "x": 0 }), false),
        (json!({ "in": [1, "a"] }), json!({ "x": "a" }), true),
        (json!({ "in": [] }), json!({ "x": 1 }), false),
        (json!({ "prefix": "eu-" }), json!({ "x": "eu-west" }), true),
        (json!({ "prefix": "eu-" }), json!({ "x": 1 }), false),
    ] {
        assert_eq!(meets(&condition, &record), expected, "{condition} of {record}");
    }
}

#[test]
fn pointers_reach_into_arrays_and_escaped_names() {
    let mut router = router(json!({ "routes": [{ "where": { "/a~1b/0/c": 1 }, "to": "a" }] })).unwrap();
    assert_eq!(router.message(testing::json_message(&json!({ "a/b": [{ "c": 1 }] }))).emissions().len(), 1);
}

#[test]
fn what_is_not_json_follows_the_settings() {
    let mut strict = router(json!({})).unwrap();
    let Outcome::Reject(reason) = strict.message(testing::message("{")) else { panic!("a reject was expected") };
    assert!(reason.starts_with("the value is not JSON: EOF"), "{reason}");
    let null = testing::message("").null_value();
    assert_eq!(strict.message(null.clone()), Outcome::Reject("the value is null".to_owned()));
    let mut lenient = router(json!({ "on_invalid": "b", "on_null": "drop" })).unwrap();
    assert_eq!(lenient.message(testing::message("{")).emission().to, To::output("b"));
    assert_eq!(lenient.message(null), Outcome::Done(vec![]));
}

#[test]
fn wrong_settings_are_named() {
    assert_eq!(
        error(json!({ "route": [] })),
        "settings: route: unknown field `route`, expected one of `routes`, `default`, `on_invalid`, `on_null`"
    );
    assert_eq!(
        error(json!({ "routes": [{ "where": { "/amount": { "more": 1 } }, "to": "a" }] })),
        "settings: routes[0].where./amount.more: unknown field `more`, expected one of `eq`, `ne`, `gt`, `ge`, `lt`, `le`, \
         `exists`, `in`, `prefix`"
    );
    assert!(error(json!({ "routes": [{ "where": { "a.b": 1 }, "to": "a" }] })).contains("as in \"/a/b\""));
    assert!(error(json!({ "routes": [{ "where": { "/a": { "gt": true } }, "to": "a" }] })).contains("has no order"));
    assert!(error(json!({ "routes": [{ "where": {} }] })).contains("missing field `to`"));
    assert!(error(json!({ "routes": [{ "to": ["a", "drop"] }] })).starts_with("settings: routes[0].to: a list"));
    assert_eq!(
        error(json!({ "routes": [{ "to": "a" }, { "to": "z" }] })),
        "settings: routes[1].to: the pipeline declares no output \"z\", but a, b, c"
    );
}
