//! Whether a field meets a condition.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::settings::Condition;

impl Condition {
    /// Whether all operators hold. A field that is not there meets `exists = false` and `ne`, and nothing else.
    pub fn holds(&self, field: Option<&Value>) -> bool {
        if self.exists.is_some_and(|wanted| wanted != field.is_some())
            || self.ne.as_ref().is_some_and(|other| field.is_some_and(|field| equal(field, other)))
        {
            return false;
        }
        let Some(field) = field else {
            return self.needs_no_field();
        };
        let ordered = |other: &Option<Value>, wanted: fn(Ordering) -> bool| {
            other.as_ref().is_none_or(|other| compare(field, other).is_some_and(wanted))
        };
        self.eq.as_ref().is_none_or(|other| equal(field, other))
            && ordered(&self.gt, Ordering::is_gt)
            && ordered(&self.ge, Ordering::is_ge)
            && ordered(&self.lt, Ordering::is_lt)
            && ordered(&self.le, Ordering::is_le)
            && self.is_in.as_ref().is_none_or(|others| others.iter().any(|other| equal(field, other)))
            && self.prefix.as_ref().is_none_or(|prefix| field.as_str().is_some_and(|text| text.starts_with(prefix)))
    }

    fn needs_no_field(&self) -> bool {
        let others = [&self.eq, &self.gt, &self.ge, &self.lt, &self.le];
        others.iter().all(|operand| operand.is_none()) && self.is_in.is_none() && self.prefix.is_none()
    }
}

/// Numbers are equal by what they mean (`1` and `1.0`), everything else by what it says.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_some_and(Ordering::is_eq),
        _ => a == b,
    }
}

/// Numbers by size, texts by their characters; nothing else has an order, and neither have a number and a text.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}
