//! One function a request: check, do, answer.

use protocol::frame::Command;
use protocol::header::Empty;
use protocol::json::{self, Dialect, JsonError};
use protocol::reply::{Refusal, ReplyCode};
use serde::Serialize;

pub(crate) mod broker;
pub(crate) mod kv;
pub(crate) mod settings;
pub(crate) mod topic;

pub(crate) type Answer = Result<Command<'static>, Refusal>;

/// Success, with nothing more to say.
fn done() -> Command<'static> {
    Command::reply(&Empty {})
}

/// Success, with a body as stock writes it for everybody.
fn body<T: Serialize>(body: &T) -> Command<'static> {
    done().with_body(json::write(body, Dialect::Fastjson))
}

fn failed(remark: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReplyCode::SystemError, remark.to_string())
}

fn unreadable(error: JsonError) -> Refusal {
    failed(format_args!("the body of the request is unreadable: {error}"))
}

/// Does what takes long without keeping the other connections of this thread waiting.
fn at_leisure<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
