//! What is wrong outside, as far as clients and brokers tell: from their words to a state of the pipeline with its reason, and
//! back when it is over.

use super::port::{Code, Edges, Heard, Watch, code_name, problem};
use super::run::Run;
use super::status::State;
use crate::telemetry;

impl<E: Edges> Run<E> {
    pub(super) fn count_error(&mut self, code: Code) {
        let key = (self.parts.cluster.name.clone(), code_name(code).to_lowercase());
        *self.parts.outlets.figures.broker_errors.entry(key).or_default() += 1;
    }

    pub(super) fn problem(&mut self, code: Code, text: &str, fatal: bool) -> Result<(), String> {
        self.count_error(code);
        let reason = problem::explain(code, text);
        if fatal {
            return Err(reason);
        }
        match code {
            // The end of all connections; what came before says why.
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
                let cause = if self.last_problem.is_empty() { reason } else { self.last_problem.clone() };
                self.cluster_trouble(&cause);
            }
            Code::RD_KAFKA_RESP_ERR__AUTHENTICATION
            | Code::RD_KAFKA_RESP_ERR__SSL
            | Code::RD_KAFKA_RESP_ERR__RESOLVE => self.cluster_trouble(&reason),
            // One connection of several; librdkafka makes it anew.
            Code::RD_KAFKA_RESP_ERR__TRANSPORT => self.last_problem = reason,
            Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED => {
                return Err(format!("{reason}: the process stood still"));
            }
            _ => {
                // Of a topic that is missing, neither records of the others nor a rebalance say that it is back.
                let missing = code == Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
                let reason = format!("group {}: {reason}", self.parts.config.source.group);
                if self.troubles.add(if missing { "input" } else { "group" }, reason.clone()) {
                    telemetry::trouble(&self.parts.config.name, &reason);
                }
                self.parts.watch.begin();
            }
        }
        self.show_troubles();
        Ok(())
    }

    /// Ends the run in order: what handlers saw becomes durable and is committed, then the pipeline begins anew.
    pub(super) fn fail(&mut self, reason: String) {
        self.parts.status.set(State::Waiting, Some(reason.clone()));
        self.failure.get_or_insert(reason);
    }

    pub(super) fn cluster_trouble(&mut self, cause: &str) {
        let cluster = &self.parts.cluster;
        let reason = format!("cluster `{}` ({}) does not answer: {cause}", cluster.name, cluster.bootstrap);
        self.troubles.add("cluster", reason);
        self.parts.watch.begin();
        self.show_troubles();
    }

    /// A cluster that was asked about answers. That records come says nothing of it: they may have been fetched before.
    pub(super) fn heard(&mut self, heard: Heard) {
        if heard == Heard::Topics {
            self.troubles.over("input");
        }
        self.cluster_works();
    }

    /// Something that needs the cluster and the group succeeded.
    pub(super) fn cluster_works(&mut self) {
        self.last_problem.clear();
        for place in ["cluster", "group", "topic"] {
            self.troubles.over(place);
        }
        self.show_troubles();
    }

    pub(super) fn show_troubles(&self) {
        if self.closing || self.failure.is_some() || self.stopped.is_some() {
            return;
        }
        let state = match (self.troubles.reason(), self.pause.reason(), self.joined) {
            (Some(reason), ..) => (State::Waiting, Some(reason)),
            (None, Some(reason), _) => (State::Paused, Some(reason.to_owned())),
            (None, None, true) => (State::Running, None),
            (None, None, false) => (State::Joining, None),
        };
        self.parts.status.set(state.0, state.1);
    }
}
