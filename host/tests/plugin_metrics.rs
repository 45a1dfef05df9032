//! A handler's own metrics, from the guest to the pipeline's registry, on real components.

mod plugin_support;

use plugin_support::{burst, config, on_handler_thread, version};
use sluicebox::handler_metrics::{MetricKind, MetricValue};
use sluicebox::plugin::{FaultClass, HandlerLimits, Instance};

/// Goal: what a guest counts is there by kind, name and labels, as a sum over instances. Method: two instances of one
/// pipeline, each with the same calls.
#[test]
fn instances_add_to_the_same_series() {
    let (config, log) = config(HandlerLimits::default(), "{}");
    on_handler_thread(async {
        for _ in 0..2 {
            let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
            for command in [
                "!metrics counter orders a=1,b=2 7",
                "!metrics gauge queue - 2.5",
                "!metrics histogram price a=x 3",
                "!metrics histogram price a=x 30",
                "!metrics counter orders b=2,a=1 1",
            ] {
                instance.handle_messages(&burst(&[command], false)).await.expect("an answer");
            }
        }
    });
    let said: Vec<_> = log.lines().into_iter().map(|line| line.text).collect();
    assert_eq!(said[..5], ["series 0", "series 1", "series 2", "series 2", "series 0"], "one number per series");
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        (
            MetricKind::Counter,
            "orders".to_owned(),
            vec![(vec![label("a", "1"), label("b", "2")], MetricValue::Counter(16))],
        ),
        (MetricKind::Gauge, "queue".to_owned(), vec![(vec![], MetricValue::Gauge(2.5))]),
        (
            MetricKind::Histogram,
            "price".to_owned(),
            vec![(vec![label("a", "x")], MetricValue::Histogram(vec![(1.0, 0), (10.0, 2), (f64::INFINITY, 2)], 66.0))],
        ),
    ];
    assert_eq!(config.metrics.all(), expected);
}

/// Proves: the number of series is limited, one below, at and one over; what is refused is counted, and fails no message.
#[test]
fn series_up_to_the_limit_are_given_and_not_one_more() {
    let (config, log) = config(HandlerLimits { metric_series: 3, ..HandlerLimits::default() }, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        for name in ["a", "b", "c", "d", "Bad"] {
            let command = format!("!metrics counter {name} - 1");
            instance.handle_messages(&burst(&[&command], false)).await.expect("an answer");
        }
    });
    let said: Vec<_> = log.lines().into_iter().map(|line| line.text).collect();
    assert_eq!(said[..3], ["series 0", "series 1", "series 2"]);
    assert!(said[3].starts_with("the pipeline's handler has 3 series of metrics, and may have 3"), "{}", said[3]);
    assert!(said[4].starts_with("`Bad` is no name of a metric"), "{}", said[4]);
    assert_eq!((config.metrics.refused(), config.metrics.all().len()), (2, 3));
}

/// Proves: a number that was not given, or is of another kind, ends the call as a trap.
#[test]
fn a_number_that_was_not_given_is_a_trap() {
    let (config, _) = config(HandlerLimits::default(), "{}");
    on_handler_thread(async {
        for (before, text) in [
            ("!metrics counter a - 1", "metrics: 5 is the number of no series that this instance was given"),
            ("!metrics gauge a - 1", "metrics: add to what is no counter"),
        ] {
            let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
            instance.handle_messages(&burst(&[before], false)).await.expect("an answer");
            let number = if text.contains('5') { 5 } else { 0 };
            let command = format!("!metrics add {number}");
            let fault = instance.handle_messages(&burst(&[&command], false)).await.expect_err("a trap");
            assert_eq!(fault.class, FaultClass::Trap, "{fault}");
            assert_eq!(fault.text, text);
        }
    });
}
