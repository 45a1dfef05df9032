//! Running pipelines, looked at and told what to do from outside: the real binary as host and as command, on librdkafka's
//! mock cluster, so that no Kafka is needed.
//!
//! | file | promise |
//! |---|---|
//! | `status` | what a pipeline does is seen, and every other state than running has a reason and a next step |
//! | `pause` | a pause offers nothing, loses nothing, and ends |
//! | `deploy` | versions come and go: nothing lost, nothing done twice, the old one serves whatever goes wrong |
//! | `access` | who may not is refused: web pages, other machines without the token |

#[path = "../support/mod.rs"]
mod support;

mod access;
mod deploy;
mod manifest;
mod pause;
mod raw;
mod scene;
mod status;
