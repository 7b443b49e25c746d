//! Which crate uses which: Cargo's answer against the table in ARCHITECTURE.md.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

use integration_tests::cluster::workspace;
use serde_json::Value;

const TABLE_HEAD: &str = "| crate | may use (of ours) |";

type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_crate_uses_what_the_table_allows_and_the_table_knows_every_crate() {
    let allowed = table();
    let metadata = metadata();
    let actual = uses(&metadata);
    let names = |uses: &Uses| uses.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(&actual),
        names(&allowed),
        "the crates of the workspace, the rows of the table"
    );
    for (name, used) in &actual {
        let forbidden: Vec<_> = used.difference(&allowed[name]).collect();
        assert!(forbidden.is_empty(), "{name} uses {forbidden:?}, which the table does not allow");
    }
    for (name, used) in &allowed {
        assert!(!used.contains("integration-tests"), "{name} may not use the tests");
    }
}

#[test]
fn protocol_and_store_know_no_tokio() {
    let metadata = metadata();
    for name in ["protocol", "store"] {
        let reached = reached(&metadata, name);
        assert!(reached.len() > 3, "{name} reaches {reached:?}");
        assert!(!reached.contains("tokio"), "{name} depends on tokio");
    }
    assert!(reached(&metadata, "remoting").contains("tokio"), "the walk sees tokio where it is");
}

/// The table of ARCHITECTURE.md.
fn table() -> Uses {
    let text = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, rows) = text.split_once(TABLE_HEAD).expect("ARCHITECTURE.md has the table");
    let rows = rows.lines().skip(2).take_while(|row| row.starts_with('|'));
    let named = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut uses = Uses::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let crates = named(cells.next().unwrap());
        let used = named(cells.next().unwrap());
        assert!(!crates.is_empty(), "a row without a crate: {row}");
        uses.extend(crates.into_iter().map(|name| (name, used.clone())));
    }
    uses
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Of this platform only: crates of other platforms may never have been downloaded.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let host = Command::new(rustc).args(["--print", "host-tuple"]).output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap();
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(["--filter-platform", host.trim()])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Crates of ours that each crate of ours names in its Cargo.toml, for whatever purpose.
fn uses(metadata: &Value) -> Uses {
    let members: BTreeSet<&str> = texts(&metadata["workspace_members"]);
    let ours: Vec<&Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| members.contains(package["id"].as_str().unwrap()))
        .collect();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let names: BTreeSet<String> = ours.iter().map(|package| name(package)).collect();
    let used = |package: &&Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter().map(name);
        dependencies.filter(|dependency| names.contains(dependency)).collect()
    };
    ours.iter().map(|package| (name(package), used(package))).collect()
}

/// Names of all packages that a crate of ours is built with, tests aside.
fn reached(metadata: &Value, name: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let names: HashMap<&str, &str> = packages
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let nodes: HashMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let members = texts(&metadata["workspace_members"]);
    let own = members.into_iter().find(|id| names[id] == name).expect("it is a crate of ours");
    let (mut found, mut left) = (BTreeSet::new(), vec![own]);
    while let Some(id) = left.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let mut kinds = dependency["dep_kinds"].as_array().unwrap().iter();
            let id = dependency["pkg"].as_str().unwrap();
            if kinds.any(|kind| kind["kind"] != "dev") && found.insert(id) {
                left.push(id);
            }
        }
    }
    found.into_iter().map(|id| names[id].to_owned()).collect()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}
