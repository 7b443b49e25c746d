//! Receipt handles: RocketMQ's text of eight words, which clients put together from a reply and send back.
//!
//! What makes a handle good is the pair of its pop time, which is that of one delivery of its message, and its
//! revive queue, in which we send a number drawn when the group first popped this life of the topic.

use protocol::reply::{Refusal, ReplyCode};

/// The revive queue of deliveries in order; clients look for it.
pub const ORDER_REVIVE_QUEUE: i32 = 999;

/// A receipt handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub popped_ms: i64,
    pub revive_queue: i32,
    /// The message came from the retries of the group.
    pub retry: bool,
    pub queue_id: i32,
    /// In the queue; older clients leave it out.
    pub offset: Option<i64>,
}

impl Handle {
    /// Reads `start popTime invisibleTime reviveQueue retryFlag broker queueId [offset [more]]`.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            let remark = format!("the receipt handle [{text}] is malformed");
            Refusal::new(ReplyCode::InvalidParameter, remark)
        };
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(malformed);
        let _start = word()?;
        let popped_ms = word()?.parse().map_err(|_| malformed())?;
        let _invisible_ms = word()?;
        let revive_queue = word()?.parse().map_err(|_| malformed())?;
        let retry = is_retry(word()?);
        let _broker = word()?;
        let queue_id = word()?.parse().map_err(|_| malformed())?;
        let offset = words.next().map(str::parse).transpose().map_err(|_| malformed())?;
        Ok(Self { popped_ms, revive_queue, retry, queue_id, offset })
    }

    /// The number drawn for a group and a life of a topic, as clients send it back.
    pub fn nonce(random: u32) -> i32 {
        // Above what other brokers number their revive queues with.
        (random & 0x3fff_ffff).cast_signed() | 0x4000_0000
    }
}

/// Whether this word marks a message of the group's retries.
pub fn is_retry(flag: &str) -> bool {
    flag == "1" || flag == "2"
}

/// The topic a client means: for retries it names one that no longer exists, of the group and the topic.
pub fn real_topic<'t>(topic: &'t str, group: &str) -> &'t str {
    let Some(rest) = topic.strip_prefix(protocol::name::RETRY_PREFIX) else { return topic };
    let rest = rest.strip_prefix(group).and_then(|rest| rest.strip_prefix(['_', '+']));
    rest.unwrap_or(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_clients_and_proxies_send_it() {
        let handle = Handle {
            popped_ms: 1700000000000,
            revive_queue: 999,
            retry: true,
            queue_id: 3,
            offset: Some(12),
        };
        for text in
            ["10 1700000000000 30000 999 1 b-a 3 12", "10 1700000000000 30000 999 2 b-a 3 12 4711"]
        {
            assert_eq!(Handle::read(text).unwrap(), handle);
        }
        let old = Handle::read("10 1700000000000 30000 0 0 b-a 3").unwrap();
        assert_eq!(old.offset, None);
        for bad in ["", "1", "a b c d e f g h", "1 2 3 4 5 6", "1 2 3 4 0 b 99999999999 1"] {
            assert_eq!(Handle::read(bad).unwrap_err().code, ReplyCode::InvalidParameter, "{bad}");
        }
    }

    #[test]
    fn the_topic_of_a_retry_is_the_one_it_was_sent_to() {
        for (named, real) in
            [("t", "t"), ("%RETRY%g_t", "t"), ("%RETRY%g+t_u", "t_u"), ("%RETRY%g", "%RETRY%g")]
        {
            assert_eq!(real_topic(named, "g"), real);
        }
    }
}
