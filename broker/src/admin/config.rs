//! The broker's settings, read and changed while it runs.

use protocol::frame::Command;
use protocol::header::stats::GetBrokerConfigReply;
use protocol::java_properties;
use protocol::json::{self, Dialect};
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use tracing::info;

use super::{done, failed};
use crate::answer::{Context, Outcome};
use crate::broker::invalid;
use crate::config::ConfigError;
use crate::process::retention;

/// Code 26.
pub fn get(context: &Context<'_>) -> Outcome {
    let config = context.broker.config.load();
    let version = json::write(&config.version, Dialect::Standard);
    let version = String::from_utf8(version).expect("JSON is text");
    let text = java_properties::write(config.pairs());
    Ok(Command::reply(&GetBrokerConfigReply { version }).with_body(text))
}

/// Code 25: all changes, or none. They hold over the configuration file also after a restart.
pub fn update(context: &Context<'_>) -> Outcome {
    let text = std::str::from_utf8(&context.request.body)
        .map_err(|error| invalid(format_args!("the settings are not text: {error}")))?;
    let changes = java_properties::read(text);
    if changes.is_empty() {
        return Ok(done());
    }
    let broker = context.broker;
    let _deciding = broker.deciding.lock();
    let before = broker.config.load_full();
    let mut config = before.updated(changes).map_err(|error| match &error {
        ConfigError::Blacklisted(_) => {
            let remark = format!("Can not update config in black list. {error}");
            Refusal::new(ReplyCode::NoPermission, remark)
        }
        _ => invalid(error),
    })?;
    let now_ms = clock::now_ms();
    config.version.next_version(0, now_ms);
    config.keep_changes().map_err(|error| {
        failed(format!("the settings cannot be kept for the next start: {error}"))
    })?;
    broker.store.set_retention(retention(&config));
    let permission_changed = config.permission != before.permission;
    info!(changed = ?config.changed, "settings changed");
    broker.config.store(config.into());
    if permission_changed {
        broker.topics.permission_changed(now_ms);
        broker.topic_changes.send_replace(());
    }
    Ok(done())
}
