// Kernels made by seed: those that libelf takes and those that it refuses. Part of the unit tests.

use super::kernels::note;
use super::odd_kernels::{cut_off, property};

/// SplitMix64.
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Nearly always the one, else one of the others.
    fn usually<T: Clone>(&mut self, usual: T, others: &[T]) -> T {
        if self.one_in(12) { self.of(others) } else { usual }
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).expect("small")].clone()
    }
}

/// A kernel that is not like others: the same one for the same seed. About half of them are ones that libelf takes.
pub(crate) fn generated(seed: u64) -> Vec<u8> {
    let numbers = &mut Numbers(seed);
    let wide = !numbers.one_in(3);
    let base = numbers.usually(0x10_0000, &[0, 0, 0x1000, 0x10_0200, 0x200_0000]);
    let mut headers = segments(numbers, base);
    let mut bytes = numbers.notes(base);
    let in_sections = numbers.one_in(8);
    // Room for the file header and the table, whose entries may be further apart.
    let stride: usize = if wide { 56 } else { 32 } + if numbers.one_in(10) { 8 } else { 0 };
    let table = if wide { 64 } else { 52 };
    let place = table + stride * (headers.len() + 2);
    if !in_sections {
        let mut start = 0;
        if numbers.one_in(5) {
            // Some in one segment, the others in another.
            let size = bytes.len() / 2;
            headers.insert(0, [4, 4, place as u64, 0, size as u64, size as u64]);
            start = size.next_multiple_of(4).min(bytes.len());
        }
        let size = (bytes.len() - start) as u64;
        let at = numbers.below(headers.len() as u64 + 1);
        let offset = if numbers.one_in(50) { 0 } else { (place + start) as u64 };
        headers.insert(usize::try_from(at).expect("small"), [4, 4, offset, 0, size, size]);
    }
    let sections = place + bytes.len();
    let (section_size, count) = if wide { (64, 2) } else { (40, 2) };
    let mut table_of_sections = vec![0; section_size * count];
    if in_sections {
        let entry = &mut table_of_sections[section_size..];
        entry[4] = 7;
        let word = if wide { 8 } else { 4 };
        for (at, value) in [(if wide { 24 } else { 16 }, place), (if wide { 32 } else { 20 }, bytes.len())] {
            entry[at..at + word].copy_from_slice(&value.to_le_bytes()[..word]);
        }
    }
    let machine = numbers.usually(if wide { 62 } else { 3 }, &[3, 62, 40, 0]);
    let mut file = file_header(
        wide,
        machine,
        base + numbers.usually(0x20, &[0, 0x5000]),
        [table, sections],
        [headers.len(), count],
        stride,
    );
    for header in &headers {
        file.extend(program_header(wide, *header));
        file.resize(file.len() + stride - if wide { 56 } else { 32 }, 0);
    }
    file.resize(place, 0);
    file.append(&mut bytes);
    file.append(&mut table_of_sections);
    let end = file.len();
    // What the segments have: not zeros alone.
    let some: Vec<u8> =
        (0..0x50).flat_map(|_| [numbers.below(3), 0, 0, numbers.below(u64::MAX)]).flat_map(u64::to_le_bytes).collect();
    while file.len() < 0x4000 {
        file.extend(&some);
    }
    if numbers.one_in(3) {
        for _ in 0..=numbers.below(4) {
            let at = usize::try_from(numbers.below(end as u64)).expect("small");
            file[at] = numbers.of(&[0, 1, 4, 0x7f, 0x80, 0xff, 0x20, 0x10]);
        }
    }
    if numbers.one_in(40) {
        file.truncate(usize::try_from(numbers.below(0x4000)).expect("small"));
    }
    file
}

/// Kind, flags, offset, address, bytes in the file and in memory.
type Header = [u64; 6];

fn segments(numbers: &mut Numbers, base: u64) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut next = base;
    for _ in 0..numbers.of(&[1, 1, 2, 2, 2, 3, 4, 8, 45]) {
        let size = numbers.of(&[0x40, 0x1000, 0x1800, 0x3000, 0x3000, 0]);
        let in_file = numbers.of(&[0, 0x40, size / 2, size, size]).min(size);
        let mut header = [1, numbers.of(&[5, 6, 4, 7, 5]), numbers.below(0x1000), next, in_file, size];
        next = (next + size + numbers.of(&[0, 0, 0x10, 0x1000])).next_multiple_of(numbers.of(&[1, 0x1000, 0x1000]));
        if numbers.one_in(8) && next > base {
            // Within what was before.
            header[3] = base + numbers.below(next - base + 1);
        }
        if numbers.one_in(40) {
            let field = usize::try_from(numbers.below(6)).expect("small");
            header[field] =
                numbers.of(&[0, 1, 0x40, 0x5000, 0xfff0_0000, 1 << 40, u64::MAX, u64::MAX - 0xfff, 1 << 63]);
        }
        headers.push(header);
    }
    if numbers.one_in(4) {
        headers.reverse();
    }
    headers
}

