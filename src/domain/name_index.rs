//! An index of the guests' names: which domain had a name when dombuild last wrote it.
//!
//! An entry is an empty file, `DOMID.UUID.NAME`. It is a hint and proves nothing: other programs rename and destroy guests.
//! Whoever finds a domain here asks xenstore whether it still has the name, instead of asking for the names of all domains.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::paths::STATE_DIR;
use crate::xen::{DomId, DomainRef};

/// The directory of the index, below that of the runs.
fn directory() -> PathBuf {
    Path::new(STATE_DIR).join("names")
}

/// Notes the name of a domain in place of an earlier one. What fails is logged: the index only saves time.
pub(crate) fn note(domain: DomainRef, name: &str) {
    note_in(&directory(), domain, name).unwrap_or_else(|error| log::debug!("the index of names: {error}"));
}

/// The domains that had this name.
pub(super) fn candidates(name: &str) -> Vec<DomainRef> {
    entries(&directory()).into_iter().filter(|(_, had, _)| had == name).map(|(domain, ..)| domain).collect()
}

/// Removes the entries of the domains that `is_gone` names.
pub(crate) fn forget(is_gone: impl Fn(DomainRef) -> bool) {
    forget_in(&directory(), is_gone);
}

fn note_in(directory: &Path, domain: DomainRef, name: &str) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    forget_in(directory, |other| other.domid == domain.domid);
    let path = directory.join(format!("{}.{}.{name}", domain.domid, domain.uuid));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn forget_in(directory: &Path, is_gone: impl Fn(DomainRef) -> bool) {
    for (_, _, path) in entries(directory).iter().filter(|(domain, ..)| is_gone(*domain)) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => log::debug!("{}: {error}", path.display()),
            _ => {}
        }
    }
}

/// The domains, their names and the files that say so; none if there is no index.
fn entries(directory: &Path) -> Vec<(DomainRef, String, PathBuf)> {
    let Ok(found) = fs::read_dir(directory) else { return Vec::new() };
    let parsed = found.filter_map(|entry| {
        let entry = entry.ok()?.file_name().into_string().ok()?;
        let mut parts = entry.splitn(3, '.');
        let (domid, uuid, name) = (parts.next()?, parts.next()?, parts.next()?);
        let domain = DomainRef { domid: DomId::new(domid.parse().ok()?)?, uuid: uuid.parse().ok()? };
        Some((domain, name.to_owned(), directory.join(&entry)))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_domain_has_the_name_that_was_noted_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("names");
        let domain =
            |domid, uuid| DomainRef { domid: DomId::new(domid).expect("a guest"), uuid: Uuid::from_u128(uuid) };
        let named = |name: &str| -> Vec<DomainRef> {
            entries(&directory).into_iter().filter(|(_, had, _)| had == name).map(|(domain, ..)| domain).collect()
        };
        assert!(named("a").is_empty(), "no index");
        for (domain, name) in
            [(domain(7, 1), "a.b c"), (domain(8, 2), "é"), (domain(7, 1), "a.b"), (domain(8, 3), "a.b")]
        {
            note_in(&directory, domain, name).expect("noted");
        }
        assert!(named("a.b c").is_empty() && named("é").is_empty());
        let mut both = named("a.b");
        both.sort_unstable_by_key(|domain| domain.domid);
        assert_eq!(both, [domain(7, 1), domain(8, 3)]);
        fs::write(directory.join("stray"), "").expect("written");
        forget_in(&directory, |other| other == domain(7, 1));
        assert_eq!(named("a.b"), [domain(8, 3)]);
    }
}
