//! Routes, with the address that a client dialled where the brokers' would be.

use protocol::body::TopicRouteData;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::route::GetRouteInfo;
use protocol::json::{self, Dialect};
use protocol::language::version;
use protocol::reply::{Refusal, ReplyCode};

use super::Outcome;
use super::client::{Client, failed};

pub(super) async fn answer(client: &Client, request: Command<'static>) -> Outcome {
    let header: GetRouteInfo = request.fields.read()?;
    let standard =
        request.version >= version::V4_9_4 || header.accept_standard_json_only == Some(true);
    let reply = client.door.front.backend.nameserver(request).await.map_err(failed)?;
    let mut route: TopicRouteData = json::read(&reply.body).map_err(|error| {
        Refusal::new(ReplyCode::SystemError, format!("the route cannot be read: {error}"))
    })?;
    let ours = match &client.door.advertise {
        Some(address) => address.clone(),
        None => client.peer.local.to_string(),
    };
    shown_at(&mut route, &ours);
    let dialect = if standard { Dialect::Standard } else { Dialect::Fastjson };
    Ok(Command::reply(&Empty {}).with_body(json::write(&route, dialect)))
}

/// Shows every group as the one member that we pass requests on to, at `address`.
fn shown_at(route: &mut TopicRouteData, address: &str) {
    for broker in &mut route.broker_datas {
        let serving = broker.broker_addrs.keys().next().copied();
        broker.broker_addrs = serving.map(|id| (id, address.to_owned())).into_iter().collect();
    }
    route.filter_server_table.clear();
}

#[cfg(test)]
mod tests {
    use protocol::body::BrokerData;

    use super::*;

    #[test]
    fn a_group_is_shown_as_its_lowest_member_at_our_address() {
        let group = |ids: &[i64]| BrokerData {
            broker_addrs: ids.iter().map(|id| (*id, format!("10.0.0.{id}:10911"))).collect(),
            ..BrokerData::default()
        };
        let mut route = TopicRouteData {
            broker_datas: vec![group(&[0, 1, 2]), group(&[2, 3]), group(&[])],
            ..TopicRouteData::default()
        };
        shown_at(&mut route, "proxy:8080");
        let shown: Vec<String> =
            route.broker_datas.iter().map(|it| format!("{:?}", it.broker_addrs)).collect();
        assert_eq!(shown, [r#"{0: "proxy:8080"}"#, r#"{2: "proxy:8080"}"#, "{}"]);
    }
}
