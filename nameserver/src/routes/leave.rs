//! Brokers that say goodbye, fall silent or lose their connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Group, MASTER, Member, Notice, Table};

/// A broker that is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub name: String,
    pub address: String,
}

/// A broker that was forgotten, and what to do besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    pub broker: Leaving,
    pub notice: Option<Notice>,
}

impl Table {
    /// Forgets brokers; those it does not know are passed over.
    pub fn leave(&mut self, brokers: impl IntoIterator<Item = Leaving>) -> Vec<Departure> {
        let mut departures = Vec::new();
        let mut touched = BTreeSet::new();
        for broker in brokers {
            let Some(group) = self.groups.get_mut(broker.name.as_str()) else { continue };
            let before = (group.members.len(), group.min_id());
            group.members.retain(|_, member| member.address != broker.address);
            if group.members.len() == before.0 {
                continue;
            }
            group.show_members();
            let replaced = group.min_id() != before.1 && group.data.enable_acting_master;
            let notice = if replaced { group.notice_of_departure(&broker.address) } else { None };
            touched.insert(broker.name.clone());
            departures.push(Departure { broker, notice });
        }
        for name in touched {
            self.settle(&name);
        }
        departures
    }

    /// Forgets a broker without telling anybody.
    pub(super) fn leave_quietly(&mut self, name: &str, address: &str) {
        self.leave([Leaving { name: name.to_owned(), address: address.to_owned() }]);
    }

    /// Forgets the brokers that have been silent for too long.
    pub fn expire(&mut self, now_ms: i64) -> Vec<Departure> {
        let silent =
            self.leaving(|member| member.seen_ms.saturating_add(member.silence_max_ms) < now_ms);
        self.leave(silent)
    }

    /// Forgets the brokers that registered over this connection and no other since.
    pub fn connection_closed(&mut self, connection: u64) -> Vec<Departure> {
        let cut_off = self.leaving(|member| member.connection == connection);
        self.leave(cut_off)
    }

    fn leaving(&self, which: impl Fn(&Member) -> bool) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        for (name, group) in &self.groups {
            for member in group.members.values().filter(|member| which(member)) {
                leaving.push(Leaving { name: name.to_string(), address: member.address.clone() });
            }
        }
        leaving
    }

    /// What becomes of a group's topics once members have left.
    fn settle(&mut self, name: &str) {
        let group = &self.groups[name];
        if group.members.is_empty() {
            self.forget_group(name);
        } else if group.data.enable_acting_master && !group.members.contains_key(&MASTER) {
            // Whoever stands in for a master serves what is there and takes nothing new.
            self.wipe_write_perm(name);
        }
    }

    fn forget_group(&mut self, name: &str) {
        self.groups.remove(name);
        self.clusters.retain(|_, names| {
            names.remove(name);
            !names.is_empty()
        });
        for topic in self.hosted.remove(name).unwrap_or_default() {
            self.remove_from_topic(name, &topic);
        }
        self.mappings.retain(|_, mappings| {
            if mappings.contains_key(name) {
                Arc::make_mut(mappings).remove(name);
            }
            !mappings.is_empty()
        });
    }
}

impl Group {
    fn notice_of_departure(&self, offline_address: &str) -> Option<Notice> {
        let (min_id, lowest) = self.members.iter().next()?;
        Some(Notice {
            min_id: *min_id,
            min_address: lowest.address.clone(),
            offline_address: Some(offline_address.to_owned()),
            ha_address: None,
            recipients: self.members.values().map(|member| member.address.clone()).collect(),
        })
    }
}
