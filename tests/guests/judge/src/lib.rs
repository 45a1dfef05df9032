//! Rejects every message whose first word is a verdict, and gives that verdict when it failed; forwards all others to the
//! default output. Verdicts are `policy`, `dead-letter`, `drop`, `block` and `stop`, and `trap` and `error` instead of one.
//! Words that may follow: `changed` makes key, value and a header of the dead letter others; `alert` emits stage, class,
//! attempts and reason to the output `alerts`.

use sluicebox_sdk::prelude::*;

struct Judge;

impl Handler for Judge {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Judge {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let text = message.text().unwrap_or_default();
        Ok(match text.split(' ').next().unwrap_or_default() {
            word @ ("policy" | "dead-letter" | "drop" | "block" | "stop" | "trap" | "error") => {
                Outcome::reject(format_args!("it asks for {word}"))
            }
            _ => message.forward_default(),
        })
    }
}

impl FailureHandler for Judge {
    fn handle_failed(&mut self, failed: Failed<'_>) -> Result<Verdict> {
        let mut verdict = Verdict::policy();
        for word in failed.text().unwrap_or_default().split(' ') {
            verdict = match word {
                "dead-letter" => Verdict::dead_letter(),
                "drop" => Verdict::drop(),
                "block" => Verdict::block(),
                "stop" => Verdict::stop(),
                "changed" => verdict.null_key().value(failed.reason()).header("changed", "yes"),
                "alert" => {
                    let (stage, class, attempts) = (failed.stage(), failed.class(), failed.attempts());
                    let text = format!("{stage} {class} {attempts}: {}", failed.reason());
                    failed.emit("alerts").value(&text).send();
                    verdict
                }
                "trap" => panic!("a verdict that traps"),
                "error" => return Err("no verdict".into()),
                _ => verdict,
            };
        }
        Ok(verdict)
    }
}

sluicebox_sdk::export!(Judge: message, failures);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{Fate, Outcome, handler_from_text, message};

    #[test]
    fn the_verdict_asked_for_is_given() {
        let mut judge = handler_from_text::<Judge>("{}").unwrap();
        let asks = message("dead-letter changed alert").key("k");
        assert_eq!(judge.message(asks.clone()), Outcome::Reject("it asks for dead-letter".to_owned()));
        let verdict = judge.failed("message", "reject", "why", &asks);
        let headers = vec![(b"changed".to_vec(), Some(b"yes".to_vec()))];
        assert_eq!(verdict.fate, Fate::DeadLetter { key: None, value: Some(b"why".to_vec()), headers });
        assert_eq!(verdict.emissions[0].text(), "message reject 1: why");
        assert_eq!(judge.failed("message", "reject", "why", &message("stop")).fate, Fate::Stop);
    }
}
