//! Where one topic is: taken from the table in a moment, made into an answer afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::body::{BrokerData, QueueData, TopicRouteData};

use super::{FilterServers, MASTER, Mappings, PERM_WRITE, Table, Topic};

/// Topics in which a group keeps its own membership are shown as they are.
const MEMBERSHIP_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// The route of a topic, sharing what the table holds.
#[derive(Debug, Clone)]
pub struct Route {
    topic: Arc<Topic>,
    groups: Vec<(Arc<BrokerData>, Arc<FilterServers>)>,
    mappings: Option<Arc<Mappings>>,
}

/// How a route is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct View<'a> {
    /// Shows the replica that stands in for a missing master as the master.
    pub acting_master: bool,
    /// Leaves out groups whose master is in another zone.
    pub zone: Option<&'a str>,
}

impl Table {
    /// Where `topic` is (105).
    pub fn route(&self, topic: &str) -> Option<Route> {
        let groups = self.topics.get(topic)?;
        let shown = groups.keys().map(|name| {
            let group = self.groups.get(name).expect("topics are hosted by known groups");
            (group.data.clone(), group.filter_servers.clone())
        });
        Some(Route {
            topic: groups.clone(),
            groups: shown.collect(),
            mappings: self.mappings.get(topic).cloned(),
        })
    }
}

impl Route {
    /// The body of an answer for `topic`.
    pub fn show(&self, topic: &str, view: View<'_>, order: Option<String>) -> TopicRouteData {
        let mut queue_datas: Vec<QueueData> = self.queues().collect();
        let mut broker_datas: Vec<BrokerData> =
            self.groups.iter().map(|(data, _)| BrokerData::clone(data)).collect();
        let mut filter_server_table: BTreeMap<String, Vec<String>> =
            self.groups.iter().flat_map(|(_, servers)| (**servers).clone()).collect();
        if view.acting_master && !topic.starts_with(MEMBERSHIP_TOPIC_PREFIX) {
            for (data, queues) in broker_datas.iter_mut().zip(&queue_datas) {
                stand_in(data, queues.perm);
            }
        }
        if let Some(zone) = view.zone {
            let near = |data: &BrokerData| is_near(data, zone);
            let mut shown = broker_datas.iter().map(near);
            queue_datas.retain(|_| shown.next().expect("a group for each of the queues"));
            for far in broker_datas.iter().filter(|data| !near(data)) {
                filter_server_table.retain(|it, _| !far.broker_addrs.values().any(|far| far == it));
            }
            broker_datas.retain(near);
        }
        TopicRouteData {
            broker_datas,
            filter_server_table,
            order_topic_conf: order,
            queue_datas,
            topic_queue_mapping_by_broker: self.mappings.as_ref().map(|it| (**it).clone()),
        }
    }

    fn queues(&self) -> impl Iterator<Item = QueueData> {
        self.topic.iter().map(|(name, queues)| QueueData {
            broker_name: name.to_string(),
            perm: queues.perm,
            read_queue_nums: queues.read,
            topic_sys_flag: queues.sys_flag,
            write_queue_nums: queues.write,
        })
    }
}

/// Shows the lowest replica as the master, if there is none and nothing can be sent anyway.
fn stand_in(data: &mut BrokerData, perm: i32) {
    let masterless = !data.broker_addrs.contains_key(&MASTER);
    if masterless
        && data.enable_acting_master
        && perm & PERM_WRITE == 0
        && let Some((_, address)) = data.broker_addrs.pop_first()
    {
        data.broker_addrs.insert(MASTER, address);
    }
}

/// A group without a master is near everybody: its replicas are read from anywhere.
fn is_near(data: &BrokerData, zone: &str) -> bool {
    let same = |own: &String| own.eq_ignore_ascii_case(zone);
    !data.broker_addrs.contains_key(&MASTER) || data.zone_name.as_ref().is_some_and(same)
}
