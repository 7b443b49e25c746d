//! Log files as memory: the one place of the store that needs `unsafe`.
#![allow(unsafe_code, reason = "mapping a file cannot be proven safe by the compiler")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions};

/// Maps a whole log file for reading. The mapping goes away with the last slice of it.
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: a mapping must not change or shrink under its readers. Log files never shrink while the store
    // is open (only recovery cuts, before anything is mapped), no other process writes them (exclusive lock),
    // and slices are handed out only of ranges that were written completely and are never written again.
    let map = unsafe { MmapOptions::new().map(file)? };
    // Without this, one fault reads up to the device's read-ahead (megabytes) around it.
    map.advise(Advice::Random)?;
    Ok(Bytes::from_owner(map))
}
