#![doc = include_str!("../README.md")]

mod condition;
mod settings;

use serde_json::Value;
use sluicebox_sdk::prelude::*;

use settings::{Router, Target};

impl Handler for Router {
    fn new(settings: Settings<'_>) -> Result<Self> {
        let router: Self = settings.parse()?;
        router.check()?;
        let declared: Vec<String> = sluicebox_sdk::outputs().into_iter().map(|output| output.name).collect();
        if let Some((key, name)) = router.outputs().find(|(_, name)| !declared.iter().any(|known| known == name)) {
            let declared = if declared.is_empty() { "none at all".to_owned() } else { declared.join(", ") };
            let text = format!("settings: {key}: the pipeline declares no output {name:?}, but {declared}");
            return Err(Error::retry(text));
        }
        Ok(router)
    }
}

impl MessageHandler for Router {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let Some(value) = message.value() else {
            let target = self.on_null.as_ref().unwrap_or(&self.on_invalid);
            return Ok(send(&message, target, || "the value is null".to_owned()));
        };
        let record: Value = match serde_json::from_slice(value) {
            Ok(record) => record,
            Err(error) => return Ok(send(&message, &self.on_invalid, || format!("the value is not JSON: {error}"))),
        };
        let holds = |route: &&settings::Route| {
            route.conditions.iter().all(|(pointer, condition)| condition.holds(record.pointer(&pointer.0)))
        };
        match self.routes.iter().find(holds) {
            None => Ok(send(&message, &self.default, || "no route takes it".to_owned())),
            Some(route) => {
                let mut outcome = Outcome::done();
                for target in route.to.as_slice() {
                    outcome = send(&message, target, || "a route rejects it".to_owned());
                }
                Ok(outcome)
            }
        }
    }
}

fn send(message: &Message<'_>, target: &Target, reason: impl FnOnce() -> String) -> Outcome {
    match target {
        Target::Drop => Outcome::done(),
        Target::Reject => Outcome::reject(reason()),
        Target::Output(name) => message.forward(name),
    }
}

sluicebox_sdk::export!(Router: message);

#[cfg(test)]
mod tests;
