//! Messages on their way to the broker: the body of a batch send (code 320).
//!
//! On the way back there is nothing to describe: a consumer receives the stored [`crate::record`] bytes.

/// Bytes of an entry that has neither body nor properties.
pub const BATCH_ENTRY_OVERHEAD: usize = 22;

/// One message of a batch. Topic, queue and hosts stand in the request header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch ends inside a message")]
    Truncated,
    #[error("the lengths in a message of the batch do not add up to its size {0}")]
    Lengths(u32),
    #[error("a body of {0} bytes does not fit in a batch")]
    Body(usize),
    #[error("properties of {0} bytes do not fit in a batch")]
    Properties(usize),
}

/// The messages of a batch body. After an error nothing more comes.
pub fn batch_entries(body: &[u8]) -> BatchEntries<'_> {
    BatchEntries { rest: body }
}

#[derive(Clone, Debug)]
pub struct BatchEntries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BatchEntries<'a> {
    type Item = Result<BatchEntry<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = decode(&mut self.rest);
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

fn decode<'a>(rest: &mut &'a [u8]) -> Result<BatchEntry<'a>, BatchError> {
    let total = u32::from_be_bytes(*rest.first_chunk().ok_or(BatchError::Truncated)?);
    let (entry, after) = rest.split_at_checked(total as usize).ok_or(BatchError::Truncated)?;
    let wrong = BatchError::Lengths(total);
    // Total size, magic and body checksum: clients write zeros for the last two, stock does not look.
    let entry = entry.get(12..).ok_or(wrong)?;
    let (flag, entry) = entry.split_first_chunk().ok_or(wrong)?;
    let (length, entry) = entry.split_first_chunk().ok_or(wrong)?;
    let (body, entry) =
        entry.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(wrong)?;
    let (length, properties) = entry.split_first_chunk().ok_or(wrong)?;
    if properties.len() != usize::from(u16::from_be_bytes(*length)) {
        return Err(wrong);
    }
    *rest = after;
    Ok(BatchEntry { flag: i32::from_be_bytes(*flag), body, properties })
}

impl BatchEntry<'_> {
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let properties_length = i16::try_from(self.properties.len())
            .map_err(|_| BatchError::Properties(self.properties.len()))?;
        let total = BATCH_ENTRY_OVERHEAD + self.body.len() + self.properties.len();
        let too_long = |_| BatchError::Body(self.body.len());
        let total = i32::try_from(total).map_err(too_long)?;
        let body_length = i32::try_from(self.body.len()).map_err(too_long)?;
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.flag.to_be_bytes());
        out.extend_from_slice(&body_length.to_be_bytes());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&properties_length.to_be_bytes());
        out.extend_from_slice(self.properties);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn batch() -> (Vec<u8>, [BatchEntry<'static>; 3]) {
        let entries = [
            BatchEntry { flag: 1, body: b"one", properties: b"A\x01b\x02" },
            BatchEntry { flag: -1, body: b"", properties: b"" },
            BatchEntry { flag: 0, body: b"three", properties: b"" },
        ];
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode_into(&mut bytes).unwrap();
        }
        (bytes, entries)
    }

    #[test]
    fn a_batch_comes_back_as_it_went_in() {
        let (bytes, entries) = batch();
        let decoded: Result<Vec<_>, _> = batch_entries(&bytes).collect();
        assert_eq!(decoded.unwrap(), entries);
        assert_eq!(batch_entries(b"").count(), 0);
    }

    #[test]
    fn a_cut_or_lying_batch_ends_with_an_error() {
        let (bytes, _) = batch();
        for length in [1, 3, 4, 21, 28, bytes.len() - 1] {
            assert!(batch_entries(&bytes[..length]).any(|entry| entry.is_err()), "{length}");
        }
        for total in [0u32, 4, 21, 22, u32::MAX] {
            let mut lying = bytes.clone();
            lying[..4].copy_from_slice(&total.to_be_bytes());
            let read: Vec<_> = batch_entries(&lying).collect();
            assert!(read.len() == 1 && read[0].is_err(), "{total}: {read:?}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (good, _) = batch();
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
            assert!(batch_entries(&bytes).count() < 10);
        }
    }
}
