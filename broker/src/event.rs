//! What a broker must remember, as events: one line of text each, batched into records of the log.
//!
//! The tables of topics, groups and offsets are folds of these events; see [`journal`](crate::journal).

use protocol::body::{SetMessageRequestModeRequestBody, SubscriptionGroupConfig, TopicConfig};
use protocol::json::{self, Dialect};

/// A change of the broker's state.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Topic(TopicConfig),
    TopicDeleted(String),
    Group(SubscriptionGroupConfig),
    GroupDeleted(String),
    /// Bits of what a group may not do with a topic.
    Forbidden {
        group: String,
        topic: String,
        bits: i32,
    },
    Offset {
        group: String,
        topic: String,
        queue_id: i32,
        offset: i64,
    },
    /// All offsets of a group, or those of one topic.
    OffsetsRemoved {
        group: String,
        topic: Option<String>,
    },
    /// How a group consumes a topic.
    RequestMode(SetMessageRequestModeRequestBody),
    /// How far a delay level has been delivered.
    Delayed {
        level: i32,
        offset: i64,
    },
}

impl Event {
    /// Appends this event and a line end. Names hold no blanks, JSON no raw line ends.
    pub fn write(&self, out: &mut Vec<u8>) {
        let line = match self {
            Self::Topic(config) => return json_line(out, "topic", config),
            Self::Group(config) => return json_line(out, "group", config),
            Self::RequestMode(mode) => return json_line(out, "request-mode", mode),
            Self::TopicDeleted(name) => format!("topic-deleted {name}\n"),
            Self::GroupDeleted(name) => format!("group-deleted {name}\n"),
            Self::Forbidden { group, topic, bits } => format!("forbidden {group} {topic} {bits}\n"),
            Self::Offset { group, topic, queue_id, offset } => {
                format!("offset {group} {topic} {queue_id} {offset}\n")
            }
            Self::OffsetsRemoved { group, topic: None } => format!("offsets-removed {group}\n"),
            Self::OffsetsRemoved { group, topic: Some(topic) } => {
                format!("offsets-removed {group} {topic}\n")
            }
            Self::Delayed { level, offset } => format!("delayed {level} {offset}\n"),
        };
        out.extend_from_slice(line.as_bytes());
    }

    /// Reads one line; `None` when it is none of ours.
    pub fn read(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let mut word = || words.next().filter(|word| !word.is_empty()).map(str::to_owned);
        Some(match kind {
            "topic" => Self::Topic(json::read(rest.as_bytes()).ok()?),
            "group" => Self::Group(json::read(rest.as_bytes()).ok()?),
            "request-mode" => Self::RequestMode(json::read(rest.as_bytes()).ok()?),
            "topic-deleted" => Self::TopicDeleted(word()?),
            "group-deleted" => Self::GroupDeleted(word()?),
            "forbidden" => {
                Self::Forbidden { group: word()?, topic: word()?, bits: word()?.parse().ok()? }
            }
            "offset" => Self::Offset {
                group: word()?,
                topic: word()?,
                queue_id: word()?.parse().ok()?,
                offset: word()?.parse().ok()?,
            },
            "offsets-removed" => Self::OffsetsRemoved { group: word()?, topic: word() },
            "delayed" => {
                Self::Delayed { level: word()?.parse().ok()?, offset: word()?.parse().ok()? }
            }
            _ => return None,
        })
    }
}

fn json_line(out: &mut Vec<u8>, kind: &str, config: &impl serde::Serialize) {
    out.extend_from_slice(kind.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&json::write(config, Dialect::Standard));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_back_as_itself() {
        let (group, topic) = ("g|1".to_owned(), "t%a".to_owned());
        let mut config = TopicConfig { topic_name: "ünicode\n".into(), ..TopicConfig::default() };
        config.attributes.insert("message.type".into(), "FIFO".into());
        for event in [
            Event::Topic(config),
            Event::TopicDeleted(topic.clone()),
            Event::Group(SubscriptionGroupConfig::default()),
            Event::GroupDeleted(group.clone()),
            Event::Forbidden { group: group.clone(), topic: topic.clone(), bits: 4 },
            Event::Offset { group: group.clone(), topic: topic.clone(), queue_id: 3, offset: 9 },
            Event::OffsetsRemoved { group: group.clone(), topic: Some(topic) },
            Event::OffsetsRemoved { group, topic: None },
            Event::RequestMode(SetMessageRequestModeRequestBody::default()),
            Event::Delayed { level: 18, offset: i64::MAX },
        ] {
            let mut text = Vec::new();
            event.write(&mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert_eq!(Event::read(text.trim_end_matches('\n')), Some(event));
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in ["", "offset g t x 1", "offset g", "topic {", "strange 1 2", "delayed 1"] {
            assert_eq!(Event::read(line), None, "{line}");
        }
    }
}
