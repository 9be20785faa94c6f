//! One member of a zip archive, read a piece at a time: neither the archive nor its directory is ever in memory
//! as a whole. (APPNOTE.TXT of PKWARE, version 6.3.10, whose sections the comments name.)
//!
//! Refused are archives in parts, encrypted members, a second member of the same name, sizes beyond the limits,
//! declared or real, and a checksum that is wrong. The methods are those that Inspect has written: 0 (stored),
//! 8 (deflate) and 93 (zstandard).

use crate::fault::Fault;
use flate2::Crc;
use flate2::read::DeflateDecoder;
use ruzstd::decoding::StreamingDecoder;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Whether the content begins as a zip archive does.
pub(crate) fn is_archive(input: &mut (impl Read + Seek)) -> Result<bool, Fault> {
    input.seek(SeekFrom::Start(0))?;
    let mut first = Vec::new();
    input.by_ref().take(4).read_to_end(&mut first)?;
    // An empty archive has nothing but its directory.
    Ok(first == LOCAL || first == END)
}

/// The content of the member `name`, of at most `most` bytes.
pub(crate) fn member(
    input: &mut (impl Read + Seek),
    name: &str,
    most: u32,
) -> Result<Vec<u8>, Fault> {
    let directory = Directory::find(input)?;
    let entry = directory.entry(input, name)?;
    if entry.size > most {
        return Err(Fault::Archive("says that its header has over 16 MiB"));
    }
    entry.open(input, name)?;
    let packed = input.take(entry.packed.into());
    let content = match entry.method {
        0 => unpacked(packed, entry.size)?,
        8 => unpacked(DeflateDecoder::new(packed), entry.size)?,
        93 => unpacked(zstd(packed)?, entry.size)?,
        _ => {
            return Err(Fault::Archive(
                "is compressed by a method that is not 0, 8 or 93",
            ));
        }
    };
    let mut crc = Crc::new();
    crc.update(&content);
    if crc.sum() != entry.crc {
        return Err(Fault::Archive("has a header with a wrong checksum"));
    }
    Ok(content)
}

/// Where the central directory is.
struct Directory {
    at: u64,
    len: u64,
    entries: u64,
}

/// A member, as the central directory describes it.
struct Entry {
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
    at: u32,
}

impl Directory {
    /// Reads the end of the central directory (4.3.16), and of the larger one (4.3.14) if there is one.
    fn find(input: &mut (impl Read + Seek)) -> Result<Self, Fault> {
        let len = input.seek(SeekFrom::End(0))?;
        let tail_at = len.saturating_sub(END_LEN + MAX_COMMENT);
        input.seek(SeekFrom::Start(tail_at))?;
        let mut tail = Vec::new();
        input
            .by_ref()
            .take(END_LEN + MAX_COMMENT)
            .read_to_end(&mut tail)?;
        // The comment is the rest of the file: a mark within it is none.
        let fits = |at: &usize| {
            let end = tail.get(*at..).unwrap_or_default();
            let comment = u16_at(end, 20).map(u64::from);
            end.starts_with(END) && comment.is_some_and(|it| END_LEN + it == end.len() as u64)
        };
        let at = (0..tail.len()).rev().find(fits);
        let at = at.ok_or(Fault::Archive("has no end: it is not whole"))?;
        let end = tail.get(at..).unwrap_or_default();
        let at = tail_at + at as u64;
        let small = Self {
            at: u32_at(end, 16).unwrap_or(0).into(),
            len: u32_at(end, 12).unwrap_or(0).into(),
            entries: u16_at(end, 10).unwrap_or(0).into(),
        };
        if u16_at(end, 4) != Some(0) || u16_at(end, 6) != Some(0) {
            return Err(Fault::Archive("is one part of several"));
        }
        let is_large = small.entries == u64::from(u16::MAX)
            || small.len == u64::from(u32::MAX)
            || small.at == u64::from(u32::MAX);
        let found = match is_large {
            true => Self::large(input, at)?,
            false => small,
        };
        let is_within = found.at.checked_add(found.len).is_some_and(|end| end <= at);
        if !is_within || found.entries > MAX_ENTRIES {
            return Err(Fault::Archive(
                "has a directory that is not within it, or too long",
            ));
        }
        Ok(found)
    }

    /// The larger end, whose locator (4.3.15) stands before the end at `end_at`.
    fn large(input: &mut (impl Read + Seek), end_at: u64) -> Result<Self, Fault> {
        let broken = Fault::Archive("has no end of its large directory");
        let Some(locator_at) = end_at.checked_sub(20) else {
            return Err(broken);
        };
        let locator = bytes(input, locator_at, 20)?;
        let Some(at) = u64_at(&locator, 8).filter(|_| locator.starts_with(LOCATOR)) else {
            return Err(broken);
        };
        let end = bytes(input, at, 56)?;
        match (u64_at(&end, 48), u64_at(&end, 40), u64_at(&end, 32)) {
            (Some(at), Some(len), Some(entries)) if end.starts_with(LARGE_END) => {
                Ok(Self { at, len, entries })
            }
            _ => Err(broken),
        }
    }

