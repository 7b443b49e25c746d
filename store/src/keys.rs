//! The key index: from the hash of topic and key to positions in the log.

use parking_lot::Mutex;

/// One indexed key of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyItem {
    /// First, so that sorting is by hash.
    pub(crate) hash: u32,
    pub(crate) store_seconds: u32,
    pub(crate) position: u64,
}

impl KeyItem {
    pub(crate) fn new(hash: u32, position: u64, store_timestamp: i64) -> KeyItem {
        let store_seconds = u32::try_from(store_timestamp / 1000).unwrap_or(0);
        KeyItem { hash, store_seconds, position }
    }
}

/// Spreads Java's clustered hashes evenly over 32 bits; different hashes stay different.
pub(crate) fn mix(hash: u32) -> u32 {
    let mut hash = hash;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85EB_CA6B);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xC2B2_AE35);
    hash ^ (hash >> 16)
}

#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) buffer: Mutex<Vec<KeyItem>>,
}
