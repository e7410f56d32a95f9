//! The error words and exit codes: one table.

/// A stable word for programs, and the exit code that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Kebab-case, part of the interface.
    pub word: &'static str,
    /// The process's exit status.
    pub exit: u8,
}

/// Declares each code as a constant, and the table of all.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $exit:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self { word: $word, exit: $exit };)*

            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    /// An unexpected condition in this program, or a failed operation on a file of its own.
    INTERNAL = "internal", 1;
    /// QEMU ended, or cannot work.
    DEVICE_MODEL_FAILED = "device-model-failed", 1;
    /// A device could not be attached: its hotplug script, its backend or the system refuses it.
    DEVICE_FAILED = "device-failed", 1;
    /// The guest ends and starts again too often.
    RESTARTS_TOO_OFTEN = "restarts-too-often", 1;
    /// A guest was not migrated: the other side failed, or is not what it must be, or the guest changes too fast.
    NOT_MIGRATED = "not-migrated", 1;
    /// The command line cannot be parsed.
    USAGE = "usage", 2;
    /// The sizes make no guest.
    BAD_MEMORY = "bad-memory", 3;
    /// The kernel, or the file in hvmloader's place, is missing or unusable.
    BAD_KERNEL = "bad-kernel", 3;
    /// The firmware is missing or unusable.
    BAD_FIRMWARE = "bad-firmware", 3;
    /// Another file is missing or unusable, or cannot be written.
    BAD_FILE = "bad-file", 3;
    /// Another setting is invalid, or the given domain cannot be built into.
    BAD_CONFIG = "bad-config", 3;
    /// Another domain has the name.
    NAME_TAKEN = "name-taken", 3;
    /// There is no such domain.
    NO_SUCH_DOMAIN = "no-such-domain", 3;
    /// Another toolstack created the domain.
    NOT_OURS = "not-ours", 3;
    /// The domain's memory limit is lower than what it needs.
    LIMIT_TOO_LOW = "limit-too-low", 3;
    /// The host or dom0 lacks the memory.
    NOT_ENOUGH_MEMORY = "not-enough-memory", 4;
    /// This host does not run Xen.
    NO_XEN = "no-xen", 5;
    /// The caller may not do this.
    PERMISSION = "permission", 5;
    /// Xen refused a call.
    XEN_REFUSED = "xen-refused", 5;
    /// xenstored is absent or refused a call.
    XENSTORE = "xenstore", 6;
    /// A domain, or a part of it, could not be removed.
    LEFT_BEHIND = "left-behind", 7;
    /// It is not known whether a guest runs on the other side of a migration.
    UNDECIDED = "undecided", 7;
    /// A wait reached its deadline.
    TIMED_OUT = "timed-out", 8;
    /// SIGINT ended the run.
    INTERRUPTED = "interrupted", 130;
    /// SIGTERM or SIGHUP ended the run.
    TERMINATED = "terminated", 143;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_interface_documents_this_table() {
        let page = include_str!("../../docs/interface.md");
        let section = page.split_once("## Exit status and error words").expect("the section").1;
        let rows = section.lines().skip_while(|line| !line.starts_with("| 0 |")).skip(1);
        let mut documented = BTreeSet::new();
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let exits: Vec<u8> = cells[1].split(", ").map(|exit| exit.parse().expect("a number")).collect();
            for (index, word) in cells[2].split(", ").enumerate() {
                documented.insert((exits.get(index).copied().unwrap_or(exits[0]), word.trim_matches('`')));
            }
        }
        let codes: BTreeSet<(u8, &str)> = Code::ALL.iter().map(|code| (code.exit, code.word)).collect();
        assert_eq!(codes.len(), Code::ALL.len(), "each word once");
        assert_eq!(documented, codes);
    }
}
