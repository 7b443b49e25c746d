//! The official Java and Go clients against our server. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(clippy::print_stdout, reason = "a test may tell")]

use integration_tests::cluster::Standalone;
use integration_tests::stock;

fn passes(client: &[&str], environment: &[(&str, &str)]) {
    passes_some(client, &[], environment);
}

fn passes_some(client: &[&str], flags: &[&str], environment: &[(&str, &str)]) {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder for the server");
    let server = Standalone::start(data.path(), &[]).expect("the server starts");
    let address = server.nameserver.to_string();
    let args: Vec<&str> = [client, &[address.as_str()], flags].concat();
    match stock::suite(&args, environment) {
        Ok(said) => println!("{}", said.lines().last().unwrap_or_default()),
        Err(error) => panic!("{error:#}\nthe server said:\n{}", server.process.said()),
    }
    let said = server.process.said();
    assert!(!said.contains("panicked") && !said.contains(" ERROR "), "{said}");
}

#[test]
fn java_clients_of_5_5_0_see_no_difference() {
    passes(&["java", "5.5.0"], &[]);
}

#[test]
fn java_clients_of_5_5_0_with_binary_headers_see_no_difference() {
    passes(&["java", "5.5.0"], &[("JAVA_OPTS", "-Drocketmq.serialize.type=ROCKETMQ")]);
}

#[test]
fn java_clients_of_4_9_8_see_no_difference() {
    passes(&["java", "4.9.8"], &[]);
}

#[test]
fn go_clients_see_no_difference() {
    passes(&["go"], &[]);
}

#[test]
fn encrypted_clients_see_no_difference() {
    let cases = "send-sync,send-batch,consume-rebalance,consume-tags,order-by-key,body-sizes";
    for version in ["5.5.0", "4.9.8"] {
        let encrypted = [("JAVA_OPTS", "-Dtls.enable=true")];
        passes_some(&["java", version], &["--only", cases], &encrypted);
    }
}
