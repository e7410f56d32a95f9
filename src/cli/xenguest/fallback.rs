//! The original helper, for what this one does not do, or is not to do.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file name of the original helper in this program's directory.
const ORIGINAL: &str = "xenguest.orig";

/// The path of the original helper, if there is one: the caller's path, or the directory of the started name or file.
pub(super) fn original(chosen: Option<&Path>) -> Option<PathBuf> {
    if let Some(chosen) = chosen {
        return Some(chosen.to_owned());
    }
    let named = env::args_os().next().map(PathBuf::from).filter(|name| name.is_absolute());
    let started = env::current_exe().ok();
    [named, started].into_iter().flatten().map(|program| program.with_file_name(ORIGINAL)).find(|path| path.is_file())
}

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
