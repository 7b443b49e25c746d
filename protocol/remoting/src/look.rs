//! Whether to look for the next request for a moment before the thread sleeps.

use std::time::{Duration, Instant};

/// How long is looked. On some machines it takes as long to be woken by another core.
const LOOK_MAX: Duration = Duration::from_micros(60);
/// Requests in a row that must have come as fast before it is tried, at first and after many failures.
const STREAK_MIN: u32 = 4;
const STREAK_MAX: u32 = 1024;

/// What a connection knows of the pauses its peer makes.
#[derive(Debug)]
pub(crate) struct Look {
    /// When the peer was answered last.
    answered: Instant,
    streak: u32,
    /// The streak that makes it worth trying; grows with every time nothing came.
    needed: u32,
    looking: bool,
}

impl Look {
    pub(crate) fn new(now: Instant) -> Self {
        Self { answered: now, streak: 0, needed: STREAK_MIN, looking: false }
    }

    /// How long ago the peer was answered.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.answered)
    }

    /// A request is there; `alone` if nobody else was served since the last.
    pub(crate) fn arrived(&mut self, alone: bool, now: Instant) {
        let fast = alone && self.silence(now) < LOOK_MAX;
        self.streak = if fast { self.streak.saturating_add(1) } else { 0 };
        if self.looking {
            self.needed = (self.needed / 2).max(STREAK_MIN);
            self.looking = false;
        }
    }

    /// All there is to answer is answered.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered = now;
        self.looking = self.streak >= self.needed;
    }

    pub(crate) fn is_on(&self) -> bool {
        self.looking
    }

    /// Nothing is there yet: whether to go on.
    pub(crate) fn goes_on(&mut self, alone: bool, now: Instant) -> bool {
        if alone && self.silence(now) < LOOK_MAX {
            return true;
        }
        (self.looking, self.streak) = (false, 0);
        self.needed = (self.needed * 2).min(STREAK_MAX);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_peer_that_asks_again_at_once_is_looked_for_until_it_pauses() {
        let mut now = clock::instant();
        let mut look = Look::new(now);
        let mut ask = |look: &mut Look, micros| {
            now += Duration::from_micros(micros);
            look.arrived(true, now);
            look.answered(now);
            look.is_on()
        };
        assert!((1..STREAK_MIN).all(|_| !ask(&mut look, 20)));
        assert!((0..100).all(|_| ask(&mut look, 20)));
        assert!(!ask(&mut look, 100), "it was too slow");
        now += LOOK_MAX;
        look.looking = true;
        assert!(!look.goes_on(true, now));
        assert_eq!((look.is_on(), look.needed), (false, 2 * STREAK_MIN));
    }

    #[test]
    fn nobody_is_looked_for_in_company() {
        let now = clock::instant();
        let mut look = Look::new(now);
        for _ in 0..100 {
            look.arrived(false, now);
            look.answered(now);
            assert!(!look.is_on());
        }
        look.looking = true;
        assert!(!look.goes_on(false, now));
    }
}
