//! Walks `golden/` both ways: frames of stock software are read, understood and written again.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;

use protocol::frame::{Command, frame_len};
use protocol::json;
use protocol::request::RequestCode;

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod cpp;
mod headers;
mod one_line;
mod text;

/// Of the crate's own tests; it finds the reader at the root.
#[path = "../../src/body/tests/tree.rs"]
mod tree;

use common::{Golden, folder, frames, names};

/// 4.9.8 escapes U+007F and U+2028 in a string; 5.5.0 leaves them as they are, and so do we.
const ESCAPED_BY_STOCK: [&str; 1] = ["send_message_v2.request.v4-unicode"];

/// Requests of which no frame is recorded. Either stock no longer serves them, or they belong to
/// parts to come: containers, replication, the controller, cold reads, access control, timers, pop
/// and lite topics. Every other request has a frame.
#[rustfmt::skip]
const WITHOUT_FRAMES: [i32; 76] = [
    13, 22, 23, 27, 47, 209, 210, 211, 212, 213, 214, 301, 302, 323, 354, 355, 370, 400, 401, 513,
    902, 903, 906, 907, 908,
    1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018,
    2001, 2002, 2003, 2004,
    3001, 3002, 3003, 3004, 3005, 3006, 3007, 3008, 3009, 3010,
    5001,
    200_050, 200_051, 200_052, 200_053, 200_054, 200_055, 200_056,
    200_070, 200_071, 200_072, 200_073, 200_074, 200_075, 200_076, 200_077, 200_078, 200_079, 200_151,
];

fn decode(bytes: &mut [u8]) -> Command<'_> {
    assert_eq!(frame_len(bytes), Ok(Some(bytes.len())));
    Command::decode(bytes).unwrap()
}

fn encode(command: &Command<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

/// Calls `see` with every frame, its command, and the code of the request it is or answers.
fn each(mut see: impl FnMut(&Golden, &Command<'_>, i32)) {
    let frames = frames(&folder());
    let mut codes = BTreeMap::new();
    for golden in frames.iter().filter(|golden| !golden.is_answer()) {
        let mut bytes = golden.bytes.clone();
        let code = decode(&mut bytes).code;
        let subject = golden.name.split('.').next().unwrap();
        // 9998 is what the nameserver was asked and 9999 the broker: both are unknown.
        let known = codes.insert(subject, code);
        assert!(known.is_none_or(|known| known == code || code > 9000), "{}", golden.name);
    }
    for golden in &frames {
        let mut bytes = golden.bytes.clone();
        let command = decode(&mut bytes);
        assert_eq!(command.is_reply(), golden.is_answer(), "{}", golden.name);
        let subject = golden.name.split('.').next().unwrap();
        let code = *codes.get(subject).unwrap_or_else(|| panic!("{}", golden.name));
        see(golden, &command, code);
    }
}

#[test]
fn every_frame_has_its_text_and_every_text_its_frame() {
    assert_eq!(names(&folder(), "hex"), names(&folder(), "txt"));
}

#[test]
fn every_frame_says_what_its_text_says() {
    each(|golden, command, _| {
        let path = folder().join(format!("{}.txt", golden.name));
        assert_eq!(text::of(command), fs::read_to_string(path).unwrap(), "{}", golden.name);
    });
}

#[test]
fn every_frame_is_written_again_byte_for_byte() {
    each(|golden, command, _| {
        let written = encode(command);
        let escaped = ESCAPED_BY_STOCK.contains(&golden.name.as_str());
        let same = written == golden.bytes;
        let shown = String::from_utf8_lossy(&written);
        assert_eq!(same, !escaped, "{}: {shown}", golden.name);
        let mut again = written.clone();
        assert_eq!(decode(&mut again), *command, "{}", golden.name);
    });
}

#[test]
fn every_request_has_a_frame_or_is_named_as_having_none() {
    let mut seen = BTreeMap::new();
    each(|golden, _, code| *seen.entry(code).or_insert(0) += i32::from(!golden.is_answer()));
    let without: Vec<i32> = RequestCode::ALL
        .iter()
        .map(|code| code.to_wire())
        .filter(|code| !seen.contains_key(code))
        .collect();
    assert_eq!(without, WITHOUT_FRAMES);
    assert!(seen.len() >= 60, "{} requests", seen.len());
    assert!(seen.values().sum::<i32>() >= 60);
}
