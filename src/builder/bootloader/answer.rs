//! What a boot loader answers.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::work_directory::WorkDirectory;
use crate::os::Untrusted;

/// The longest answer, in bytes. libxl takes items of 8 KiB.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Kernel, ramdisk and command line out of the answer: items that end with a NUL (`parse_bootloader_result`).
pub(super) fn read_answer(
    directory: &WorkDirectory,
    any_path: bool,
) -> Result<(PathBuf, Option<PathBuf>, Option<String>), String> {
    let open =
        || OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(directory.answer());
    let file = open().map_err(|error| format!("its answer cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_ANSWER + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let answer = parse_answer(&bytes)?;
    let path = |what: &str, text: &str| {
        let path = PathBuf::from(text);
        let metadata = path.symlink_metadata().map_err(|error| format!("{what} {text:?}: {error}"))?;
        if !any_path && (path.parent() != Some(&directory.files()) || !metadata.is_file() || metadata.nlink() != 1) {
            return Err(format!("{what} {text:?} is no file in its directory"));
        }
        Ok(path)
    };
    let kernel = answer.kernel.ok_or_else(|| "its answer names none".to_owned())?;
    let ramdisk = answer.ramdisk.as_deref().map(|ramdisk| path("ramdisk", ramdisk)).transpose()?;
    Ok((path("kernel", &kernel)?, ramdisk, answer.args))
}

/// An answer. The last of several items of a name counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    kernel: Option<String>,
    ramdisk: Option<String>,
    args: Option<String>,
}

fn parse_answer(bytes: &[u8]) -> Result<Answer, String> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_ANSWER) {
        return Err(format!("its answer has more than {LONGEST_ANSWER} bytes"));
    }
    let mut answer = Answer::default();
    for item in bytes.split(|byte| *byte == 0).filter(|item| !item.is_empty()) {
        let text = std::str::from_utf8(item).map_err(|_| "its answer is not UTF-8".to_owned())?;
        let text = text.trim_start_matches('\n');
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let value = value.trim_start().to_owned();
        match name {
            "kernel" => answer.kernel = Some(value),
            "ramdisk" => answer.ramdisk = Some(value),
            "args" => answer.args = Some(value),
            "" => {}
            _ => log::warn!("the boot loader's answer has an unknown item {:?}", Untrusted::from(name)),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_pygrub() {
        let answer =
            parse_answer(b"kernel /d/boot_kernel.a\0ramdisk /d/boot_ramdisk.b\0args root=/dev/xvda1 ro  quiet\0\0");
        let answer = answer.expect("an answer");
        assert_eq!(answer.kernel.as_deref(), Some("/d/boot_kernel.a"));
        assert_eq!(answer.ramdisk.as_deref(), Some("/d/boot_ramdisk.b"));
        assert_eq!(answer.args.as_deref(), Some("root=/dev/xvda1 ro  quiet"));
        assert_eq!(parse_answer(b"").expect("an answer"), Answer::default());
        assert_eq!(parse_answer(b"kernel a\0kernel  b\0other\0").expect("an answer").kernel.as_deref(), Some("b"));
        assert!(parse_answer(b"kernel \xff\0").expect_err("no text").contains("UTF-8"));
        assert!(parse_answer(&vec![b'x'; 70_000]).expect_err("too long").contains("65536 bytes"));
    }
}
