//! Key-value configuration.

use protocol::body::KVTable;
use protocol::frame::Command;
use protocol::header::route::{
    DeleteKvConfig, GetKvConfig, GetKvConfigReply, GetKvListByNamespace, PutKvConfig,
};
use protocol::reply::{Refusal, ReplyCode};

use super::{Answer, at_leisure, body, done, failed};
use crate::server::NameServer;

pub(crate) fn put(server: &NameServer, request: &Command<'_>) -> Answer {
    let PutKvConfig { namespace, key, value } = request.fields.read()?;
    at_leisure(|| server.kv.put(&namespace, &key, &value)).map_err(failed)?;
    Ok(done())
}

pub(crate) fn get(server: &NameServer, request: &Command<'_>) -> Answer {
    let GetKvConfig { namespace, key } = request.fields.read()?;
    match server.kv.get(&namespace, &key) {
        Some(value) => Ok(Command::reply(&GetKvConfigReply { value: Some(value) })),
        None => Err(not_found(format!("No config item, Namespace: {namespace} Key: {key}"))),
    }
}

pub(crate) fn delete(server: &NameServer, request: &Command<'_>) -> Answer {
    let DeleteKvConfig { namespace, key } = request.fields.read()?;
    at_leisure(|| server.kv.delete(&namespace, &key)).map_err(failed)?;
    Ok(done())
}

pub(crate) fn list(server: &NameServer, request: &Command<'_>) -> Answer {
    let GetKvListByNamespace { namespace } = request.fields.read()?;
    match server.kv.list(&namespace) {
        Some(table) => Ok(body(&KVTable { table })),
        None => Err(not_found(format!("No config item, Namespace: {namespace}"))),
    }
}

fn not_found(remark: String) -> Refusal {
    Refusal::new(ReplyCode::QueryNotFound, remark)
}
