// Kernels for tests, good ones and hostile ones, made byte by byte. Part of the unit tests, of the command-line tests, and of those in dom0.

use std::io::Write;

use super::Kind;

/// Where the headers of a good kernel are: its program headers, its notes, and its two segments.
pub(crate) const PROGRAM_HEADERS: usize = 64;
pub(crate) const NOTES: usize = 0x200;
pub(crate) const CODE: usize = 0x1000;
pub(crate) const DATA: usize = 0x1040;

const NAME: &[u8] = b"Xen\0";

/// One ELF note.
pub(crate) fn note(kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [4, u32::try_from(value.len()).expect("small"), kind] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(NAME);
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What Linux says to Xen, for PVH and PV, of a kernel at 1 MiB.
pub(crate) fn notes() -> Vec<u8> {
    [
        note(6, b"linux\0"),
        note(5, b"xen-3.0\0"),
        note(3, &0xffff_ffff_8000_0000u64.to_le_bytes()),
        note(4, &0u64.to_le_bytes()),
        note(1, &0xffff_ffff_8010_0000u64.to_le_bytes()),
        note(10, b"!writable_page_tables|pae_pgdir_above_4gb"),
        note(8, b"generic\0"),
        note(9, b"yes\0"),
        note(18, &0x10_0000u64.to_le_bytes()),
    ]
    .concat()
}

/// A program header of 64 bits.
pub(crate) fn header(kind: u32, flags: u32, at: usize, address: u64, in_file: usize, size: u64) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for word in [at as u64, address, address, in_file as u64, size, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

/// An ELF file of 64 bits with these headers and notes; code and data are there in any case.
pub(crate) fn elf_of(headers: &[Vec<u8>], notes: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0x10_0000u64, PROGRAM_HEADERS as u64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64, 56, u16::try_from(headers.len()).unwrap_or(u16::MAX), 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(headers.concat());
    file.resize(file.len().max(NOTES), 0);
    file.extend(notes);
    file.resize(file.len().max(CODE), 0);
    // cli; hlt; jmp
    file.extend([0xfa, 0xf4, 0xeb, 0xfd]);
    file.resize(file.len().max(DATA), 0x90);
    file.extend(b"data".repeat(16));
    file
}

fn good_headers() -> [Vec<u8>; 3] {
    [
        header(1, 5, CODE, 0x10_0000, 0x40, 0x2000),
        header(1, 6, DATA, 0x20_0000, 0x40, 0x3000),
        header(4, 4, NOTES, 0, notes().len(), notes().len() as u64),
    ]
}

/// A kernel that PVH and PV guests can start.
pub(crate) fn good() -> Vec<u8> {
    elf_of(&good_headers(), &notes())
}

/// A good one, changed at one place.
pub(crate) fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = good();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// A field of a program header, by its offset there.
pub(crate) fn field(segment: usize, offset: usize, value: u64) -> Vec<u8> {
    changed(PROGRAM_HEADERS + 56 * segment + offset, &value.to_le_bytes())
}

/// A bzImage around a packed kernel; the size behind it is part of what is given.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&[15, 2]);
    file[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
    file.resize(1024 + 16, 0);
    file.extend(payload);
    file.extend([0x55; 64]);
    file
}

/// What Linux' build puts behind what it packed.
pub(crate) fn sized(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
    packed.extend(u32::try_from(size).expect("small").to_le_bytes());
    packed
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn lzma(data: &[u8]) -> Vec<u8> {
    let options = liblzma::stream::LzmaOptions::new_preset(0).expect("a level");
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).expect("memory");
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

/// The older framing, with one block that packs nothing: a token, and the number of bytes that follow.
pub(crate) fn lz4(data: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    block.extend(vec![0xff; (data.len() - 15) / 255]);
    block.push(u8::try_from((data.len() - 15) % 255).expect("below"));
    block.extend(data);
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    packed.extend(u32::try_from(block.len()).expect("small").to_le_bytes());
    packed.extend(block);
    packed
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
    zstd_safe::compress(&mut packed, data, 1).expect("memory");
    packed
}

/// So many times 128 KiB of zeros in Zstandard: each a block that says to repeat one byte (RFC 8878).
pub(crate) fn zstd_zeros(blocks: usize) -> Vec<u8> {
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    for number in 1..=blocks {
        let last = usize::from(number == blocks);
        let header = u32::try_from(last | 1 << 1 | (128 << 10) << 3).expect("three bytes");
        packed.extend(&header.to_le_bytes()[..3]);
        packed.push(0);
    }
    packed
}

/// A good kernel in every form that there is, with its name.
pub(crate) fn good_forms() -> Vec<(&'static str, Vec<u8>)> {
    let elf = good();
    let linux = |packed: Vec<u8>| bzimage(&sized(packed, elf.len()));
    vec![
        ("elf", elf.clone()),
        ("gzip", gzip(&elf)),
        ("bzImage-gzip", bzimage(&gzip(&elf))),
        ("bzImage-bzip2", linux(bzip2(&elf))),
        ("bzImage-xz", linux(xz(&elf))),
        ("bzImage-lzma", linux(lzma(&elf))),
        ("bzImage-lz4", linux(lz4(&elf))),
        ("bzImage-zstd", linux(zstd(&elf))),
        ("gzip-bzImage-xz", gzip(&linux(xz(&elf)))),
    ]
}

/// Kernels that no guest can start, each with words of what is said of it.
pub(crate) fn hostile() -> Vec<(String, Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    cut(&mut all);
    headers(&mut all);
    segments(&mut all);
    bad_notes(&mut all);
    containers(&mut all);
    bombs(&mut all);
    all
}

/// The kinds of guest that cannot start such a one: the PVH entry point is nothing to a PV guest, and the file's machine and the
/// notes for PV are nothing to a PVH guest.
pub(crate) fn kinds_that_refuse(name: &str) -> &'static [Kind] {
    match name.split('-').next() {
        Some("entry") => &[Kind::Pvh],
        Some("pv") => &[Kind::Pv],
        _ => &[Kind::Pvh, Kind::Pv],
    }
}

type Corpus = Vec<(String, Vec<u8>, &'static str)>;

/// Cut off at every header's first byte and in its middle, and every few bytes.
fn cut(all: &mut Corpus) {
    let elf = good();
    for at in [
        1, 3, 4, 5, 15, 16, 24, 52, 63, 64, 65, 120, 176, 231, 232, 0x1ff, 0x200, 0x20b, 0x240, 0xfff, 0x1000, 0x1041,
        0x107f,
    ] {
        all.push((format!("elf-cut-at-{at}"), elf[..at].to_vec(), ""));
    }
    for (name, form) in good_forms().into_iter().skip(1) {
        for part in [1, 2, 3, 7, 15, 31, 62, 63] {
            let at = form.len() * part / 64;
            // Behind the payload there is nothing that counts.
            if !(name.starts_with("bzImage") && at >= form.len() - 64) {
                all.push((format!("{name}-cut-at-{at}"), form[..at.max(1)].to_vec(), ""));
            }
        }
    }
}

fn headers(all: &mut Corpus) {
    let mut add = |name: &str, file: Vec<u8>, words| all.push((name.to_owned(), file, words));
    add("empty-elf", b"\x7fELF".to_vec(), "not a usable ELF file");
    add("class-0", changed(4, &[0]), "");
    add("class-3", changed(4, &[3]), "");
    add("class-32-of-64", changed(4, &[1]), "");
    add("big-endian", changed(5, &[2]), "");
    add("pv-arm", changed(18, &[40]), "machine 40");
    add("pv-itanium", changed(18, &[50]), "machine 50");
    for (name, value) in
        [("0", 0), ("beyond", 0x10_0000), ("end", u64::MAX), ("middle", u64::MAX / 2), ("minus-16", u64::MAX - 15)]
    {
        add(&format!("phoff-{name}"), changed(32, &u64::to_le_bytes(value)), "");
        if value != 0 {
            let mut file = changed(40, &u64::to_le_bytes(value));
            // So many that the end of the table does not wrap around to a place in the file.
            file[58..62].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
            add(&format!("shoff-{name}"), file, "");
        }
    }
    for size in [0u16, 1, 55, 57, 0xffff] {
        add(&format!("phentsize-{size}"), changed(54, &size.to_le_bytes()), "");
    }
    for count in [0u16, 0x4000, 0xfffe, 0xffff] {
        add(&format!("phnum-{count}"), changed(56, &count.to_le_bytes()), "");
    }
    let mut many = changed(40, &64u64.to_le_bytes());
    many[58..62].copy_from_slice(&[64, 0, 0xff, 0xff]);
    add("shnum-65535", many, "not a usable ELF file");
}

fn segments(all: &mut Corpus) {
    let mut add = |name: &str, file: Vec<u8>, words| all.push((name.to_owned(), file, words));
    for (name, value) in [("huge", 1 << 40), ("top", u64::MAX), ("half", 1 << 63)] {
        add(&format!("memsz-{name}"), field(1, 40, value), "");
        add(&format!("filesz-{name}"), field(1, 32, value), "");
        add(&format!("offset-{name}"), field(1, 8, value), "cut off");
        add(&format!("address-{name}"), field(1, 24, value), "");
        let mut both = field(1, 32, value);
        both[PROGRAM_HEADERS + 56 + 40..][..8].copy_from_slice(&u64::to_le_bytes(value));
        add(&format!("filesz-memsz-{name}"), both, "");
    }
    add("filesz-over-memsz", field(1, 40, 0x3f), "in the file and");
    add("wraps", field(1, 24, u64::MAX - 0x2fff + 1), "beyond any address");
    add("beyond-ram", field(1, 24, 0x4000_0000), "needs memory up to");
    add("just-beyond-ram", field(1, 24, (64 << 20) - 0x2000), "needs memory up to");
    add("no-flags", field(0, 4, 0), "entry point");
    add("nothing-to-load", elf_of(&good_headers()[2..], &notes()), "nothing to load");
    let mut twice = good_headers().to_vec();
    twice.extend(vec![header(1, 5, CODE, 0x10_0000, 0x40, 0x10_0000); 3]);
    let mut file = elf_of(&twice, &notes());
    let end = file.len() as u64;
    file[PROGRAM_HEADERS + 2 * 56 + 8..][..8].copy_from_slice(&end.to_le_bytes());
    file.extend(notes());
    add("copied-thrice", file, "more than twice the memory");
    // The same bytes of the file, again and again: 31 × 40 MiB.
    let mut wide: Vec<_> =
        (0..31).map(|number| header(1, 5, 0, 0x10_0000 + number * (40 << 20), 40 << 20, 40 << 20)).collect();
    wide.push(good_headers()[2].clone());
    let mut file = elf_of(&wide, &[]);
    // Notes behind the headers.
    file.resize(0x1000, 0);
    file.extend(notes());
    file[PROGRAM_HEADERS + 31 * 56 + 8..][..8].copy_from_slice(&0x1000u64.to_le_bytes());
    file.resize(40 << 20, 0xaa);
    add("shared-bytes", bzimage(&sized(zstd(&file), file.len())), "to load");
}

fn bad_notes(all: &mut Corpus) {
    let mut add = |name: &str, file: Vec<u8>, words| all.push((name.to_owned(), file, words));
    let with = |notes: &[u8]| {
        let mut headers = good_headers().to_vec();
        headers[2] = header(4, 4, NOTES, 0, notes.len(), notes.len() as u64);
        elf_of(&headers, notes)
    };
    for (name, value) in [("1", u32::MAX), ("2", 0x7fff_ffff), ("3", 0xffff_fffc), ("4", 0x1000)] {
        // They end the walk, and nothing is left that could start.
        add(&format!("namesz-{name}"), changed(NOTES, &value.to_le_bytes()), "");
        add(&format!("descsz-{name}"), changed(NOTES + 4, &value.to_le_bytes()), "");
    }
    add("no-notes", with(&[]), "no ELF notes");
    add(
        "only-others",
        with(&notes().iter().map(|byte| if *byte == b'X' { b'Y' } else { *byte }).collect::<Vec<_>>()),
        "no ELF notes",
    );
    add("more-notes-than-count", with(&[note(99, b"").repeat(65536), notes()].concat()), "no ELF notes");
    add("feature-that-none-has", with(&[notes(), note(10, b"!none\0")].concat()), "the feature");
    add("feature-of-dom0", with(&[notes(), note(10, b"!dom0\0")].concat()), "for dom0 alone");
    let end = notes().len();
    let last = |value: u64| changed(NOTES + end - 8, &value.to_le_bytes());
    add("entry-0", last(0), "");
    add("entry-beyond", last(0x30_0000), "");
    add("entry-top", last(u64::MAX), "");
    add("notes-out-of-file", field(2, 8, 1 << 40), "no ELF notes");
    add("notes-huge", field(2, 32, u64::MAX), "no ELF notes");
    add("pv-number-of-3", with(&[notes(), note(3, &[0; 3])].concat()), "entry point");
}

fn containers(all: &mut Corpus) {
    let elf = good();
    let mut add = |name: &str, file: Vec<u8>, words| all.push((name.to_owned(), file, words));
    add("text", b"#!/bin/sh\n".to_vec(), "neither an ELF file nor a bzImage");
    add("one-byte", vec![0], "neither an ELF file nor a bzImage");
    add("gzip-of-text", gzip(b"hello"), "what is in it");
    add("gzip-of-gzip", gzip(&gzip(&elf)), "what is in it");
    add("gzip-magic", vec![0x1f, 0x8b], "only 2 bytes");
    let image = bzimage(&sized(xz(&elf), elf.len()));
    let image_with = |at: usize, bytes: &[u8]| {
        let mut file = image.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    add("protocol-2.07", image_with(0x206, &[7, 2]), "2.07");
    add("protocol-1.15", image_with(0x206, &[15, 1]), "1.15");
    add("setup-255", image_with(0x1f1, &[255]), "the file has");
    for (name, value) in [("0", 0u32), ("1", 1), ("beyond", 0x10_0000), ("top", u32::MAX)] {
        add(&format!("payload-length-{name}"), image_with(0x24c, &value.to_le_bytes()), "");
        if value > 1 {
            add(&format!("payload-offset-{name}"), image_with(0x248, &value.to_le_bytes()), "the file has");
        }
    }
    add("payload-offset-wrong", image_with(0x248, &17u32.to_le_bytes()), "something unknown");
    add("lzo", bzimage(b"\x89LZO\0\r\n\x1a\n and more"), "LZO");
    add("unpacked-payload", bzimage(&elf), "something unknown");
    add("packed-text", bzimage(&sized(xz(b"hello, world"), 12)), "no ELF file");
    add(
        "gzip-bad-checksum",
        {
            let mut file = gzip(&elf);
            let at = file.len() - 8;
            file[at] ^= 1;
            file
        },
        "damaged",
    );
    for (name, packed) in
        [("bzip2", bzip2(&elf)), ("xz", xz(&elf)), ("lzma", lzma(&elf)), ("lz4", lz4(&elf)), ("zstd", zstd(&elf))]
    {
        // Sizes that lie, and bytes that are not as they were.
        for (lie, size) in
            [("small", elf.len() - 1), ("tiny", 1), ("none", 0), ("large", elf.len() + 1), ("larger", 256 << 20)]
        {
            add(&format!("{name}-size-{lie}"), bzimage(&sized(packed.clone(), size)), "");
        }
        add(&format!("{name}-size-huge"), bzimage(&sized(packed.clone(), 0xffff_ffff)), "more than");
        for part in 1..8 {
            let mut damaged = packed.clone();
            let at = damaged.len() * part / 8;
            damaged[at] ^= 0xff;
            damaged[at.saturating_sub(1)] ^= 0x55;
            // What LZ4 does not pack, it does not check either.
            if name != "lz4" && name != "zstd" && name != "lzma" {
                add(&format!("{name}-damaged-at-{at}"), bzimage(&sized(damaged, elf.len())), "");
            }
        }
    }
    for size in [elf.len() - 1, 1, 0, elf.len() + 1, 256 << 20] {
        let mut file = gzip(&elf);
        let at = file.len() - 4;
        file[at..].copy_from_slice(&u32::try_from(size).expect("small").to_le_bytes());
        add(&format!("gzip-isize-{size}"), file.clone(), "");
        add(&format!("bzImage-gzip-isize-{size}"), bzimage(&file), "");
    }
}

/// A kernel that unpacks to more than any host has.
fn bombs(all: &mut Corpus) {
    let mut add = |name: &str, file: Vec<u8>, words| all.push((name.to_owned(), file, words));
    // 8 GiB of zeros, which fit into 256 KiB.
    let zeros = zstd_zeros(8 << 13);
    for (name, size) in [("honest-as-can-be", 0xffff_ffff_usize), ("lying", 1 << 20), ("lying-at-the-limit", 512 << 20)]
    {
        add(&format!("zstd-bomb-{name}"), bzimage(&sized(zeros.clone(), size)), "");
    }
    add("zstd-of-zeros", bzimage(&sized(zstd_zeros(1 << 11), 256 << 20)), "no ELF file");
    let zeros = vec![0; 20 << 20];
    let (gz, xz) = (gzip(&zeros), xz(&zeros));
    for (lie, size) in [("small", 1u32 << 20), ("none", 0), ("huge", u32::MAX), ("gib", 1 << 30)] {
        let mut file = gz.clone();
        let at = file.len() - 4;
        file[at..].copy_from_slice(&size.to_le_bytes());
        add(&format!("gzip-bomb-{lie}"), file.clone(), "");
        add(&format!("bzImage-gzip-bomb-{lie}"), bzimage(&file), "");
        add(&format!("xz-bomb-{lie}"), bzimage(&[xz.as_slice(), &size.to_le_bytes()].concat()), "");
    }
    // Members one after the other: only the first counts.
    add("gzip-members", gz.repeat(4), "");
    // A dictionary of 4 GiB and of 1.5 GiB, of which XZ wants all before it begins.
    let mut wide = lzma(&good());
    wide[2..5].copy_from_slice(&[0xff; 3]);
    add("lzma-dictionary", bzimage(&sized(wide, good().len())), "cannot be unpacked");
}
