//! Lists of topics.

use protocol::body::TopicList;

use super::Table;

const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

/// Which topics of a deployment in units are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Topics of a unit (311).
    Unit,
    /// Topics with subscribers in units (312).
    Subscribed,
    /// Topics with subscribers in units that are of none themselves (313).
    SubscribedFromOutside,
}

impl Table {
    /// All topics (206).
    pub fn topics(&self) -> TopicList {
        TopicList {
            topic_list: self.topics.keys().map(|topic| topic.to_string()).collect(),
            broker_addr: None,
        }
    }

    /// The topics that any group of this cluster hosts (224).
    pub fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        let names = self.clusters.get(cluster).into_iter().flatten();
        let hosted = names.filter_map(|name| self.hosted.get(name)).flatten();
        TopicList { topic_list: hosted.map(|topic| topic.to_string()).collect(), broker_addr: None }
    }

    /// The names of clusters and groups, which are topics too, and the address of some broker (304).
    pub fn system_topics(&self) -> TopicList {
        let clusters = self.clusters.keys().cloned();
        let names = self.clusters.values().flatten().map(|name| name.to_string());
        let some = self.groups.values().flat_map(|group| group.members.values()).next();
        TopicList {
            topic_list: clusters.chain(names).collect(),
            broker_addr: some.map(|member| member.address.clone()),
        }
    }

    pub fn unit_topics(&self, kind: UnitKind) -> TopicList {
        let wanted = |flag: i32| match kind {
            UnitKind::Unit => flag & UNIT != 0,
            UnitKind::Subscribed => flag & UNIT_SUB != 0,
            UnitKind::SubscribedFromOutside => flag & UNIT == 0 && flag & UNIT_SUB != 0,
        };
        let topics = self.topics.iter().filter(|(_, groups)| {
            // The groups of a topic agree on what it is.
            groups.values().next().is_some_and(|queues| wanted(queues.sys_flag))
        });
        TopicList {
            topic_list: topics.map(|(topic, _)| topic.to_string()).collect(),
            broker_addr: None,
        }
    }
}
