//! Names of topics and groups: what they may be, which ones the system keeps, how retry topics are called.

/// The topic whose settings automatically created topics take.
pub const DEFAULT_TOPIC: &str = "TBW102";
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";
pub const TRANSACTION_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANSACTION_OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const TRANSACTION_EXPIRED_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const SYSTEM_PREFIX: &str = "rmq_sys_";
/// Our own records in the log: nobody else writes them.
pub const OWN_PREFIX: &str = "rmq_sys_ferromq_";
pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// Bytes of a topic name.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Bytes of a retry or dead-letter topic, whose group part may be long.
pub const RETRY_TOPIC_BYTES_MAX: usize = 255;
/// Bytes of a group name.
pub const GROUP_BYTES_MAX: usize = 120;

/// Names that are the system's, besides everything that starts with [`SYSTEM_PREFIX`].
pub const SYSTEM_TOPICS: [&str; 10] = [
    DEFAULT_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRACE_TOPIC,
    TRANSACTION_OP_TOPIC,
    TRANSACTION_EXPIRED_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
    CHECKPOINT_TOPIC,
];

/// Topics a client may never send to.
const NOT_FOR_SENDING: [&str; 6] = [
    SCHEDULE_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_TOPIC,
    TRANSACTION_EXPIRED_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
];

/// Groups that exist without being made, and are not reported as users' own.
pub const SYSTEM_GROUPS: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the {0} is blank")]
    Blank(&'static str),
    #[error("the {what} is longer than {max} bytes")]
    TooLong { what: &'static str, max: usize },
    #[error("the {what} `{name}` has characters other than letters, digits, `%`, `|`, `_` and `-`")]
    BadCharacter { what: &'static str, name: String },
}

/// Whether a topic may be called so.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    let retry = name.starts_with(RETRY_PREFIX) || name.starts_with(DEAD_LETTER_PREFIX);
    check("topic", name, if retry { RETRY_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX })
}

/// Whether a group may be called so.
pub fn check_group(name: &str) -> Result<(), NameError> {
    check("group", name, GROUP_BYTES_MAX)
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank(what));
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, max });
    }
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'_' | b'-');
    if name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(NameError::BadCharacter { what, name: name.chars().take(64).collect() })
    }
}

/// Whether a topic belongs to the system.
pub fn is_system_topic(name: &str) -> bool {
    name.starts_with(SYSTEM_PREFIX) || SYSTEM_TOPICS.contains(&name)
}

/// Whether clients may send to a topic.
pub fn may_send_to(name: &str) -> bool {
    !NOT_FOR_SENDING.contains(&name) && !name.starts_with(OWN_PREFIX)
}

/// Whether a group belongs to the system.
pub fn is_system_group(name: &str) -> bool {
    SYSTEM_GROUPS.contains(&name) || name.starts_with("CID_RMQ_SYS_")
}

/// Where a group's messages come back to.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// Where a group's messages end that were retried too often.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{group}")
}

/// The group a retry topic belongs to.
pub fn retry_group(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_stock_server_does() {
        for good in
            ["orders", "a%b|c_d-1", &"x".repeat(127), &format!("%RETRY%{}", "g".repeat(240))]
        {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "a b", "ü", "a/b", "../x", &"x".repeat(128)] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
        assert!(check_group(&"g".repeat(121)).is_err());
    }
}
