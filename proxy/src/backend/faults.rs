//! Which brokers to leave alone for a while: those that failed, and those that answer slowly.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An answer this late (left) keeps a broker out for so long (right).
const STEPS: [(Duration, Duration); 5] = [
    (Duration::from_millis(15_000), Duration::from_secs(30)),
    (Duration::from_millis(5_000), Duration::from_secs(10)),
    (Duration::from_millis(3_000), Duration::from_secs(6)),
    (Duration::from_millis(1_800), Duration::from_secs(5)),
    (Duration::from_millis(550), Duration::from_secs(2)),
];

/// How long a broker is left alone that gave no answer.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Until when each broker is avoided.
#[derive(Debug, Default)]
pub struct Faults {
    avoided: Mutex<HashMap<String, Instant>>,
}

impl Faults {
    /// Takes note of how a send went.
    pub fn note(&self, broker: &str, took: Duration, answered: bool, now: Instant) {
        let late = STEPS.iter().find(|(late, _)| took >= *late).map(|(_, out)| *out);
        let out = if answered { late } else { Some(AFTER_FAILURE) };
        if out.is_none() && self.avoided.lock().is_empty() {
            return;
        }
        let mut avoided = self.avoided.lock();
        match out {
            Some(out) => {
                avoided.retain(|_, until| *until > now);
                avoided.insert(broker.to_owned(), now + out);
            }
            None => {
                avoided.remove(broker);
            }
        }
    }

    /// Whether messages had better go elsewhere.
    pub fn avoids(&self, broker: &str, now: Instant) -> bool {
        self.avoided.lock().get(broker).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_fails_is_avoided_until_it_answers_or_time_has_passed() {
        let (faults, now) = (Faults::default(), remoting::clock::instant());
        let quick = Duration::from_millis(1);
        assert!(!faults.avoids("a", now));
        faults.note("a", quick, false, now);
        assert!(faults.avoids("a", now) && !faults.avoids("b", now));
        assert!(!faults.avoids("a", now + AFTER_FAILURE));
        faults.note("a", quick, true, now);
        assert!(!faults.avoids("a", now));
    }

    #[test]
    fn a_slow_broker_is_avoided_the_longer_the_slower_it_is() {
        let (faults, now) = (Faults::default(), remoting::clock::instant());
        faults.note("a", Duration::from_millis(600), true, now);
        assert!(faults.avoids("a", now + Duration::from_millis(1_900)));
        assert!(!faults.avoids("a", now + Duration::from_secs(2)));
        faults.note("a", Duration::from_secs(20), true, now);
        assert!(faults.avoids("a", now + Duration::from_secs(29)));
    }
}
