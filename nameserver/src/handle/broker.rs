//! Brokers: who they are, whether they live, whether they may be written to.

use protocol::body::{
    DataVersion, GetBrokerMemberGroupResponseBody, KVTable, RegisterBrokerBody,
    TopicConfigAndMappingSerializeWrapper, body_crc32,
};
use protocol::frame::Command;
use protocol::header::route::{
    AddWritePermOfBroker, AddWritePermOfBrokerReply, BrokerHeartbeat, GetBrokerMemberGroup,
    QueryDataVersion, QueryDataVersionReply, RegisterBroker, RegisterBrokerReply, UnregisterBroker,
    WipeWritePermOfBroker, WipeWritePermOfBrokerReply,
};
use protocol::json::{self, Dialect};
use protocol::language::version;
use protocol::reply::Refusal;
use remoting::clock;
use tracing::{info, warn};

use super::{Answer, at_leisure, body, done, failed, unreadable};
use crate::dispatch::Connection;
use crate::handle::topic::ZONE_NAME;
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::routes::{Leaving, Registered, Registration, Rejected};
use crate::server::NameServer;

/// Bodies from this size on are read while other connections go on.
const LARGE_BODY_BYTES: usize = 32 * 1024;

pub(crate) fn register(
    server: &NameServer,
    connection: &mut Connection,
    request: &Command<'_>,
) -> Answer {
    let header: RegisterBroker = request.fields.read()?;
    for (what, text) in [
        ("clusterName", &header.cluster_name),
        ("brokerName", &header.broker_name),
        ("brokerAddr", &header.broker_addr),
    ] {
        if text.is_empty() {
            return Err(failed(format_args!("the field `{what}` is empty")));
        }
    }
    let crc = header.body_crc32.unwrap_or(0);
    if crc != 0 && crc != body_crc32(&request.body) {
        return Err(failed("crc32 not match"));
    }
    connection.of_broker = true;
    let answer = if request.body.len() < LARGE_BODY_BYTES {
        take_in(server, connection.peer.id, header, request)?
    } else {
        at_leisure(|| take_in(server, connection.peer.id, header, request))?
    };
    let mut reply = Command::reply(&RegisterBrokerReply {
        ha_server_addr: answer.master.as_ref().map(|master| master.ha_address.clone()),
        master_addr: answer.master.map(|master| master.address),
    });
    if server.config.load().return_order_topic_config_to_broker
        && let Some(table) = server.kv.list(ORDER_TOPIC_CONFIG)
    {
        reply = reply.with_body(json::write(&KVTable { table }, Dialect::Fastjson));
    }
    Ok(reply)
}

fn take_in(
    server: &NameServer,
    connection: u64,
    header: RegisterBroker,
    request: &Command<'_>,
) -> Result<Registered, Refusal> {
    let (topics, filter_servers) = registered_body(request, header.compressed)?;
    let registration = Registration {
        cluster: header.cluster_name,
        name: header.broker_name,
        id: header.broker_id,
        address: header.broker_addr,
        ha_address: header.ha_server_addr,
        zone: request.fields.get(ZONE_NAME).map(str::to_owned),
        silence_max_ms: header.heartbeat_timeout_millis,
        acting_master: header.enable_acting_master,
        version: topics.data_version,
        topics: topics.topic_config_table,
        mappings: topics.topic_queue_mapping_info_map,
        filter_servers,
        connection,
    };
    match server.register(&registration, clock::now_ms()) {
        Ok(registered) => {
            if registered.first {
                let Registration { name, id, address, .. } = &registration;
                info!(name, id, address, topics = registration.topics.len(), "a broker is here");
            }
            Ok(registered)
        }
        Err(rejected @ Rejected::Outdated { .. }) => {
            // The broker is not told: it goes on registering until the other is gone.
            let Registration { name, id, address, .. } = &registration;
            warn!(name, id, address, %rejected, "ignoring a registration");
            Ok(Registered::default())
        }
        Err(rejected) => Err(failed(rejected)),
    }
}

/// The topics a broker names, and its filter servers if it is of a kind that names them.
fn registered_body(
    request: &Command<'_>,
    compressed: bool,
) -> Result<(TopicConfigAndMappingSerializeWrapper, Option<Vec<String>>), Refusal> {
    let of_old = request.version < version::V3_0_11;
    if request.body.is_empty() {
        return Ok((Default::default(), if of_old { None } else { Some(Vec::new()) }));
    }
    if of_old {
        return Ok((json::read(&request.body).map_err(unreadable)?, None));
    }
    let body = RegisterBrokerBody::decode(&request.body, compressed).map_err(failed)?;
    Ok((body.topic_config_serialize_wrapper, Some(body.filter_server_list)))
}

pub(crate) fn unregister(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: UnregisterBroker = request.fields.read()?;
    server.unregister(Leaving { name: header.broker_name, address: header.broker_addr });
    Ok(done())
}

pub(crate) fn heartbeat(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: BrokerHeartbeat = request.fields.read()?;
    let now_ms = clock::now_ms();
    server.routes.write().seen(&header.broker_name, &header.broker_addr, now_ms);
    Ok(done())
}

pub(crate) fn query_data_version(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: QueryDataVersion = request.fields.read()?;
    let asked: DataVersion = json::read(&request.body).map_err(unreadable)?;
    let now_ms = clock::now_ms();
    let known = {
        let mut routes = server.routes.write();
        routes.seen(&header.broker_name, &header.broker_addr, now_ms);
        routes.version(&header.broker_name, &header.broker_addr)
    };
    let reply = Command::reply(&QueryDataVersionReply { changed: known != Some(asked) });
    Ok(match known {
        Some(version) => reply.with_body(json::write(&version, Dialect::Fastjson)),
        None => reply,
    })
}

pub(crate) fn member_group(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: GetBrokerMemberGroup = request.fields.read()?;
    let members = server.routes.read().members(&header.cluster_name, &header.broker_name);
    Ok(body(&GetBrokerMemberGroupResponseBody { broker_member_group: Some(members) }))
}

pub(crate) fn cluster_info(server: &NameServer) -> Answer {
    let clusters = server.routes.read().clusters();
    Ok(body(&clusters))
}

pub(crate) fn wipe_write_perm(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: WipeWritePermOfBroker = request.fields.read()?;
    let count = server.routes.write().wipe_write_perm(&header.broker_name);
    info!(broker = header.broker_name, count, "its topics can no longer be sent to");
    Ok(Command::reply(&WipeWritePermOfBrokerReply { wipe_topic_count: counted(count) }))
}

pub(crate) fn add_write_perm(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: AddWritePermOfBroker = request.fields.read()?;
    let count = server.routes.write().add_write_perm(&header.broker_name);
    info!(broker = header.broker_name, count, "its topics can be sent to");
    Ok(Command::reply(&AddWritePermOfBrokerReply { add_topic_count: counted(count) }))
}

fn counted(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
