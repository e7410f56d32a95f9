//! The container of a kernel's ELF file: a Linux bzImage, gzip, or none. In a bzImage, the six compression formats of
//! Linux that libxenguest also knows, without LZO.

use std::fmt;
use std::io::Read;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::memory::Bytes;

/// The compression of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// XZ.
    Xz,
    /// LZMA, the format before XZ.
    Lzma,
    /// LZ4, with its older framing.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl fmt::Display for Packing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "nothing",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "XZ",
            Self::Lzma => "LZMA",
            Self::Lz4 => "LZ4",
            Self::Zstd => "Zstandard",
        })
    }
}

pub(super) const ELF: &[u8] = b"\x7fELF";
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The magic numbers before Linux's compressed data, which libxenguest uses too
/// (tools/libs/guest/xg_dom_bzimageloader.c).
const SIGNATURES: [(&[u8], Packing); 6] = [
    (GZIP, Packing::Gzip),
    (b"BZh", Packing::Bzip2),
    (b"\xfd7zXZ\0", Packing::Xz),
    (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
    (&[0x5d, 0x00], Packing::Lzma),
    (&[0x02, 0x21, 0x4c, 0x18], Packing::Lz4),
];

/// The memory limit of XZ and LZMA, the same as libxenguest's since Xen 4.20. They touch no more of it than they
/// unpack.
pub(super) const LZMA_MEMORY: u64 = 256 << 20;

/// The maximum unpacked size of a block in the older LZ4 framing.
const LZ4_BLOCK: usize = 8 << 20;

/// The reasons why a kernel's file cannot be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file is unusable; with the reason.
    Bad(String),
    /// The output exceeds its limit: its size, and the message.
    TooLarge { bytes: u64, reason: String },
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

/// Returns the ELF file in a kernel's file, and its compression. The ELF file, plus the intermediate data of a kernel
/// that is packed twice, has at most `most` bytes. Intermediate data is dropped before the result is used, because
/// memory may be short.
///
/// # Errors
/// A description of the fault in the file.
pub(super) fn unpack(file: Vec<u8>, most: Bytes) -> Result<(Vec<u8>, Packing), Refusal> {
    // Like libxenguest, accepts any file packed once with gzip as a whole.
    if file.starts_with(GZIP) {
        let (inner, size) = split_size(&file, Packing::Gzip)?;
        let inner = inflate(inner, Packing::Gzip, size, most)?;
        drop(file);
        return match bzimage_payload(&inner)? {
            Some(range) => {
                let most = Bytes(most.0.saturating_sub(inner.len() as u64));
                payload(inner.get(range).unwrap_or_default(), most)
            }
            None if inner.starts_with(ELF) => Ok((inner, Packing::Gzip)),
            None => {
                let reason = "is packed with gzip, and what is in it is neither an ELF file nor a bzImage of Linux";
                Err(Refusal::Bad(reason.to_owned()))
            }
        };
    }
    match bzimage_payload(&file)? {
        Some(range) => payload(file.get(range).unwrap_or_default(), most),
        None if file.starts_with(ELF) => Ok((file, Packing::None)),
        None => {
            let reason = "is neither an ELF file nor a bzImage of Linux, and not one of these packed with gzip";
            Err(Refusal::Bad(reason.to_owned()))
        }
    }
}

/// The place of the compressed data in a bzImage (Linux, Documentation/arch/x86/boot.rst); `None` for any other file.
pub(super) fn bzimage_payload(file: &[u8]) -> Result<Option<Range<usize>>, String> {
    const SECTOR: u64 = 512;
    let byte = |at: usize| file.get(at).copied().map(u64::from);
    let word = |at: usize| Some(u64::from(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?)));
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let fields = (byte(0x1f1), byte(0x206), byte(0x207), word(0x248), word(0x24c));
    let (Some(sectors), Some(minor), Some(major), Some(offset), Some(length)) = fields else {
        return Err(format!("is a bzImage cut off in its header, after {} bytes", file.len()));
    };
    if (major, minor) < (2, 8) {
        return Err(format!("is a bzImage of boot protocol {major}.{minor:02}; Xen starts those of 2.08 and above"));
    }
    // 0 means 4.
    let sectors = if sectors == 0 { 4 } else { sectors };
    let start = (sectors + 1) * SECTOR + offset;
    let end = start + length;
    if length == 0 || end > file.len() as u64 {
        return Err(format!(
            "is a bzImage that has its kernel in {length} bytes at {start}, but the file has {} bytes",
            file.len()
        ));
    }
    let range = |end: u64| usize::try_from(end).unwrap_or(usize::MAX);
    Ok(Some(range(start)..range(end)))
}

