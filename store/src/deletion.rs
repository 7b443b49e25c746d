//! Deleting a topic: a record in the log, so that it survives a crash and old messages do not come back.

use std::net::{Ipv4Addr, SocketAddr};

use protocol::record::Record;

use crate::append::{Appended, Origin};
use crate::batch::{Batch, NewMessage};
use crate::error::AppendError;
use crate::{Core, Store};

/// The topic that holds what the store itself has to remember.
pub const SYSTEM_TOPIC: &str = "rmq_sys_ferromq_store";
const DELETE: &str = "delete-topic ";

/// The topic that a record of the store declares deleted.
pub(crate) fn deleted_topic<'a>(record: &Record<'a>) -> Option<&'a str> {
    if record.topic != SYSTEM_TOPIC {
        return None;
    }
    std::str::from_utf8(record.body).ok()?.strip_prefix(DELETE)
}

#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("the store needs the topic {SYSTEM_TOPIC} itself")]
    SystemTopic,
    #[error(transparent)]
    Queues(#[from] crate::error::TooManyQueues),
    #[error(transparent)]
    Push(#[from] crate::error::PushError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Store {
    /// Forgets every message of a topic. Its queues go on at offset 0.
    ///
    /// The deletion is certain when the end of the returned range is durable.
    pub fn delete_topic(&self, topic: &str, now_ms: i64) -> Result<Appended, DeleteError> {
        if topic == SYSTEM_TOPIC {
            return Err(DeleteError::SystemTopic);
        }
        let appended = self.core.delete_topic(topic, now_ms)?;
        self.core.durable.appended_more(appended.end);
        Ok(appended)
    }
}

impl Core {
    fn delete_topic(&self, topic: &str, now_ms: i64) -> Result<Appended, DeleteError> {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let body = format!("{DELETE}{topic}");
        let message = NewMessage {
            flag: 0,
            sys_flag: 0,
            born_timestamp: now_ms,
            born_host: nobody,
            store_host: nobody,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: &[],
        };
        let mut batch = Batch::new();
        batch.push(self, self.queues.intern(SYSTEM_TOPIC, 0)?, &message)?;
        let mut log = self.log.lock();
        let appended = self.append(&mut log, &mut batch, now_ms, Origin::Own)?;
        // Still under the log lock: what is appended later belongs to the new topic.
        self.reset_topic(topic, appended.start);
        Ok(appended)
    }
}
