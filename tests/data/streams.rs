// Streams of libxenguest as it writes them, with few pages. Part of the unit tests and of the command-line tests.

/// A record: its type and its body.
pub(crate) type Record = (u32, Vec<u8>);

/// The types of a frame's word.
pub(crate) const ABSENT: u64 = 15 << 60;
pub(crate) const ALLOCATED: u64 = 14 << 60;
pub(crate) const BROKEN: u64 = 13 << 60;
pub(crate) const L1: u64 = 1 << 60;
pub(crate) const PINNED_L3: u64 = 11 << 60;
pub(crate) const PINNED_L4: u64 = 12 << 60;

/// The last frame and the vCPUs of the guests here.
pub(crate) const LAST: u64 = 0x20;
pub(crate) const VCPUS: u32 = 2;

fn numbers<const N: usize>(numbers: [u32; N]) -> Vec<u8> {
    numbers.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Bytes with the head of a record and the padding.
pub(crate) fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = numbers([kind, u32::try_from(body.len()).expect("short")]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Headers (container 1: PV, 2: HVM) and records.
pub(crate) fn stream(container: u32, version: u32, records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![0xff; 8];
    bytes.extend(*b"XENF");
    bytes.extend(version.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(numbers([container, 12, 4, 17]));
    bytes.extend(records.iter().flat_map(|(kind, body)| record(*kind, body)));
    bytes
}

/// PAGE_DATA with these frames and their pages: of entries of the frame 1, or absent ones.
pub(crate) fn pages(words: &[u64]) -> Record {
    let mut body = numbers([u32::try_from(words.len()).expect("few"), 0]);
    body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    for word in words.iter().filter(|word| **word >> 60 < 13) {
        let entry = 0x1000_u64 | (word & 1);
        body.extend(entry.to_le_bytes().repeat(512));
    }
    (0x1, body)
}

/// A state in HVM_CONTEXT.
pub(crate) fn state(kind: u16, instance: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(instance.to_le_bytes());
    bytes.extend(u32::try_from(content.len()).expect("short").to_le_bytes());
    bytes.extend(content);
    bytes
}

/// HVM_CONTEXT: the header, two vCPUs, a PIC, the end.
pub(crate) fn context() -> Vec<u8> {
    let mut header = numbers([0x5438_1286, 1]);
    header.extend([3; 16]);
    let states = [state(1, 0, &header), state(2, 0, &[4; 40]), state(2, 1, &[5; 40]), state(3, 0, &[6; 8])];
    [states.concat(), state(0, 0, &[])].concat()
}

/// HVM_PARAMS: the frames of both rings, and one more.
pub(crate) fn params() -> Vec<u8> {
    let mut body = numbers([3, 0]);
    body.extend([1_u64, 0x1c, 17, 0x1f, 12, 0xffff_f000].into_iter().flat_map(u64::to_le_bytes));
    body
}

fn policies() -> [Record; 2] {
    let leaves = [numbers([0, u32::MAX, 1, 2, 3, 4]), numbers([4, 0, 5, 6, 7, 8]), numbers([4, 1, 5, 6, 7, 8])];
    [(0x11, leaves.concat()), (0x12, numbers([0xce, 0, 1, 0]))]
}

fn tsc() -> Record {
    (0x8, numbers([0, 2_000_000, 7, 0, 1, 0]))
}

/// The records of an HVM guest, in a stream of version 3, with pages of these frames.
pub(crate) fn hvm_with(words: &[u64]) -> Vec<Record> {
    [&policies()[..], &[(0x10, vec![])], &hvm_old_with(words)].concat()
}

/// The same in a stream of version 2.
pub(crate) fn hvm_old_with(words: &[u64]) -> Vec<Record> {
    vec![pages(words), tsc(), (0x9, context()), (0xa, params()), (0x0, vec![])]
}

pub(crate) fn hvm() -> Vec<Record> {
    hvm_with(&[0, 1, ABSENT | 2, ALLOCATED | 3, BROKEN | 4, 5])
}

pub(crate) fn hvm_old() -> Vec<Record> {
    hvm_old_with(&[0, ABSENT | 1, 2])
}

/// A record of a vCPU.
fn vcpu(kind: u32, vcpu: u32, length: usize) -> Record {
    (kind, [numbers([vcpu, 0]), vec![9; length]].concat())
}

/// The records of a 64-bit PV guest in a stream of version 3. Its last frame is 9.
pub(crate) fn pv() -> Vec<Record> {
    pv_with([8, 4], PINNED_L4, 5168)
}

/// The same of a 32-bit guest.
pub(crate) fn pv_narrow() -> Vec<Record> {
    pv_with([4, 3], PINNED_L3, 2800)
}

/// The same of a 64-bit guest in a stream of version 2.
pub(crate) fn pv_old() -> Vec<Record> {
    pv().into_iter().filter(|(kind, _)| !(0x10..=0x12).contains(kind)).collect()
}

/// Those of a guest with this width and these levels of page tables, a table of this type, and vCPUs of this length.
fn pv_with([width, levels]: [u8; 2], table: u64, length: usize) -> Vec<Record> {
    let info = vec![width, levels, 0, 0, 0, 0, 0, 0];
    let list = [numbers([0, 9]), 7_u64.to_le_bytes().to_vec()].concat();
    let msrs = [numbers([0, 0]), numbers([0x48, 0, 1, 0])].concat();
    let fixed = [&[(0x2, info)], &policies()[..], &[(0x10, vec![]), (0x3, list)]].concat();
    let state = [
        pages(&[0, L1 | 1, table | 3, ABSENT | 8, 9]),
        pages(&[1]),
        tsc(),
        (0x7, vec![8; 4096]),
        vcpu(0x4, 0, length),
        vcpu(0x5, 0, 128),
        vcpu(0x6, 0, 24),
        (0xc, msrs),
        vcpu(0x4, 1, length),
        vcpu(0xc, 1, 0),
        (0x0, vec![]),
    ];
    [&fixed[..], &state].concat()
}
