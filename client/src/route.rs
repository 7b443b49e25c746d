//! Which queue a message goes to, and which brokers a consumer asks: choices, made without asking anyone.

use std::hash::Hasher;

use protocol::grpc::{self, MessageType, Permission};
use siphasher::sip::SipHasher24;

use crate::endpoints::{self, Address};

/// The keys every SDK hashes message groups with: the bytes 0 to 15.
const SIP_KEYS: (u64, u64) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);

/// The queues of a topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Route {
    pub(crate) queues: Vec<Queue>,
}

/// One queue, and the proxies that serve it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queue {
    pub(crate) id: i32,
    pub(crate) broker: String,
    pub(crate) broker_id: i32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) accepts: Vec<MessageType>,
    pub(crate) proxies: Vec<Address>,
    /// As it came, to be given back.
    pub(crate) wire: grpc::MessageQueue,
}

impl Queue {
    pub(crate) fn from_wire(wire: grpc::MessageQueue) -> Self {
        let broker = wire.broker.clone().unwrap_or_default();
        let permission = wire.permission();
        Self {
            id: wire.id,
            broker: broker.name,
            broker_id: broker.id,
            readable: matches!(permission, Permission::Read | Permission::ReadWrite),
            writable: matches!(permission, Permission::Write | Permission::ReadWrite),
            accepts: wire.accept_message_types().collect(),
            proxies: endpoints::from_wire(broker.endpoints.as_ref()),
            wire,
        }
    }
}

impl Route {
    pub(crate) fn from_wire(queues: Vec<grpc::MessageQueue>) -> Self {
        Self { queues: queues.into_iter().map(Queue::from_wire).collect() }
    }

    fn writable(&self) -> impl Iterator<Item = &Queue> + Clone {
        const MASTER: i32 = 0;
        self.queues.iter().filter(|queue| queue.writable && queue.broker_id == MASTER)
    }

    /// The queue of all messages of a group, as every SDK chooses it.
    pub(crate) fn queue_of_group(&self, message_group: &str) -> Option<&Queue> {
        let mut hasher = SipHasher24::new_with_keys(SIP_KEYS.0, SIP_KEYS.1);
        hasher.write(message_group.as_bytes());
        let hash = hasher.finish().cast_signed();
        let count = i64::try_from(self.writable().count()).ok().filter(|count| *count > 0)?;
        self.writable().nth(usize::try_from(hash.rem_euclid(count)).ok()?)
    }

    /// The queue for the message of this number, on a broker that has not failed it before if there is one.
    pub(crate) fn queue_in_turn(&self, number: usize, failed: &[String]) -> Option<&Queue> {
        let count = self.writable().count();
        let from = number.checked_rem(count)?;
        let mut in_turn = self.writable().cycle().skip(from).take(count);
        let other = in_turn.clone().find(|queue| !failed.contains(&queue.broker));
        other.or_else(|| in_turn.next())
    }

    /// Whether any queue takes messages of this type; servers that do not say take all.
    pub(crate) fn accepts(&self, kind: MessageType) -> bool {
        let takes = |queue: &Queue| queue.accepts.is_empty() || queue.accepts.contains(&kind);
        self.queues.is_empty() || self.queues.iter().any(takes)
    }

    /// One queue of each broker to read from, standing for all of that broker.
    pub(crate) fn brokers_to_read(&self) -> Vec<grpc::MessageQueue> {
        const ALL_QUEUES: i32 = -1;
        let mut found: Vec<&Queue> = Vec::new();
        for queue in self.queues.iter().filter(|queue| queue.readable) {
            if !found.iter().any(|known| known.broker == queue.broker) {
                found.push(queue);
            }
        }
        let all = |queue: &Queue| grpc::MessageQueue { id: ALL_QUEUES, ..queue.wire.clone() };
        found.into_iter().map(all).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(queues: &[(&str, i32, Permission)]) -> Route {
        let queue = |&(broker, id, permission): &(&str, i32, Permission)| grpc::MessageQueue {
            id,
            permission: permission.into(),
            broker: Some(grpc::Broker { name: broker.to_owned(), id: 0, endpoints: None }),
            accept_message_types: vec![MessageType::Normal.into()],
            ..Default::default()
        };
        Route::from_wire(queues.iter().map(queue).collect())
    }

    #[test]
    fn a_message_group_has_the_queue_that_other_sdks_choose() {
        let queues: Vec<_> = (0..8).map(|id| ("a", id, Permission::ReadWrite)).collect();
        let route = route(&queues);
        let of = |group| route.queue_of_group(group).unwrap().id;
        // SipHash-2-4 of the empty text with these keys is 726FDB47DD0E0E31, from its authors' vectors.
        assert_eq!(of(""), 0x31 % 8);
        assert_eq!(of("orders"), of("orders"));
        assert!(Route::default().queue_of_group("orders").is_none());
    }

    #[test]
    fn messages_take_writable_queues_in_turn() {
        use Permission::{Read, ReadWrite, Write};
        let route = route(&[("a", 0, Read), ("a", 1, Write), ("b", 0, ReadWrite)]);
        let turn = |number, failed: &[&str]| {
            let failed: Vec<String> = failed.iter().map(|name| (*name).to_owned()).collect();
            route.queue_in_turn(number, &failed).map(|queue| queue.broker.clone()).unwrap()
        };
        assert_eq!([turn(0, &[]), turn(1, &[]), turn(2, &[])], ["a", "b", "a"]);
        assert_eq!(turn(0, &["a"]), "b");
        assert_eq!(turn(0, &["a", "b"]), "a");
        assert!(Route::default().queue_in_turn(5, &[]).is_none());
    }

    #[test]
    fn a_broker_is_asked_once_for_all_its_queues() {
        use Permission::{None, Read, ReadWrite};
        let route =
            route(&[("a", 0, ReadWrite), ("a", 1, ReadWrite), ("b", 3, Read), ("c", 0, None)]);
        let asked: Vec<_> = route
            .brokers_to_read()
            .into_iter()
            .map(|queue| (queue.broker.unwrap().name, queue.id))
            .collect();
        assert_eq!(asked, [("a".to_owned(), -1), ("b".to_owned(), -1)]);
    }

    #[test]
    fn a_topic_takes_the_types_it_says() {
        let route = route(&[("a", 0, Permission::ReadWrite)]);
        assert!(route.accepts(MessageType::Normal));
        assert!(!route.accepts(MessageType::Fifo));
        assert!(Route::default().accepts(MessageType::Fifo));
    }
}
