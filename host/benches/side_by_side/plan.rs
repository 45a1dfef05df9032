//! What is measured: variants, gathered in stages whose variants take turns.

use std::time::Duration;

use crate::native::Kind;

/// Variants of one stage are compared with each other, so they share rounds and inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    pub name: &'static str,
    pub variants: &'static [Variant],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub name: &'static str,
    pub system: System,
    pub input: Input,
    pub how: How,
    /// Rounds at most: what takes long, or changes little, is not worth as many as are asked for.
    pub rounds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Native(Kind),
    Host(Handler),
    Streams {
        linger_ms: u32,
    },
    /// Nothing but a handler, called by this program.
    Guest,
}

/// A handler of the host and what its manifest says beside its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// The package of the component.
    pub guest: &'static str,
    /// Further lines of the manifest, at its beginning…
    pub tables: &'static str,
    /// … and of its output.
    pub output: &'static str,
}

/// A preloaded topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Bytes of a value.
    pub size: usize,
    pub partitions: i32,
    pub headers: bool,
    /// Its records in eighths of the scale's.
    pub eighths: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As fast as it can, through the whole input. `one_in`: records that come out of so many that go in.
    Output {
        one_in: u64,
    },
    /// The same, seen by what the group commits.
    Commits,
    /// At a fixed rate; so long after the first record came out nothing counts yet.
    Latency {
        warm_up: Duration,
    },
    /// From the start of the process to the first record in the output.
    Start,
    IdleLanes,
    IdlePipelines,
    Soak,
    Crossing,
}

/// For consumers that produce nothing: their rate is only seen when they commit.
pub const QUICK_COMMITS: Duration = Duration::from_millis(200);

const SMALL: Input = Input { size: 100, partitions: 8, headers: false, eighths: 8 };
const LARGE: Input = Input { size: 1000, eighths: 2, ..SMALL };
const FEW: Input = Input { eighths: 3, ..SMALL };
const HEADERS: Input = Input { headers: true, ..FEW };
const WIDE: Input = Input { partitions: 256, eighths: 6, ..SMALL };
/// Topics that the measurement fills itself.
const FRESH: Input = Input { eighths: 0, ..SMALL };

const UPPERCASE: Handler = Handler { guest: "uppercase", tables: "", output: "" };
/// The tables of a manifest begin behind the lines of its source.
const LINGER: &str = "linger = \"2ms\"\n";
const HUNDRED: &str = "[batch.hundred]\nmax_messages = 100\n";

const fn variant(name: &'static str, system: System, input: Input) -> Variant {
    Variant { name, system, input, how: How::Output { one_in: 1 }, rounds: usize::MAX }
}

const fn host(name: &'static str, guest: &'static str, input: Input) -> Variant {
    variant(name, System::Host(Handler { guest, ..UPPERCASE }), input)
}

const fn latency(name: &'static str, system: System, warm_up: u64, rounds: usize) -> Variant {
    let how = How::Latency { warm_up: Duration::from_secs(warm_up) };
    Variant { how, rounds, ..variant(name, system, FRESH) }
}

const fn once(name: &'static str, how: How) -> Variant {
    Variant { how, rounds: 1, ..host(name, "uppercase", FRESH) }
}

/// Of Kafka Streams, which is slow.
const SIX: usize = 6;
const NATIVE: System = System::Native(Kind::Uppercase);
/// Kafka Streams' own choice for its producer, the best for throughput.
const STREAMS: System = System::Streams { linger_ms: 100 };
/// For those who would tune it for latency.
const STREAMS_QUICK: System = System::Streams { linger_ms: 5 };

pub const STAGES: &[Stage] = &[
    Stage {
        name: "100 B",
        variants: &[
            variant("native", NATIVE, SMALL),
            host("uppercase", "uppercase", SMALL),
            host("typed", "typed-uppercase", SMALL),
            Variant { how: How::Output { one_in: 10 }, ..host("filter", "filter", SMALL) },
            host("forward", "forward", SMALL),
            variant("batches", System::Host(Handler { guest: "uppercase-batch", tables: HUNDRED, output: "" }), SMALL),
            variant("now", System::Host(Handler { output: "timestamp = \"now\"\n", ..UPPERCASE }), SMALL),
            Variant { how: How::Commits, ..variant("native-consume", System::Native(Kind::Consume), SMALL) },
            Variant {
                how: How::Commits,
                ..variant(
                    "consume",
                    // Keeps values that begin with a tilde: none.
                    System::Host(Handler {
                        guest: "filter",
                        tables: "[handler.settings]\nkeep = \"~\"\n[ack]\ncommit_interval = \"200ms\"\n",
                        output: "",
                    }),
                    SMALL,
                )
            },
            Variant { rounds: SIX, ..variant("streams", STREAMS, SMALL) },
        ],
    },
    Stage { name: "1 KB", variants: &[variant("native-1k", NATIVE, LARGE), host("uppercase-1k", "uppercase", LARGE)] },
    Stage {
        name: "headers",
        variants: &[
            variant("native-headers", System::Native(Kind::Headers), HEADERS),
            host("headers", "uppercase", HEADERS),
            host("headers-dropped", "uppercase-bare", HEADERS),
            host("no-headers", "uppercase", FEW),
        ],
    },
    Stage {
        name: "256 partitions",
        variants: &[variant("native-256", NATIVE, WIDE), host("uppercase-256", "uppercase", WIDE)],
    },
    Stage {
        name: "20,000 records/s",
        variants: &[
            latency("native-latency", NATIVE, 3, usize::MAX),
            latency("uppercase-latency", System::Host(UPPERCASE), 3, usize::MAX),
            latency("uppercase-linger", System::Host(Handler { tables: LINGER, ..UPPERCASE }), 3, usize::MAX),
            latency("streams-latency", STREAMS, 8, SIX),
            latency("streams-latency-5ms", STREAMS_QUICK, 8, SIX),
        ],
    },
    Stage {
        name: "standing",
        variants: &[
            Variant { rounds: usize::MAX, ..once("start", How::Start) },
            once("idle-lanes", How::IdleLanes),
            once("idle-pipelines", How::IdlePipelines),
            once("soak", How::Soak),
        ],
    },
    Stage {
        name: "crossing",
        variants: &[Variant { system: System::Guest, rounds: usize::MAX, ..once("crossing", How::Crossing) }],
    },
];

/// Records per second of the latency runs.
pub const RATE: u64 = 20_000;