impl Numbers {
    /// Notes as kernels have them, and as they do not.
    fn notes(&mut self, base: u64) -> Vec<u8> {
        const VIRTUAL: u64 = 0xffff_ffff_8000_0000;
        let mut bytes = Vec::new();
        if self.one_in(3) {
            bytes.extend(property(self.of(&[12, 16, 20])));
        }
        let virt_base = self.usually(VIRTUAL, &[0, 0x1000, VIRTUAL + 0x200]);
        let entry = base + self.usually(0x20, &[0, 0x1000, 0x10_0000]);
        let offset = self.usually(0, &[base, base, u64::MAX - 0xfff]);
        let numbers = [(3, virt_base), (4, offset), (1, virt_base.wrapping_add(entry)), (18, entry)];
        for (kind, value) in numbers {
            if !self.one_in(if kind == 18 { 4 } else { 30 }) {
                let size = self.usually(8, &[4, 3, 1]);
                bytes.extend(note(kind, &value.to_le_bytes()[..size]));
            }
        }
        for (kind, texts) in [
            (6, ["linux", "linux\x1b[31m", "NetBSD", "a system with a long name"]),
            (5, ["xen-3.0", "xen-3.0-x86_64", "", "xen-2.0"]),
            (8, ["generic", "generic too", "", "own"]),
            (9, ["yes", "yes,bimodal", "bimodal", "no"]),
            (
                10,
                [
                    "!writable_page_tables|pae_pgdir_above_4gb",
                    "hvm_callback_vector|dom0",
                    "!auto_translated_physmap",
                    "!none",
                ],
            ),
        ] {
            if self.one_in(30) {
                continue;
            }
            let text = self.usually(texts[0], &texts);
            let end: &[u8] = self.usually(b"\0", &[b""]);
            bytes.extend(note(kind, &[text.as_bytes(), end].concat()));
        }
        for (kind, value) in [
            (2, virt_base + base),
            (15, VIRTUAL - 0x100_0000),
            (16, 1),
            (17, 0x8801),
            (14, 1),
            (12, 0),
            (11, 0),
            (99, 7),
        ] {
            if self.one_in(6) {
                bytes.extend(note(kind, &value.to_le_bytes()[..self.of(&[8, 4])]));
            }
        }
        match self.below(12) {
            0 => bytes.extend(cut_off()),
            1 => bytes.extend(vec![0; 64 << 10]),
            2 => bytes.extend(property(12)),
            3 => {
                bytes.truncate(bytes.len() - usize::try_from(self.below(24)).expect("small").min(bytes.len()));
            }
            _ => {}
        }
        bytes
    }
}

fn file_header(wide: bool, machine: u16, entry: u64, tables: [usize; 2], counts: [usize; 2], stride: usize) -> Vec<u8> {
    let half = |value: usize| u16::try_from(value).expect("small").to_le_bytes();
    let word = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
    let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
    file.resize(16, 0);
    file.extend([2, 0]);
    file.extend(machine.to_le_bytes());
    file.extend([1, 0, 0, 0]);
    file.extend([word(entry), word(tables[0] as u64), word(tables[1] as u64), vec![0; 4]].concat());
    let section = if wide { 64 } else { 40 };
    for value in [if wide { 64 } else { 52 }, stride, counts[0], section, counts[1], 0] {
        file.extend(half(value));
    }
    file
}

fn program_header(wide: bool, [kind, flags, offset, address, in_file, size]: Header) -> Vec<u8> {
    let words = if wide {
        let first = kind & 0xffff_ffff | flags << 32;
        return [first, offset, address, address, in_file, size, 0x1000].map(u64::to_le_bytes).concat();
    } else {
        [kind, offset, address, address, in_file, size, flags, 0x1000]
    };
    words.iter().flat_map(|word| word.to_le_bytes()[..4].to_vec()).collect()
}
