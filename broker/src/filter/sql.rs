//! SQL92 expressions over the properties of a message, as RocketMQ reads them.
//!
//! Every property is text, or missing. What is missing makes a comparison unknown, and an expression that is
//! unknown in the end is not true. What cannot be compared (`'x' > 1`) makes the whole expression not true.

mod parse;

use std::cmp::Ordering;

use protocol::properties;

pub use parse::{DEPTH_MAX, EXPRESSION_BYTES_MAX, SqlError};

/// An expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sql {
    root: Expr,
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Constant(Constant),
    Property(String),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    /// A property where a truth value is wanted.
    Truth(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Equal(Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Order, Box<Expr>),
    In {
        property: String,
        texts: Vec<String>,
        not: bool,
    },
    Like {
        expr: Box<Expr>,
        place: Place,
        text: String,
        not: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Constant {
    Null,
    Bool(bool),
    Whole(i64),
    Float(f64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where one text is looked for in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    Start,
    End,
}

/// What an expression comes to for one message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    Unknown,
    Bool(bool),
    Whole(i64),
    Float(f64),
    Text(&'a str),
}

/// Two values that have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Incomparable;

impl Sql {
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        parse::parse(text).map(|root| Self { root })
    }

    /// Whether a message with these properties is wanted.
    pub fn wants(&self, properties: &[u8]) -> bool {
        self.root.value(properties) == Ok(Value::Bool(true))
    }
}

impl Expr {
    fn value<'a>(&'a self, properties: &'a [u8]) -> Result<Value<'a>, Incomparable> {
        Ok(match self {
            Self::Constant(constant) => constant.value(),
            Self::Property(name) => property(properties, name),
            Self::Negate(expr) => match expr.value(properties)? {
                Value::Whole(number) => Value::Whole(number.wrapping_neg()),
                Value::Float(number) => Value::Float(-number),
                _ => Value::Unknown,
            },
            Self::Not(expr) => match expr.value(properties)? {
                Value::Bool(truth) => Value::Bool(!truth),
                _ => Value::Unknown,
            },
            Self::Truth(expr) => match expr.value(properties)? {
                Value::Unknown => Value::Unknown,
                value => Value::Bool(value == Value::Bool(true)),
            },
            Self::All(all) => several(all, false, properties)?,
            Self::Any(all) => several(all, true, properties)?,
            Self::Equal(left, right) => {
                match (left.value(properties)?, right.value(properties)?) {
                    // Only what is known is unlike what is not: this is also how IS NULL works.
                    (Value::Unknown, Value::Unknown) => Value::Bool(true),
                    (Value::Unknown, _) => Value::Unknown,
                    (_, Value::Unknown) => Value::Bool(false),
                    (left, right) => Value::Bool(compare(left, right)? == Ordering::Equal),
                }
            }
            Self::Compare(left, order, right) => {
                match (left.value(properties)?, right.value(properties)?) {
                    (Value::Unknown, _) | (_, Value::Unknown) => Value::Unknown,
                    (Value::Text(left), Value::Text(right)) => {
                        let (left, right) = (number(left)?, number(right)?);
                        Value::Bool(order.holds(compare(left, right)?))
                    }
                    (left, right) => Value::Bool(order.holds(compare(left, right)?)),
                }
            }
            Self::In { property: name, texts, not } => match property(properties, name) {
                Value::Text(text) => Value::Bool(texts.iter().any(|known| known == text) != *not),
                _ => Value::Unknown,
            },
            Self::Like { expr, place, text, not } => match expr.value(properties)? {
                Value::Text(of) if !text.is_empty() => Value::Bool(place.has(of, text) != *not),
                _ => Value::Bool(false),
            },
        })
    }
}

/// All of them, or any, by the value that decides alone.
fn several<'a>(
    all: &'a [Expr],
    decides: bool,
    properties: &'a [u8],
) -> Result<Value<'a>, Incomparable> {
    let mut unknown = false;
    for expr in all {
        match expr.value(properties)? {
            Value::Bool(truth) if truth == decides => return Ok(Value::Bool(decides)),
            value => unknown |= value == Value::Unknown,
        }
    }
    Ok(if unknown { Value::Unknown } else { Value::Bool(!decides) })
}

fn property<'a>(properties: &'a [u8], name: &str) -> Value<'a> {
    properties::get_str(properties, name).map_or(Value::Unknown, Value::Text)
}

/// Text and numbers meet as numbers, text and truth values as truth values.
fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    use Value::{Bool, Float, Text, Whole};
    match (left, right) {
        (Text(left), Text(right)) => Ok(left.cmp(right)),
        (Bool(left), Bool(right)) => Ok(left.cmp(&right)),
        (Text(left), Bool(right)) => Ok(left.eq_ignore_ascii_case("true").cmp(&right)),
        (Bool(_), Text(_)) => Err(Incomparable),
        (Text(left), right) => compare(number(left)?, right),
        (left, Text(right)) => compare(left, number(right)?),
        (Whole(left), Whole(right)) => Ok(left.cmp(&right)),
        (Whole(left), Float(right)) => Ok((left as f64).total_cmp(&right)),
        (Float(left), Whole(right)) => Ok(left.total_cmp(&(right as f64))),
        (Float(left), Float(right)) => Ok(left.total_cmp(&right)),
        // A truth value comes before every number, and the other way round.
        _ => Ok(Ordering::Less),
    }
}

fn number(text: &str) -> Result<Value<'static>, Incomparable> {
    let text = text.trim();
    match text.parse() {
        Ok(whole) => Ok(Value::Whole(whole)),
        Err(_) => text.parse().map(Value::Float).map_err(|_| Incomparable),
    }
}

impl Constant {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Unknown,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Whole(number) => Value::Whole(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Text(text) => Value::Text(text),
        }
    }
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Place {
    fn has(self, of: &str, text: &str) -> bool {
        match self {
            Self::Anywhere => of.contains(text),
            Self::Start => of.starts_with(text),
            Self::End => of.ends_with(text),
        }
    }
}

#[cfg(test)]
mod tests;
