//! How a request went, in the codes of the protocol.

use std::borrow::Cow;

use protocol::grpc::{Code, Status};
use protocol::reply::ReplyCode;
use remoting::pool::Failed;

/// Why a request was not served: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Failure {
    pub code: Code,
    pub message: Cow<'static, str>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn status(self) -> Status {
        status(self.code, self.message)
    }
}

/// A status with its sentence.
pub fn status(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
    Status { code: code.into(), message: message.into().into_owned() }
}

/// Success.
pub fn ok() -> Status {
    status(Code::Ok, "OK")
}

/// What many results come to: the one code they share, or that they differ. Clients look for the code's name
/// in the text; people read why.
pub fn overall<'s>(statuses: impl IntoIterator<Item = &'s Option<Status>>) -> Status {
    let mut codes = statuses.into_iter().flatten();
    let Some(first) = codes.next() else { return ok() };
    if codes.all(|other| other.code == first.code) {
        let name = first.code().as_str_name();
        let message = match first.message.as_str() {
            why if why == name => name.to_owned(),
            why => format!("{name}: {why}"),
        };
        Status { code: first.code, message }
    } else {
        status(Code::MultipleResults, "MULTIPLE_RESULTS")
    }
}

/// What a broker's answer means here.
impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let message = failed.to_string();
        match failed {
            Failed::Refused { code, remark } => Self::new(refused(code), remark),
            Failed::Call(remoting::peer::CallError::Timeout { .. }) => {
                Self::new(Code::ProxyTimeout, message)
            }
            Failed::Call(_) | Failed::Unreadable(_) => {
                Self::new(Code::InternalServerError, message)
            }
        }
    }
}

fn refused(code: i32) -> Code {
    match ReplyCode::from_wire(code) {
        Some(ReplyCode::Success) => Code::Ok,
        Some(ReplyCode::SystemBusy | ReplyCode::FlowControl) => Code::TooManyRequests,
        Some(ReplyCode::RequestCodeNotSupported) => Code::NotImplemented,
        Some(ReplyCode::SubscriptionGroupNotExist) => Code::ConsumerGroupNotFound,
        Some(ReplyCode::TopicNotExist) => Code::TopicNotFound,
        Some(ReplyCode::SubscriptionParseFailed) => Code::IllegalFilterExpression,
        Some(ReplyCode::NoPermission) => Code::Forbidden,
        _ => Code::InternalServerError,
    }
}
