//! The rules of the table.

use std::collections::BTreeMap;

use protocol::body::{DataVersion, QueueData, TopicConfig, TopicQueueMappingInfo};

use super::*;

mod model;

const T0: i64 = 1_000_000;

/// A master `a` of cluster `C` at `a:1` with two topics; tests change what they are about.
fn broker(id: i64) -> Registration {
    Registration {
        cluster: "C".into(),
        name: "a".into(),
        id,
        address: format!("a:{id}"),
        ha_address: format!("ha:{id}"),
        version: version(1),
        topics: topics(&["T", "U"]),
        connection: 100 + id as u64,
        ..Registration::default()
    }
}

fn acting(id: i64) -> Registration {
    Registration { acting_master: Some(true), ..broker(id) }
}

fn version(counter: i64) -> DataVersion {
    DataVersion { counter, state_version: 0, timestamp: 0 }
}

fn topics(names: &[&str]) -> BTreeMap<String, TopicConfig> {
    let topic = |name: &&str| TopicConfig { topic_name: (*name).into(), ..TopicConfig::default() };
    names.iter().map(|name| ((*name).to_owned(), topic(name))).collect()
}

fn with(registrations: &[Registration]) -> Table {
    let mut table = Table::default();
    for registration in registrations {
        table.register(registration, false, T0).unwrap();
    }
    table
}

/// The route of `topic`: by broker its addresses by id, and its permission.
fn shown(table: &Table, topic: &str, view: View<'_>) -> Option<Vec<(String, i32)>> {
    let data = table.route(topic)?.show(topic, view, None);
    assert_eq!(data.broker_datas.len(), data.queue_datas.len());
    let describe = |(broker, queues): (&protocol::body::BrokerData, &QueueData)| {
        assert_eq!(broker.broker_name, queues.broker_name);
        let addresses: Vec<String> =
            broker.broker_addrs.iter().map(|(id, address)| format!("{id}={address}")).collect();
        (addresses.join(" "), queues.perm)
    };
    Some(data.broker_datas.iter().zip(&data.queue_datas).map(describe).collect())
}

fn plain(table: &Table, topic: &str) -> Option<Vec<(String, i32)>> {
    shown(table, topic, View::default())
}

fn one(addresses: &str, perm: i32) -> Option<Vec<(String, i32)>> {
    Some(vec![(addresses.to_owned(), perm)])
}

#[test]
fn a_registered_broker_is_in_the_routes_of_its_topics_and_in_its_cluster() {
    let table = with(&[broker(0)]);
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    assert_eq!(plain(&table, "V"), None);
    let clusters = table.clusters();
    assert_eq!(clusters.broker_addr_table["a"].broker_addrs, BTreeMap::from([(0, "a:0".into())]));
    assert!(clusters.cluster_addr_table["C"].contains("a"));
    assert_eq!(table.members("C", "a").broker_addrs.len(), 1);
    assert_eq!(table.members("C", "b").broker_addrs.len(), 0);
}

#[test]
fn a_replica_says_nothing_about_topics_while_there_is_a_master() {
    for replica in [broker(1), acting(1)] {
        let mut table = with(&[broker(0)]);
        let answer = table
            .register(&Registration { topics: topics(&["T", "V"]), ..replica }, false, T0)
            .unwrap();
        let master = answer.master.unwrap();
        assert_eq!((master.address, master.ha_address), ("a:0".into(), "ha:0".into()));
        assert_eq!(plain(&table, "T"), one("0=a:0 1=a:1", 6));
        assert_eq!(plain(&table, "V"), None);
    }
}

#[test]
fn without_a_master_only_the_lowest_replica_of_the_kind_that_can_stand_in_has_topics() {
    for (replica, expected) in [
        (broker(1), None),
        (Registration { acting_master: Some(false), ..broker(1) }, one("1=a:1", 6)),
        (acting(1), one("1=a:1", 4)),
    ] {
        assert_eq!(plain(&with(std::slice::from_ref(&replica)), "T"), expected, "{replica:?}");
    }
    let mut table = with(&[acting(1)]);
    table.register(&Registration { topics: topics(&["T", "V"]), ..acting(2) }, false, T0).unwrap();
    assert_eq!(plain(&table, "V"), None);
}

