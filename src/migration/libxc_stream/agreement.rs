//! Changed streams, each of which an independent parser judges as well. A failure names the seed.

use super::tests::{Outcome, outcome, whole};
use crate::migration::streams::{LAST, VCPUS, stream};

/// What an independent parser, which has all bytes at once, says of a stream: where it ends, if it is whole.
fn strict(all: &[u8]) -> Option<usize> {
    let four = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let eight = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (pv, version) = (four(all, 24)? == 1, all.get(15).copied()?);
    let start = [&[0xff; 8][..], b"XENF\0\0\0", &[version], &[0; 2]].concat();
    if !all.starts_with(&start) || !(2..=3).contains(&version) || all.get(28..30)? != [12, 0] || four(all, 24)? > 2 {
        return None;
    }
    if four(all, 24)? == 0 || all.len() < 40 {
        return None;
    }
    let (mut list, mut at) = (Vec::new(), 40);
    loop {
        let (kind, length) = (four(all, at)?, four(all, at + 4)? as usize);
        all.get(at + 8..at + 8 + length.next_multiple_of(8))?;
        list.push((kind, &all[at + 8..at + 8 + length]));
        at += 8 + length.next_multiple_of(8);
        if kind == 0 {
            break;
        }
    }
    let place = |wanted: u32| list.iter().position(|(kind, _)| *kind == wanted);
    let bodies = |wanted: u32| list.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, body)| *body);
    let once = |wanted: u32| bodies(wanted).count() <= 1;
    let border = if version == 3 { place(0x10)? } else { 0 };
    let statics = if version == 3 { &[0x10, 0x11, 0x12][..] } else { &[] };
    let dynamic: &[u32] = if pv { &[0, 1, 3, 4, 5, 6, 7, 8, 0xc, 0xd] } else { &[0, 1, 8, 9, 0xa, 0xd] };
    for (index, (kind, _)) in list.iter().enumerate() {
        let optional = *kind >= 1 << 31 || (pv && *kind == 2);
        let in_front = statics.contains(kind) && index <= border;
        let behind = dynamic.contains(kind) && (version == 2 || index > border);
        if !(optional || in_front || behind) {
            return None;
        }
    }
    if ![2, 3, 7, 8, 9, 0xa, 0xd, 0x10, 0x11, 0x12].into_iter().all(once) {
        return None;
    }
    for empty in [0, 0xd, 0x10] {
        bodies(empty).all(|body| body.is_empty()).then_some(())?;
    }
    bodies(8).all(|body| body.len() == 24 && body[0] < 4 && body[1..4] == [0; 3]).then_some(())?;
    let distinct = |body: &[u8], from: usize, size: usize, key: usize| {
        let mut keys: Vec<_> = body[from..].chunks(size).map(|entry| entry[..key].to_vec()).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        keys.len() == count
    };
    let leaves = |body: &[u8]| !body.is_empty() && body.len().is_multiple_of(24) && distinct(body, 0, 24, 8);
    let registers = |body: &[u8]| {
        !body.is_empty() && body.len().is_multiple_of(16) && body.chunks(16).all(|entry| entry[4..8] == [0; 4])
    };
    bodies(0x11).all(leaves).then_some(())?;
    bodies(0x12).all(|body| registers(body) && distinct(body, 0, 16, 4)).then_some(())?;
    let mut last = LAST;
    let mut levels = 0;
    if pv {
        // Nothing of the guest's state comes before its width.
        let first = list.iter().position(|(kind, _)| [1, 3, 4, 5, 6, 7, 0xc].contains(kind))?;
        (place(2)? < first && place(3)? < place(1).unwrap_or(usize::MAX) && place(7).is_some()).then_some(())?;
        let info = bodies(2).next()?;
        levels = match info {
            [8, 4, _, _, _, _, _, _] => 4,
            [4, 3, _, _, _, _, _, _] => 3,
            _ => return None,
        };
        let per_page = if levels == 4 { 512 } else { 1024 };
        let frames = bodies(3).next()?;
        let (start, end) = (u64::from(four(frames, 0)?), u64::from(four(frames, 4)?));
        (start <= end && end <= LAST).then_some(())?;
        (frames.len() as u64 == 8 + 8 * (end / per_page - start / per_page + 1)).then_some(())?;
        frames[8..].chunks(8).all(|frame| eight(frame, 0).is_some_and(|frame| frame <= end)).then_some(())?;
        last = end;
        let mut vcpus = Vec::new();
        for (kind, body) in list.iter().filter(|(kind, _)| [4, 5, 6, 0xc].contains(kind)) {
            (four(body, 0)? < VCPUS && body.len() >= 8).then_some(())?;
            let good = match (kind, body.len() - 8) {
                (_, 0) => continue,
                (4, length) => length == if levels == 4 { 5168 } else { 2800 },
                (5, length) => length <= 128,
                (6, length) => length >= 16,
                _ => registers(&body[8..]),
            };
            (good && !vcpus.contains(&(*kind, four(body, 0)?))).then_some(())?;
            vcpus.push((*kind, four(body, 0)?));
        }
        vcpus.contains(&(4, 0)).then_some(())?;
        bodies(7).all(|body| body.len() == 4096).then_some(())?;
    } else {
        let mut context = bodies(9).next()?;
        let mut states = Vec::new();
        loop {
            let (kind, vcpu, length) =
                (four(context, 0)? & 0xffff, four(context, 0)? >> 16, four(context, 4)? as usize);
            let content = context.get(8..8 + length)?;
            (states.is_empty() == (kind == 1) && !states.contains(&(kind, vcpu))).then_some(())?;
            if kind == 0 {
                context.len().eq(&8).then_some(())?;
                break;
            }
            if kind == 1 {
                (content.starts_with(&[0x86, 0x12, 0x38, 0x54, 1, 0, 0, 0])).then_some(())?;
            }
            let of_a_vcpu = [2, 5, 6, 14, 16, 17, 18, 19, 20].contains(&kind);
            (!of_a_vcpu || vcpu < VCPUS).then_some(())?;
            states.push((kind, vcpu));
            context = &context[8 + length..];
        }
        for body in bodies(0xa) {
            (body.len() as u64 == 8 + 16 * u64::from(four(body, 0)?) && distinct(body, 8, 16, 8)).then_some(())?;
            for entry in body[8..].chunks(16) {
                (entry[4..8] == [0; 4]).then_some(())?;
                (![1, 5, 6, 17].contains(&eight(entry, 0)?) || eight(entry, 8)? <= LAST).then_some(())?;
            }
        }
    }
    for body in bodies(1) {
        let count = four(body, 0)? as usize;
        (count > 0 && count <= 0x10000).then_some(())?;
        let mut page = 8 + 8 * count;
        for index in 0..count {
            let word = eight(body, 8 + 8 * index)?;
            ((word << 12 >> 12) <= last).then_some(())?;
            let level = word >> 60 & 7;
            match word >> 60 {
                0 => page += 4096,
                1..=4 | 9..=12 if level <= levels => {
                    let table = body.get(page..page + 4096)?;
                    let good = |entry: &[u8]| {
                        entry[0] & 1 == 0 || eight(entry, 0).is_some_and(|entry| entry << 12 >> 24 <= last)
                    };
                    table.chunks(8).all(good).then_some(())?;
                    page += 4096;
                }
                13..=15 => {}
                _ => return None,
            }
        }
        (page == body.len()).then_some(())?;
    }
    Some(at)
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).expect("it fits")
    }

    /// A number that fields like: small, near a bound, or any.
    fn odd(&mut self) -> u32 {
        let any = u32::try_from(self.next() >> 32).expect("32 bits");
        match self.below(4) {
            0 => any % 24,
            1 => [0, 1, 7, 8, 24, 0x20, 0x21, 4096, 0x0fff_ffff, u32::MAX][self.below(10)],
            2 => 1 << (any % 32),
            _ => any,
        }
    }
}

