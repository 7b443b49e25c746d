//! What a nameserver answers to: a table of contents.

use std::sync::Arc;

use protocol::frame::Command;
use protocol::reply::Refusal;
use protocol::request::RequestCode as Code;
use remoting::connection::Session;
use remoting::outbox::{Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::server::Service;

use crate::handle::{Answer, broker, kv, settings, topic};
use crate::routes::UnitKind;
use crate::server::NameServer;

/// One connection: a client, a tool or a broker.
#[derive(Debug)]
pub(crate) struct Connection {
    server: Arc<NameServer>,
    pub(crate) peer: Arc<Peer>,
    /// Whether a broker registered here, so that its end matters.
    pub(crate) of_broker: bool,
}

impl Service for NameServer {
    type Session = Connection;

    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Connection {
        Connection { server: self.clone(), peer: peer.clone(), of_broker: false }
    }
}

impl Session for Connection {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        let to = ReplyTo::new(&request);
        match self.answer(&request) {
            Ok(reply) => out.now.answer(to, reply),
            Err(refusal) => out.now.refuse(to, &refusal),
        }
    }

    fn flush(&mut self, _: &mut Outbox) {}

    fn closed(&mut self) {
        if self.of_broker {
            self.server.connection_closed(self.peer.id);
        }
    }
}

impl Connection {
    fn answer(&mut self, request: &Command<'_>) -> Answer {
        let server = &self.server.clone();
        let Some(code) = Code::from_wire(request.code) else {
            return Err(Refusal::unsupported(request.code));
        };
        match code {
            Code::RegisterBroker => broker::register(server, self, request),
            Code::UnregisterBroker => broker::unregister(server, request),
            Code::BrokerHeartbeat => broker::heartbeat(server, request),
            Code::QueryDataVersion => broker::query_data_version(server, request),
            Code::GetBrokerMemberGroup => broker::member_group(server, request),
            Code::GetBrokerClusterInfo => broker::cluster_info(server),
            Code::WipeWritePermOfBroker => broker::wipe_write_perm(server, request),
            Code::AddWritePermOfBroker => broker::add_write_perm(server, request),

            Code::GetRouteInfo => topic::route(server, request),
            Code::RegisterTopicInNamesrv => topic::register(server, request),
            Code::DeleteTopicInNamesrv => topic::delete(server, request),
            Code::GetAllTopicList => topic::list_all(server),
            Code::GetTopicsByCluster => topic::list_of_cluster(server, request),
            Code::GetSystemTopicListFromNs => topic::list_system(server),
            Code::GetUnitTopicList => topic::list_unit(server, UnitKind::Unit),
            Code::GetHasUnitSubTopicList => topic::list_unit(server, UnitKind::Subscribed),
            Code::GetHasUnitSubUnunitTopicList => {
                topic::list_unit(server, UnitKind::SubscribedFromOutside)
            }

            Code::PutKvConfig => kv::put(server, request),
            Code::GetKvConfig => kv::get(server, request),
            Code::DeleteKvConfig => kv::delete(server, request),
            Code::GetKvListByNamespace => kv::list(server, request),

            Code::UpdateNamesrvConfig => settings::update(server, request),
            Code::GetNamesrvConfig => settings::get(server),

            _ => Err(Refusal::unsupported(request.code)),
        }
    }
}
