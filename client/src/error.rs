//! What can go wrong for a user of the SDK, and what to do about it.

use std::time::Duration;

use protocol::grpc::{self, Code};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something given by the caller; the same call will fail again.
    #[error("{what} cannot be used: {why}")]
    Invalid { what: &'static str, why: String },
    /// No proxy could be reached; the SDK goes on trying in the background.
    #[error(
        "no server could be reached at {endpoints} ({reason}); check the address, TLS or plaintext, and that a proxy runs there"
    )]
    Unreachable { endpoints: String, reason: String },
    /// What was asked for may have happened nevertheless.
    #[error("no answer came within {0:?}; a message may have been stored all the same")]
    TimedOut(Duration),
    #[error("the server cannot keep up ({reason}); send less, or try again later")]
    Throttled { reason: String },
    #[error("topic {topic} is not known to the server; create it, or check its name")]
    TopicNotFound { topic: String },
    #[error("the consumer group is not known to the server ({reason}); create it first")]
    GroupNotFound { reason: String },
    #[error("the credentials were not accepted ({reason}); check access key and secret")]
    Unauthenticated { reason: String },
    #[error("this is not allowed with these credentials ({reason}); ask for the permission")]
    Forbidden { reason: String },
    /// The message was settled already, or its time ran out and it is delivered again.
    #[error("the receipt is no longer valid ({reason}); the message is settled or comes again")]
    ReceiptInvalid { reason: String },
    #[error("the topic does not take messages of this type ({reason}); use the topic made for it")]
    WrongMessageType { reason: String },
    /// Stored, but not yet as safely as the server is told to: sending it again gives a duplicate.
    #[error("the message is stored on fewer disks than wanted ({code:?}: {reason})")]
    StoredUnsafely { code: Code, reason: String },
    #[error("the server failed ({code}: {reason}); try again later, its log says more")]
    Server { code: i32, reason: String },
    #[error("the server refused ({code}: {reason})")]
    Refused { code: i32, reason: String },
    #[error("the server's answer makes no sense: {0}")]
    Answer(String),
    #[error("the client has been shut down")]
    Closed,
}

impl Error {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }

    /// Whether the same call may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut(_)
            | Self::Throttled { .. }
            | Self::StoredUnsafely { .. }
            | Self::Server { .. } => true,
            Self::Invalid { .. }
            | Self::TopicNotFound { .. }
            | Self::GroupNotFound { .. }
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::ReceiptInvalid { .. }
            | Self::WrongMessageType { .. }
            | Self::Refused { .. }
            | Self::Answer(_)
            | Self::Closed => false,
        }
    }
}

/// What the status of an answer means; `topic` is named if it turns out to be missing.
pub(crate) fn check(status: Option<&grpc::Status>, topic: &str) -> Result<(), Error> {
    let Some(status) = status else {
        return Err(Error::Answer("it has no status".to_owned()));
    };
    let reason = status.message.clone();
    let Ok(code) = Code::try_from(status.code) else {
        return Err(unknown(status.code, reason));
    };
    Err(match code {
        Code::Ok | Code::MultipleResults => return Ok(()),
        Code::TooManyRequests
        | Code::LiteTopicQuotaExceeded
        | Code::LiteSubscriptionQuotaExceeded => Error::Throttled { reason },
        Code::TopicNotFound => Error::TopicNotFound { topic: topic.to_owned() },
        Code::ConsumerGroupNotFound => Error::GroupNotFound { reason },
        Code::Unauthorized => Error::Unauthenticated { reason },
        Code::Forbidden => Error::Forbidden { reason },
        Code::InvalidReceiptHandle => Error::ReceiptInvalid { reason },
        Code::MessagePropertyConflictWithType => Error::WrongMessageType { reason },
        Code::MasterPersistenceTimeout | Code::SlavePersistenceTimeout | Code::HaNotAvailable => {
            Error::StoredUnsafely { code, reason }
        }
        _ => unknown(status.code, reason),
    })
}

fn unknown(code: i32, reason: String) -> Error {
    const SERVER: std::ops::Range<i32> = 50_000..50_100;
    const SERVER_TIMEOUT: std::ops::Range<i32> = 50_400..50_500;
    match code {
        code if SERVER.contains(&code) || SERVER_TIMEOUT.contains(&code) => {
            Error::Server { code, reason }
        }
        code => Error::Refused { code, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32) -> Result<(), Error> {
        check(Some(&grpc::Status { code, message: "why".to_owned() }), "orders")
    }

    #[test]
    fn an_error_of_the_server_is_tried_again_and_one_of_the_caller_is_not() {
        for code in [42900, 50000, 50001, 50002, 50400, 50401, 50402, 50099] {
            assert!(of(code).unwrap_err().is_retryable(), "{code}");
        }
        for code in [40000, 40002, 40014, 40100, 40300, 40402, 41301, 43101, 50100, 50500, 60000] {
            assert!(!of(code).unwrap_err().is_retryable(), "{code}");
        }
        assert!(of(20000).is_ok() && of(30000).is_ok());
    }

    #[test]
    fn a_code_of_a_later_protocol_is_an_error_like_its_kind() {
        assert!(matches!(of(40999), Err(Error::Refused { code: 40999, .. })));
        assert!(matches!(of(0), Err(Error::Refused { code: 0, .. })));
        assert!(matches!(check(None, "orders"), Err(Error::Answer(_))));
    }

    #[test]
    fn a_missing_topic_is_named() {
        let error = of(40402).unwrap_err();
        assert!(error.to_string().contains("topic orders is not known"), "{error}");
    }
}
