//! Topics: where they are, and which there are.

use protocol::body::{TopicList, TopicRouteData};
use protocol::frame::Command;
use protocol::header::route::{
    DeleteTopicFromNamesrv, GetRouteInfo, GetTopicsByCluster, RegisterTopic,
};
use protocol::json::{self, Dialect};
use protocol::language::version;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use tracing::warn;

use super::{Answer, at_leisure, body, done, failed, unreadable};
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::routes::{UnitKind, View};
use crate::server::NameServer;

/// The zone a broker or a client is in, beside the fields of any header.
pub(crate) const ZONE_NAME: &str = "__ZONE_NAME";
/// Whether a client wants brokers of its own zone only.
const ZONE_MODE: &str = "__ZONE_MODE";

pub(crate) fn route(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: GetRouteInfo = request.fields.read()?;
    let config = server.config.load();
    if config.wait_ms > 0 && clock::now_ms() - server.started_ms < config.wait_ms {
        return Err(failed("name server not ready"));
    }
    let topic = header.topic.as_str();
    let route = server.routes.read().route(topic);
    let Some(route) = route else { return Err(unknown_topic(topic)) };
    let zone_mode = request.fields.get(ZONE_MODE).is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let zone = request.fields.get(ZONE_NAME).filter(|zone| zone_mode && !zone.trim().is_empty());
    let view = View { acting_master: config.support_acting_master, zone };
    let ordered = config.order_message_enable;
    let order = if ordered { server.kv.get(ORDER_TOPIC_CONFIG, topic) } else { None };
    let standard =
        request.version >= version::V4_9_4 || header.accept_standard_json_only == Some(true);
    let dialect = if standard { Dialect::Standard } else { Dialect::Fastjson };
    Ok(done().with_body(json::write(&route.show(topic, view, order), dialect)))
}

fn unknown_topic(topic: &str) -> Refusal {
    let remark = format!(
        "No topic route info in name server for the topic: {topic}\n\
         See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
    );
    Refusal::new(ReplyCode::TopicNotExist, remark)
}

pub(crate) fn register(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: RegisterTopic = request.fields.read()?;
    let data: TopicRouteData = json::read(&request.body).map_err(unreadable)?;
    if !server.routes.write().add_topic(&header.topic, &data.queue_datas) {
        // Stock reports success as well.
        warn!(topic = header.topic, "not registering a topic on brokers that are not registered");
    }
    Ok(done())
}

pub(crate) fn delete(server: &NameServer, request: &Command<'_>) -> Answer {
    let header: DeleteTopicFromNamesrv = request.fields.read()?;
    let cluster = header.cluster_name.as_deref().filter(|cluster| !cluster.is_empty());
    server.routes.write().delete_topic(&header.topic, cluster);
    Ok(done())
}

pub(crate) fn list_all(server: &NameServer) -> Answer {
    enabled(server.config.load().accept_all_topic_list)?;
    list(server, |routes| routes.topics())
}

pub(crate) fn list_of_cluster(server: &NameServer, request: &Command<'_>) -> Answer {
    enabled(server.config.load().accept_topic_list)?;
    let header: GetTopicsByCluster = request.fields.read()?;
    list(server, |routes| routes.topics_of_cluster(&header.cluster))
}

pub(crate) fn list_system(server: &NameServer) -> Answer {
    list(server, |routes| routes.system_topics())
}

pub(crate) fn list_unit(server: &NameServer, kind: UnitKind) -> Answer {
    enabled(server.config.load().accept_topic_list)?;
    list(server, |routes| routes.unit_topics(kind))
}

/// A list may name every topic there is.
fn list(server: &NameServer, of: impl FnOnce(&crate::routes::Table) -> TopicList) -> Answer {
    Ok(at_leisure(|| {
        let list = of(&server.routes.read());
        body(&list)
    }))
}

fn enabled(setting: bool) -> Result<(), Refusal> {
    if setting { Ok(()) } else { Err(failed("disable")) }
}
