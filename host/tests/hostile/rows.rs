//! The rows that need a hostile guest at work, in the order of the catalogue.

use std::time::{Duration, Instant};

use sluicebox::handler_usage::Worn;
use sluicebox::plugin::{FaultClass, HandlerLimits, Instance, Recycle};

use crate::beside::{Peak, alone, beside, deed, fault, start, start_with};
use crate::plugin_support::{burst, config, on_handler_thread, recycled, thread_time, version};

const MIB: u64 = 1 << 20;
/// The longest that a hostile handler may keep the thread at once, in CPU time: a tick of 10 ms, more where the ticker has to
/// wait for a core, and one instruction on 40 MiB.
const TURN: Duration = Duration::from_millis(250);

fn limits() -> HandlerLimits {
    HandlerLimits { running_time: Duration::from_millis(200), ..HandlerLimits::default() }
}

/// Goal: each way to crash is one fault of its class, and nobody else's. Method: each in an instance of its own.
#[test]
fn f01_crashes_end_their_call_only() {
    let deeds = [
        ("panic buttons", FaultClass::Panic, "no more of buttons"),
        ("abort", FaultClass::Trap, "unreachable"),
        ("divide", FaultClass::Panic, "attempt to divide by zero"),
        ("outside", FaultClass::Trap, "out of bounds"),
        ("exit 0", FaultClass::Exit, "exit(0)"),
        ("exit 1", FaultClass::Exit, "exit(1)"),
        ("exit 77", FaultClass::Exit, "exit"),
    ];
    beside(async || {
        for (deed, class, text) in deeds {
            let fault = fault(limits(), deed).await;
            assert_eq!(fault.class, class, "{deed}: {fault}");
            assert!(fault.text.contains(text), "{deed}: {fault}");
        }
    });
}

/// Goal: a loop ends at its deadline and a tick or two after it, and the neighbour has its turns all the time.
#[test]
fn f02_a_loop_ends_at_its_deadline() {
    let (took, healthy) = beside(async || {
        let mut instance = start(limits()).await;
        let begin = thread_time();
        let fault = instance.handle_messages(&burst(&["loop"], false)).await.expect_err("a loop");
        assert_eq!(fault.class, FaultClass::Deadline, "{fault}");
        thread_time() - begin
    });
    assert!(took >= Duration::from_millis(190), "{took:?}");
    assert!(healthy.bursts > 5, "{} bursts beside a loop of 200 ms", healthy.bursts);
    assert!(healthy.longest_turn < TURN, "{:?}", healthy.longest_turn);
}

/// Goal: instructions that the engine cannot interrupt are short enough, as memory is bounded.
#[test]
fn f03_bulk_instructions_end_at_the_deadline() {
    let (fault, healthy) = beside(async || fault(limits(), "fill").await);
    assert_eq!(fault.class, FaultClass::Deadline, "{fault}");
    assert!(healthy.longest_turn < TURN, "{:?}", healthy.longest_turn);
}

#[test]
fn f04_a_wait_ends_at_the_wall_clock() {
    let begin = Instant::now();
    let limits = HandlerLimits { wall_time: Duration::from_millis(300), ..limits() };
    let (fault, healthy) = beside(async || fault(limits, "sleep 3600").await);
    assert_eq!(fault.class, FaultClass::WallClock, "{fault}");
    assert!(fault.text.contains("waits in wasi:io/poll"), "{fault}");
    assert!(healthy.bursts > 5 && begin.elapsed() < Duration::from_secs(60));
}

