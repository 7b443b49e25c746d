//! Bodies on the wire: compressed and unpacked within a bound, and checked against their digest.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use md5::{Digest as _, Md5};
use protocol::grpc::{self, DigestType, Encoding};
use sha1::Sha1;

use crate::credentials::hex;

/// What a compressed body may unpack to: many times what a broker accepts.
pub(crate) const UNPACKED_BYTES_MAX: u64 = 64 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a received body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("its {0} is {1}, it should be {2}")]
    Digest(&'static str, String, String),
    #[error("it unpacks to more than {UNPACKED_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it does not unpack: {0}")]
    Packed(String),
}

/// Checks the bytes as they came against the digest, if there is one of a known kind.
pub(crate) fn verify(body: &[u8], digest: Option<&grpc::Digest>) -> Result<(), BodyError> {
    let Some(digest) = digest else { return Ok(()) };
    let (name, found) = match digest.r#type() {
        DigestType::Crc32 => ("CRC32", format!("{:08X}", crc32fast::hash(body))),
        DigestType::Md5 => ("MD5", hex(&Md5::digest(body))),
        DigestType::Sha1 => ("SHA1", hex(&Sha1::digest(body))),
        DigestType::Unspecified => return Ok(()),
    };
    // Senders disagree on leading zeros and on case.
    let trimmed = |text: &str| text.trim_start_matches('0').to_ascii_uppercase();
    if trimmed(&found) == trimmed(&digest.checksum) {
        return Ok(());
    }
    Err(BodyError::Digest(name, found, digest.checksum.clone()))
}

/// The body as its sender wrote it. What 4.x producers packed with zlib is announced as GZIP too.
pub(crate) fn unpack(body: Bytes, encoding: i32) -> Result<Bytes, BodyError> {
    if encoding != Encoding::Gzip as i32 {
        return Ok(body);
    }
    match body.starts_with(&GZIP_MAGIC) {
        true => read_within(GzDecoder::new(&*body)),
        false => read_within(ZlibDecoder::new(&*body)),
    }
}

fn read_within(from: impl Read) -> Result<Bytes, BodyError> {
    let mut unpacked = Vec::new();
    let read = from.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut unpacked);
    match read {
        Err(error) => Err(BodyError::Packed(error.to_string())),
        Ok(length) if length as u64 > UNPACKED_BYTES_MAX => Err(BodyError::TooLarge),
        Ok(_) => Ok(unpacked.into()),
    }
}

/// The body as GZIP, or `None` if that is no shorter.
pub(crate) fn pack(body: &[u8]) -> Option<Bytes> {
    let compress = || -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body)?;
        encoder.finish()
    };
    let packed = compress().expect("writing to memory does not fail");
    (packed.len() < body.len()).then(|| packed.into())
}

#[cfg(test)]
mod tests {
    use flate2::write::ZlibEncoder;

    use super::*;

    const GZIP: i32 = Encoding::Gzip as i32;

    fn digest(kind: DigestType, checksum: &str) -> grpc::Digest {
        grpc::Digest { r#type: kind.into(), checksum: checksum.to_owned() }
    }

    #[test]
    fn a_body_is_held_against_each_kind_of_digest() {
        for (kind, good) in [
            (DigestType::Crc32, "CBF43926"),
            (DigestType::Crc32, "cbf43926"),
            (DigestType::Md5, "25F9E794323B453885F5181F1B624D0B"),
            (DigestType::Sha1, "F7C3BC1D808E04732ADF679965CCC34CA7AE3441"),
        ] {
            assert_eq!(verify(b"123456789", Some(&digest(kind, good))), Ok(()), "{kind:?}");
            assert!(verify(b"12345678", Some(&digest(kind, good))).is_err(), "{kind:?}");
        }
        assert_eq!(verify(b"", None), Ok(()));
        assert_eq!(verify(b"x", Some(&digest(DigestType::Unspecified, ""))), Ok(()));
    }

    #[test]
    fn what_was_packed_unpacks() {
        let body = vec![7; 10_000];
        let packed = pack(&body).unwrap();
        assert!(packed.len() < 1000);
        assert_eq!(unpack(packed, GZIP).unwrap(), body);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&body).unwrap();
        assert_eq!(unpack(zlib.finish().unwrap().into(), GZIP).unwrap(), body);
        assert_eq!(unpack(Bytes::from_static(b"as it is"), 1).unwrap(), "as it is");
        assert_eq!(pack(b"short"), None);
    }

    #[test]
    fn a_body_that_unpacks_to_too_much_is_refused() {
        let bomb = pack(&vec![0; UNPACKED_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(unpack(bomb, GZIP), Err(BodyError::TooLarge));
        assert!(matches!(unpack(Bytes::from_static(b"junk"), GZIP), Err(BodyError::Packed(_))));
    }
}
