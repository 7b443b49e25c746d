//! The targets of `fuzz/` on stable: golden bytes are damaged at random, and nothing may panic, be
//! written otherwise than it was read, or take much more memory than its size.
//!
//! `FUZZ_SEED` and `FUZZ_TARGET` repeat a run, `FUZZ_ROUNDS` makes it longer, and `FUZZ_CORPUS=DIR`
//! writes the golden bytes of each target into a folder of its name, for libFuzzer to begin with.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(clippy::print_stdout, reason = "what a failing test found")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use protocol::frame::{Command, Encoding};
use protocol::record::Record;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "the walk of the golden files needs more of it")]
mod common;

#[path = "../../fuzz/targets.rs"]
mod targets;

use common::{folder, frames};
use targets::TARGETS;

const ROUNDS: u64 = 100_000;

/// What reading, writing and reading again may hold at once: so much for each byte of input, and
/// so much for any input. The reader of JSON may ask for 16 bytes a byte; ours are written in
/// three dialects, where one byte may become six.
const BYTES_PER_BYTE_MAX: usize = 64;
const BYTES_MIN: usize = 512 * 1024;

/// Counts what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one only counts")]
// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: what the caller promises is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: what the caller promises is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

type Corpus = Vec<Vec<u8>>;

/// The golden bytes that a target begins with.
fn corpus(target: &str) -> Corpus {
    let body = |name: &str| vec![fs::read(folder().join("body").join(name)).unwrap()];
    let of = |code: &str| bodies(|name| name.starts_with(code));
    match target {
        "frame" => frames(&folder()).into_iter().map(|golden| golden.bytes).collect(),
        "json_header" => headers(Encoding::Json),
        "binary_header" => headers(Encoding::Binary),
        "record" => records(),
        "batch" => of("send_batch_message.request"),
        "properties" => {
            let properties = |bytes: Vec<u8>| Record::decode(&bytes).unwrap().0.properties.to_vec();
            records().into_iter().map(properties).collect()
        }
        "java_properties" => bodies(|name| name.contains("config.") && !name.contains("group")),
        "heartbeat" => of("heart_beat.request"),
        "topic_stats" => body("topic_stats.json"),
        "running_info" => body("running_info.json"),
        "groups" => body("groups.json"),
        "route" => [body("route_fastjson.json"), body("route_standard.json")].concat(),
        "registration" => body("register.json"),
        "compressed_registration" => {
            let folded = body("register.zlib");
            let mut plain = Vec::new();
            let mut input = flate2::read::ZlibDecoder::new(&folded[0][..]);
            std::io::Read::read_to_end(&mut input, &mut plain).unwrap();
            vec![folded.concat(), plain]
        }
        "proxy_header" => {
            let address = |text: &str| text.parse().unwrap();
            let binary = |from, to| protocol::proxy_header::write(address(from), address(to));
            vec![
                b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 10911\r\n".to_vec(),
                binary("203.0.113.7:5000", "10.0.0.1:10911"),
                [&binary("[::1]:1", "[::1]:2")[..], &[0, 0, 0, 9]].concat(),
            ]
        }
        other => panic!("{other} has no corpus"),
    }
}

fn headers(encoding: Encoding) -> Corpus {
    let frames = frames(&folder()).into_iter().map(|golden| golden.bytes);
    let form = u8::from(encoding == Encoding::Binary);
    let header = |frame: Vec<u8>| {
        let len = u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize;
        frame[8..8 + len].to_vec()
    };
    frames.filter(|frame| frame[4] == form).map(header).collect()
}

fn bodies(wanted: impl Fn(&str) -> bool) -> Corpus {
    let frames = frames(&folder()).into_iter().filter(|golden| wanted(&golden.name));
    let body = |mut bytes: Vec<u8>| Command::decode(&mut bytes).unwrap().body.to_vec();
    frames.map(|golden| body(golden.bytes)).filter(|body| !body.is_empty()).collect()
}

