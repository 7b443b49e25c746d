//! The state file: queues, extents, tails and keys as of a position of the log, so that a start need not read it all.
//!
//! A file begins with a full account and goes on with what changed, frame by frame. It is derived: if it is lost,
//! the log is read from the start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::keys::{KeyItem, RunInfo};
use crate::queue::UNIT;
use crate::queue::files::Extent;
use crate::segment::sync_dir;

const FRAME_MAGIC: u32 = 0xFE44_057A;
const FRAME_HEAD: usize = 12;

/// One fact about the derived state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact<'a> {
    /// A queue, known in this file by `id`, whose first offset is `base`.
    Queue {
        id: u32,
        queue_id: i32,
        base: i64,
        topic: &'a str,
    },
    /// The units from `base` on.
    Units {
        id: u32,
        base: i64,
        units: &'a [u8],
    },
    /// The units of the extent are in a queue file.
    Sealed {
        id: u32,
        extent: Extent,
    },
    /// The queue begins again at 0.
    Reset {
        id: u32,
    },
    /// Offsets before this one were deleted by retention.
    Min {
        id: u32,
        min: i64,
    },
    Key(KeyItem),
    /// The keys so far were written as a run, all of them.
    Run(RunInfo),
    /// The state holds everything before this position of the log.
    Covered {
        position: u64,
        store_timestamp: i64,
        witness: Witness,
    },
}

/// A message near the end of what is covered: if it is not where it was, this is another log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Witness {
    pub(crate) position: u64,
    /// 0 while there is no message.
    pub(crate) size: u32,
}

/// Collects facts that become true together.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn add(&mut self, fact: &Fact<'_>) {
        let out = &mut self.bytes;
        if out.is_empty() {
            out.resize(FRAME_HEAD, 0);
        }
        match fact {
            Fact::Queue { id, queue_id, base, topic } => {
                out.push(1);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&queue_id.to_be_bytes());
                out.extend_from_slice(&base.to_be_bytes());
                let length = u16::try_from(topic.len()).expect("topics fit into a record");
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(topic.as_bytes());
            }
            Fact::Units { id, base, units } => {
                out.push(2);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&base.to_be_bytes());
                let count = u32::try_from(units.len() / UNIT).expect("tails are limited");
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(units);
            }
            Fact::Sealed { id, extent } => {
                out.push(3);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&extent.base.to_be_bytes());
                out.extend_from_slice(&extent.first_position.to_be_bytes());
                out.extend_from_slice(&extent.file.to_be_bytes());
                out.extend_from_slice(&extent.at.to_be_bytes());
                out.extend_from_slice(&extent.count.to_be_bytes());
            }
            Fact::Reset { id } => {
                out.push(4);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Fact::Min { id, min } => {
                out.push(5);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&min.to_be_bytes());
            }
            Fact::Key(item) => {
                out.push(6);
                out.extend_from_slice(&item.encode());
            }
            Fact::Run(run) => {
                out.push(7);
                out.extend_from_slice(&run.encode());
            }
            Fact::Covered { position, store_timestamp, witness } => {
                out.push(8);
                out.extend_from_slice(&position.to_be_bytes());
                out.extend_from_slice(&store_timestamp.to_be_bytes());
                out.extend_from_slice(&witness.position.to_be_bytes());
                out.extend_from_slice(&witness.size.to_be_bytes());
            }
        }
    }

    /// The frame as it is written; the next facts begin a new one.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            let length = u32::try_from(bytes.len() - FRAME_HEAD).expect("frames are limited");
            let crc = crc32fast::hash(&bytes[FRAME_HEAD..]);
            bytes[..4].copy_from_slice(&FRAME_MAGIC.to_be_bytes());
            bytes[4..8].copy_from_slice(&length.to_be_bytes());
            bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }
}

