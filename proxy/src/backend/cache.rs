//! Answers kept for a while: asked for again when old, kept when nobody answers.

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
    /// A value this old is asked for again.
    pub refresh: Duration,
    /// A value this old is not used any more.
    pub expire: Duration,
    pub entries_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    fetched: Instant,
    /// When somebody last began to ask again; others use the old value meanwhile.
    asked: Instant,
}

enum Found<V> {
    Fresh(Arc<V>),
    Old(Arc<V>),
    Nothing,
}

impl<V> Cache<V> {
    pub fn new(rules: Rules) -> Self {
        Self { entries: Mutex::default(), rules }
    }

    /// The value of `key`, from here or from `fetch`. A failure is hidden as long as an old value may be used.
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
            (Err(_), Some(old)) => Ok(Some(old)),
            (Err(error), None) => Err(error),
        }
    }

    /// Forgets a value that proved wrong.
    pub fn forget(&self, key: &str) {
        self.entries.lock().remove(key);
    }

    fn find(&self, key: &str) -> Found<V> {
        let now = clock::instant();
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return Found::Nothing };
        let age = now.duration_since(entry.fetched);
        if age >= self.rules.expire {
            return Found::Nothing;
        }
        if age < self.rules.refresh || now.duration_since(entry.asked) < self.rules.refresh {
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
        let entry = Entry { value: value.clone(), fetched: now, asked: now };
        entries.insert(key.to_owned(), entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(refresh: Duration) -> Cache<u32> {
        Cache::new(Rules { refresh, expire: Duration::from_secs(60), entries_max: 2 })
    }

    #[tokio::test]
    async fn a_fresh_value_is_not_asked_for_again() {
        let cache = cache(Duration::from_secs(60));
        let first = cache.get("a", || Box::pin(async { Ok::<_, ()>(Some(1)) })).await.unwrap();
        let second = cache.get("a", || Box::pin(async { Ok::<_, ()>(Some(2)) })).await.unwrap();
        assert_eq!((first.as_deref(), second.as_deref()), (Some(&1), Some(&1)));
    }

    #[tokio::test]
    async fn an_old_value_serves_when_nobody_answers() {
        let cache = cache(Duration::ZERO);
        cache.get("a", || Box::pin(async { Ok::<_, ()>(Some(1)) })).await.unwrap();
        assert_eq!(
            cache.get("a", || Box::pin(async { Err("away") })).await.unwrap().as_deref(),
            Some(&1)
        );
        assert_eq!(
            cache.get("b", || Box::pin(async { Err::<Option<u32>, _>("away") })).await,
            Err("away")
        );
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten_and_there_are_never_too_many() {
        let cache = cache(Duration::ZERO);
        cache.get("a", || Box::pin(async { Ok::<_, ()>(Some(1)) })).await.unwrap();
        assert_eq!(cache.get("a", || Box::pin(async { Ok::<_, ()>(None) })).await, Ok(None));
        for key in ["a", "b", "c", "d"] {
            cache.get(key, || Box::pin(async { Ok::<_, ()>(Some(1)) })).await.unwrap();
        }
        assert_eq!(cache.entries.lock().len(), 2);
    }
}
