//! Handlers of several pipelines on one thread: who runs, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicebox::plugin::{FaultClass, HandlerLimits, Instance};

use crate::beside::alone;
use crate::plugin_support::{burst, config, on_handler_thread, thread_time, version};

/// Three pipelines that all want to compute without end, and what they got of so much CPU time.
fn shares_of(shares: [u32; 3], time: Duration) -> [Duration; 3] {
    let _alone = alone();
    version("hostile");
    on_handler_thread(async {
        let local = tokio::task::LocalSet::new();
        let limits = |cpu_share| HandlerLimits { cpu_share, running_time: time, ..HandlerLimits::default() };
        let configs = shares.map(|share| config(limits(share), "{}").0);
        let over = Arc::new(AtomicBool::new(false));
        // The first has two lanes, which do not make it twice as important.
        for config in [0, 0, 1, 2].map(|i| Arc::clone(&configs[i])) {
            let over = Arc::clone(&over);
            local.spawn_local(async move {
                let mut instance = Instance::start(&version("hostile"), &config).await.expect("it starts");
                while !over.load(Ordering::SeqCst) {
                    instance.handle_messages(&burst(&["work 200000"], false)).await.expect("an answer");
                    tokio::task::yield_now().await;
                }
            });
        }
        let used = || configs.each_ref().map(|config| config.usage.running());
        local
            .run_until(async {
                let begin = thread_time();
                while thread_time() - begin < time {
                    tokio::task::yield_now().await;
                }
                over.store(true, Ordering::SeqCst);
                used()
            })
            .await
    })
}

/// Proves: while several want to run, each pipeline has its share of the thread's CPU time, whatever the number of its lanes.
#[test]
fn cpu_time_is_given_by_shares() {
    let used = shares_of([1, 1, 1], Duration::from_secs(3));
    let all: Duration = used.iter().sum();
    for used in used {
        let part = used.as_secs_f64() / all.as_secs_f64();
        assert!((0.27..0.40).contains(&part), "a third is due, it had {part:.2} of {all:?}");
    }
    let used = shares_of([1, 2, 5], Duration::from_secs(3));
    let all: Duration = used.iter().sum();
    for (used, due) in used.iter().zip([0.125, 0.25, 0.625]) {
        let part = used.as_secs_f64() / all.as_secs_f64();
        assert!((part - due).abs() < 0.07, "{due} is due, it had {part:.3} of {all:?}");
    }
}

/// Goal: a handler beside seven others that burn their whole deadline at each call waits for a slice, and not for them. Method:
/// all on one thread; how long it takes from when a call is due to its answer, and how much CPU time of the thread passes from
/// asking to be called to that: so that other programs on the machine do not count. The deadlines of the others end in faults all
/// the while.
#[test]
fn seven_that_burn_their_deadlines_cost_one_slice() {
    let _alone = alone();
    version("hostile");
    let (mut late, mut waits, faults) = on_handler_thread(async {
        let local = tokio::task::LocalSet::new();
        let over = Arc::new(AtomicBool::new(false));
        let limits = HandlerLimits { running_time: Duration::from_millis(300), ..HandlerLimits::default() };
        let burning = (0..7).map(|_| {
            let (over, config) = (Arc::clone(&over), config(limits.clone(), "{}").0);
            local.spawn_local(async move {
                let mut faults = 0;
                while !over.load(Ordering::SeqCst) {
                    let mut instance = Instance::start(&version("hostile"), &config).await.expect("it starts");
                    let fault = instance.handle_messages(&burst(&["loop"], false)).await.expect_err("a deadline");
                    assert_eq!(fault.class, FaultClass::Deadline, "{fault}");
                    faults += 1;
                }
                faults
            })
        });
        let burning: Vec<_> = burning.collect();
        local
            .run_until(async {
                let (config, _) = config(HandlerLimits::default(), "{}");
                let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
                let (begin, mut late, mut waits) = (Instant::now(), Vec::new(), Vec::new());
                while begin.elapsed() < Duration::from_secs(5) {
                    // As a lane does that is called now and then.
                    let due = Instant::now() + Duration::from_millis(7);
                    tokio::time::sleep_until(due.into()).await;
                    let begin = thread_time();
                    instance.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
                    waits.push(thread_time() - begin);
                    late.push(due.elapsed());
                }
                over.store(true, Ordering::SeqCst);
                let mut faults = 0;
                for burning in burning {
                    faults += burning.await.expect("no panic");
                }
                (late, waits, faults)
            })
            .await
    });
    late.sort_unstable();
    waits.sort_unstable();
    let at = |of: &[Duration], percent: usize| of[(of.len() - 1) * percent / 100];
    let shown = |of: &[Duration]| [50, 90, 99, 100].map(|percent| at(of, percent));
    println!("{} calls beside {faults} deadlines, p50, p90, p99, most:", late.len());
    println!("late by {:.1?}, CPU time of others {:.1?}", shown(&late), shown(&waits));
    assert!(waits.len() > 50 && faults >= 7, "{} calls, {faults} deadlines", waits.len());
    // A slice is 2 ms; the thread and its ticker may have to wait for a core, too.
    assert!(at(&waits, 90) < Duration::from_millis(4), "{waits:?}");
    assert!(at(&late, 50) < Duration::from_millis(100), "{late:?}");
}
