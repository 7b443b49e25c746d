//! Attributes of topics and groups: which there are, what they may be, how a request changes them.
//!
//! On the wire an attribute to set is `+name=value`, one to take away `-name`; what is kept has no sign.

use std::collections::{BTreeMap, BTreeSet};

/// One attribute.
#[derive(Debug)]
pub struct Attribute {
    name: &'static str,
    /// Whether it may be changed once the topic or group is there.
    changeable: bool,
    values: Values,
}

/// What an attribute may be.
#[derive(Debug)]
enum Values {
    OneOf(&'static [&'static str]),
    Range(i64, i64),
    Flag,
    Text,
}

/// Bytes of a value that is free text.
const TEXT_BYTES_MAX: usize = 255;

const fn attribute(name: &'static str, values: Values) -> Attribute {
    Attribute { name, changeable: true, values }
}

const fn fixed(name: &'static str, values: Values) -> Attribute {
    Attribute { name, changeable: false, values }
}

/// What kind of messages a topic takes.
pub const MESSAGE_TYPE: &str = "message.type";
/// How a topic forgets messages.
pub const CLEANUP_POLICY: &str = "cleanup.policy";

/// Whether a batch is one record.
pub const QUEUE_TYPE: &str = "queue.type";

/// Attributes of topics.
pub static TOPIC: [Attribute; 5] = [
    fixed(QUEUE_TYPE, Values::OneOf(&["SimpleCQ", "BatchCQ"])),
    fixed(CLEANUP_POLICY, Values::OneOf(&["DELETE", "COMPACTION"])),
    attribute(
        MESSAGE_TYPE,
        Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "MIXED",
            "PRIORITY",
            "LITE",
        ]),
    ),
    attribute("reserve.time", Values::Range(-1, i64::MAX)),
    attribute("lite.topic.expiration", Values::Range(-1, 43_200)),
];

/// Attributes of groups.
pub static GROUP: [Attribute; 8] = [
    attribute("priority.factor", Values::Range(0, 100)),
    attribute("lite.bind.topic", Values::Text),
    attribute("lite.sub.model", Values::OneOf(&["Shared", "Exclusive"])),
    attribute("lite.sub.reset.offset.exclusive", Values::Flag),
    attribute("lite.sub.reset.offset.unsubscribe", Values::Flag),
    attribute("lite.sub.client.quota", Values::Range(-1, i64::MAX)),
    attribute("lite.sub.client.max.event.cnt", Values::Range(10, i64::MAX)),
    attribute("lite.sub.wildcard", Values::Text),
];

/// Changes by their signed names.
pub type Changes = BTreeMap<String, String>;

/// Reads `+key1=value1,-key2` as it stands in a header.
pub fn parse(text: &str) -> Result<Changes, String> {
    let mut changes = Changes::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, _)) if !key.starts_with('+') => {
                return Err(format!(
                    "add/alter attribute format is wrong: {key}; it is +key=value"
                ));
            }
            Some(pair) => pair,
            None if !part.starts_with('-') => {
                return Err(format!("delete attribute format is wrong: {part}; it is -key"));
            }
            None => (part, ""),
        };
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("key duplication: {key}"));
        }
    }
    Ok(changes)
}

