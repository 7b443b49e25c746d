//! Ids of messages, as 5.x clients make them: 34 digits, unique without asking anyone.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::credentials::hex;

/// 2021-01-01T00:00:00Z, from which the seconds of an id count.
const EPOCH_SECONDS: i64 = 1_609_459_200;
const VERSION: u8 = 1;

/// Makes ids: a version, six bytes of a random host, two of the process, the second it began in, a sequence.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: [u8; 13],
    sequence: AtomicU32,
}

impl Ids {
    pub(crate) fn new(host: [u8; 6], process: u32, now_ms: i64) -> Self {
        let mut prefix = [0; 13];
        prefix[0] = VERSION;
        prefix[1..7].copy_from_slice(&host);
        prefix[7..9].copy_from_slice(&process.to_be_bytes()[2..]);
        let seconds = (now_ms / 1000 - EPOCH_SECONDS) as u32;
        prefix[9..].copy_from_slice(&seconds.to_be_bytes());
        Self { prefix, sequence: AtomicU32::new(0) }
    }

    pub(crate) fn next(&self) -> String {
        let mut bytes = [0; 17];
        bytes[..13].copy_from_slice(&self.prefix);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        bytes[13..].copy_from_slice(&sequence.to_be_bytes());
        hex(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_all_clients_know() {
        let ids = Ids::new([1, 2, 3, 4, 5, 6], 0x1234_abcd, (EPOCH_SECONDS + 10) * 1000);
        assert_eq!(ids.next(), "01010203040506ABCD0000000A00000000");
        assert_eq!(ids.next(), "01010203040506ABCD0000000A00000001");
    }
}
