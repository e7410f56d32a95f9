//! The names of a guest while it migrates, as xl has them (`create_domain` and `migrate_domain`, tools/xl, Xen 4.17 and 4.20): the
//! copy that arrives, and the original once the copy may run.

use super::supervise::rename;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::xen::DomainRef;

/// Behind the name of a guest that arrives.
const INCOMING: &str = "--incoming";

/// Behind the name of a guest that the other side may start.
const AWAY: &str = "--migratedaway";

/// The name of a guest while it arrives.
///
/// # Errors
/// If the name is too long for it.
pub fn name_incoming(name: &DomainName) -> Result<DomainName, String> {
    format!("{name}{INCOMING}").parse()
}

/// The name of a guest that the other side may start.
///
/// # Errors
/// If the name is too long for it.
pub fn name_away(name: &DomainName) -> Result<DomainName, String> {
    format!("{name}{AWAY}").parse()
}

/// The name of a guest before it was to start on the other side, if it has such a name.
#[must_use]
pub fn name_before(name: &str) -> Option<DomainName> {
    name.strip_suffix(AWAY)?.parse().ok()
}

/// Whether this is the name of a guest that the other side may start.
pub(super) fn is_away(name: &str) -> bool {
    name.ends_with(AWAY)
}

/// Whether this is the name of a guest that arrives.
pub(super) fn is_incoming(name: &str) -> bool {
    name.ends_with(INCOMING)
}

/// Gives a guest its name again, if it has another one.
///
/// # Errors
/// What failed, as text.
pub fn rename_back(context: &Context<'_>, domain: DomainRef, name: &DomainName) -> Result<(), String> {
    let node = XenstorePaths::new(domain.domid).of_domain("name");
    let present = context.store.plain().read(&node).map_err(|error| error.to_string())?;
    match present {
        Some(present) if present != name.as_str() => rename(context, domain, name).map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_xl() {
        let name: DomainName = "web".parse().expect("a name");
        assert_eq!(name_incoming(&name).expect("short").as_str(), "web--incoming");
        let away = name_away(&name).expect("short");
        assert_eq!(away.as_str(), "web--migratedaway");
        assert_eq!(name_before(away.as_str()), Some(name));
        assert_eq!(name_before("web"), None);
        let long: DomainName = "x".repeat(80).parse().expect("a name");
        name_away(&long).expect_err("too long");
    }
}
