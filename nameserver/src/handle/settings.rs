//! The nameserver's own configuration.

use protocol::frame::Command;
use protocol::java_properties;
use protocol::reply::{Refusal, ReplyCode};

use super::{Answer, at_leisure, done, failed};
use crate::config::NotChanged;
use crate::server::NameServer;

pub(crate) fn update(server: &NameServer, request: &Command<'_>) -> Answer {
    let text = std::str::from_utf8(&request.body).map_err(|_| failed("string2Properties error"))?;
    let changes = java_properties::read(text);
    if changes.is_empty() {
        return Ok(done());
    }
    let kept = at_leisure(|| server.reconfigure(&changes)).map_err(|error| match error {
        NotChanged::Protected => Refusal::new(ReplyCode::NoPermission, error.to_string()),
        NotChanged::Refused(_) => Refusal::new(ReplyCode::InvalidParameter, error.to_string()),
    })?;
    kept.map_err(|error| {
        failed(format_args!("the configuration is changed, but cannot be kept: {error}"))
    })?;
    Ok(done())
}

pub(crate) fn get(server: &NameServer) -> Answer {
    Ok(done().with_body(server.config.load().text()))
}