fn records() -> Corpus {
    let mut records = Vec::new();
    for body in bodies(|name| name.starts_with("pull_message.answer") || name.starts_with("view_"))
    {
        let mut rest = &body[..];
        while let Ok((_, size)) = Record::decode(rest) {
            records.push(rest[..size].to_vec());
            rest = &rest[size..];
        }
    }
    records
}

/// Bytes that mean something somewhere: ends of numbers, separators, brackets, quotes, escapes.
const TELLING: &[u8] = b"\0\x01\x02\x7f\x80\xff{}[]\":,\\'/ntru-+.eE0159= \n\r\t#!";
const WORDS: [&str; 14] = [
    "null",
    "true",
    "NaN",
    "1e400",
    "-0",
    "99999999999999999999",
    "\\ud83d",
    "\\ud83d\\ude00",
    "\\u0000",
    "\"\"",
    "{}",
    "[[[[",
    "{{",
    "Infinity",
];

fn mutate(random: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let mut bytes = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=4) {
        let len = bytes.len();
        let at = random.random_range(0..=len);
        let end = random.random_range(at..=len.min(at + 64));
        match random.random_range(0..11) {
            _ if len == 0 => bytes.push(random.random()),
            0 => bytes[at.min(len - 1)] ^= 1 << random.random_range(0..8),
            1 => bytes[at.min(len - 1)] = random.random(),
            2 => bytes[at.min(len - 1)] = *TELLING.choose(random).unwrap(),
            3 => bytes.insert(at, *TELLING.choose(random).unwrap()),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.truncate(at),
            6 => {
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..=len);
                bytes.splice(to..to, piece);
            }
            7 => {
                let other = corpus.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            8 => {
                let word = WORDS.choose(random).unwrap();
                bytes.splice(at..end, word.bytes());
            }
            9 => {
                // A length that lies, by a little or by a lot.
                let sizes = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x00ff_ffff, 0x7fff_ffff, u32::MAX];
                let lie = *sizes.choose(random).unwrap();
                let lie = lie.wrapping_add(random.random_range(0..3)).wrapping_sub(1).to_be_bytes();
                let width = *[1, 2, 4].choose(random).unwrap();
                let until = (at + width).min(len);
                bytes[at..until].copy_from_slice(&lie[4 - (until - at)..]);
            }
            _ => {
                let repeated = bytes[at..end.min(at + 8)].repeat(random.random_range(1..200));
                bytes.splice(at..at, repeated);
            }
        }
    }
    bytes
}

fn check(name: &str, target: targets::Target, input: &[u8]) {
    let before = HELD.get();
    MOST.set(before);
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let most = usize::try_from(MOST.get() - before).unwrap();
    let allowed = input.len() * BYTES_PER_BYTE_MAX + BYTES_MIN;
    if outcome.is_err() || most > allowed {
        let mut hex = String::new();
        input.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        println!("FUZZ_TARGET={name}, the input is {}", input.escape_ascii());
        println!("or, as hex, {hex}");
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert!(most <= allowed, "holds {most} bytes for an input of {}", input.len());
}

#[test]
fn golden_bytes_pass_every_target() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}");
        if let Ok(folder) = std::env::var("FUZZ_CORPUS") {
            let folder = std::path::Path::new(&folder).join(name);
            fs::create_dir_all(&folder).unwrap();
            for (number, bytes) in corpus.iter().enumerate() {
                fs::write(folder.join(format!("golden-{number}")), bytes).unwrap();
            }
        }
        corpus.iter().for_each(|bytes| check(name, target, bytes));
    }
}

#[test]
fn damaged_bytes_never_panic_nor_take_much_memory() {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seed = number("FUZZ_SEED").unwrap_or_else(rand::random);
    println!("FUZZ_SEED={seed}");
    let rounds = number("FUZZ_ROUNDS").unwrap_or(ROUNDS) / TARGETS.len() as u64;
    let only = std::env::var("FUZZ_TARGET").ok();
    for (name, target) in TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let corpus = corpus(name);
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..rounds {
            check(name, target, &mutate(&mut random, &corpus));
        }
    }
}
