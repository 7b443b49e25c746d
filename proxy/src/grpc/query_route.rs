//! Which queues a topic has. Their address is where the client reached us.

use protocol::grpc::{
    Address, AddressScheme, Broker, Code, Endpoints, MessageQueue, Permission, QueryRouteRequest,
    QueryRouteResponse, Resource,
};

use super::check;
use super::context::Context;
use super::status::{Failure, ok};
use crate::backend::route::Holder;
use crate::front::Front;

pub(super) async fn query_route(
    front: &Front,
    context: &Context,
    request: QueryRouteRequest,
) -> Result<QueryRouteResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let endpoints = endpoints(context, request.endpoints.as_ref())?;
    let route = front.route(topic).await?;
    let accepted: Vec<i32> = front.accepted(topic).await.into_iter().map(i32::from).collect();
    let mut queues = Vec::new();
    for holder in &route.brokers {
        let broker =
            Broker { name: holder.broker.clone(), id: 0, endpoints: Some(endpoints.clone()) };
        for (id, permission) in permissions(holder).take(QUEUES_MAX).enumerate() {
            queues.push(MessageQueue {
                topic: request.topic.clone(),
                id: i32::try_from(id).expect("below the limit"),
                permission: permission.into(),
                broker: Some(broker.clone()),
                accept_message_types: accepted.clone(),
            });
        }
    }
    Ok(QueryRouteResponse { status: Some(ok()), message_queues: queues })
}

/// Queues of one broker that are told to a client.
const QUEUES_MAX: usize = 16_384;

/// What may be done with each queue of a broker, in the order of their ids.
fn permissions(holder: &Holder) -> impl Iterator<Item = Permission> {
    let (read, write) = (holder.read_queues as usize, holder.write_queues as usize);
    let both = read.min(write);
    let (reads, writes, boths, none) = match (holder.readable, holder.writable) {
        (true, true) => (read - both, write - both, both, 0),
        (true, false) => (read, 0, 0, 0),
        (false, true) => (0, write, 0, 0),
        (false, false) => (0, 0, 0, read.max(write).max(1)),
    };
    let some = |permission, count| std::iter::repeat_n(permission, count);
    some(Permission::Read, reads)
        .chain(some(Permission::Write, writes))
        .chain(some(Permission::ReadWrite, boths))
        .chain(some(Permission::None, none))
}

/// Where a client shall go: what our listener says of itself, else what the client dialled.
pub(super) fn endpoints(
    context: &Context,
    dialled: Option<&Endpoints>,
) -> Result<Endpoints, Failure> {
    if let Some(advertised) = &context.connection.advertise {
        return Ok(advertised.clone());
    }
    let Some(dialled) = dialled.filter(|dialled| !dialled.addresses.is_empty()) else {
        let local = context.connection.local;
        return Ok(endpoints_of(&local.ip().to_string(), local.port()));
    };
    let usable =
        |address: &Address| !address.host.is_empty() && (1..=65_535).contains(&address.port);
    if !dialled.addresses.iter().all(usable) {
        let message = "an endpoint has no host or no port";
        return Err(Failure::new(Code::IllegalAccessPoint, message));
    }
    let mut dialled = dialled.clone();
    if dialled.scheme() == AddressScheme::Unspecified {
        let first = &dialled.addresses[0];
        let port = u16::try_from(first.port).expect("checked above");
        dialled.scheme = endpoints_of(&first.host, port).scheme;
    }
    Ok(dialled)
}

/// One address with the scheme its host calls for.
pub fn endpoints_of(host: &str, port: u16) -> Endpoints {
    let scheme = match host.parse() {
        Ok(std::net::IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(std::net::IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    };
    let address = Address { host: host.to_owned(), port: port.into() };
    Endpoints { scheme: scheme.into(), addresses: vec![address] }
}

/// A broker as clients see it.
pub(super) fn broker(name: &str, endpoints: &Endpoints) -> Broker {
    Broker { name: name.to_owned(), id: 0, endpoints: Some(endpoints.clone()) }
}

/// One queue, or with id −1 all of a broker's.
pub(super) fn queue(
    topic: &Resource,
    id: i32,
    permission: Permission,
    broker: Broker,
    accepted: &[i32],
) -> MessageQueue {
    MessageQueue {
        topic: Some(topic.clone()),
        id,
        permission: permission.into(),
        broker: Some(broker),
        accept_message_types: accepted.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_listed_read_only_write_only_both_or_none() {
        let holder = |read, write, readable, writable| Holder {
            broker: "b".to_owned(),
            cluster: "c".to_owned(),
            address: "a:1".to_owned(),
            read_queues: read,
            write_queues: write,
            readable,
            writable,
        };
        use Permission::{None, Read, ReadWrite, Write};
        for (holder, expected) in [
            (holder(2, 2, true, true), vec![ReadWrite, ReadWrite]),
            (holder(3, 2, true, true), vec![Read, ReadWrite, ReadWrite]),
            (holder(1, 2, true, true), vec![Write, ReadWrite]),
            (holder(2, 1, true, false), vec![Read, Read]),
            (holder(2, 1, false, true), vec![Write]),
            (holder(2, 1, false, false), vec![None, None]),
        ] {
            assert_eq!(permissions(&holder).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_endpoint_has_the_scheme_of_its_host() {
        for (host, scheme) in [
            ("10.0.0.1", AddressScheme::IPv4),
            ("::1", AddressScheme::IPv6),
            ("mq.example", AddressScheme::DomainName),
        ] {
            assert_eq!(endpoints_of(host, 1).scheme(), scheme);
        }
    }
}
