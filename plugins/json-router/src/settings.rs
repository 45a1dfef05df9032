//! What the settings may say. Reading them checks all of it, so that routing a record cannot fail for their sake.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The table `handler.settings`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// The first route whose conditions all hold takes the record.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What happens to records that no route takes.
    #[serde(default = "drop_it")]
    pub default: Target,
    /// What happens to values that are not JSON.
    #[serde(default = "reject_it")]
    pub on_invalid: Target,
    /// What happens to null values (tombstones); as `on_invalid` when it is not set.
    pub on_null: Option<Target>,
}

/// Where records go that meet some conditions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// All of them have to hold; without any the route takes every record.
    #[serde(default, rename = "where")]
    pub conditions: BTreeMap<Pointer, Condition>,
    pub to: Targets,
}

/// A JSON pointer (RFC 6901).
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(pub String);

/// What happens to a record: `drop`, `reject` or the name of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Drop,
    Reject,
    Output(String),
}

/// One target or several outputs.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an output's name, \"drop\", \"reject\" or a list of outputs' names")]
pub enum Targets {
    One(Target),
    Several(Vec<Target>),
}

/// What has to hold of one field: a plain value means `eq`.
#[derive(Debug, Default, PartialEq)]
pub struct Condition {
    pub eq: Option<Value>,
    pub ne: Option<Value>,
    pub gt: Option<Value>,
    pub ge: Option<Value>,
    pub lt: Option<Value>,
    pub le: Option<Value>,
    pub exists: Option<bool>,
    pub is_in: Option<Vec<Value>>,
    pub prefix: Option<String>,
}

fn drop_it() -> Target {
    Target::Drop
}

fn reject_it() -> Target {
    Target::Reject
}

impl Targets {
    pub fn as_slice(&self) -> &[Target] {
        match self {
            Self::One(target) => std::slice::from_ref(target),
            Self::Several(targets) => targets,
        }
    }
}

impl Router {
    /// The outputs that are named, each with the key that names it.
    pub fn outputs(&self) -> impl Iterator<Item = (String, &str)> {
        let routes =
            self.routes.iter().enumerate().flat_map(|(i, route)| {
                route.to.as_slice().iter().map(move |target| (format!("routes[{i}].to"), target))
            });
        let rest = [
            ("default", Some(&self.default)),
            ("on_invalid", Some(&self.on_invalid)),
            ("on_null", self.on_null.as_ref()),
        ];
        let rest = rest.into_iter().filter_map(|(key, target)| Some((key.to_owned(), target?)));
        routes.chain(rest).filter_map(|(key, target)| match target {
            Target::Output(name) => Some((key, name.as_str())),
            Target::Drop | Target::Reject => None,
        })
    }

    /// Rules that a type cannot say.
    pub fn check(&self) -> Result<(), String> {
        for (i, route) in self.routes.iter().enumerate() {
            if let Targets::Several(targets) = &route.to
                && (targets.is_empty() || targets.iter().any(|target| !matches!(target, Target::Output(_))))
            {
                return Err(format!("settings: routes[{i}].to: a list holds outputs, at least one, and nothing else"));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "drop" => Ok(Self::Drop),
            "reject" => Ok(Self::Reject),
            "" => Err(D::Error::custom("an output's name is not empty")),
            _ => Ok(Self::Output(name)),
        }
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.is_empty() && !text.starts_with('/') {
            return Err(D::Error::custom(format_args!(
                "{text:?} is not a JSON pointer (RFC 6901): it begins with \"/\", as in {:?}",
                format!("/{}", text.replace('.', "/"))
            )));
        }
        Ok(Self(text))
    }
}

/// The table of operators; what a [`Condition`] is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operators {
    #[serde(default, deserialize_with = "given")]
    eq: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    ne: Option<Value>,
    gt: Option<Operand>,
    ge: Option<Operand>,
    lt: Option<Operand>,
    le: Option<Operand>,
    exists: Option<bool>,
    r#in: Option<Vec<Value>>,
    prefix: Option<String>,
}

/// A null that is given is not the same as nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A number or a text: what has an order.
struct Operand(Value);

impl<'de> Deserialize<'de> for Operand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ (Value::Number(_) | Value::String(_)) => Ok(Self(value)),
            other => Err(D::Error::custom(format_args!("{other} has no order, a number or a text does"))),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

struct ConditionVisitor;

impl ConditionVisitor {
    fn eq<E>(value: impl Into<Value>) -> Result<Condition, E> {
        Ok(Condition { eq: Some(value.into()), ..Condition::default() })
    }
}

impl<'de> Visitor<'de> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value to be equal to, or a table of eq, ne, gt, ge, lt, le, exists, in, prefix")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Condition, E> {
        Self::eq(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Condition, E> {
        Self::eq(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Condition, E> {
        Self::eq(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Condition, E> {
        Self::eq(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Condition, E> {
        Self::eq(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
        let o = Operators::deserialize(MapAccessDeserializer::new(map))?;
        let value = |operand: Option<Operand>| operand.map(|Operand(value)| value);
        let condition = Condition {
            eq: o.eq,
            ne: o.ne,
            gt: value(o.gt),
            ge: value(o.ge),
            lt: value(o.lt),
            le: value(o.le),
            exists: o.exists,
            is_in: o.r#in,
            prefix: o.prefix,
        };
        if condition == Condition::default() {
            return Err(A::Error::custom("a condition without an operator"));
        }
        Ok(condition)
    }
}
