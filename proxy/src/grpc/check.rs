//! What a request may say: every limit of the protocol, checked before anything is done.

use protocol::grpc::{
    Code, Encoding, FilterExpression, FilterType, Message, MessageType, Resource,
};
use protocol::{name, properties};

use super::status::Failure;
use crate::config::Config;

type Checked<T = ()> = Result<T, Failure>;

/// The topic a request names.
pub fn topic(resource: Option<&Resource>) -> Checked<&str> {
    let illegal = |message: String| Failure::new(Code::IllegalTopic, message);
    let topic = full_name(resource).ok_or_else(|| illegal("the topic is missing".to_owned()))?;
    name::check_topic(topic).map_err(|error| illegal(error.to_string()))?;
    if name::is_system_topic(topic) {
        return Err(illegal(format!("the topic `{topic}` belongs to the system")));
    }
    Ok(topic)
}

/// The consumer group a request names.
pub fn group(resource: Option<&Resource>) -> Checked<&str> {
    let illegal = |message: String| Failure::new(Code::IllegalConsumerGroup, message);
    let group = full_name(resource).ok_or_else(|| illegal("the group is missing".to_owned()))?;
    name::check_group(group).map_err(|error| illegal(error.to_string()))?;
    if name::is_system_group(group) {
        return Err(illegal(format!("the group `{group}` belongs to the system")));
    }
    Ok(group)
}

fn full_name(resource: Option<&Resource>) -> Option<&str> {
    resource.map(|resource| resource.name.as_str()).filter(|name| !name.is_empty())
}

/// One message, as far as it can be judged by itself.
pub fn message(config: &Config, message: &Message, now_ms: i64) -> Checked {
    let system = message
        .system_properties
        .as_ref()
        .ok_or_else(|| Failure::new(Code::IllegalMessageId, "the system properties are missing"))?;
    body(config, message.body.len())?;
    user_properties(config, message)?;
    let delivery_ms = system.delivery_timestamp.as_ref().map(super::time::timestamp_ms);
    if let Some(at_ms) = delivery_ms
        && config.delay_max_ms > 0
        && at_ms.saturating_sub(now_ms) > config.delay_max_ms
    {
        let message = format!("the delay is longer than {} ms", config.delay_max_ms);
        return Err(Failure::new(Code::IllegalDeliveryTime, message));
    }
    let recovery = system.orphaned_transaction_recovery_duration.as_ref();
    if let Some(duration) = recovery
        && config.transaction_recovery_seconds_max > 0
        && duration.seconds > config.transaction_recovery_seconds_max
    {
        let max = config.transaction_recovery_seconds_max;
        let message = format!("the transaction recovery duration is longer than {max} s");
        return Err(Failure::new(Code::BadRequest, message));
    }
    if system.message_id.trim().is_empty() {
        return Err(Failure::new(Code::IllegalMessageId, "the message id is blank"));
    }
    if let Some(group) = system.message_group.as_deref().filter(|group| !group.is_empty()) {
        message_group(config, group)?;
    }
    if system.body_encoding() == Encoding::Gzip && message.body.is_empty() {
        return Err(Failure::new(Code::MessageCorrupted, "an empty body is no gzip"));
    }
    Ok(())
}

fn body(config: &Config, bytes: usize) -> Checked {
    if bytes == 0 && config.refuse_empty_bodies {
        return Err(Failure::new(Code::MessageBodyEmpty, "the message body is empty"));
    }
    let max = config.body_bytes_max;
    if max > 0 && bytes > max {
        let message = format!("the message body has {bytes} bytes, the limit is {max}");
        return Err(Failure::new(Code::MessageBodyTooLarge, message));
    }
    Ok(())
}

fn user_properties(config: &Config, message: &Message) -> Checked {
    let too_large = |message| Err(Failure::new(Code::MessagePropertiesTooLarge, message));
    let user = &message.user_properties;
    if user.len() > config.user_properties_max {
        let max = config.user_properties_max;
        return too_large(format!("{} user properties, the limit is {max}", user.len()));
    }
    let illegal = |message: String| Failure::new(Code::IllegalMessagePropertyKey, message);
    let mut bytes = 0usize;
    for (key, value) in user {
        if properties::is_reserved(key) {
            return Err(illegal(format!("the property `{key}` is the system's")));
        }
        if key.trim().is_empty() {
            return Err(illegal("the key of a property is blank".to_owned()));
        }
        if has_control(key) || has_control(value) {
            return Err(illegal("a property has a control character".to_owned()));
        }
        bytes += key.len() + value.len();
    }
    let system = message.system_properties.as_ref();
    if let Some(tag) = system.and_then(|system| system.tag.as_deref()).filter(|t| !t.is_empty()) {
        self::tag(tag)?;
        bytes += tag.len();
    }
    for key in system.map(|system| system.keys.as_slice()).unwrap_or_default() {
        if !key.is_empty() && key.trim().is_empty() {
            return Err(Failure::new(Code::IllegalMessageKey, "a key is blank"));
        }
        if has_control(key) {
            return Err(Failure::new(Code::IllegalMessageKey, "a key has a control character"));
        }
        bytes += key.len();
    }
    let max = config.user_properties_bytes_max;
    if bytes > max {
        return too_large(format!("the user properties have {bytes} bytes, the limit is {max}"));
    }
    Ok(())
}

