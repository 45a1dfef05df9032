//! Orders come in as JSON. Good ones leave enriched with their total, suspicious ones are gathered per customer and leave
//! as one review, wrong ones are rejected and end up in the dead-letter topic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluicebox_sdk::prelude::*;

/// The table `handler.settings` of `pipeline.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Orders {
    /// Orders of more than this, in cents, are looked at by somebody.
    suspicious_above: u64,
    /// Value added tax in percent, by country.
    vat: BTreeMap<String, u64>,
}

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
    customer: String,
    country: String,
    lines: Vec<Line>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    article: String,
    quantity: u64,
    /// In cents.
    price: u64,
}

/// An order with what we know beyond what was sent.
#[derive(Deserialize, Serialize)]
struct Enriched {
    #[serde(flatten)]
    order: Order,
    total: u64,
    vat: u64,
}

/// The suspicious orders of one customer.
#[derive(Serialize)]
struct Review<'a> {
    customer: &'a str,
    orders: Vec<u64>,
    total: u64,
}

impl Handler for Orders {
    fn new(settings: Settings<'_>) -> Result<Self> {
        settings.parse()
    }
}

impl MessageHandler for Orders {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        if message.value().is_none() {
            // A tombstone: the order is deleted, downstream as well.
            return Ok(message.forward("enriched"));
        }
        let order: Order = message.json().or_reject()?;
        let enriched = self.enrich(order).or_reject()?;
        if enriched.total > self.suspicious_above {
            log::info!("order {} of {} cents goes to review", enriched.order.id, enriched.total);
            return message.to_batcher("suspicious", &enriched.order.customer, &enriched);
        }
        message.emit("enriched").header("country", &enriched.order.country).send_json(&enriched)
    }
}

impl BatchHandler for Orders {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        let customer = std::str::from_utf8(batch.key())?;
        let mut review = Review { customer, orders: Vec::new(), total: 0 };
        for item in batch {
            let enriched: Enriched = item.json()?;
            review.orders.push(enriched.order.id);
            review.total += enriched.total;
        }
        // None of the orders is acked before this one message is durable.
        batch.emit("reviews").key(customer).send_json(&review)?;
        Ok(())
    }
}

impl Orders {
    fn enrich(&self, order: Order) -> std::result::Result<Enriched, String> {
        let percent = self.vat.get(&order.country).ok_or_else(|| format!("we do not sell to {:?}", order.country))?;
        if order.lines.is_empty() {
            return Err("an order without lines".to_owned());
        }
        let mut total = 0u64;
        for line in &order.lines {
            if line.quantity == 0 {
                return Err(format!("quantity 0 of {:?}", line.article));
            }
            let sum = line.quantity.checked_mul(line.price).and_then(|sum| total.checked_add(sum));
            total = sum.ok_or("a total beyond all numbers")?;
        }
        let net = u128::from(total) * 100 / u128::from(100 + percent);
        Ok(Enriched { order, total, vat: total - net as u64 })
    }
}

sluicebox_sdk::export!(Orders: message, batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{self, Outcome, TestHandler, TestMessage, To};
    use sluicebox_sdk::{json, serde_json};

    fn orders() -> TestHandler<Orders> {
        testing::handler(json!({ "suspicious_above": 10_000, "vat": { "IT": 22 } })).unwrap()
    }

    fn order(id: u64, quantity: u64) -> TestMessage {
        let line = json!({ "article": "book", "quantity": quantity, "price": 1220 });
        let order = json!({ "id": id, "customer": "ada", "country": "IT", "lines": [line] });
        testing::json_message(&order).key(id.to_string())
    }

    #[test]
    fn a_good_order_leaves_with_its_total() {
        let sent = orders().message(order(7, 2).header("source", "web")).emission();
        assert_eq!(sent.to, To::output("enriched"));
        assert_eq!(sent.key.as_deref(), Some(&b"7"[..]));
        assert_eq!((&sent.json()["total"], &sent.json()["vat"]), (&json!(2440), &json!(440)));
        assert_eq!(sent.headers.len(), 2, "its own headers and the country");
    }

    #[test]
    fn a_tombstone_passes() {
        assert_eq!(orders().message(order(7, 2).null_value()).emission().value, None);
    }

    #[test]
    fn a_wrong_order_is_rejected_with_the_reason() {
        let reason = |message| match orders().message(message) {
            Outcome::Reject(reason) => reason,
            other => panic!("reject was expected, got {other:?}"),
        };
        assert_eq!(reason(order(7, 0)), "quantity 0 of \"book\"");
        assert!(reason(testing::message("not json")).starts_with("expected ident"));
        let abroad = json!({ "id": 1, "customer": "ada", "country": "ZZ", "lines": [] });
        assert_eq!(reason(testing::json_message(&abroad)), "we do not sell to \"ZZ\"");
    }

    #[test]
    fn suspicious_orders_leave_as_one_review() {
        let mut orders = orders();
        let gathered: Vec<_> = [order(7, 20), order(8, 30)].map(|order| orders.message(order).emission()).into();
        assert!(gathered.iter().all(|sent| sent.to == To::batcher("suspicious", "ada")));
        let items: Vec<_> = gathered.iter().map(|sent| testing::json_message(&sent.json())).collect();
        let answer = orders.batch("suspicious", "ada", &items).unwrap();
        let review = &answer.emissions[0];
        assert_eq!(review.to, To::output("reviews"));
        assert_eq!(review.json(), json!({ "customer": "ada", "orders": [7, 8], "total": 61_000 }));
    }

    #[test]
    fn the_samples_are_what_the_readme_says() {
        let settings = json!({ "suspicious_above": 100_000, "vat": { "DE": 19, "FR": 20, "IT": 22 } });
        let mut orders = testing::handler::<Orders>(settings).unwrap();
        let (mut good, mut suspicious, mut wrong) = (0, 0, 0);
        for line in include_str!("../samples/orders.ndjson").lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = match &record["value"] {
                serde_json::Value::Null => testing::message("").null_value(),
                serde_json::Value::String(text) => testing::message(text),
                value => testing::json_message(value),
            };
            match orders.message(message) {
                Outcome::Done(sent) if sent[0].to == To::output("enriched") => good += 1,
                Outcome::Done(_) => suspicious += 1,
                _ => wrong += 1,
            }
        }
        assert_eq!((good, suspicious, wrong), (12, 4, 5), "the tombstone is among the good ones");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let error = testing::handler::<Orders>(json!({ "suspicious_above": "much", "vat": {} })).unwrap_err();
        assert!(error.starts_with("settings: suspicious_above: invalid type"), "{error}");
    }
}
