//! PAGE_DATA of libxenguest's stream: the frames, and the pages of those that have one (`handle_page_data`,
//! tools/libs/guest/xg_sr_restore.c, Xen 4.17 and 4.20).
//!
//! The pages are moved in pieces. A PV guest's page tables are looked into: libxenguest takes the frame of every entry as an
//! index (`x86_pv_localise_page`, xg_sr_restore_x86_pv.c).

use std::io::{Read, Write};

use super::libxc_records::{kind, name};
use super::passage::{Passage, ReadError, RecordHead};
use crate::error::damage::{Damage, Fault};

const PAGE_SIZE: usize = 4096;

/// The most frames of a record. libxenguest writes 1024 (`MAX_BATCH_SIZE`).
const MOST_FRAMES: u32 = 1 << 16;

/// The bytes that are moved at once.
pub(super) const PIECE: usize = 1 << 20;

/// The bits of a frame's word that are its number (`PAGE_DATA_PFN_MASK`).
const FRAME: u64 = 0x000f_ffff_ffff_ffff;

/// What a stream may say of a PV guest's frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct PvFrames {
    /// The levels of its page tables.
    pub(super) levels: u64,
    /// Its last frame, by its own list.
    pub(super) last: u64,
}

/// The frames that the stream has, and the buffers for them.
pub(super) struct Pages {
    /// A bit for each frame. The system gives it memory where bits are set.
    seen: Vec<u64>,
    pub(super) count: u64,
    last: u64,
    words: Vec<u8>,
    /// The level of each page table that comes, 0 for an ordinary page.
    levels: Vec<u8>,
    pub(super) buffer: Vec<u8>,
}

impl Pages {
    pub(super) fn new(last: u64) -> Self {
        let words = usize::try_from(last / 64).unwrap_or(0) + 1;
        Self { seen: vec![0; words], count: 0, last, words: Vec::new(), levels: Vec::new(), buffer: vec![0; PIECE] }
    }

    /// Checks a record and passes it on. `tables` is there for a PV guest.
    pub(super) fn pass<R: Read, W: Write>(
        &mut self,
        passage: &mut Passage<R, W>,
        head: &RecordHead,
        tables: Option<PvFrames>,
    ) -> Result<(), ReadError> {
        let record = name(kind::PAGE_DATA);
        if head.length < 8 {
            return Err(head.bad_length(record).into());
        }
        let start: [u8; 8] = passage.array(record)?;
        let [a, b, c, d, ..] = start;
        let count = u32::from_le_bytes([a, b, c, d]);
        let words = 8 * u64::from(count);
        if !(1..=MOST_FRAMES).contains(&count) || head.length < 8 + words {
            return Err(head.damage(8, record, Fault::value("the number of frames", count)).into());
        }
        self.words.resize(usize::try_from(words).unwrap_or(0), 0);
        passage.read(&mut self.words, record)?;
        self.look_at_words(head, tables)?;
        if head.length != 8 + words + (self.levels.len() * PAGE_SIZE) as u64 {
            return Err(head.bad_length(record).into());
        }
        passage.pass(&head.bytes)?;
        passage.pass(&start)?;
        passage.pass(&self.words)?;
        for levels in self.levels.chunks(PIECE / PAGE_SIZE) {
            let length = levels.len() * PAGE_SIZE;
            let Some(tables) = tables.filter(|_| levels.iter().any(|level| *level > 0)) else {
                passage.pass_unread(length as u64, &mut self.buffer, record)?;
                continue;
            };
            let piece = self.buffer.get_mut(..length).unwrap_or_default();
            let offset = passage.offset;
            passage.read(piece, record)?;
            let pages = piece.chunks_exact(PAGE_SIZE).zip(levels).zip((offset..).step_by(PAGE_SIZE));
            pages
                .filter(|((_, level), _)| **level > 0)
                .try_for_each(|((page, _), offset)| look_at_table(page, offset, tables.last))?;
            passage.pass(piece)?;
        }
        Ok(())
    }

    /// Counts the frames and their pages, and fails for a frame or a type that the guest cannot have.
    fn look_at_words(&mut self, head: &RecordHead, tables: Option<PvFrames>) -> Result<(), Damage> {
        self.levels.clear();
        let last = tables.map_or(self.last, |tables| tables.last.min(self.last));
        for (word, at) in self.words.chunks_exact(8).zip((16..).step_by(8)) {
            let word = word.first_chunk().copied().map_or(0, u64::from_le_bytes);
            let (frame, kind) = (word & FRAME, word >> 60);
            let wrong = |fault| Err(head.damage(at, name(kind::PAGE_DATA), fault));
            if frame > last {
                return wrong(Fault::Frame { frame, last });
            }
            // XEN_DOMCTL_PFINFO_*: an ordinary page; page tables, pinned or not; then those without data.
            let (level, is_there) = match (kind, tables) {
                (0, _) => (Some(0), true),
                (1..=4 | 9..=12, Some(tables)) if kind & 7 <= tables.levels => (u8::try_from(kind & 7).ok(), true),
                // Broken, or absent.
                (13 | 15, _) => (None, false),
                // Allocated.
                (14, _) => (None, true),
                _ => return wrong(Fault::value("the type of a frame", kind)),
            };
            self.levels.extend(level);
            if is_there {
                // A live save sends some frames again.
                let bit = 1 << (frame % 64);
                let index = usize::try_from(frame / 64).unwrap_or(usize::MAX);
                if let Some(word) = self.seen.get_mut(index).filter(|word| **word & bit == 0) {
                    *word |= bit;
                    self.count += 1;
                }
            }
        }
        Ok(())
    }
}

/// Fails for an entry of a page table that names a frame beyond the guest's last.
fn look_at_table(page: &[u8], offset: u64, last: u64) -> Result<(), Damage> {
    const PRESENT: u64 = 1;
    for (entry, at) in page.chunks_exact(8).zip((offset..).step_by(8)) {
        let entry = entry.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let frame = (entry >> 12) & ((1 << 40) - 1);
        if entry & PRESENT != 0 && frame > last {
            let record = name(kind::PAGE_DATA).into();
            return Err(Damage { offset: at, record, fault: Fault::Frame { frame, last } });
        }
    }
    Ok(())
}
