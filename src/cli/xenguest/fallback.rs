//! The original helper, for callers that want its migration.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Becomes the original helper, with the same command line and the same descriptors.
///
/// # Errors
/// It returns only where that fails.
pub(super) fn become_original(original: &Path, words: &[OsString]) -> String {
    let error = Command::new(original).arg0("xenguest").args(without_ours(words)).exec();
    format!("cannot start the original helper {}: {error}", original.display())
}

/// The command line without `--fallback PATH`, which the original does not know.
fn without_ours(words: &[OsString]) -> Vec<&OsString> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or_default();
        if name == "fallback" {
            words.next();
        } else if !name.starts_with("fallback=") {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_option_is_left_out() {
        let words: Vec<OsString> =
            ["-mode", "save", "--fallback", "/x", "-fd", "9", "-fallback=/y"].map(OsString::from).to_vec();
        assert_eq!(without_ours(&words), ["-mode", "save", "-fd", "9"]);
    }
}