/// Goal: who waits for the thread does not pay for it. Method: eight calls at once on one thread, each of which runs well
/// below its limit, all together far above it.
#[test]
fn f05_waiting_for_a_turn_is_not_billed() {
    beside(async || {
        // How long so many turns take on this machine, now.
        let turns = 200_000;
        let mut instance = start(HandlerLimits::default()).await;
        let begin = thread_time();
        instance.handle_messages(&burst(&[&format!("work {turns}")], false)).await.expect("an answer");
        let one = thread_time() - begin;
        let limits = HandlerLimits { running_time: one * 4, ..limits() };
        let began = Instant::now();
        let calls = (0..8).map(|_| {
            let limits = limits.clone();
            tokio::task::spawn_local(async move { deed(limits, &format!("work {turns}")).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panic").expect("each is below its limit");
        }
        assert!(began.elapsed() > limits.running_time, "together they are above it");
    });
}

#[test]
fn f06_a_memory_bomb_is_refused() {
    let (fault, _) = beside(async || {
        let peak = Peak::begin();
        let fault = fault(HandlerLimits { memory: 32 * MIB, ..limits() }, "hog").await;
        peak.stayed_within(32 + 24);
        fault
    });
    assert_eq!(fault.class, FaultClass::Memory, "{fault}");
    assert!(fault.text.contains("its limit is 33554432"), "{fault}");
}

#[test]
fn f07_recursion_ends_in_a_fault() {
    let ((memory, calls), _) = beside(async || (fault(limits(), "recurse").await, fault(limits(), "call-deep").await));
    assert_eq!(memory.class, FaultClass::Stack, "{memory}");
    assert_eq!(calls.class, FaultClass::Stack, "{calls}");
}

/// Goal: what a guest says of an answer is not believed. Method: more than may be, a length beyond all memory, noise.
#[test]
fn f08_a_large_or_forged_answer_is_refused_unread() {
    beside(async || {
        let limits = HandlerLimits { memory: 256 * MIB, running_time: Duration::from_secs(30), ..limits() };
        let huge = fault(limits.clone(), "huge 100000000").await;
        assert_eq!(huge.class, FaultClass::OutputLimit, "{huge}");
        for length in ["2147483647", "200000000"] {
            let forged = fault(limits.clone(), &format!("forge {length}")).await;
            assert!(matches!(forged.class, FaultClass::BadAnswer | FaultClass::OutputLimit), "{forged}");
        }
        // A frame comes back, and is no answer.
        let mut instance = start(limits).await;
        let frame = instance.handle_messages(&burst(&["noise 5000"], false)).await.expect("bytes");
        assert!(sluicebox_frames::Answer::check(&frame.index, &frame.payload).is_err());
    });
}

/// Goal: numbers in an answer cost the host nothing before they are found true, and what is true costs no more than the limit
/// allows. Method: an index of nothing that claims ten million parts, a header of 64 MiB, a typed list of half a million
/// emissions; the process's memory meanwhile.
#[test]
fn f08_answers_of_millions_of_parts_are_refused() {
    // What is kept per component comes with its first instance.
    {
        let _alone = alone();
        let (first, _) = config(limits(), "{}");
        on_handler_thread(Instance::start(&version("raw-typed"), &first)).expect("it starts");
    }
    beside(async || {
        let limits = HandlerLimits { memory: 256 * MIB, running_time: Duration::from_secs(30), ..limits() };
        let peak = Peak::begin();
        for count in ["10000000", "4294967295", "268435456"] {
            let mut instance = start(limits.clone()).await;
            let claim = burst(&[&format!("claim {count}")], false);
            let frame = instance.handle_messages(&claim).await.expect("bytes");
            assert!(sluicebox_frames::Answer::check(&frame.index, &frame.payload).is_err(), "{count}");
        }
        peak.stayed_within(24);
        let header = fault(limits.clone(), "header 67108864").await;
        assert_eq!(header.class, FaultClass::OutputLimit, "{header}");
        // What the guest made of it is in its own memory, which went with it.
        let peak = Peak::begin();
        let (config, _) = config(limits, "{}");
        let mut typed = Instance::start(&version("raw-typed"), &config).await.expect("it starts");
        let many = typed.handle_messages(&burst(&["!many 500000"], false)).await.expect_err("too many");
        assert_eq!(many.class, FaultClass::OutputLimit, "{many}");
        // 90 MiB in the guest, and as much of it as an answer may have on this side.
        peak.stayed_within(192);
    });
}

/// Goal: what a handler writes costs the host no more than its limits, and moves no cursor.
#[test]
fn f09_a_flood_of_lines_is_bounded_and_escaped() {
    beside(async || {
        let limits = HandlerLimits { running_time: Duration::from_secs(60), ..limits() };
        let (config, log) = config(limits, "{}");
        let mut instance = Instance::start(&version("hostile"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["escapes"], false)).await.expect("an answer");
        let begin = Instant::now();
        instance.handle_messages(&burst(&["line 1024"], false)).await.expect("an answer");
        instance.handle_messages(&burst(&["flood 30000"], false)).await.expect("an answer");
        drop(instance);
        let lines = log.lines();
        let text = |n: usize| lines[n].text.as_str();
        assert_eq!(text(0), r"\u{1b}[2J\u{1b}]0;owned\u{7}\rover\u{202e}txt.exe\u{0}end");
        assert_eq!(text(1), r"one\r\ntwo\nthree");
        assert!(lines.iter().all(|line| line.text.len() <= 4096), "no line is longer than its limit");
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        let allowed = (256 << 10) + (begin.elapsed().as_secs_f64() * 65536.0) as usize + 10_000;
        assert!(bytes <= allowed, "{bytes} of {allowed}");
        assert!(lines.iter().any(|line| line.text.contains("lines of this handler were dropped")));
        assert!(config.usage.dropped_lines() > 1000);
    });
}

#[test]
fn f10_handles_are_bounded() {
    beside(async || {
        let limits = HandlerLimits { running_time: Duration::from_secs(30), ..limits() };
        let many = fault(limits.clone(), "handles 2000000").await;
        assert_eq!(many.class, FaultClass::Memory, "{many}");
        assert!(many.text.contains("10000 handles"), "{many}");
        deed(limits, "empty-writes 100000").await.expect("they cost nothing that stays");
    });
}

/// Goal: a handler that cannot start says why within the limits for that. Method: each deed in `init`.
#[test]
fn f15_a_bad_start_ends_at_the_limits_of_init() {
    let limits = HandlerLimits {
        init_running_time: Duration::from_millis(100),
        init_wall_time: Duration::from_millis(500),
        ..limits()
    };
    beside(async || {
        for (deed, class) in [
            ("abort", FaultClass::Trap),
            ("panic", FaultClass::Panic),
            ("loop", FaultClass::Deadline),
            ("hog", FaultClass::Memory),
            ("sleep 3600", FaultClass::WallClock),
            ("exit 0", FaultClass::Exit),
            ("recurse", FaultClass::Stack),
        ] {
            let limits = HandlerLimits { init_running_time: init_time(deed, &limits), ..limits.clone() };
            let started = start_with(limits, &format!(r#"{{"init":"{deed}"}}"#)).await;
            let fault = started.expect_err(deed);
            assert_eq!(fault.class, class, "{deed}: {fault}");
        }
    });
}

/// What is not about time gets enough of it, on a machine with other work.
fn init_time(deed: &str, limits: &HandlerLimits) -> Duration {
    if deed == "loop" { limits.init_running_time } else { Duration::from_secs(10) }
}

#[test]
fn f16_a_thousand_crashes_leave_nothing() {
    let ((), healthy) = beside(async || {
        for _ in 0..1000 {
            assert_eq!(fault(limits(), "panic").await.class, FaultClass::Panic);
            tokio::task::yield_now().await;
        }
    });
    assert!(healthy.bursts > 500, "{}", healthy.bursts);
}

/// Goal: memory that one handler wrote is zero for the next. Method: a pattern that no component holds, written and left by a
/// crash; then instances of another pipeline look for it in all that they can get, many times, as slots may be used again.
#[test]
fn f17_nothing_of_a_tenants_memory_is_read_by_the_next() {
    beside(async || {
        let limits = HandlerLimits { running_time: Duration::from_secs(60), ..limits() };
        for _ in 0..5 {
            let gone = fault(limits.clone(), "secret").await;
            assert!(gone.text.contains("after writing 33554432 bytes"), "{gone}");
            let (config, log) = config(limits.clone(), "{}");
            let mut other = Instance::start(&version("hostile"), &config).await.expect("it starts");
            other.handle_messages(&burst(&["search"], false)).await.expect("an answer");
            let said: Vec<_> = log.lines().into_iter().map(|line| line.text).collect();
            assert_eq!(said, ["secrets 0 dirty 0"]);
        }
    });
}

/// Goal: without room for one more instance there is an error, and the others go on. Method: a process of its own, which may
/// have 40 GiB of address space: each instance reserves more than 4.
#[test]
fn f18_an_instance_without_room_is_a_clean_error() {
    const ROOM: &str = "SLUICEBOX_TEST_LITTLE_ROOM";
    let name = "rows::f18_an_instance_without_room_is_a_clean_error";
    if std::env::var_os(ROOM).is_none() {
        // Built and compiled here, where there is room.
        version("hostile");
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
        let output = child.args([name, "--exact", "--nocapture"]).env(ROOM, "1").output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    version("hostile");
    let limit = libc::rlimit { rlim_cur: 40 << 30, rlim_max: 40 << 30 };
    // SAFETY: the pointer is to a limit that lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    on_handler_thread(async {
        let mut started = Vec::new();
        let fault = loop {
            assert!(started.len() < 20, "there is room for all");
            match start_with(HandlerLimits::default(), "{}").await {
                Ok(instance) => started.push(instance),
                Err(fault) => break fault,
            }
        };
        assert!(matches!(fault.class, FaultClass::Host | FaultClass::Memory), "{fault}");
        assert!(started.len() > 3, "{fault}");
        for instance in &mut started {
            instance.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
        }
        started.pop();
        drop(start(HandlerLimits::default()).await);
    });
}

/// Goal: neither calls nor instances leave anything. Method: 200,000 messages in 20,000 calls, and 2,000 instances; the harness
/// looks at the memory before and after.
#[test]
fn f19_memory_is_flat_over_calls_and_instances() {
    let (held, _) = beside(async || {
        let mut instance = start(HandlerLimits::default()).await;
        let ten = burst(&["some message"; 10], false);
        instance.handle_messages(&ten).await.expect("an answer");
        let held = instance.memory_bytes();
        for _ in 0..20_000 {
            instance.handle_messages(&ten).await.expect("an answer");
        }
        for _ in 0..2_000 {
            deed(HandlerLimits::default(), "some message").await.expect("an answer");
        }
        (held, instance.memory_bytes())
    });
    assert_eq!(held.0, held.1, "the instance's own memory");
}

/// Goal: the same where several are at work at once, on several threads, and are replaced when they are old.
#[test]
fn f19_instances_at_work_side_by_side_leave_nothing() {
    let (configs, _) = beside(async || {
        let rules = Recycle { calls: Some(50), ..Recycle::default() };
        let configs = [(); 4].map(|()| recycled(HandlerLimits::default(), "{}", rules.clone()).0);
        std::thread::scope(|scope| {
            for config in &configs {
                scope.spawn(|| {
                    on_handler_thread(async {
                        let new = async || Instance::start(&version("hostile"), config).await.expect("it starts");
                        let (ten, mut instance) = (burst(&["some message"; 10], false), new().await);
                        for _ in 0..5_000 {
                            instance.handle_messages(&ten).await.expect("an answer");
                            if let Some(worn) = instance.worn() {
                                assert_eq!(worn, Worn::Calls);
                                instance = new().await;
                            }
                        }
                    });
                });
            }
        });
        configs
    });
    for config in configs {
        assert!((100..=102).contains(&config.usage.recycled_for(Worn::Calls)), "{:?}", config.usage);
    }
}

/// Goal: whatever a guest passes to host functions, the host neither panics nor takes it for its own mistake. Method: the guest
/// rolls dice, from a fixed row of seeds.
#[test]
fn f20_arbitrary_host_calls_harm_nobody() {
    let (outcomes, _) = beside(async || {
        // It may wait for what never comes.
        let limits =
            HandlerLimits { running_time: Duration::from_secs(60), wall_time: Duration::from_secs(1), ..limits() };
        let (mut answered, mut faults) = (0, 0);
        let mut instance = start(limits.clone()).await;
        for seed in 0..1000 {
            match instance.handle_messages(&burst(&[&format!("fuzz {seed}")], false)).await {
                Ok(_) => answered += 1,
                Err(fault) => {
                    assert_ne!(fault.class, FaultClass::Host, "seed {seed}: {fault}");
                    faults += 1;
                    instance = start(limits.clone()).await;
                }
            }
        }
        (answered, faults)
    });
    assert!(outcomes.0 > 100 && outcomes.1 > 100, "both kinds are tried: {outcomes:?}");
}

/// Goal: of the host there is nothing to see. Method: all that a language's runtime offers, and a clock that is too coarse to
/// watch the machine by.
#[test]
fn f22_there_is_nothing_to_see() {
    beside(async || {
        let limits = HandlerLimits { running_time: Duration::from_secs(30), ..limits() };
        let (config, log) = config(limits, "{}");
        let mut instance = Instance::start(&version("hostile"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["look"], false)).await.expect("an answer");
        let said: Vec<_> = log.lines().into_iter().map(|line| line.text).collect();
        assert_eq!(said[0], "args=0 env=0 stdin=0 random=true");
        let steps = said[1].trim_start_matches("steps [");
        let steps = steps.split(']').next().expect("a list").split(", ").map(|step| step.parse().expect("a number"));
        let steps: Vec<u64> = steps.collect();
        assert!(steps.iter().all(|step| step % 100_000 == 0) && steps.len() == 5, "{steps:?}");
        assert!(said[1].ends_with("of 100000"), "{}", said[1]);
    });
}

/// Goal: a call that is dropped while the host works for it leaves nothing behind. Method: many calls given up in a wait, each
/// followed by a new instance.
#[test]
fn f23_a_call_dropped_in_a_host_function_leaves_nothing() {
    beside(async || {
        for _ in 0..50 {
            let mut instance = start(limits()).await;
            let sleeps = burst(&["sleep 3600"], false);
            let gave_up = tokio::time::timeout(Duration::from_millis(3), instance.handle_messages(&sleeps)).await;
            assert!(gave_up.is_err());
            let again = instance.handle_messages(&burst(&["fine"], false)).await.expect_err("no more");
            assert_eq!(again.class, FaultClass::Host);
            drop(instance);
            deed(limits(), "fine").await.expect("a new one works");
        }
    });
}
