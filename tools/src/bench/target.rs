//! The server under load: its address, its topics, its offsets.

use anyhow::{Context, Result, bail};
use protocol::frame::{Command, Encoding};
use protocol::header::Empty;
use protocol::header::offset::{GetMaxOffset, GetMaxOffsetReply, GetMinOffset, GetMinOffsetReply};
use protocol::header::route::GetRouteInfo;
use protocol::header::topic::CreateTopic;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use serde_json::json;

use super::wire::Wire;

/// The topic every broker with automatic creation has.
const TEMPLATE_TOPIC: &str = "TBW102";
/// Topics created by one request, where the server knows how.
const TOPICS_PER_REQUEST: usize = 500;

/// Where to send, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The broker, host:port
    #[arg(long, default_value = "127.0.0.1:10911")]
    pub(super) broker: String,
    /// Ask this nameserver, host:port, for the broker instead
    #[arg(long)]
    pub(super) namesrv: Option<String>,
    /// The form of the request headers
    #[arg(long, value_enum, default_value_t = Header::Json)]
    pub(super) header: Header,
    /// Also report what this process, the server, uses
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    /// Print the figures as one line of JSON at the end
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Header {
    Json,
    Binary,
}

impl From<Header> for Encoding {
    fn from(header: Header) -> Self {
        match header {
            Header::Json => Self::Json,
            Header::Binary => Self::Binary,
        }
    }
}

impl Target {
    /// The address of the broker, looked up if need be.
    pub(super) fn address(&self) -> Result<String> {
        let Some(namesrv) = &self.namesrv else { return Ok(self.broker.clone()) };
        let route = GetRouteInfo {
            topic: TEMPLATE_TOPIC.to_owned(),
            // Otherwise the body is fastjson's, with numbers as keys.
            accept_standard_json_only: Some(true),
        };
        let request = Command::request(RequestCode::GetRouteInfo.to_wire(), &route);
        let reply = Wire::connect(namesrv)?.ask(&request)?;
        let route: serde_json::Value = serde_json::from_slice(&reply.body)?;
        let master = route["brokerDatas"][0]["brokerAddrs"]["0"].as_str();
        master.map(str::to_owned).with_context(|| format!("{namesrv} knows no master"))
    }
}

/// Where the broker's log ends.
pub(super) fn log_end(broker: &str) -> Result<i64> {
    let request = Command::request(RequestCode::GetBrokerRuntimeInfo.to_wire(), &Empty {});
    let reply = Wire::connect(broker)?.ask(&request)?;
    let info: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let end = info["table"]["commitLogMaxOffset"].as_str();
    end.and_then(|end| end.parse().ok()).context("the broker does not say where its log ends")
}

/// The names of `count` topics that begin with `name`.
pub(super) fn topic_names(name: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![name.to_owned()],
        _ => (0..count).map(|number| format!("{name}-{number}")).collect(),
    }
}

/// Creates topics of `queues` queues each, at the broker.
pub(super) fn create_topics(wire: &mut Wire, names: &[String], queues: i32) -> Result<()> {
    if names.len() > 1 && create_lists(wire, names, queues)? {
        return Ok(());
    }
    for name in names {
        let topic = CreateTopic::plain(name, queues);
        wire.ask(&Command::request(RequestCode::UpdateTopic.to_wire(), &topic))?;
    }
    Ok(())
}

/// Creates many topics with few requests; `false` if the server cannot.
fn create_lists(wire: &mut Wire, names: &[String], queues: i32) -> Result<bool> {
    for names in names.chunks(TOPICS_PER_REQUEST) {
        let topic = |name: &String| {
            json!({
                "topicName": name, "readQueueNums": queues, "writeQueueNums": queues, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": false
            })
        };
        let list = json!({ "topicConfigList": names.iter().map(topic).collect::<Vec<_>>() });
        let request = Command::request(RequestCode::UpdateTopicList.to_wire(), &Empty {})
            .with_body(list.to_string());
        let reply = wire.call(&request)?;
        match ReplyCode::from_wire(reply.code) {
            Some(ReplyCode::Success) => {}
            Some(ReplyCode::RequestCodeNotSupported) => return Ok(false),
            _ => bail!("creating topics was refused with {}: {:?}", reply.code, reply.remark),
        }
    }
    Ok(true)
}

/// The offset of the first message a queue holds and that after its last.
pub(super) fn offsets(wire: &mut Wire, topic: &str, queue_id: i32) -> Result<(i64, i64)> {
    let topic = topic.to_owned();
    let min = GetMinOffset { topic: topic.clone(), queue_id };
    let max = GetMaxOffset { topic, queue_id, committed: true };
    let min = wire.ask(&Command::request(RequestCode::GetMinOffset.to_wire(), &min))?;
    let max = wire.ask(&Command::request(RequestCode::GetMaxOffset.to_wire(), &max))?;
    let (min, max): (GetMinOffsetReply, GetMaxOffsetReply) =
        (min.fields.read()?, max.fields.read()?);
    Ok((min.offset, max.offset))
}