/// Reads the facts of a frame; `None` when the bytes are not facts, which a checksum does not let happen.
fn facts(mut bytes: &[u8], mut each: impl FnMut(Fact<'_>)) -> Option<()> {
    while let Some((kind, rest)) = bytes.split_first() {
        let mut rest = rest;
        let fact = match kind {
            1 => {
                let (id, queue_id, base) =
                    (u32_of(&mut rest)?, u32_of(&mut rest)?, i64_of(&mut rest)?);
                let length = u16::from_be_bytes(*take(&mut rest, 2)?.first_chunk()?);
                let topic = std::str::from_utf8(take(&mut rest, usize::from(length))?).ok()?;
                Fact::Queue { id, queue_id: queue_id.cast_signed(), base, topic }
            }
            2 => {
                let (id, base, count) =
                    (u32_of(&mut rest)?, i64_of(&mut rest)?, u32_of(&mut rest)?);
                let units = take(&mut rest, (count as usize).checked_mul(UNIT)?)?;
                Fact::Units { id, base, units }
            }
            3 => Fact::Sealed {
                id: u32_of(&mut rest)?,
                extent: Extent {
                    base: i64_of(&mut rest)?,
                    first_position: i64_of(&mut rest)?.cast_unsigned(),
                    file: u32_of(&mut rest)?,
                    at: u32_of(&mut rest)?,
                    count: u32_of(&mut rest)?,
                },
            },
            4 => Fact::Reset { id: u32_of(&mut rest)? },
            5 => Fact::Min { id: u32_of(&mut rest)?, min: i64_of(&mut rest)? },
            6 => Fact::Key(KeyItem::decode(take(&mut rest, KeyItem::BYTES)?.first_chunk()?)),
            7 => Fact::Run(RunInfo::decode(take(&mut rest, RunInfo::BYTES)?.first_chunk()?)),
            8 => Fact::Covered {
                position: i64_of(&mut rest)?.cast_unsigned(),
                store_timestamp: i64_of(&mut rest)?,
                witness: Witness {
                    position: i64_of(&mut rest)?.cast_unsigned(),
                    size: u32_of(&mut rest)?,
                },
            },
            _ => return None,
        };
        each(fact);
        bytes = rest;
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn u32_of(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*take(bytes, 4)?.first_chunk()?))
}

fn i64_of(bytes: &mut &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(*take(bytes, 8)?.first_chunk()?))
}

/// The newest state file and where to go on in it.
#[derive(Debug)]
pub(crate) struct StateFile {
    dir: PathBuf,
    number: u64,
    /// Nothing to go on with: the next checkpoint writes a full account.
    file: Option<File>,
    end: u64,
    /// Length of the full account at the start of the file.
    account_bytes: u64,
    /// The next number a queue gets in the file.
    pub(crate) next_id: u32,
    pub(crate) witness: Witness,
}

