//! Random histories against a model that only remembers when each broker was last heard.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::DataVersion;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TOPICS: [&str; 6] = ["T0", "T1", "T2", "T3", "T4", "T5"];
const SILENCE_MS: i64 = 1000;

/// What must be true of a broker that is listed under an id of a group.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    address: String,
    heard_ms: i64,
    connection: u64,
    version: DataVersion,
}

type Model = BTreeMap<(String, i64), Known>;

#[test]
fn any_history_leaves_a_table_that_agrees_with_itself() {
    for seed in 0..60 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut table, mut model, mut now_ms) = (Table::default(), Model::new(), T0);
    for _ in 0..600 {
        now_ms += random.random_range(0..300);
        step(&mut random, &mut table, &mut model, now_ms);
        agree(&table, &model);
    }
}

fn step(random: &mut StdRng, table: &mut Table, model: &mut Model, now_ms: i64) {
    let registration = any_registration(random);
    let key = (registration.name.clone(), registration.id);
    let address = registration.address.clone();
    let here = |known: &Known| known.address == address;
    match random.random_range(0..20) {
        0..=9 => {
            let holder = model.get(&key).cloned();
            let outcome = table.register(&registration, random.random_bool(0.3), now_ms);
            let newer = holder.as_ref().is_some_and(|holder| {
                !here(holder) && holder.version.state_version > registration.version.state_version
            });
            let single = holder.is_none() && registration.topics.len() == 1;
            assert_eq!(outcome.is_ok(), !newer && !single);
            if newer {
                model.retain(|(name, _), known| *name != key.0 || !here(known));
                assert_eq!(model.get(&key), holder.as_ref(), "a version went back");
            } else if !single {
                model.retain(|(name, _), known| *name != key.0 || !here(known));
                let known = Known {
                    address,
                    heard_ms: now_ms,
                    connection: registration.connection,
                    version: registration.version,
                };
                model.insert(key, known);
            }
        }
        10..=12 => {
            table.seen(&key.0, &address, now_ms);
            for ((name, _), known) in model.iter_mut() {
                if *name == key.0 && known.address == address {
                    known.heard_ms = now_ms;
                }
            }
        }
        13 => {
            table.leave([Leaving { name: key.0.clone(), address: address.clone() }]);
            model.retain(|(name, _), known| *name != key.0 || !here(known));
        }
        14 | 15 => {
            table.expire(now_ms);
            model.retain(|_, known| known.heard_ms + SILENCE_MS >= now_ms);
        }
        16 => {
            table.connection_closed(registration.connection);
            model.retain(|_, known| known.connection != registration.connection);
        }
        17 => {
            let cluster = random.random_bool(0.5).then_some("C0");
            let topic = TOPICS[random.random_range(0..TOPICS.len())];
            table.delete_topic(topic, cluster);
            assert!(cluster.is_some() || table.route(topic).is_none());
        }
        18 => {
            table.wipe_write_perm(&key.0);
        }
        _ => {
            table.add_write_perm(&key.0);
        }
    }
}

fn any_registration(random: &mut StdRng) -> Registration {
    let name = format!("b{}", random.random_range(0..3));
    let some: Vec<&str> = TOPICS.into_iter().filter(|_| random.random_bool(0.6)).collect();
    let state_version = random.random_range(0..3);
    let counter = random.random_range(0..4);
    Registration {
        cluster: format!("C{}", random.random_range(0..2)),
        address: format!("{name}:{}", random.random_range(0..4)),
        name,
        id: random.random_range(0..3),
        silence_max_ms: Some(SILENCE_MS),
        acting_master: [None, Some(false), Some(true)][random.random_range(0..3)],
        version: DataVersion { counter, state_version, timestamp: 0 },
        topics: topics(&some),
        filter_servers: random.random_bool(0.2).then(|| vec!["f".to_owned()]),
        connection: random.random_range(0..6),
        ..Registration::default()
    }
}

fn agree(table: &Table, model: &Model) {
    let listed: BTreeMap<(String, i64), String> = table
        .clusters()
        .broker_addr_table
        .into_iter()
        .flat_map(|(name, data)| {
            assert!(!data.broker_addrs.is_empty(), "{name} is listed without a broker");
            data.broker_addrs.into_iter().map(move |(id, address)| ((name.clone(), id), address))
        })
        .collect();
    let expected: BTreeMap<(String, i64), String> =
        model.iter().map(|(key, known)| (key.clone(), known.address.clone())).collect();
    assert_eq!(listed, expected);
    for ((name, _), known) in model {
        assert_eq!(table.version(name, &known.address), Some(known.version));
    }
    let names: BTreeSet<&str> = model.keys().map(|(name, _)| name.as_str()).collect();
    let in_clusters: BTreeSet<String> =
        table.clusters().cluster_addr_table.into_values().flatten().collect();
    assert!(in_clusters.iter().map(String::as_str).eq(names.iter().copied()));
    for (topic, groups) in &table.topics {
        assert!(!groups.is_empty(), "{topic} is nowhere");
        for name in groups.keys() {
            assert!(table.hosted[name].contains(topic), "{name} forgot that it hosts {topic}");
        }
        let data = table.route(topic).unwrap().show(topic, View::default(), None);
        for queues in &data.queue_datas {
            assert!(names.contains(queues.broker_name.as_str()), "{topic} names a stranger");
        }
        for address in data.filter_server_table.keys() {
            assert!(model.values().any(|known| known.address == *address));
        }
    }
    for (name, hosted) in &table.hosted {
        for topic in hosted {
            assert!(table.topics[topic].contains_key(name), "{name} does not host {topic}");
        }
    }
}
