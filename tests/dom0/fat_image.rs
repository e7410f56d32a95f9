//! A disk image with a partition table and a FAT16 file system, which boot loaders read.

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Sectors of a cluster.
const CLUSTER: usize = 8;
/// Entries of the root directory.
const ROOT_ENTRIES: usize = 512;
/// The first sector of the partition.
const START: usize = 2048;

/// A directory or a file, by its name of at most 8 and 3 characters.
pub(crate) enum Entry<'a> {
    /// A file with its content.
    File(&'a str, &'a [u8]),
    /// A directory.
    Directory(&'a str, Vec<Entry<'a>>),
}

struct Image {
    /// The table: the next cluster of each one.
    table: Vec<u16>,
    clusters: Vec<u8>,
}

impl Image {
    /// Puts content into clusters of its own; the first of them.
    fn put(&mut self, content: &[u8]) -> u16 {
        let count = content.len().div_ceil(CLUSTER * SECTOR).max(1);
        let first = self.table.len();
        let next = |index: usize| u16::try_from(index).expect("a small image");
        self.table.extend((1..count).map(|index| next(first + index)));
        self.table.push(0xffff);
        self.clusters.extend(content);
        self.clusters.resize((first - 2 + count) * CLUSTER * SECTOR, 0);
        next(first)
    }

    fn directory(&mut self, entries: &[Entry<'_>]) -> Vec<u8> {
        let mut content = Vec::new();
        for item in entries {
            content.extend(match item {
                Entry::File(name, data) => {
                    let size = u32::try_from(data.len()).expect("a small file");
                    entry(name, 0x20, self.put(data), size)
                }
                Entry::Directory(name, entries) => {
                    let own = [entry(".", 0x10, 0, 0), entry("..", 0x10, 0, 0)].concat();
                    let inside = [own, self.directory(entries)].concat();
                    entry(name, 0x10, self.put(&inside), 0)
                }
            });
        }
        content
    }
}

fn entry(name: &str, attributes: u8, cluster: u16, size: u32) -> Vec<u8> {
    let (base, extension) = if name.starts_with('.') { (name, "") } else { name.split_once('.').unwrap_or((name, "")) };
    assert!(base.len() <= 8 && extension.len() <= 3, "{name}");
    let mut entry = format!("{:8}{:3}", base.to_uppercase(), extension.to_uppercase()).into_bytes();
    entry.push(attributes);
    entry.resize(26, 0);
    entry.extend(cluster.to_le_bytes());
    entry.extend(size.to_le_bytes());
    entry
}

/// The bytes of an image with these entries in its root directory.
pub(crate) fn image(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut image = Image { table: vec![0xfff8, 0xffff], clusters: Vec::new() };
    let mut root = image.directory(entries);
    root.resize(ROOT_ENTRIES * 32, 0);
    // Fewer clusters would be FAT12.
    let clusters = (image.table.len() - 2).max(5000);
    image.table.resize(clusters + 2, 0);
    image.clusters.resize(clusters * CLUSTER * SECTOR, 0);
    let mut table: Vec<u8> = image.table.iter().flat_map(|next| next.to_le_bytes()).collect();
    table.resize(table.len().next_multiple_of(SECTOR), 0);
    let word = |number: usize| u16::try_from(number).expect("small").to_le_bytes();
    let double = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
    let sectors = 1 + 2 * table.len() / SECTOR + root.len() / SECTOR + clusters * CLUSTER;

    let mut boot = vec![0_u8; SECTOR];
    let mut put = |offset: usize, bytes: &[u8]| boot[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"\xeb\x3c\x90MSDOS5.0");
    put(11, &word(SECTOR));
    put(13, &[u8::try_from(CLUSTER).expect("small")]);
    put(14, &word(1));
    put(16, &[2]);
    put(17, &word(ROOT_ENTRIES));
    put(19, &if sectors < 65536 { word(sectors) } else { [0, 0] });
    put(21, &[0xf8]);
    put(22, &word(table.len() / SECTOR));
    put(24, &word(63));
    put(26, &word(16));
    put(28, &double(START));
    put(32, &if sectors < 65536 { [0; 4] } else { double(sectors) });
    put(36, &[0x80, 0, 0x29]);
    put(43, b"NO NAME    FAT16   ");
    put(510, b"\x55\xaa");

    let mut disk = vec![0_u8; START * SECTOR];
    disk[446..450].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff]);
    disk[450..454].copy_from_slice(&[0x0e, 0xfe, 0xff, 0xff]);
    disk[454..458].copy_from_slice(&double(START));
    disk[458..462].copy_from_slice(&double(sectors));
    disk[510..512].copy_from_slice(b"\x55\xaa");
    [disk, boot, table.clone(), table, root, image.clusters].concat()
}
