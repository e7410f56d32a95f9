//! Records of guests that outlive their domains: a word for a UUID, which is kept for a day.
//!
//! Each kind has a directory of its own within that of the journal, which is root's alone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::journal;

/// How long a record is kept. Whoever asks does it within minutes.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The most bytes of a record that are read.
const LONGEST: u64 = 64;

/// The records of one kind.
#[derive(Debug)]
pub(crate) struct DayRecords {
    directory: PathBuf,
}

impl DayRecords {
    /// The records in the directory of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self { directory: Path::new(journal::STATE_DIR).join(name) }
    }

    /// Those in any directory.
    #[cfg(test)]
    pub(crate) fn within(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes the record of a guest in place of an earlier one, and removes those that are older than a day.
    ///
    /// # Errors
    /// An error of the system.
    pub(crate) fn write(&self, uuid: Uuid, text: &str) -> io::Result<()> {
        if self.directory.starts_with(journal::STATE_DIR) {
            journal::directory()?;
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.remove_old();
        // Readers see the old record or the new one.
        let new = self.directory.join(format!(".{uuid}.new"));
        fs::write(&new, text)?;
        fs::rename(&new, self.path(uuid))
    }

    /// Reads the record of a guest. `None` if it has none.
    ///
    /// # Errors
    /// An error of the system.
    pub(crate) fn read(&self, uuid: Uuid) -> io::Result<Option<String>> {
        let file = match File::open(self.path(uuid)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Removes the record of a guest.
    pub(crate) fn remove(&self, uuid: Uuid) {
        let path = self.path(uuid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => log::warn!("{}: {error}", path.display()),
            _ => {}
        }
    }

    fn remove_old(&self) {
        for file in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn path(&self, uuid: Uuid) -> PathBuf {
        self.directory.join(uuid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_record_is_replaced_and_lasts_a_day() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = DayRecords::within(folder.path().join("records"));
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(records.read(old).expect("there is none"), None);
        for word in ["first", "second"] {
            records.write(old, word).expect("written");
            assert_eq!(records.read(old).expect("read").as_deref(), Some(word));
        }
        let then = SystemTime::now() - KEPT - Duration::from_secs(1);
        File::options().write(true).open(records.path(old)).and_then(|file| file.set_modified(then)).expect("set");
        records.write(new, "word").expect("written");
        assert_eq!(records.read(old).expect("it has gone"), None);
        fs::write(records.path(new), "x".repeat(1000)).expect("written");
        assert_eq!(records.read(new).expect("read").map(|text| text.len()), Some(64));
        records.remove(new);
        records.remove(new);
        assert_eq!(records.read(new).expect("removed"), None);
    }
}