#[test]
fn an_acting_master_is_shown_as_master_only_to_those_who_want_it_and_only_for_reading() {
    let wanted = View { acting_master: true, zone: None };
    let mut table = with(&[acting(0), acting(1), acting(2)]);
    assert_eq!(shown(&table, "T", wanted), one("0=a:0 1=a:1 2=a:2", 6));
    table.leave([Leaving { name: "a".into(), address: "a:0".into() }]);
    assert_eq!(plain(&table, "T"), one("1=a:1 2=a:2", 4));
    assert_eq!(shown(&table, "T", wanted), one("0=a:1 2=a:2", 4));
    // The queues became writable again although there is no master: not shown as one.
    table.add_write_perm("a");
    assert_eq!(shown(&table, "T", wanted), one("1=a:1 2=a:2", 6));
    // The master is back.
    table.wipe_write_perm("a");
    table.register(&acting(0), false, T0).unwrap();
    assert_eq!(shown(&table, "T", wanted), one("0=a:0 1=a:1 2=a:2", 6));
}

#[test]
fn a_group_that_never_asked_for_an_acting_master_gets_none() {
    let mut table = with(&[broker(0), broker(1)]);
    table.leave([Leaving { name: "a".into(), address: "a:0".into() }]);
    table.wipe_write_perm("a");
    let wanted = View { acting_master: true, zone: None };
    assert_eq!(shown(&table, "T", wanted), one("1=a:1", 4));
}

#[test]
fn topics_of_membership_are_shown_as_they_are() {
    let topic = "rmq_sys_SYNC_BROKER_MEMBER_a";
    let table = with(&[Registration { topics: topics(&[topic, "T"]), ..acting(1) }]);
    let wanted = View { acting_master: true, zone: None };
    assert_eq!(shown(&table, topic, wanted), one("1=a:1", 4));
    assert_eq!(shown(&table, "T", wanted), one("0=a:1", 4));
}

#[test]
fn a_single_topic_before_all_of_them_is_refused_and_leaves_no_trace() {
    let mut table = Table::default();
    let single = Registration { topics: topics(&["T"]), ..broker(0) };
    assert_eq!(table.register(&single, false, T0), Err(Rejected::TopicBeforeBroker));
    assert!(table.clusters().broker_addr_table.is_empty());
    assert!(table.clusters().cluster_addr_table.is_empty());
    table.register(&broker(0), false, T0).unwrap();
    let single = Registration { topics: topics(&["V"]), version: version(2), ..broker(0) };
    table.register(&single, true, T0).unwrap();
    assert_eq!(plain(&table, "V"), one("0=a:0", 6));
    assert_eq!(plain(&table, "T"), one("0=a:0", 6), "a single topic deletes no others");
}

