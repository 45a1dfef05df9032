//! Holds every message but these: `release` acks all that is held, `fail` fails it, and both are forwarded to the default
//! output; `trap` panics. Each tick emits the number of held messages there and acks the oldest. When its partition comes it emits
//! `TOPIC-PARTITION from OFFSET` there, `start` without one; when the partition goes, the reason and the number of held
//! messages, and acks them all, unless the settings say `"keep": true`. Its state is what it holds; it takes over that of
//! another version unless the settings say `"refuse": true`, or `"forget": true`, which traps in the snapshot.

use std::collections::VecDeque;

use sluicebox_sdk::prelude::*;

struct Holder {
    held: VecDeque<u64>,
    keep: bool,
    refuse: bool,
    forget: bool,
}

impl Handler for Holder {
    fn new(settings: Settings<'_>) -> Result<Self> {
        let says = |what: &str| settings.text().contains(what);
        let (keep, refuse) = (says(r#""keep":true"#), says(r#""refuse":true"#));
        Ok(Self { held: VecDeque::new(), keep, refuse, forget: says(r#""forget":true"#) })
    }
}

impl MessageHandler for Holder {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        match message.text() {
            Ok("release") => self.held.drain(..).for_each(|token| message.ack(token)),
            Ok("fail") => self.held.drain(..).for_each(|token| message.fail(token, "a later message asks for it")),
            Ok("trap") => panic!("the value asks for it"),
            _ => {
                self.held.push_back(message.token());
                return Ok(Outcome::hold());
            }
        }
        Ok(message.forward_default())
    }
}

impl TickHandler for Holder {
    fn handle_tick(&mut self, tick: Tick<'_>) -> Result<()> {
        tick.emit_default().value(&self.held.len().to_string()).send();
        if let Some(oldest) = self.held.pop_front() {
            tick.ack(oldest);
        }
        Ok(())
    }
}

impl PartitionHandler for Holder {
    fn partition_assigned(&mut self, assigned: Assigned<'_>) -> Result<()> {
        let from = assigned.next_offset().map_or_else(|| "start".to_owned(), |offset| offset.to_string());
        let text = format!("{}-{} from {from}", assigned.topic(), assigned.partition());
        assigned.emit_default().value(&text).send();
        Ok(())
    }

    fn partition_revoked(&mut self, revoked: Revoked<'_>) -> Result<()> {
        let reason = match revoked.reason() {
            RevokeReason::Revoked => "revoked",
            RevokeReason::Shutdown => "shutdown",
            RevokeReason::Restart => "restart",
        };
        revoked.emit_default().value(&format!("{reason} {}", self.held.len())).send();
        if !self.keep {
            self.held.drain(..).for_each(|token| revoked.ack(token));
        }
        Ok(())
    }
}

impl StateHandler for Holder {
    fn snapshot(&mut self) -> Result<Vec<u8>> {
        match self.forget {
            true => Err("it forgets".into()),
            false => Ok(self.held.iter().flat_map(|token| token.to_le_bytes()).collect()),
        }
    }

    fn restore(&mut self, state: &[u8], from_version: &str) -> Result<()> {
        if self.refuse {
            return Err(format!("{} bytes of {from_version} are not taken", state.len()).into());
        }
        self.held = state.chunks_exact(8).map(|token| u64::from_le_bytes(token.try_into().expect("eight"))).collect();
        Ok(())
    }
}

sluicebox_sdk::export!(Holder: message, tick, partitions, state);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{Outcome, handler_from_text, message};

    #[test]
    fn what_is_held_is_acked_once() {
        let mut handler = handler_from_text::<Holder>("{}").unwrap();
        let answer = handler.burst(&[message("a"), message("b")], false);
        assert_eq!(answer.outcomes, [Outcome::Hold, Outcome::Hold]);
        let tick = handler.tick(0);
        assert_eq!((tick.emissions[0].text(), tick.acks), ("2", vec![1]));
        assert_eq!(handler.burst(&[message("release")], false).acks, [2]);
    }

    #[test]
    fn what_is_held_when_the_partition_goes_is_acked_unless_it_is_to_be_kept() {
        for (settings, acks) in [("{}", vec![1]), (r#"{"keep":true}"#, vec![])] {
            let mut handler = handler_from_text::<Holder>(settings).unwrap();
            assert_eq!(handler.assigned("t", 3, Some(9)).emissions[0].text(), "t-3 from 9");
            handler.message(message("a"));
            let revoked = handler.revoked("t", 3, RevokeReason::Shutdown);
            assert_eq!((revoked.emissions[0].text(), revoked.acks), ("shutdown 1", acks));
        }
    }
}
