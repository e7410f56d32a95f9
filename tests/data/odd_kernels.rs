// Kernels that are odd, and good ones to Xen's own loader. Part of the unit tests, of the command-line tests, and of those in
// dom0.

use super::Kind;
use super::kernels::{CODE, DATA, changed, elf_of, field, header, note, notes};

/// A note of another owner, whose size makes the next one begin at a multiple of 8 and not only of 4.
pub(crate) fn property(size: usize) -> Vec<u8> {
    let mut bytes = note(5, &vec![3; size]);
    bytes[12..16].copy_from_slice(b"GNU\0");
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A note that says that it is longer than what is left.
pub(crate) fn cut_off() -> Vec<u8> {
    let mut bytes = note(8, b"generic\0");
    bytes[4..8].copy_from_slice(&0x10_0000u32.to_le_bytes());
    bytes
}

/// Where a segment begins that is within the memory of another, which has nothing there in the file.
const INNER: u64 = 0x20_1800;

/// Code that powers the guest off; where `checks`, only if the first bytes at [`INNER`] are `data`, and else crashes it.
/// Under PV it begins at its first byte, under PVH at [`PVH_CODE`].
fn code(checks: bool) -> Vec<u8> {
    // cmp dword [rip + INNER - next], "data"; jne bad; mov eax, __HYPERVISOR_sched_op; mov edi, SCHEDOP_shutdown;
    // lea rsi, [reason]; syscall; bad: ud2; reason: dd SHUTDOWN_poweroff
    let mut pv = vec![0x81, 0x3d, 0xf6, 0x17, 0x10, 0, b'd', b'a', b't', b'a', 0x75, 19];
    let mut pvh = vec![0xa1, 0, 0x18, 0x20, 0, 0x3d, b'd', b'a', b't', b'a', 0x75, 3];
    if !checks {
        pv.fill(0x90);
        pvh.fill(0x90);
    }
    pv.extend([0xb8, 29, 0, 0, 0, 0xbf, 2, 0, 0, 0, 0x48, 0x8d, 0x35, 4, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b, 0, 0, 0, 0]);
    pv.resize(PVH_CODE, 0x90);
    // cli; mov eax, [INNER]; cmp eax, "data"; jne bad; hlt; jmp $-1; bad: ud2
    [&pv[..], &[0xfa], &pvh, &[0xf4, 0xeb, 0xfd, 0x0f, 0x0b]].concat()
}

const PVH_CODE: usize = 0x28;

/// The good kernel with these notes behind its segments, and with more segments.
fn with(notes: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
    const PLACE: usize = 0x2000;
    let mut headers = vec![
        header(1, 5, CODE, 0x10_0000, 0x40, 0x2000),
        header(1, 6, DATA, 0x20_0000, 0x40, 0x3000),
        header(4, 4, PLACE, 0, notes.len(), notes.len() as u64),
    ];
    headers.extend_from_slice(more);
    let mut file = elf_of(&headers, &[]);
    let code = code(more.iter().any(|segment| segment[24..32] == INNER.to_le_bytes()));
    file[CODE..CODE + code.len()].copy_from_slice(&code);
    file.resize(PLACE, 0);
    file.extend(notes);
    file
}

/// The notes of the good kernel, for that code.
fn good_notes() -> Vec<u8> {
    [notes(), note(18, &(0x10_0000 + PVH_CODE as u64).to_le_bytes())].concat()
}

/// The shapes of kernels that Xen's own loader starts, each with its name.
pub(crate) fn odd_forms() -> Vec<(&'static str, Vec<u8>)> {
    let notes = good_notes();
    let inner = header(1, 6, DATA, INNER, 0x40, 0x80);
    let many: Vec<_> = (0..39).map(|number| header(1, 4, DATA, 0x30_0000 + 0x1000 * number, 0x20, 0x1000)).collect();
    let padding = vec![0; 64 << 10];
    let all_notes = [&property(16), &notes[..], &property(12), &padding, &cut_off()].concat();
    vec![
        ("note-cut-off", with(&[&notes[..], &cut_off()].concat(), &[])),
        ("notes-of-8-and-4", with(&[&property(16), &notes[..], &property(12)].concat(), &[])),
        ("64-kib-of-padding", with(&[&notes[..], &padding].concat(), &[])),
        ("41-segments", with(&notes, &many)),
        ("segment-in-bss", with(&notes, std::slice::from_ref(&inner))),
        ("text-with-escapes", with(&[&notes[..], &note(6, b"linux\x1b]0;x\x07\0")].concat(), &[])),
        ("notes-of-the-future", with(&[&note(99, &[1; 3]).repeat(100), &notes[..]].concat(), &[])),
        ("all-at-once", with(&all_notes, &[&[inner], &many[..]].concat())),
    ]
}

/// Kernels with something in them that libelf does not look at, or takes for nothing, and the kinds of guest that start with
/// each.
pub(crate) fn tolerated() -> Vec<(&'static str, Vec<u8>, &'static [Kind])> {
    const BOTH: &[Kind] = &[Kind::Pvh, Kind::Pv];
    let and = |kind, value: &[u8]| with(&[good_notes(), note(kind, value)].concat(), &[]);
    let entry = |value: u64| and(18, &value.to_le_bytes());
    vec![
        ("version-7", changed(6, &[7]), BOTH),
        ("arm", changed(18, &[40]), &[Kind::Pvh]),
        ("itanium", changed(18, &[50]), &[Kind::Pvh]),
        ("relocatable", changed(16, &[1]), BOTH),
        ("core", changed(16, &[4]), BOTH),
        ("overlap", field(1, 24, 0x10_1fff), BOTH),
        ("overlap-same", field(1, 24, 0x10_0000), BOTH),
        ("overlap-inside", field(0, 40, 0x20_0000), BOTH),
        ("many-of-xen", with(&[good_notes().repeat(70)].concat(), &[]), BOTH),
        ("entry-in-bss", entry(0x10_0040), BOTH),
        ("entry-over-4gib", entry(0x1_0010_0000), BOTH),
        ("text-of-4-kib", and(6, &[b'x'; 4096]), BOTH),
        ("number-of-3", and(3, &[0; 3]), &[Kind::Pvh]),
        ("features-of-7", and(17, &[0; 7]), BOTH),
    ]
}
