//! What takes minutes, by a command: `cargo test --release --test hostile -- --ignored --nocapture`. `SLUICEBOX_CALLS` and
//! `SLUICEBOX_INSTANCES` make it longer or shorter.

use std::time::Instant;

use sluicebox::plugin::{HandlerLimits, Instance, Recycle};

use crate::beside::{Held, alone, deed, start};
use crate::plugin_support::{burst, on_handler_thread, recycled, version};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: no number: {text}")))
}

/// Megabytes by which the process may grow from a tenth of the way to its end.
const GROWTH: u64 = 4;

/// Does something so often, and looks at the memory at each tenth of the way.
async fn flat(what: &str, count: u64, mut step: impl AsyncFnMut()) {
    let begin = Instant::now();
    let mut held = Vec::new();
    for tenth in 0..10 {
        for _ in count * tenth / 10..count * (tenth + 1) / 10 {
            step().await;
        }
        held.push(Held::now().megabytes);
    }
    println!("{count} {what} in {:?}: MB after each tenth {held:?}", begin.elapsed());
    let most = held.iter().max().expect("ten of them");
    assert!(*most <= held[0] + GROWTH, "{what}: {held:?}");
}

/// Proves: an instance that is called a hundred million times costs the host no more than one that was called ten million
/// times.
#[test]
#[ignore = "by a command: a hundred million calls"]
fn memory_is_flat_over_a_hundred_million_calls() {
    let _alone = alone();
    on_handler_thread(async {
        let mut instance = start(HandlerLimits::default()).await;
        let one = burst(&["some message"], false);
        flat("calls", number("SLUICEBOX_CALLS", 100_000_000), async || {
            instance.handle_messages(&one).await.expect("an answer");
        })
        .await;
    });
}

/// Proves: the same over instances, of which four work at a time, each replaced after ten calls.
#[test]
#[ignore = "by a command: a hundred thousand instances"]
fn memory_is_flat_over_a_hundred_thousand_instances() {
    let _alone = alone();
    let (config, _) = recycled(HandlerLimits::default(), "{}", Recycle { calls: Some(10), ..Recycle::default() });
    on_handler_thread(async {
        let new = async || Instance::start(&version("hostile"), &config).await.expect("it starts");
        let mut working = [new().await, new().await, new().await, new().await];
        let one = burst(&["some message"], false);
        let mut turn = 0;
        flat("instances", number("SLUICEBOX_INSTANCES", 100_000), async || {
            turn = (turn + 1) % working.len();
            while working[turn].worn().is_none() {
                working[turn].handle_messages(&one).await.expect("an answer");
            }
            working[turn] = new().await;
        })
        .await;
        // One that faults leaves no more.
        flat("faults", number("SLUICEBOX_INSTANCES", 100_000) / 10, async || {
            deed(HandlerLimits::default(), "abort").await.expect_err("a fault");
        })
        .await;
    });
}