#[test]
fn a_changed_topic_is_taken_over_with_a_changed_version_only() {
    let mut table = with(&[broker(0)]);
    let mut changed = broker(0);
    changed.topics.get_mut("T").unwrap().perm = 4;
    table.register(&changed, false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    changed.version = version(2);
    table.register(&changed, false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=a:0", 4));
    assert_eq!(table.version("a", "a:0"), Some(version(2)));
}

#[test]
fn a_missing_topic_is_deleted_only_if_so_configured() {
    for (delete_missing, left) in [(false, one("0=a:0", 6)), (true, None)] {
        let mut table = with(&[broker(0)]);
        let fewer = Registration { topics: topics(&["T", "V"]), version: version(2), ..broker(0) };
        table.register(&fewer, delete_missing, T0).unwrap();
        assert_eq!(plain(&table, "U"), left);
        assert_eq!(plain(&table, "V"), one("0=a:0", 6));
    }
}

#[test]
fn wiped_permissions_stay_wiped_until_the_broker_has_news() {
    let mut table = with(&[broker(0)]);
    assert_eq!(table.wipe_write_perm("a"), 2);
    assert_eq!(table.wipe_write_perm("nobody"), 0);
    table.register(&broker(0), false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=a:0", 4));
    assert_eq!(table.add_write_perm("a"), 2);
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    table.wipe_write_perm("a");
    table.register(&Registration { version: version(2), ..broker(0) }, false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
}

#[test]
fn the_same_id_from_another_address_wins_unless_its_state_is_older() {
    let at = |address: &str, state_version| Registration {
        address: address.into(),
        version: DataVersion { state_version, ..version(1) },
        ..broker(0)
    };
    let mut table = with(&[at("old:1", 5)]);
    let rejected = Rejected::Outdated { holder: "old:1".into(), version: 5 };
    assert_eq!(table.register(&at("new:1", 4), false, T0), Err(rejected));
    assert_eq!(plain(&table, "T"), one("0=old:1", 6));
    table.register(&at("new:1", 5), false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=new:1", 6));
    assert_eq!(table.version("a", "old:1"), None);
}

#[test]
fn a_replica_that_becomes_the_master_is_there_once() {
    let mut table = with(&[broker(0), broker(1)]);
    table.leave([Leaving { name: "a".into(), address: "a:0".into() }]);
    table.register(&Registration { id: 0, ..broker(1) }, false, T0).unwrap();
    assert_eq!(plain(&table, "T"), one("0=a:1", 6));
}

#[test]
fn silence_ends_a_broker_after_its_own_time_or_two_minutes() {
    for (own, limit) in [(None, 120_000), (Some(500), 500)] {
        let mut table = with(&[Registration { silence_max_ms: own, ..broker(0) }]);
        assert!(table.expire(T0 + limit).is_empty());
        table.seen("a", "a:0", T0 + limit);
        assert!(table.expire(T0 + 2 * limit).is_empty());
        assert_eq!(table.expire(T0 + 2 * limit + 1).len(), 1);
        assert_eq!(plain(&table, "T"), None);
        assert!(table.clusters().cluster_addr_table.is_empty());
    }
}

#[test]
fn a_closed_connection_ends_the_broker_that_registered_over_it_last() {
    let mut table = with(&[broker(0)]);
    table.register(&Registration { connection: 7, ..broker(0) }, false, T0).unwrap();
    assert!(table.connection_closed(100).is_empty());
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    assert_eq!(table.connection_closed(7).len(), 1);
    assert_eq!(plain(&table, "T"), None);
}

#[test]
fn the_others_are_told_when_the_lowest_id_changes() {
    let mut table = with(&[acting(2)]);
    let notice = |table: &mut Table, id| table.register(&acting(id), false, T0).unwrap().notice;
    assert_eq!(notice(&mut table, 3), None);
    assert_eq!(
        notice(&mut table, 1),
        Some(Notice {
            min_id: 1,
            min_address: "a:1".into(),
            offline_address: None,
            ha_address: Some("ha:1".into()),
            recipients: vec!["a:2".into(), "a:3".into()],
        })
    );
    assert_eq!(notice(&mut table, 1), None);
    let leave = |address: &str| Leaving { name: "a".into(), address: address.into() };
    assert_eq!(table.leave([leave("a:3")])[0].notice, None);
    assert_eq!(
        table.leave([leave("a:1")])[0].notice,
        Some(Notice {
            min_id: 2,
            min_address: "a:2".into(),
            offline_address: Some("a:1".into()),
            ha_address: None,
            recipients: vec!["a:2".into()],
        })
    );
    assert_eq!(table.leave([leave("a:2")])[0].notice, None, "nobody is left to be told");
}

#[test]
fn topics_added_by_hand_are_on_known_brokers_or_not_at_all() {
    let mut table = with(&[broker(0)]);
    let on = |name: &str| QueueData { broker_name: name.into(), perm: 6, ..QueueData::default() };
    assert!(!table.add_topic("V", &[on("a"), on("b")]));
    assert_eq!(plain(&table, "V"), None);
    assert!(table.add_topic("V", &[on("a")]));
    assert_eq!(plain(&table, "V"), one("0=a:0", 6));
}

#[test]
fn a_topic_is_deleted_everywhere_or_in_one_cluster() {
    let other =
        Registration { cluster: "D".into(), name: "b".into(), address: "b:0".into(), ..broker(0) };
    let mut table = with(&[broker(0), other]);
    table.delete_topic("T", Some("D"));
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    table.delete_topic("T", Some("nowhere"));
    assert_eq!(plain(&table, "T"), one("0=a:0", 6));
    table.delete_topic("U", None);
    assert_eq!(plain(&table, "U"), None);
    table.delete_topic("U", None);
}

#[test]
fn lists_name_the_topics_they_are_about() {
    let mut registration = broker(0);
    registration.topics = topics(&["none", "unit", "sub", "both"]);
    for (topic, flag) in [("unit", 1), ("sub", 2), ("both", 3)] {
        registration.topics.get_mut(topic).unwrap().topic_sys_flag = flag;
    }
    let table = with(&[registration]);
    let names = |list: protocol::body::TopicList| list.topic_list.into_iter().collect::<Vec<_>>();
    assert_eq!(names(table.topics()), ["both", "none", "sub", "unit"]);
    assert_eq!(names(table.topics_of_cluster("C")), ["both", "none", "sub", "unit"]);
    assert!(names(table.topics_of_cluster("D")).is_empty());
    assert_eq!(names(table.unit_topics(UnitKind::Unit)), ["both", "unit"]);
    assert_eq!(names(table.unit_topics(UnitKind::Subscribed)), ["both", "sub"]);
    assert_eq!(names(table.unit_topics(UnitKind::SubscribedFromOutside)), ["sub"]);
    assert_eq!(table.system_topics().broker_addr.as_deref(), Some("a:0"));
    assert_eq!(names(table.system_topics()), ["C", "a"]);
}

#[test]
fn brokers_of_another_zone_are_left_out_unless_they_have_no_master() {
    let in_zone = |name: &str, zone: &str, id| Registration {
        name: name.into(),
        address: format!("{name}:{id}"),
        zone: Some(zone.into()),
        filter_servers: Some(vec![format!("filter-{name}")]),
        ..acting(id)
    };
    let table = with(&[in_zone("a", "east", 0), in_zone("b", "west", 0), in_zone("c", "west", 1)]);
    let view = View { acting_master: false, zone: Some("EAST") };
    let data = table.route("T").unwrap().show("T", view, None);
    let names: Vec<&str> = data.queue_datas.iter().map(|it| it.broker_name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(data.broker_datas.len(), 2);
    assert_eq!(data.filter_server_table.keys().collect::<Vec<_>>(), ["a:0", "c:1"]);
}

#[test]
fn mappings_of_static_topics_are_shown_and_go_with_their_broker() {
    let mapping = |name: &str| TopicQueueMappingInfo {
        bname: name.into(),
        topic: "T".into(),
        total_queues: 4,
        ..TopicQueueMappingInfo::default()
    };
    let mut registration = broker(0);
    registration.mappings.insert("T".into(), mapping("a"));
    let mut table = with(std::slice::from_ref(&registration));
    let mappings = |table: &Table| {
        table
            .route("T")
            .and_then(|it| it.show("T", View::default(), None).topic_queue_mapping_by_broker)
    };
    assert_eq!(mappings(&table).unwrap()["a"].total_queues, 4);
    // In another's name it is not taken.
    registration.mappings.insert("T".into(), mapping("b"));
    registration.version = version(2);
    table.register(&registration, false, T0).unwrap();
    assert_eq!(mappings(&table).unwrap().len(), 1);
    table.connection_closed(100);
    table.register(&broker(0), false, T0).unwrap();
    assert_eq!(mappings(&table), None);
}