    /// The one entry of this name (4.3.12).
    fn entry(&self, input: &mut (impl Read + Seek), name: &str) -> Result<Entry, Fault> {
        input.seek(SeekFrom::Start(self.at))?;
        let mut directory = BufReader::new(input.take(self.len));
        let (mut found, mut buffer) = (None, Vec::new());
        for _ in 0..self.entries {
            let mut fixed = [0; ENTRY_LEN];
            let torn = |_| Fault::Archive("has a directory that is not whole");
            directory.read_exact(&mut fixed).map_err(torn)?;
            if !fixed.starts_with(ENTRY) {
                return Err(Fault::Archive("has a directory with something else in it"));
            }
            let len = |at| u64::from(u16_at(&fixed, at).unwrap_or(0));
            let (name_len, more_len) = (len(28), len(30) + len(32));
            buffer.clear();
            directory.by_ref().take(name_len).read_to_end(&mut buffer)?;
            let more = &mut directory.by_ref().take(more_len);
            std::io::copy(more, &mut std::io::sink())?;
            if buffer != name.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(Fault::Archive("has two headers"));
            }
            if u16_at(&fixed, 8).is_none_or(|flags| flags & ENCRYPTED != 0) {
                return Err(Fault::Archive("is encrypted"));
            }
            let field = |at| u32_at(&fixed, at).unwrap_or(0);
            found = Some(Entry {
                method: u16_at(&fixed, 10).unwrap_or(0),
                crc: field(16),
                packed: field(20),
                size: field(24),
                at: field(42),
            });
        }
        found.ok_or(Fault::Archive("has no member `header.json`"))
    }
}

impl Entry {
    /// Goes to the beginning of the member's data, behind its own header (4.3.7).
    fn open(&self, input: &mut (impl Read + Seek), name: &str) -> Result<(), Fault> {
        let fixed = bytes(input, self.at.into(), 30)?;
        let name_len = u16_at(&fixed, 26).unwrap_or(0);
        let more_len = u16_at(&fixed, 28).unwrap_or(0);
        let is_same = fixed.starts_with(LOCAL)
            && u16_at(&fixed, 8) == Some(self.method)
            && usize::from(name_len) == name.len()
            && bytes(input, u64::from(self.at) + 30, name.len())? == name.as_bytes();
        if !is_same {
            return Err(Fault::Archive(
                "says other things in its directory than in its header",
            ));
        }
        let at = u64::from(self.at) + 30 + u64::from(name_len) + u64::from(more_len);
        input.seek(SeekFrom::Start(at))?;
        Ok(())
    }
}

/// Exactly so many bytes at a place.
fn bytes(input: &mut (impl Read + Seek), at: u64, len: usize) -> Result<Vec<u8>, Fault> {
    input.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; len];
    let torn = |_| Fault::Archive("is not whole");
    input.read_exact(&mut bytes).map_err(torn)?;
    Ok(bytes)
}

/// The content, which has to be as long as it was declared.
fn unpacked(from: impl Read, size: u32) -> Result<Vec<u8>, Fault> {
    let mut content = Vec::new();
    let read = from.take(u64::from(size) + 1).read_to_end(&mut content);
    match read {
        Ok(len) if len as u64 == u64::from(size) => Ok(content),
        Ok(_) => Err(Fault::Archive(
            "has a header of another length than it says",
        )),
        Err(_) => Err(Fault::Archive("has a header that cannot be unpacked")),
    }
}

/// Unpacks one frame (RFC 8878, section 3.1.1), whose window is looked at first: it is memory.
fn zstd(mut from: impl Read) -> Result<impl Read, Fault> {
    let mut head = Vec::new();
    from.by_ref().take(14).read_to_end(&mut head)?;
    if window(&head).is_none_or(|window| window > MAX_WINDOW) {
        return Err(Fault::Archive(
            "has a header that needs over 16 MiB to be unpacked",
        ));
    }
    let from = std::io::Cursor::new(head).chain(from);
    StreamingDecoder::new(from).map_err(|_| Fault::Archive("has a header that is not zstandard"))
}

fn window(head: &[u8]) -> Option<u64> {
    if !head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return None;
    }
    let descriptor = *head.get(4)?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = *head.get(5)?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    match descriptor >> 6 {
        0 => Some(u64::from(*head.get(at)?)),
        1 => Some(u64::from(u16_at(head, at)?) + 256),
        2 => Some(u32_at(head, at)?.into()),
        _ => u64_at(head, at),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*part))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*part))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*part))
}

const LOCAL: &[u8] = b"PK\x03\x04";
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const LARGE_END: &[u8] = b"PK\x06\x06";
const LOCATOR: &[u8] = b"PK\x06\x07";
const ENCRYPTED: u16 = 1;
const END_LEN: u64 = 22;
const MAX_COMMENT: u64 = 65_535;
const ENTRY_LEN: usize = 46;
const MAX_ENTRIES: u64 = 4 << 20;
/// Most memory that a member's unpacking may take, in bytes.
const MAX_WINDOW: u64 = 16 << 20;
