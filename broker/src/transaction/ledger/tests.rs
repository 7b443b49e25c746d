//! The rules one by one, and random histories with crashes against a model that knows how each ended.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

const RULES: Rules = Rules { interval_ms: 30_000, checks_max: 3, reserved_ms: 1_000_000 };

fn half(offset: i64, stored_ms: i64) -> Half {
    Half {
        first: offset,
        offset,
        position: offset.unsigned_abs() * 100,
        since_ms: stored_ms,
        stored_ms,
        immune_ms: 6000,
        checks: 0,
    }
}

fn due(ledger: &mut Ledger, now_ms: i64) -> Vec<(i64, Due)> {
    ledger.due(now_ms, 100, &RULES).iter().map(|(half, due)| (half.first, *due)).collect()
}

#[test]
fn a_producer_is_asked_when_the_immunity_is_over_and_then_once_an_interval() {
    let mut ledger = Ledger::new(0);
    ledger.read(half(0, 0), &RULES);
    assert_eq!((due(&mut ledger, 5999), ledger.next_due()), (vec![], Some(6000)));
    let mut now_ms = 6000;
    for times in 1..=3 {
        assert_eq!(due(&mut ledger, now_ms - 1), []);
        assert_eq!(due(&mut ledger, now_ms), [(0, Due::Ask(times))]);
        let copy = Half { offset: times.into(), stored_ms: now_ms, checks: times, ..half(0, 0) };
        ledger.renewed(copy, &RULES);
        now_ms += RULES.interval_ms;
    }
    assert_eq!(due(&mut ledger, now_ms), [(0, Due::GiveUp)]);
    assert_eq!(ledger.state(0, 0), State::Waiting { offset: 3 });
    ledger.ended(0, 3, End::GivenUp);
    assert_eq!(ledger.state(0, 0), State::Ended(Some(End::GivenUp)));
    assert_eq!(due(&mut ledger, i64::MAX), []);
}

#[test]
fn a_long_immunity_is_carried_along_without_a_question() {
    let mut ledger = Ledger::new(0);
    let mut it = Half { immune_ms: 70_000, ..half(0, 0) };
    ledger.read(it, &RULES);
    for (at, now_ms) in [(1, 30_000), (2, 60_000)] {
        assert_eq!(due(&mut ledger, now_ms - 1), []);
        assert_eq!(due(&mut ledger, now_ms), [(0, Due::Carry)]);
        it = Half { offset: at, stored_ms: now_ms, ..it };
        ledger.renewed(it, &RULES);
    }
    assert_eq!(due(&mut ledger, 69_999), []);
    assert_eq!(due(&mut ledger, 70_000), [(0, Due::Ask(1))]);
}

#[test]
fn what_is_older_than_messages_are_kept_is_given_up() {
    let mut ledger = Ledger::new(0);
    ledger.read(half(0, 0), &RULES);
    assert_eq!(due(&mut ledger, RULES.reserved_ms + 1), [(0, Due::GiveUp)]);
    ledger.put_off(0, RULES.reserved_ms + 500);
    assert_eq!(due(&mut ledger, RULES.reserved_ms + 499), []);
}

#[test]
fn a_clock_that_is_set_back_puts_off_no_question() {
    const HOUR: i64 = 3_600_000;
    let mut ledger = Ledger::new(0);
    ledger.read(half(0, HOUR), &RULES);
    ledger.read(Half { checks: 1, ..half(1, HOUR) }, &RULES);
    assert_eq!(due(&mut ledger, HOUR), []);
    assert_eq!(due(&mut ledger, 1000), [], "it was an hour later a moment ago");
    assert_eq!((due(&mut ledger, 6999), ledger.next_due()), (vec![], Some(7000)));
    assert_eq!(due(&mut ledger, 7000), [(0, Due::Ask(1))]);
    assert_eq!(due(&mut ledger, 31_000), [(0, Due::Ask(1)), (1, Due::Ask(2))]);
    // Read when the clock is right again.
    let mut ledger = Ledger::new(0);
    ledger.read(half(0, HOUR).not_after(1000), &RULES);
    assert_eq!((due(&mut ledger, 6999), ledger.next_due()), (vec![], Some(7000)));
}

#[test]
fn an_end_may_come_before_its_half_is_read() {
    let mut ledger = Ledger::new(5);
    assert_eq!(ledger.state(7, 7), State::Waiting { offset: 7 });
    ledger.ended(7, 7, End::Committed);
    assert_eq!(ledger.state(7, 7), State::Ended(Some(End::Committed)));
    (5..9).for_each(|offset| ledger.read(half(offset, 0), &RULES));
    assert_eq!(ledger.len(), 3);
    assert_eq!(ledger.state(7, 7), State::Ended(Some(End::Committed)));
    assert_eq!(ledger.state(4, 4), State::Ended(None), "before the ledger began");
}

