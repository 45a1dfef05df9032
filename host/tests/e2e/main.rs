//! End to end: the real binary on the real broker, judged from outside.
//!
//! One test program, so that one broker serves all of it. Every test makes its own topics and group, waits for events with
//! a deadline, and says what it proves. The handlers are the packages of the same name under `tests/guests/`.
//!
//! | file | promise |
//! |---|---|
//! | `throughput` | a million records arrive exactly as expected and are committed |
//! | `forms` | both forms of the contract, message only, batch only, both; fan-out |
//! | `bytes` | every byte, null and header survives |
//! | `large` | records as large as topics and handlers allow, and larger |
//! | `records` | copies, partitions, event times, compression; transactions in the input |
//! | `positions` | where a partition begins, and what follows when its records are deleted before they were read |
//! | `breaker` | a pipeline most of whose records fail pauses, and goes on by itself |
//! | `partitions` | partitions that topics get while a pipeline runs |
//! | `standstill` | what stands still is named with its cause; what retention will not wait for is warned about |
//! | `stopping` | SIGTERM loses and repeats nothing; SIGKILL loses nothing and repeats little |
//! | `signals` | a second signal forces, the drain deadline is kept, who is busy is said |
//! | `revoke` | open batches and calls that do not end, when their partitions are given back |
//! | `group` | hosts join and leave a group under load |
//! | `churn` | members come and go all the time; `ownership` reads from their logs who owned what |
//! | `protocols` | every way of sharing partitions keeps the same promises |
//! | `zombies` | a host that stood still for too long moves nothing back and comes back by itself |
//! | `fixed_members` | members with instance ids come back without a rebalance, two of one name do not fight |
//! | `pipelines` | several pipelines in one process leave each other alone; other clusters |
//! | `instances` | instances that are old are replaced, and nothing is lost by that |
//! | `neighbours` | a healthy pipeline beside hostile ones keeps its rate and its latency |
//! | `broker_errors` | errors of every kind of request: each is waited out |
//! | `cluster_changes` | coordinators and leaders move, a membership is lost |
//! | `late_commits` | commits of an outage never go back |
//! | `vanished` | a topic that vanishes is named until it is back |
//! | `outage` | the broker restarts under load; the host starts before the broker |
//! | `three_brokers` | each of three brokers dies under load |
//! | `faults` | a trap, a panic, an endless loop, a memory hog fail their own record only |
//! | `dead_letters` | one dead letter per failed record, with all that it was and why; none is acked unwritten |
//! | `bad_answers` | an answer that breaks the contract fails its own record only |
//! | `swap` | another version of the handler under load; what does not fit leaves the old one serving |
//! | `canary` | a version on a share of the partitions is promoted, or taken back with nothing given up |
//! | `bad_input` | mistakes of the command line end it at once with their reason |
//! | `holds` | messages that are held open, and the timer |
//! | `lifecycle` | handlers hear which partitions come and go; kept ones keep their instance |
//! | `verdicts` | the handler's word about failed records; `drop` and `stop` |
//! | `receive` | at most once by choice |
//! | `provenance` | outputs say what they were made of |
//! | `manifests` | mistakes of manifests are named all at once, by `check` and by a start |
//! | `admin` | health and metrics agree with Kafka; a port in use |
//! | `memory` | a slow handler does not fill the memory |
//! | `security` | TLS, SASL and rights; what a host says while it waits for them |

mod admin;
mod bad_answers;
mod bad_input;
mod breaker;
mod broker_errors;
mod bytes;
mod canary;
mod check;
mod churn;
mod cluster_changes;
mod dead_letters;
mod faults;
mod fixed_members;
mod forms;
mod group;
mod holds;
mod instances;
mod judge;
mod large;
mod late_commits;
mod lifecycle;
mod manifests;
mod memory;
mod neighbours;
mod outage;
mod ownership;
mod partitions;
mod pipelines;
mod positions;
mod protocols;
mod provenance;
mod receive;
mod records;
mod revoke;
mod security;
mod signals;
mod standstill;
mod stopping;
mod swap;
mod three_brokers;
mod throughput;
mod vanished;
mod verdicts;
mod zombies;

#[path = "../support/mod.rs"]
mod support;
