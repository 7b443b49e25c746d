//! Stock index files, read only: ours are of another form, but tools look into old ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const HEADER: u64 = 40;
const SLOT: u64 = 4;
const ITEM: u64 = 20;

/// An index file of a stock broker.
#[derive(Debug)]
pub struct StockIndex {
    file: File,
    pub begin_timestamp: i64,
    pub end_timestamp: i64,
    pub begin_position: i64,
    pub end_position: i64,
    slots: u32,
    /// Items plus one: the first has the number 1.
    pub item_count: u32,
}

/// A key of a message, as stock remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockKey {
    pub hash: u32,
    pub position: u64,
    /// Rounded down to seconds after the first message of the file.
    pub store_timestamp: i64,
}

impl StockIndex {
    /// `slots` is 5 000 000 unless the broker was configured otherwise (`maxHashSlotNum`).
    pub fn open(path: &Path, slots: u32) -> io::Result<StockIndex> {
        let file = File::open(path)?;
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, 0)?;
        let long = |at: usize| i64::from_be_bytes(*header[at..].first_chunk().expect("inside"));
        let index = StockIndex {
            begin_timestamp: long(0),
            end_timestamp: long(8),
            begin_position: long(16),
            end_position: long(24),
            slots,
            item_count: u32::from_be_bytes(*header[36..].first_chunk().expect("inside")),
            file,
        };
        let items_end = index.item_at(index.item_count);
        if slots == 0 || items_end > index.file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a stock index file"));
        }
        Ok(index)
    }

    fn item_at(&self, number: u32) -> u64 {
        HEADER + u64::from(self.slots) * SLOT + u64::from(number) * ITEM
    }

    /// The item of this number, and the number of the item before it in its slot.
    pub fn item(&self, number: u32) -> io::Result<(StockKey, u32)> {
        let mut item = [0; ITEM as usize];
        self.file.read_exact_at(&mut item, self.item_at(number))?;
        let word = |at: usize| u32::from_be_bytes(*item[at..].first_chunk().expect("inside"));
        let position = u64::from(word(4)) << 32 | u64::from(word(8));
        let store_timestamp = self.begin_timestamp + i64::from(word(12)) * 1000;
        Ok((StockKey { hash: word(0), position, store_timestamp }, word(16)))
    }

    /// Everything under a hash (see [`protocol::record::JavaHash::for_index`]), newest first.
    pub fn find(&self, hash: u32) -> io::Result<Vec<StockKey>> {
        let mut slot = [0; SLOT as usize];
        self.file.read_exact_at(&mut slot, HEADER + u64::from(hash % self.slots) * SLOT)?;
        let mut number = u32::from_be_bytes(slot);
        let mut found = Vec::new();
        let mut last = self.item_count;
        // Chains lead to ever lower numbers; one that does not is damaged.
        while number > 0 && number < last {
            let (key, before) = self.item(number)?;
            if key.hash == hash {
                found.push(key);
            }
            (last, number) = (number, before);
        }
        Ok(found)
    }
}
