//! The receipt handle: what a consumer shows to settle a message. Where it lies, who hid it and until when.
//!
//! Eight words as the broker made them (the *extra info*), and a ninth of ours: where the message lies in the log.

use std::fmt::Write;

use protocol::name::RETRY_PREFIX;

/// A handle as a client sends it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle<'a> {
    /// The eight words, as brokers read them.
    pub extra_info: &'a str,
    /// Where the block begins that the message was taken with.
    pub start_offset: i64,
    pub pop_time_ms: i64,
    pub invisible_ms: i64,
    pub revive_queue_id: i32,
    pub retry: Retry,
    pub broker: &'a str,
    pub queue_id: i32,
    /// The message's offset in its queue.
    pub offset: i64,
    /// Where the message lies in the log of its broker, if the handle says it.
    pub position: Option<i64>,
}

/// From which topic a message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The topic itself.
    No,
    /// `%RETRY%group_topic`; with our brokers `%RETRY%group`, where messages of all topics lie.
    First,
    /// `%RETRY%group+topic`.
    Second,
}

impl Retry {
    /// Of a record that bears the topic `stored` and was taken by asking for `asked`.
    pub fn of(stored: &str, asked: &str) -> Self {
        match stored.strip_prefix(RETRY_PREFIX) {
            Some(_) if stored == asked => Self::No,
            // No name of a group or a topic has this character.
            Some(rest) if rest.contains('+') => Self::Second,
            Some(_) => Self::First,
            None => Self::No,
        }
    }

    /// As it stands in a handle.
    pub fn flag(self) -> &'static str {
        match self {
            Self::No => "0",
            Self::First => "1",
            Self::Second => "2",
        }
    }
}

/// Text that is no handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt handle is malformed")]
pub struct Malformed;

/// The words of a handle that a broker did not write into the message itself.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub start_offset: i64,
    pub pop_time_ms: i64,
    pub invisible_ms: i64,
    pub revive_queue_id: i32,
    pub retry: Retry,
    pub broker: &'a str,
    pub queue_id: i32,
    pub offset: i64,
}

impl<'a> Handle<'a> {
    /// Reads the eight words, and the ninth if it is there.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut ends = text.match_indices(' ').map(|(at, _)| at).skip(7);
        let extra_info = ends.next().map_or(text, |end| &text[..end]);
        let position = text[extra_info.len()..].split(' ').nth(1);
        let position = position.map(number).transpose()?;
        let mut words = extra_info.split(' ');
        let mut word = || words.next().ok_or(Malformed);
        let start_offset = number(word()?)?;
        let pop_time_ms = number(word()?)?;
        let invisible_ms = number(word()?)?;
        let revive_queue_id = number(word()?)?;
        let retry = match word()? {
            "0" => Retry::No,
            "1" => Retry::First,
            "2" => Retry::Second,
            _ => return Err(Malformed),
        };
        let broker = word()?;
        if broker.is_empty() {
            return Err(Malformed);
        }
        let queue_id = number(word()?)?;
        let offset = number(word()?)?;
        Ok(Self {
            extra_info,
            start_offset,
            revive_queue_id,
            pop_time_ms,
            invisible_ms,
            retry,
            broker,
            queue_id,
            offset,
            position,
        })
    }

    /// When others may take the message.
    pub fn visible_at_ms(&self) -> i64 {
        self.pop_time_ms.saturating_add(self.invisible_ms)
    }

    /// The topic in whose queue the offset counts.
    pub fn real_topic<'t>(&self, topic: &'t str, group: &str) -> std::borrow::Cow<'t, str> {
        match self.retry {
            Retry::No => topic.into(),
            Retry::First => format!("{RETRY_PREFIX}{group}_{topic}").into(),
            Retry::Second => format!("{RETRY_PREFIX}{group}+{topic}").into(),
        }
    }

    /// The handle after its message was hidden anew.
    pub fn renewed(&self, pop_time_ms: i64, invisible_ms: i64, revive_queue_id: i32) -> String {
        let retry = self.retry.flag();
        let Self { broker, queue_id, offset, .. } = self;
        // The message is now hidden alone: the block it was taken with starts at itself.
        let mut text = format!(
            "{offset} {pop_time_ms} {invisible_ms} {revive_queue_id} {retry} {broker} {queue_id} {offset}"
        );
        if let Some(position) = self.position {
            write!(text, " {position}").expect("writing to a string does not fail");
        }
        text
    }
}

impl Taken<'_> {
    /// The whole handle of a message at `position` of the log.
    pub fn handle(&self, position: i64) -> String {
        let Self { start_offset, pop_time_ms, invisible_ms, revive_queue_id, .. } = self;
        let (retry, Self { broker, queue_id, offset, .. }) = (self.retry.flag(), self);
        format!(
            "{start_offset} {pop_time_ms} {invisible_ms} {revive_queue_id} {retry} {broker} {queue_id} {offset} {position}"
        )
    }
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, Malformed> {
    word.parse().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "7 1700000000000 60000 3 0 broker-a 2 9 4711";

    #[test]
    fn a_handle_is_read_with_and_without_its_ninth_word() {
        let handle = Handle::parse(TEXT).unwrap();
        assert_eq!(handle.extra_info, "7 1700000000000 60000 3 0 broker-a 2 9");
        assert_eq!((handle.broker, handle.queue_id, handle.offset), ("broker-a", 2, 9));
        assert_eq!((handle.position, handle.visible_at_ms()), (Some(4711), 1_700_000_060_000));
        let handle = Handle::parse(handle.extra_info).unwrap();
        assert_eq!((handle.position, handle.retry), (None, Retry::No));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        for bad in [
            "",
            " ",
            "7 1 6 3 0 b 2",
            "7 1 6 3 5 b 2 9",
            "7 1 6 3 0  2 9",
            "x 1 6 3 0 b 2 9",
            "7 1 6 3 0 b 2 9 x",
        ] {
            assert_eq!(Handle::parse(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_renewed_handle_stands_for_its_message_alone() {
        let renewed = Handle::parse(TEXT).unwrap().renewed(5, 6, 7);
        assert_eq!(renewed, "9 5 6 7 0 broker-a 2 9 4711");
    }

    #[test]
    fn a_retried_message_is_settled_in_its_retry_topic() {
        for (flag, topic) in [("0", "t"), ("1", "%RETRY%g_t"), ("2", "%RETRY%g+t")] {
            let text = format!("7 1 6 3 {flag} b 2 9");
            assert_eq!(Handle::parse(&text).unwrap().real_topic("t", "g"), topic);
        }
    }

    #[test]
    fn the_topic_of_a_record_says_whether_it_is_a_retry() {
        for (stored, asked, retry) in [
            ("t", "t", Retry::No),
            ("%RETRY%g", "t", Retry::First),
            ("%RETRY%g_t", "t", Retry::First),
            ("%RETRY%g+t", "t", Retry::Second),
            ("%RETRY%g", "%RETRY%g", Retry::No),
        ] {
            assert_eq!(Retry::of(stored, asked), retry, "{stored}");
        }
    }

    #[test]
    fn a_taken_message_gets_a_handle_that_reads_back() {
        let taken = Taken {
            start_offset: 1,
            pop_time_ms: 2,
            invisible_ms: 3,
            revive_queue_id: 4,
            retry: Retry::First,
            broker: "b",
            queue_id: 5,
            offset: 6,
        };
        let text = taken.handle(7);
        assert_eq!(text, "1 2 3 4 1 b 5 6 7");
        assert_eq!(Handle::parse(&text).unwrap().position, Some(7));
    }
}