/// A whole stream with one to three changes.
fn changed(random: &mut Random) -> Vec<u8> {
    let (container, version, mut records) = whole()[random.below(5)].clone();
    let mut heads = Vec::new();
    for _ in 0..1 + random.below(3) {
        let index = random.below(records.len());
        let odd = random.odd();
        match random.below(9) {
            0 => {
                let other = random.below(records.len());
                records.swap(index, other);
            }
            1 => records.insert(random.below(records.len() + 1), records[index].clone()),
            2 => drop(records.remove(index)),
            3 => records[index].0 = odd,
            4 => records[index].1.resize(odd as usize % 6000, 1),
            5 => heads.push((index, odd)),
            // A field of a body: a count, a frame, a length, a number.
            6 | 7 => {
                let (body, at) = (&mut records[index].1, random.below(24) * 4);
                if let Some(field) = body.get_mut(at..at + 4) {
                    field.copy_from_slice(&odd.to_le_bytes());
                }
            }
            _ => {
                let body = &mut records[index].1;
                let at = random.below(body.len());
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << (odd % 8);
                }
            }
        }
    }
    let mut bytes = stream(container, version, &records);
    for (index, length) in heads {
        let before = records.iter().take(index).map(|(_, body)| 8 + body.len().next_multiple_of(8)).sum::<usize>();
        if let Some(field) = bytes.get_mut(40 + before + 4..40 + before + 8) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let at = random.below(40);
            bytes[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    bytes
}

#[test]
fn changed_streams_are_refused_or_passed_on_as_they_are() {
    const STREAMS: u64 = 10_000;
    let mut accepted = 0;
    for seed in 0..STREAMS {
        let bytes = changed(&mut Random(seed));
        let Outcome { found, passed, read, reads } = outcome(&bytes);
        let expected = strict(&bytes);
        assert!(bytes.starts_with(&passed), "seed {seed}: other bytes are passed on");
        assert!(reads < bytes.len() / 8 + 8, "seed {seed}: {reads} reads of {} bytes", bytes.len());
        match (&found, expected) {
            (Ok(checked), Some(end)) => {
                assert_eq!((checked.end, passed.len(), read), (end as u64, end, end), "seed {seed}");
                accepted += 1;
            }
            (Err(damage), None) => {
                assert!(damage.offset <= bytes.len() as u64 && !damage.record.raw_for_comparison().is_empty());
                assert!(passed.len() as u64 <= damage.offset, "seed {seed}: {damage}, {} were passed on", passed.len());
            }
            _ => panic!("seed {seed}: {found:?}, and the other parser says {expected:?}"),
        }
    }
    println!("{accepted} of {STREAMS} were accepted");
    assert!((500..8000).contains(&accepted), "{accepted} of {STREAMS} were accepted");
}