impl StateFile {
    /// Looks for the newest file without reading it.
    pub(crate) fn find(dir: PathBuf) -> io::Result<StateFile> {
        std::fs::create_dir_all(&dir)?;
        let mut state = StateFile {
            dir,
            number: 0,
            file: None,
            end: 0,
            account_bytes: 0,
            next_id: 0,
            witness: Witness::default(),
        };
        for entry in std::fs::read_dir(&state.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                std::fs::remove_file(&path)?;
            } else if let Some(number) = number_of(&path) {
                state.number = state.number.max(number);
            }
        }
        Ok(state)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(format!("state-{:010}", self.number))
    }

    /// Tells every fact of the file in order, up to the first frame that is not whole.
    pub(crate) fn load(&mut self, mut each: impl FnMut(Fact<'_>)) -> io::Result<()> {
        let opened = OpenOptions::new().read(true).write(true).open(self.path());
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut head = [0; FRAME_HEAD];
        let mut body = Vec::new();
        let mut covered = false;
        while length - self.end >= FRAME_HEAD as u64 {
            file.read_exact(&mut head)?;
            let word = |at: usize| u32::from_be_bytes(*head[at..].first_chunk().expect("inside"));
            let end = self.end + FRAME_HEAD as u64 + u64::from(word(4));
            if word(0) != FRAME_MAGIC || end > length {
                break;
            }
            body.resize(word(4) as usize, 0);
            file.read_exact(&mut body)?;
            if crc32fast::hash(&body) != word(8) {
                break;
            }
            let told = facts(&body, |fact| {
                covered |= matches!(fact, Fact::Covered { .. });
                each(fact);
            });
            if told.is_none() {
                break;
            }
            self.end = end;
            if covered && self.account_bytes == 0 {
                self.account_bytes = end;
            }
        }
        self.file = covered.then_some(file);
        Ok(())
    }

    /// What the file says cannot be built upon.
    pub(crate) fn give_up(&mut self) {
        self.file = None;
    }

    /// A full account is due: there is none, or what came after it has grown larger than it.
    pub(crate) fn wants_account(&self) -> bool {
        self.file.is_none() || self.end > 32 << 20 && self.end > 3 * self.account_bytes
    }

    /// Adds a frame and makes it durable. After an error the file is not used any more.
    pub(crate) fn append(&mut self, frame: &mut Frame) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let bytes = frame.take();
        file.write_all_at(&bytes, self.end)?;
        file.sync_data()?;
        self.end += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file, which counts only when it is finished.
    pub(crate) fn start_account(&mut self) -> io::Result<Account> {
        self.file = None;
        self.next_id = 0;
        let path = self.dir.join(format!("state-{:010}.new", self.number + 1));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Account { file, path, end: 0, frame: Frame::default() })
    }

    pub(crate) fn finish_account(&mut self, mut account: Account) -> io::Result<()> {
        account.write()?;
        account.file.sync_all()?;
        let old = self.path();
        self.number += 1;
        std::fs::rename(&account.path, self.path())?;
        sync_dir(&self.dir)?;
        self.end = account.end;
        self.account_bytes = account.end;
        self.file = Some(account.file);
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A full account being written.
#[derive(Debug)]
pub(crate) struct Account {
    file: File,
    path: PathBuf,
    end: u64,
    frame: Frame,
}

impl Account {
    pub(crate) fn add(&mut self, fact: &Fact<'_>) -> io::Result<()> {
        self.frame.add(fact);
        if self.frame.len() > 1 << 20 { self.write() } else { Ok(()) }
    }

    /// Takes over what was collected elsewhere.
    pub(crate) fn extend(&mut self, frame: &Frame) {
        if !frame.is_empty() {
            self.frame.bytes.resize(self.frame.bytes.len().max(FRAME_HEAD), 0);
            self.frame.bytes.extend_from_slice(&frame.bytes[FRAME_HEAD..]);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes = self.frame.take();
        self.file.write_all_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("state-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent() -> Extent {
        Extent { base: 7, first_position: 1 << 40, file: 3, at: 24, count: 5 }
    }

    fn all_facts() -> Vec<Fact<'static>> {
        vec![
            Fact::Queue { id: 1, queue_id: -2, base: 7, topic: "orders" },
            Fact::Units { id: 1, base: 12, units: &[9; 40] },
            Fact::Sealed { id: 1, extent: extent() },
            Fact::Reset { id: 1 },
            Fact::Min { id: 1, min: 8 },
            Fact::Key(KeyItem { hash: 5, store_seconds: 6, position: 7 }),
            Fact::Run(RunInfo { number: 3, items: 4, min_seconds: 1, max_seconds: 2, end: 9 }),
            Fact::Covered {
                position: 77,
                store_timestamp: -1,
                witness: Witness { position: 70, size: 7 },
            },
        ]
    }

    #[test]
    fn facts_come_back_up_to_the_first_torn_frame() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateFile::find(dir.path().to_path_buf()).unwrap();
        let mut account = state.start_account().unwrap();
        for fact in all_facts() {
            account.add(&fact).unwrap();
        }
        state.finish_account(account).unwrap();
        let whole = state.end;
        let mut frame = Frame::default();
        frame.add(&Fact::Reset { id: 2 });
        state.append(&mut frame).unwrap();
        let path = state.path();
        for length in [state.end, state.end - 1, whole + 13, whole + 1, whole, whole - 1, 3, 0] {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            let mut state = StateFile::find(dir.path().to_path_buf()).unwrap();
            let mut told = Vec::new();
            state.load(|fact| told.push(format!("{fact:?}"))).unwrap();
            let mut expected: Vec<_> = all_facts().iter().map(|f| format!("{f:?}")).collect();
            if length < whole {
                expected.clear();
            } else if length == whole + 17 {
                expected.push("Reset { id: 2 }".into());
            }
            assert_eq!(told, expected, "{length}");
            assert_eq!(state.file.is_some(), length >= whole);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateFile::find(dir.path().to_path_buf()).unwrap();
        let mut account = state.start_account().unwrap();
        all_facts().iter().for_each(|fact| account.add(fact).unwrap());
        state.finish_account(account).unwrap();
        let good = std::fs::read(state.path()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(state.path(), &bad).unwrap();
            let mut state = StateFile::find(dir.path().to_path_buf()).unwrap();
            let mut told = 0;
            state.load(|_| told += 1).unwrap();
            assert_eq!(told, 0, "bit in byte {at}");
        }
    }
}
