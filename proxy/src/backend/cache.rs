//! Answers kept for a while: asked for again when old, of use all the same as long as nobody answers.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use remoting::clock;

/// What asks for a value.
pub type Fetch<'f, V, E> = Pin<Box<dyn Future<Output = Result<Option<V>, E>> + Send + 'f>>;

/// Values by name.
#[derive(Debug)]
pub struct Cache<V> {
    entries: Mutex<HashMap<String, Entry<V>>>,
    rules: Rules,
}

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A value this old is asked for again, by one of those who want it.
    pub refresh: Duration,
    /// A value this old is asked for again by everyone who wants it. It is used only if nobody answers.
    pub expire: Duration,
    pub entries_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    fetched: Instant,
    /// It proved wrong since.
    wrong: bool,
    /// When somebody last began to ask again.
    asked: Instant,
    /// Nobody has answered since the value was fetched.
    unanswered: bool,
}

/// How soon after nobody answered a value that proved wrong is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

enum Found<V> {
    Fresh(Arc<V>),
    Old(Arc<V>),
    Nothing,
}

impl<V> Cache<V> {
    pub fn new(rules: Rules) -> Self {
        Self { entries: Mutex::default(), rules }
    }

    /// The value of `key`, from here or from `fetch`. A failure is hidden by any value there is, however old:
    /// who cannot be asked does not know better.
    ///
    /// What fetches is made only when it is needed, and apart, so that finding a value stays small.
    pub async fn get<'f, E>(
        &self,
        key: &str,
        fetch: impl FnOnce() -> Fetch<'f, V, E>,
    ) -> Result<Option<Arc<V>>, E> {
        let old = match self.find(key) {
            Found::Fresh(value) => return Ok(Some(value)),
            Found::Old(value) => Some(value),
            Found::Nothing => None,
        };
        match (fetch().await, old) {
            (Ok(Some(value)), _) => Ok(Some(self.put(key, value))),
            (Ok(None), _) => {
                self.entries.lock().remove(key);
                Ok(None)
            }
            (Err(_), Some(old)) => {
                if let Some(entry) = self.entries.lock().get_mut(key) {
                    entry.unanswered = true;
                }
                Ok(Some(old))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// A value proved wrong: it is asked for again before it is used.
    pub fn doubt(&self, key: &str) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.wrong = true;
        }
    }

    fn find(&self, key: &str) -> Found<V> {
        let now = clock::instant();
        let Rules { refresh, expire, .. } = self.rules;
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return Found::Nothing };
        let (age, asked) = (now.duration_since(entry.fetched), now.duration_since(entry.asked));
        let usable = match (entry.wrong, entry.unanswered) {
            (false, false) => age < refresh || age < expire && asked < refresh,
            (false, true) => asked < refresh,
            (true, false) => false,
            (true, true) => asked < AGAIN.min(refresh),
        };
        if usable {
            return Found::Fresh(entry.value.clone());
        }
        entry.asked = now;
        Found::Old(entry.value.clone())
    }

    fn put(&self, key: &str, value: V) -> Arc<V> {
        let (value, now) = (Arc::new(value), clock::instant());
        let mut entries = self.entries.lock();
        if entries.len() >= self.rules.entries_max && !entries.contains_key(key) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.fetched);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                entries.remove(&oldest);
            }
        }
        let entry = Entry {
            value: value.clone(),
            fetched: now,
            wrong: false,
            asked: now,
            unanswered: false,
        };
        entries.insert(key.to_owned(), entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn cache(refresh: Duration, expire: Duration) -> Cache<u32> {
        Cache::new(Rules { refresh, expire, entries_max: 2 })
    }

    async fn get(cache: &Cache<u32>, key: &str, answer: Result<u32, &'static str>) -> Option<u32> {
        let found = cache.get(key, || Box::pin(async move { answer.map(Some) })).await;
        found.ok().flatten().as_deref().copied()
    }

    #[tokio::test]
    async fn a_fresh_value_is_not_asked_for_again() {
        let cache = cache(LONG, LONG);
        assert_eq!(get(&cache, "a", Ok(1)).await, Some(1));
        assert_eq!(get(&cache, "a", Ok(2)).await, Some(1));
    }

    #[tokio::test]
    async fn a_value_however_old_serves_when_nobody_answers() {
        for expire in [LONG, Duration::ZERO] {
            let cache = cache(Duration::ZERO, expire);
            assert_eq!(get(&cache, "a", Ok(1)).await, Some(1));
            for _ in 0..3 {
                assert_eq!(get(&cache, "a", Err("away")).await, Some(1));
            }
            assert_eq!(get(&cache, "a", Ok(2)).await, Some(2));
            assert_eq!(get(&cache, "b", Err("away")).await, None);
        }
    }

    #[tokio::test]
    async fn a_value_that_proved_wrong_is_asked_for_again_and_serves_when_nobody_answers() {
        let cache = cache(LONG, LONG);
        assert_eq!(get(&cache, "a", Ok(1)).await, Some(1));
        cache.doubt("a");
        assert_eq!(get(&cache, "a", Err("away")).await, Some(1));
        // For a moment nobody else waits for an answer that does not come.
        assert_eq!(get(&cache, "a", Ok(2)).await, Some(1));
        cache.entries.lock().get_mut("a").unwrap().asked -= AGAIN;
        assert_eq!(get(&cache, "a", Ok(2)).await, Some(2));
        cache.doubt("a");
        assert_eq!(get(&cache, "a", Ok(3)).await, Some(3));
        assert_eq!(get(&cache, "a", Ok(4)).await, Some(3));
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten_and_there_are_never_too_many() {
        let cache = cache(Duration::ZERO, LONG);
        assert_eq!(get(&cache, "a", Ok(1)).await, Some(1));
        assert_eq!(cache.get("a", || Box::pin(async { Ok::<_, ()>(None) })).await, Ok(None));
        for key in ["a", "b", "c", "d"] {
            assert_eq!(get(&cache, key, Ok(1)).await, Some(1));
        }
        assert_eq!(cache.entries.lock().len(), 2);
    }
}