fn payload(payload: &[u8], most: Bytes) -> Result<(Vec<u8>, Packing), Refusal> {
    let known = SIGNATURES.iter().find(|(signature, _)| payload.starts_with(signature));
    let Some((_, packing)) = known else {
        let what = if payload.starts_with(b"\x89LZO") { "LZO" } else { "something unknown" };
        return Err(Refusal::Bad(format!(
            "is a bzImage packed with {what}; take one with gzip, bzip2, XZ, LZMA, LZ4 or Zstandard (CONFIG_KERNEL_*)"
        )));
    };
    let (inner, size) = split_size(payload, *packing)?;
    let inner = inflate(inner, *packing, size, most)?;
    if !inner.starts_with(ELF) {
        return Err(Refusal::Bad("is a bzImage, and what is packed in it is no ELF file".to_owned()));
    }
    Ok((inner, *packing))
}

/// The compressed data and its original size, which follows it: in gzip's own trailer, or where Linux puts it.
fn split_size(packed: &[u8], packing: Packing) -> Result<(&[u8], u64), String> {
    let (rest, size) =
        packed.split_last_chunk().ok_or_else(|| format!("has {packing} data of only {} bytes", packed.len()))?;
    let inner = if packing == Packing::Gzip { packed } else { rest };
    Ok((inner, u64::from(u32::from_le_bytes(*size))))
}

/// Unpacks data that must have exactly `size` bytes.
fn inflate(packed: &[u8], packing: Packing, size: u64, most: Bytes) -> Result<Vec<u8>, Refusal> {
    if size > most.0 {
        let reason = format!("unpacks to {size} bytes, as it says itself");
        return Err(Refusal::TooLarge { bytes: size, reason });
    }
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    // Only written pages use memory.
    out.try_reserve_exact(length).map_err(|_| format!("unpacks to {size} bytes, for which memory is too short"))?;
    let lzma = |error: liblzma::stream::Error| format!("cannot be unpacked: {error}");
    match packing {
        Packing::None => return Err(Refusal::Bad("is not packed".to_owned())),
        Packing::Gzip => stream(flate2::bufread::GzDecoder::new(packed), packing, size, &mut out)?,
        Packing::Bzip2 => stream(bzip2::bufread::BzDecoder::new(packed), packing, size, &mut out)?,
        Packing::Xz => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY, 0).map_err(lzma)?;
            stream(liblzma::bufread::XzDecoder::new_stream(packed, decoder), packing, size, &mut out)?;
        }
        Packing::Lzma => {
            let decoder = liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY).map_err(lzma)?;
            stream(liblzma::bufread::XzDecoder::new_stream(packed, decoder), packing, size, &mut out)?;
        }
        Packing::Lz4 => lz4(packed, size, &mut out)?,
        Packing::Zstd => {
            let done = zstd_safe::decompress(&mut out, packed);
            done.map_err(|error| damaged(packing, zstd_safe::get_error_name(error)))?;
        }
    }
    if out.len() as u64 == size { Ok(out) } else { Err(differs(out.len() as u64, size).into()) }
}

fn damaged(packing: Packing, error: impl fmt::Display) -> String {
    format!("is damaged: its {packing} data cannot be unpacked: {error}")
}

fn differs(size: u64, declared: u64) -> String {
    format!("unpacks to {size} bytes, but says that it has {declared}")
}

/// Reads to the end of the stream, but no further than its size.
fn stream(mut decoder: impl Read, packing: Packing, size: u64, out: &mut Vec<u8>) -> Result<(), String> {
    let failed = |error: std::io::Error| damaged(packing, error);
    decoder.by_ref().take(size).read_to_end(out).map_err(failed)?;
    // The checksum is at the end, which must be read as well.
    match decoder.read(&mut [0]).map_err(failed)? {
        0 => Ok(()),
        _ => Err(format!("unpacks to more than the {size} bytes that it says it has")),
    }
}

/// Blocks, each after its length, as `lz4 -l` writes them.
fn lz4(packed: &[u8], size: u64, out: &mut Vec<u8>) -> Result<(), String> {
    const MAGIC: u32 = 0x184c_2102;
    let mut rest = packed;
    while let Some((length, behind)) = rest.split_first_chunk() {
        rest = behind;
        let length = u32::from_le_bytes(*length);
        // Concatenated files repeat the magic number.
        if length == MAGIC {
            continue;
        }
        let at = packed.len() - rest.len();
        let block = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (block, behind) = block
            .ok_or_else(|| damaged(Packing::Lz4, format!("the block at {at} has {length} bytes, and the file ends")))?;
        let start = out.len();
        let room = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(start).min(LZ4_BLOCK);
        out.resize(start + room, 0);
        let done = lz4_flex::block::decompress_into(block, out.get_mut(start..).unwrap_or_default());
        let done = done.map_err(|error| damaged(Packing::Lz4, error))?;
        out.truncate(start + done);
        rest = behind;
    }
    Ok(())
}
