//! What lies behind the damage at which a log ends is kept beside the log, for people to look at.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::segment::{Segment, file_name, sync_dir};

const CHUNK_BYTES: usize = 1 << 20;

/// Copies what a log file holds behind a position; where to, if there was anything but zeros.
pub(crate) fn keep_rest(
    folder: &Path,
    segment: &Segment,
    position: u64,
) -> io::Result<Option<PathBuf>> {
    let mut copy = None;
    let kept = copy_rest(folder, segment, position, &mut copy);
    if let (Err(_), Some((_, path))) = (&kept, &copy) {
        // A part of it would say that this is all.
        let _ = std::fs::remove_file(path);
    }
    kept?;
    Ok(copy.map(|(_, path)| path))
}

fn copy_rest(
    folder: &Path,
    segment: &Segment,
    position: u64,
    copy: &mut Option<(File, PathBuf)>,
) -> io::Result<()> {
    let from = position - segment.base;
    each_data(&segment.file, from, segment.bytes, |at, bytes| {
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if length == 0 {
            return Ok(());
        }
        let (file, _) = match copy {
            Some(copy) => copy,
            None => copy.insert(create(folder, position)?),
        };
        file.write_all_at(&bytes[..length], at - from)
    })?;
    let Some((file, _)) = copy else { return Ok(()) };
    file.sync_all()?;
    sync_dir(folder)
}

/// Moves a log file that lies behind the end of the log; where to, if it held anything but zeros.
pub(crate) fn keep_file(folder: &Path, segment: &Segment) -> io::Result<Option<PathBuf>> {
    let mut empty = true;
    each_data(&segment.file, 0, segment.bytes, |_, bytes| {
        empty &= bytes.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    if empty {
        std::fs::remove_file(&segment.path)?;
        return Ok(None);
    }
    let (_, path) = create(folder, segment.base)?;
    std::fs::rename(&segment.path, &path)?;
    sync_dir(folder)?;
    Ok(Some(path))
}

/// A new file that says by its name from which position of the log its bytes are.
fn create(folder: &Path, position: u64) -> io::Result<(File, PathBuf)> {
    std::fs::create_dir_all(folder)?;
    for number in 1.. {
        let path = match number {
            1 => folder.join(file_name(position)),
            _ => folder.join(format!("{}.{number}", file_name(position))),
        };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("some number is free")
}

/// Tells the bytes of a range piece by piece, without those that were never written.
fn each_data(
    file: &File,
    from: u64,
    end: u64,
    mut see: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; CHUNK_BYTES];
    for (mut at, end) in written(file, from, end) {
        while at < end {
            let length = (end - at).min(CHUNK_BYTES as u64) as usize;
            file.read_exact_at(&mut piece[..length], at)?;
            see(at, &piece[..length])?;
            at += length as u64;
        }
    }
    Ok(())
}

/// The parts of a range that may hold something. All are found before any is read: what is in the page
/// cache counts as written, and reading ahead would make more of it.
fn written(file: &File, from: u64, end: u64) -> Vec<(u64, u64)> {
    let mut parts = Vec::new();
    let mut at = from;
    while at < end {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // Not every file system knows; then all of it is looked at.
            Err(_) => at,
        };
        if start >= end {
            break;
        }
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(end).clamp(start + 1, end);
        parts.push((start, at));
    }
    parts
}
