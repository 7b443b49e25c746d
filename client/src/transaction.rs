//! A message that waits for its sender to say whether it counts.

use std::sync::Arc;

use protocol::grpc::{self, TransactionResolution, TransactionSource};

use crate::core::Core;
use crate::endpoints::Address;
use crate::error::{self, Error};
use crate::name::Topic;
use crate::producer::Receipt;
use crate::session::Stub;

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Consumers get the message.
    Commit,
    /// Nobody gets it.
    Rollback,
    /// Not known yet: the server asks again later.
    Unknown,
}

/// A message sent with [`send_in_transaction`](crate::Producer::send_in_transaction). Dropped without a word, the
/// server asks the producer's checker what became of it.
#[derive(Debug)]
#[must_use = "the message is not delivered before the transaction is committed"]
pub struct Transaction {
    pub(crate) core: Arc<Core>,
    /// The proxy that knows of it.
    pub(crate) proxy: Address,
    pub(crate) topic: Topic,
    pub receipt: Receipt,
}

impl Transaction {
    /// Lets consumers have the message.
    pub async fn commit(self) -> Result<(), Error> {
        self.resolve(Resolution::Commit, TransactionSource::SourceClient).await
    }

    /// Forgets the message.
    pub async fn rollback(self) -> Result<(), Error> {
        self.resolve(Resolution::Rollback, TransactionSource::SourceClient).await
    }

    pub(crate) async fn resolve(
        &self,
        resolution: Resolution,
        source: TransactionSource,
    ) -> Result<(), Error> {
        let resolution = match resolution {
            Resolution::Commit => TransactionResolution::Commit,
            Resolution::Rollback => TransactionResolution::Rollback,
            Resolution::Unknown => return Ok(()),
        };
        let request = grpc::EndTransactionRequest {
            topic: Some(self.core.resource(self.topic.as_str())),
            message_id: self.receipt.message_id.clone(),
            transaction_id: self.receipt.transaction_id.clone(),
            resolution: resolution.into(),
            source: source.into(),
            trace_context: String::new(),
        };
        let call = |mut stub: Stub, request| async move {
            stub.end_transaction(request).await.map(tonic::Response::into_inner)
        };
        let proxies = std::slice::from_ref(&self.proxy);
        let (_, answer) = self.core.call(proxies, request, call).await?;
        error::check(answer.status.as_ref(), self.topic.as_str())
    }
}