#[test]
fn a_copy_takes_the_place_of_an_original_whose_end_was_lost() {
    let mut ledger = Ledger::new(0);
    ledger.read(half(0, 0), &RULES);
    ledger.read(Half { first: 0, checks: 1, stored_ms: 10, ..half(1, 10) }, &RULES);
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger.state(0, 0), State::Waiting { offset: 1 });
    assert_eq!(due(&mut ledger, 10 + RULES.interval_ms), [(0, Due::Ask(2))]);
}

/// The two queues as they are in the log, and what is true of each transaction.
#[derive(Debug, Default)]
struct World {
    halves: Vec<Half>,
    /// Each names the offset of a half.
    ends: Vec<i64>,
    /// By the offset of the first copy.
    truth: BTreeMap<i64, Option<End>>,
    /// What was written down last.
    done: (i64, i64),
}

impl World {
    fn end_of_halves(&self) -> i64 {
        self.halves.len() as i64
    }

    fn restarted(&self) -> Ledger {
        let mut ledger = Ledger::new(self.done.0);
        self.ends[self.done.1 as usize..].iter().for_each(|offset| ledger.end_read(*offset));
        ledger
    }
}

#[test]
fn any_history_ends_every_transaction_once_and_forgets_none() {
    for seed in 0..40 {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut world, mut ledger, mut now_ms) = (World::default(), Ledger::new(0), 0);
    for at in 0..400 {
        now_ms += random.random_range(0..4000);
        step(&mut random, &mut world, &mut ledger, now_ms);
        if at % 10 > 0 {
            continue;
        }
        for (first, end) in &world.truth {
            let newest = world.halves.iter().rfind(|half| half.first == *first).unwrap();
            let ended = matches!(ledger.state(*first, newest.offset), State::Ended(_));
            assert_eq!(ended, end.is_some(), "{first} is {end:?}");
        }
    }
    // From here on nobody says anything: all of them are given up in the end.
    while world.truth.values().any(Option::is_none) {
        now_ms += 1000;
        read(&world, &mut ledger, usize::MAX);
        settle(&mut world, &mut ledger, now_ms);
    }
    assert!(ledger.is_empty());
}

fn step(random: &mut StdRng, world: &mut World, ledger: &mut Ledger, now_ms: i64) {
    match random.random_range(0..20) {
        0..=8 => {
            let offset = world.end_of_halves();
            let immune_ms = [0, 6000, 100_000][random.random_range(0..3)];
            world.halves.push(Half { immune_ms, ..half(offset, now_ms) });
            world.truth.insert(offset, None);
        }
        9..=12 => {
            // By any copy that its producer was told of.
            let Some(half) = world.halves.choose(random).copied() else { return };
            if let State::Waiting { offset } = ledger.state(half.first, half.offset) {
                assert_eq!(world.truth.insert(half.first, Some(End::Committed)), Some(None));
                world.ends.push(offset);
                ledger.ended(half.first, offset, End::Committed);
            }
        }
        13..=15 => read(world, ledger, random.random_range(1..10)),
        16..=17 => settle(world, ledger, now_ms),
        18 => {
            ledger.mark(world.end_of_halves(), world.ends.len() as i64);
            let (halves, ends) = ledger.done();
            assert!(halves >= world.done.0 && ends.is_none_or(|ends| ends >= world.done.1));
            world.done = (halves, ends.unwrap_or(world.done.1));
        }
        _ => *ledger = world.restarted(),
    }
}

fn read(world: &World, ledger: &mut Ledger, max: usize) {
    let from = ledger.next() as usize;
    world.halves[from..].iter().take(max).for_each(|half| ledger.read(*half, &RULES));
}

fn settle(world: &mut World, ledger: &mut Ledger, now_ms: i64) {
    for (half, due) in ledger.due(now_ms, 10, &RULES) {
        world.ends.push(half.offset);
        let checks = match due {
            Due::GiveUp => {
                assert_eq!(world.truth.insert(half.first, Some(End::GivenUp)), Some(None));
                ledger.ended(half.first, half.offset, End::GivenUp);
                continue;
            }
            Due::Carry => half.checks,
            Due::Ask(times) => times,
        };
        assert!(checks <= RULES.checks_max);
        let offset = world.end_of_halves();
        let copy = Half { offset, stored_ms: now_ms, checks, ..half };
        world.halves.push(copy);
        ledger.renewed(copy, &RULES);
    }
}
