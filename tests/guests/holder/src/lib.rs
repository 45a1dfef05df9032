//! Holds every message but these: `release` acks all that is held, `fail` fails it, and both are forwarded to the default
//! output. Each tick emits the number of held messages there and acks the oldest.

use std::collections::VecDeque;

use sluicebox_sdk::prelude::*;

struct Holder {
    held: VecDeque<u64>,
}

impl Handler for Holder {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self { held: VecDeque::new() })
    }
}

impl MessageHandler for Holder {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        match message.text() {
            Ok("release") => self.held.drain(..).for_each(|token| message.ack(token)),
            Ok("fail") => self.held.drain(..).for_each(|token| message.fail(token, "a later message asks for it")),
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

sluicebox_sdk::export!(Holder: message, tick);

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
}
