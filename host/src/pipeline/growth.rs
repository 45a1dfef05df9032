//! Partitions that were added to topics which the pipeline writes. (Those of its input topics come as assignments.)

use std::cmp::Ordering;
use std::time::Instant;

use super::port::{Counted, Edges, Handlers, Survey};
use super::run::Run;
use crate::telemetry;

impl<E: Edges> Run<E> {
    /// Asks when it is time, and takes the answer in when it is there.
    pub(super) fn look_for_partitions(&mut self, now: Instant) {
        if now >= self.next_survey {
            self.next_survey = now + self.parts.refresh;
            self.parts.survey.ask();
        }
        for Counted { outlet, topic, partitions } in self.parts.survey.answered().unwrap_or_default() {
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
}
