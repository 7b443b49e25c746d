//! Commits or rolls back a transactional message.
//!
//! The transaction id says itself where the half message lies, so that any proxy can end any transaction.

use std::fmt;

use protocol::frame::Command;
use protocol::grpc::{
    Code, EndTransactionRequest, EndTransactionResponse, TransactionResolution, TransactionSource,
};
use protocol::header::transaction::EndTransaction;
use protocol::record::sys_flag;
use protocol::request::RequestCode;

use super::check;
use super::status::{Failure, ok};
use crate::front::Front;

/// A half message: its id, its broker, and where it lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionId<'a> {
    pub(crate) message_id: &'a str,
    pub(crate) broker: &'a str,
    pub(crate) position: i64,
    pub(crate) queue_offset: i64,
}

impl fmt::Display for TransactionId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_id, broker, position, queue_offset } = self;
        write!(f, "{message_id}@{position}@{queue_offset}@{broker}")
    }
}

impl<'a> TransactionId<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.splitn(4, '@');
        let message_id = words.next()?;
        let position = words.next()?.parse().ok()?;
        let queue_offset = words.next()?.parse().ok()?;
        let broker = words.next().filter(|broker| !broker.is_empty())?;
        Some(Self { message_id, broker, position, queue_offset })
    }
}

pub(super) async fn end_transaction(
    front: &Front,
    request: EndTransactionRequest,
) -> Result<EndTransactionResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let unknown = |message| Failure::new(Code::InvalidTransactionId, message);
    if request.transaction_id.trim().is_empty() {
        return Err(unknown("the transaction id is blank"));
    }
    let id = TransactionId::parse(&request.transaction_id)
        .ok_or_else(|| unknown("the transaction id is not one of ours"))?;
    let commit_or_rollback = match request.resolution() {
        TransactionResolution::Commit => sys_flag::TRANSACTION_COMMIT,
        TransactionResolution::Rollback => sys_flag::TRANSACTION_ROLLBACK,
        TransactionResolution::Unspecified => sys_flag::TRANSACTION_NOT,
    };
    let header = EndTransaction {
        topic: Some(topic.to_owned()),
        producer_group: topic.to_owned(),
        tran_state_table_offset: id.queue_offset,
        commit_log_offset: id.position,
        commit_or_rollback,
        from_transaction_check: Some(request.source() == TransactionSource::SourceServerCheck),
        msg_id: request.message_id.clone(),
        transaction_id: Some(id.message_id.to_owned()),
    };
    let command = Command::request(RequestCode::EndTransaction.to_wire(), &header);
    if commit_or_rollback == sys_flag::TRANSACTION_NOT {
        // Brokers do not answer to a state that is still unknown; they ask again by themselves.
        return Ok(EndTransactionResponse { status: Some(ok()) });
    }
    front.backend.command(id.broker, command).await?;
    Ok(EndTransactionResponse { status: Some(ok()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_id_says_where_its_half_message_lies() {
        let id = TransactionId { message_id: "01AB", broker: "b@x", position: 5, queue_offset: 6 };
        assert_eq!(id.to_string(), "01AB@5@6@b@x");
        assert_eq!(TransactionId::parse("01AB@5@6@b@x"), Some(id));
        for bad in ["", "01AB", "01AB@5@6", "01AB@5@6@", "01AB@x@6@b"] {
            assert_eq!(TransactionId::parse(bad), None, "{bad}");
        }
    }
}
