//! Partitions that were added to topics which the pipeline writes. (Those of its input topics come as assignments.) And those that
//! a topic does not have any more, because it was made anew with fewer.

use std::cmp::Ordering;
use std::time::Instant;

use super::port::{Counted, Edges, Handlers, Survey};
use super::run::{Run, Slot};
use crate::telemetry;

impl<E: Edges> Run<E> {
    /// Asks when it is time, and takes the answer in when it is there.
    pub(super) fn look_for_partitions(&mut self, now: Instant) {
        if now >= self.next_survey {
            self.next_survey = now + self.parts.refresh;
            self.parts.survey.ask();
        }
        for Counted { outlet, topic, partitions } in self.parts.survey.answered().unwrap_or_default() {
            let Some(outlet) = outlet else {
                self.look_for_gone(&topic, partitions);
                continue;
            };
            let Some(known) = self.parts.outlets.partitions_of(outlet) else { continue };
            match partitions.cmp(&known) {
                Ordering::Equal => {}
                Ordering::Greater => {
                    telemetry::topic_grew(&self.parts.config.name, &topic, known, partitions);
                    if self.parts.outlets.grow(outlet, partitions) {
                        self.parts.handlers.show_partitions(outlet, partitions);
                    }
                }
                // What is on its way to the others will never arrive. A new run makes it again.
                Ordering::Less if !self.closing => {
                    self.fail(format!(
                        "topic `{topic}` has {partitions} partitions, and had {known}: it was made anew"
                    ));
                }
                Ordering::Less => {}
            }
        }
    }

    /// A cooperative group never takes partitions back that are no more: whoever owns one keeps it, and would wait for it for
    /// ever. A member that joins anew owns none.
    fn look_for_gone(&mut self, topic: &str, partitions: u32) {
        let known = self.parts.inputs.get(topic).copied().unwrap_or(0);
        let lanes = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_deref());
        let is_gone = |slot: &&Slot<E>| {
            *slot.lane.topic == *topic
                && u32::try_from(slot.lane.partition).is_ok_and(|partition| partition >= partitions)
        };
        let gone = lanes.filter(is_gone).count();
        if gone > 0 && !self.closing {
            self.fail(format!(
                "input topic `{topic}` has {partitions} partitions, and had {known}: it was made anew, and {gone} of its partitions \
                 here are no more"
            ));
        }
    }
}