/// What the attributes are after `changes`; `current` is `None` for what is being created.
pub fn alter(
    table: &[Attribute],
    current: Option<&BTreeMap<String, String>>,
    changes: &Changes,
) -> Result<BTreeMap<String, String>, String> {
    let mut result = current.cloned().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (key, value) in changes {
        let (sign, name) = key.split_at_checked(1).unwrap_or_default();
        if name.is_empty() || name.contains(['+', '-']) {
            return Err(format!("kv string format wrong: `{key}`"));
        }
        if !seen.insert(name) {
            return Err(format!("alter duplication key. key: {name}"));
        }
        let known = result.contains_key(name);
        match sign {
            "+" => {}
            _ if current.is_none() => {
                let rule = "only add attribute is supported while creating topic.";
                return Err(format!("{rule} key: {name}"));
            }
            "-" if !known => return Err(format!("attempt to delete a nonexistent key: {name}")),
            "-" => {}
            _ => return Err(format!("wrong format key: {key}; it begins with + or -")),
        }
        let Some(attribute) = table.iter().find(|attribute| attribute.name == name) else {
            let names: Vec<_> = table.iter().map(|attribute| attribute.name).collect();
            return Err(format!("unsupported key: {name}; there are {}", names.join(", ")));
        };
        if current.is_some() && !attribute.changeable {
            return Err(format!("attempt to update an unchangeable attribute. key: {name}"));
        }
        if sign == "-" {
            result.remove(name);
        } else {
            attribute.check(value)?;
            result.insert(name.to_owned(), value.clone());
        }
    }
    Ok(result)
}

impl Attribute {
    fn check(&self, value: &str) -> Result<(), String> {
        let wanted = match self.values {
            Values::OneOf(values) if values.contains(&value) => return Ok(()),
            Values::OneOf(values) => format!("is not in set: [{}]", values.join(", ")),
            Values::Range(min, max) => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => return Ok(()),
                _ => format!("is not in range({min}, {max})"),
            },
            Values::Flag if value.eq_ignore_ascii_case("true") => return Ok(()),
            Values::Flag if value.eq_ignore_ascii_case("false") => return Ok(()),
            Values::Flag => "is neither true nor false".to_owned(),
            Values::Text if !value.is_empty() && value.len() <= TEXT_BYTES_MAX => return Ok(()),
            Values::Text => format!("is empty or longer than {TEXT_BYTES_MAX} bytes"),
        };
        Err(format!("the value of {} {wanted}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn attributes_are_set_changed_and_taken_away() {
        let made = alter(&TOPIC, None, &parse("+message.type=FIFO,+queue.type=SimpleCQ").unwrap());
        let made = made.unwrap();
        assert_eq!(made, map(&[("message.type", "FIFO"), ("queue.type", "SimpleCQ")]));
        let changed = alter(&TOPIC, Some(&made), &parse("+message.type=DELAY").unwrap()).unwrap();
        assert_eq!(changed["message.type"], "DELAY");
        let left = alter(&TOPIC, Some(&changed), &parse("-message.type").unwrap()).unwrap();
        assert_eq!(left, map(&[("queue.type", "SimpleCQ")]));
    }

    #[test]
    fn what_may_not_be_is_said_in_words() {
        for (text, words) in [
            ("message.type=FIFO", "add/alter attribute format is wrong: message.type"),
            ("message.type", "delete attribute format is wrong: message.type"),
            ("+message.type=FIFO,+message.type=DELAY", "key duplication: +message.type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        let there = map(&[("queue.type", "SimpleCQ")]);
        for (current, text, words) in [
            (None, "-message.type", "only add attribute is supported while creating topic."),
            (None, "+nobody=1", "unsupported key: nobody"),
            (None, "+message.type=ODD", "the value of message.type is not in set: [UNSPECIFIED"),
            (None, "+reserve.time=-2", "the value of reserve.time is not in range(-1, 9223"),
            (None, "+reserve.time=x", "the value of reserve.time is not in range(-1, 9223"),
            (None, "++=1", "kv string format wrong"),
            (Some(&there), "-message.type", "attempt to delete a nonexistent key: message.type"),
            (Some(&there), "+queue.type=BatchCQ", "attempt to update an unchangeable attribute."),
        ] {
            let error = alter(&TOPIC, current, &parse(text).unwrap()).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        let error = alter(&GROUP, None, &parse("+lite.bind.topic=").unwrap()).unwrap_err();
        assert!(error.contains("lite.bind.topic"), "{error}");
        let odd = map(&[("é", "1"), ("", "2")]);
        assert!(alter(&GROUP, None, &odd).is_err());
    }
}