fn tag(tag: &str) -> Checked {
    let illegal = |message| Err(Failure::new(Code::IllegalMessageTag, message));
    if tag.trim().is_empty() {
        return illegal("the tag is blank");
    }
    if tag.contains('|') {
        return illegal("the tag contains `|`");
    }
    if has_control(tag) {
        return illegal("the tag has a control character");
    }
    Ok(())
}

fn message_group(config: &Config, group: &str) -> Checked {
    let illegal = |message: String| Err(Failure::new(Code::IllegalMessageGroup, message));
    if group.trim().is_empty() {
        return illegal("the message group is blank".to_owned());
    }
    let max = config.message_group_bytes_max;
    if max > 0 && group.len() >= max {
        return illegal(format!(
            "the message group has {} bytes, it must have fewer than {max}",
            group.len()
        ));
    }
    if has_control(group) {
        return illegal("the message group has a control character".to_owned());
    }
    Ok(())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The kind of a message by what it carries.
pub fn kind(message: &Message) -> MessageType {
    let Some(system) = &message.system_properties else { return MessageType::Normal };
    if system.message_type() == MessageType::Transaction {
        MessageType::Transaction
    } else if system.delivery_timestamp.is_some() {
        MessageType::Delay
    } else if system.message_group.as_deref().is_some_and(|group| !group.is_empty()) {
        MessageType::Fifo
    } else if system.lite_topic.as_deref().is_some_and(|topic| !topic.is_empty()) {
        MessageType::Lite
    } else if system.priority.is_some() {
        MessageType::Priority
    } else {
        MessageType::Normal
    }
}

/// How a message that was taken stays hidden.
pub fn invisible_on_receive(config: &Config, duration_ms: i64) -> Checked {
    let range = config.invisible_on_receive_min_ms..=config.invisible_max_ms;
    invisible(range, duration_ms)
}

/// How a message that is hidden already stays so; 0 gives it back at once.
pub fn invisible_on_change(config: &Config, duration_ms: i64) -> Checked {
    invisible(0..=config.invisible_max_ms, duration_ms)
}

fn invisible(range: std::ops::RangeInclusive<i64>, duration_ms: i64) -> Checked {
    let illegal = |message: String| Err(Failure::new(Code::IllegalInvisibleTime, message));
    // Clients look for these words.
    if duration_ms < *range.start() {
        illegal(format!("the invisibleTime is too small. min is {}", range.start()))
    } else if duration_ms > *range.end() {
        illegal(format!("the invisibleTime is too large. max is {}", range.end()))
    } else {
        Ok(())
    }
}

/// How many messages at once; who asks for too many gets fewer.
pub fn batch_size(count: i32) -> Checked<i32> {
    if count < 1 {
        let message = format!("the batch size is {count}, it must be 1 or more");
        return Err(Failure::new(Code::BadRequest, message));
    }
    Ok(count.min(BATCH_MAX))
}

/// Messages one request may get.
pub const BATCH_MAX: i32 = 32;

/// The kind of a filter and its text, as brokers know them.
pub fn filter(expression: Option<&FilterExpression>) -> Checked<(&'static str, &str)> {
    let Some(expression) = expression else { return Ok(("TAG", "*")) };
    let illegal = |message| Err(Failure::new(Code::IllegalFilterExpression, message));
    let text = expression.expression.as_str();
    match expression.r#type() {
        FilterType::Sql if text.trim().is_empty() => illegal("the SQL expression is empty"),
        FilterType::Sql => Ok(("SQL92", text)),
        FilterType::Tag | FilterType::Unspecified if text.trim().is_empty() => Ok(("TAG", "*")),
        FilterType::Tag | FilterType::Unspecified => {
            if text != "*" && text.split("||").all(|tag| tag.trim().is_empty()) {
                return illegal("the tag expression names no tag");
            }
            Ok(("TAG", text))
        }
    }
}

/// What a client says of itself in its own words.
pub fn client_properties(said: &std::collections::HashMap<String, String>) -> Checked {
    const PAIRS_MAX: usize = 32;
    const VALUE_CHARS_MAX: usize = 256;
    const BYTES_MAX: usize = 4096;
    let invalid = |message: String| Err(Failure::new(Code::InvalidClientProperties, message));
    if said.len() > PAIRS_MAX {
        return invalid(format!("more than {PAIRS_MAX} client properties"));
    }
    if said.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > BYTES_MAX {
        return invalid(format!("the client properties have more than {BYTES_MAX} bytes"));
    }
    for (key, value) in said {
        let named = (1..=64).contains(&key.len())
            && key.starts_with(|first: char| first.is_ascii_alphabetic())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !named || value.chars().count() > VALUE_CHARS_MAX {
            let key: String = key.chars().take(64).collect();
            return invalid(format!("the client property `{key}` is not as it must be"));
        }
    }
    Ok(())
}
