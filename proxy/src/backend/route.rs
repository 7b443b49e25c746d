//! Where a topic's queues are, as the proxy uses it.

use protocol::body::TopicRouteData;

const READ: i32 = 4;
const WRITE: i32 = 2;

/// The masters that hold a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// By name.
    pub brokers: Vec<Holder>,
    /// Every queue that takes messages, in an order all proxies share: the place of its broker, its id.
    pub writable: Vec<(usize, i32)>,
}

/// What one broker holds of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub broker: String,
    pub cluster: String,
    pub address: String,
    pub read_queues: i32,
    pub write_queues: i32,
    pub readable: bool,
    pub writable: bool,
}

impl Route {
    /// Keeps what can be reached of a nameserver's answer.
    pub fn new(data: &TopicRouteData) -> Self {
        let mut brokers: Vec<Holder> = data
            .queue_datas
            .iter()
            .filter_map(|queues| {
                let broker =
                    data.broker_datas.iter().find(|b| b.broker_name == queues.broker_name)?;
                // The master, or who acts for it.
                let acting = broker.enable_acting_master;
                let address = broker.broker_addrs.get(&0);
                let address =
                    address.or_else(|| broker.broker_addrs.values().next().filter(|_| acting));
                Some(Holder {
                    broker: queues.broker_name.clone(),
                    cluster: broker.cluster.clone(),
                    address: address?.clone(),
                    read_queues: queues.read_queue_nums.max(0),
                    write_queues: queues.write_queue_nums.max(0),
                    readable: queues.perm & READ != 0,
                    writable: queues.perm & WRITE != 0,
                })
            })
            .collect();
        brokers.sort_by(|a, b| a.broker.cmp(&b.broker));
        Self::of(brokers)
    }

    /// The route over these brokers, which are in order.
    pub fn of(brokers: Vec<Holder>) -> Self {
        let writable = brokers.iter().enumerate().filter(|(_, broker)| broker.writable);
        let writable =
            writable.flat_map(|(at, broker)| (0..broker.write_queues).map(move |id| (at, id)));
        let writable = writable.take(QUEUES_MAX).collect();
        Self { brokers, writable }
    }

    /// The broker of this name.
    pub fn holder(&self, broker: &str) -> Option<&Holder> {
        self.brokers.iter().find(|holder| holder.broker == broker)
    }
}

/// Queues of one topic that are told apart.
const QUEUES_MAX: usize = 65_536;

/// Guava's `consistentHash`: the bucket of a message group, as stock proxies choose it.
pub fn consistent_hash(input: i64, buckets: i32) -> i32 {
    let mut state = input.cast_unsigned();
    let mut candidate = 0i32;
    loop {
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let next =
            f64::from(((state >> 33) as u32).cast_signed().wrapping_add(1)) / f64::from(1u32 << 31);
        let next = (f64::from(candidate.wrapping_add(1)) / next) as i32;
        if next < 0 || next >= buckets {
            return candidate;
        }
        candidate = next;
    }
}

#[cfg(test)]
mod tests {
    use protocol::body::{BrokerData, QueueData};

    use super::*;

    fn data() -> TopicRouteData {
        let broker = |name: &str, id: i64, acting| BrokerData {
            broker_addrs: [(id, format!("{name}:1"))].into(),
            broker_name: name.to_owned(),
            enable_acting_master: acting,
            ..BrokerData::default()
        };
        let queues = |name: &str, perm, write| QueueData {
            broker_name: name.to_owned(),
            perm,
            read_queue_nums: 2,
            write_queue_nums: write,
            topic_sys_flag: 0,
        };
        TopicRouteData {
            broker_datas: vec![
                broker("c", 0, false),
                broker("a", 0, false),
                broker("slave", 1, false),
                broker("acting", 2, true),
            ],
            queue_datas: vec![
                queues("c", 6, 2),
                queues("a", 4, 2),
                queues("slave", 6, 2),
                queues("acting", 6, 1),
                queues("gone", 6, 1),
            ],
            ..TopicRouteData::default()
        }
    }

    #[test]
    fn only_masters_count_and_only_writable_queues_take_messages() {
        let route = Route::new(&data());
        let names: Vec<_> = route.brokers.iter().map(|holder| holder.broker.as_str()).collect();
        assert_eq!(names, ["a", "acting", "c"]);
        assert_eq!(route.writable, [(1, 0), (2, 0), (2, 1)]);
    }

    #[test]
    fn a_bucket_stays_or_moves_to_the_new_one_when_a_bucket_is_added() {
        for input in -500..500i64 {
            let mut before = consistent_hash(input, 1);
            assert_eq!(before, 0);
            for buckets in 2..50 {
                let now = consistent_hash(input, buckets);
                assert!(now == before || now == buckets - 1, "{input} {buckets}");
                before = now;
            }
        }
    }
}
