//! The name that a user is likely to have meant.

/// The likeness from which on clap takes a flag for a typing error.
pub(crate) const NEAR: f64 = 0.7;

/// The name that is most like `word`, if the likeness is more than `near` (of 1).
pub(crate) fn nearest<'a>(word: &str, near: f64, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let like = names.map(|name| (strsim::jaro(word, name), name)).filter(|(likeness, _)| *likeness > near);
    like.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}
