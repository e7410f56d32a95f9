//! What a failed call means, and what to do about it: one table, by call and errno.
//!
//! docs/errors.md is generated from it.

mod xen_calls;
mod xenstore_calls;

use nix::errno::Errno;

/// A call, and for each of its known errnos what it means and what to do.
type Call = (&'static str, &'static [(Errno, &'static str)]);

const ROOT: &str = "run dombuild as root in dom0";
const GONE: &str = "the domain is gone: another program destroyed it; `xl list` shows which domains exist";
const LOCAL_MEMORY: &str = "dom0 itself has no memory left for the call: give dom0 more, or end a program in it";

/// The calls to Xen and then those to xenstored, each part in alphabetical order.
fn table() -> impl Iterator<Item = &'static Call> {
    xen_calls::CALLS.iter().chain(xenstore_calls::CALLS)
}

/// What to do about this errno of this call, where that is known.
#[must_use]
pub(crate) fn advice(call: &str, errno: Errno) -> Option<&'static str> {
    let of_call = table().find(|(name, _)| *name == call).map_or(&[][..], |(_, known)| known);
    let of_all = if call.starts_with("xs_") { xenstore_calls::ANY } else { xen_calls::ANY };
    of_call.iter().chain(of_all).find(|(known, _)| *known == errno).map(|(_, text)| *text)
}

/// The table as docs/errors.md shows it, in Markdown.
#[cfg(test)]
fn describe() -> String {
    let mut text = "| call | errno | what it means, and what to do |\n|---|---|---|\n".to_owned();
    let any = [("any call to Xen", xen_calls::ANY), ("any call to xenstored", xenstore_calls::ANY)];
    let named = table().map(|(name, known)| (format!("`{name}`"), *known));
    for (name, known) in named.chain(any.map(|(name, known)| (name.to_owned(), known))) {
        for (index, (errno, advice)) in known.iter().enumerate() {
            let name = if index == 0 { name.as_str() } else { "" };
            text.push_str(&format!("| {name} | {errno:?} | {advice} |\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::assert_page_has;

    fn in_project(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    /// The functions of the C libraries that `src/xen` calls, and its requests to xenstored.
    fn called() -> BTreeSet<String> {
        let files = ["src/xen/store.rs", "src/xen/store/transaction.rs"];
        let requests = files.map(|path| fs::read_to_string(in_project(path)).expect("UTF-8")).concat();
        let words = requests.split('"').filter(|word| word.starts_with("xs_"));
        let mut found: BTreeSet<String> = words.map(str::to_owned).collect();
        assert!(found.len() > 10, "{found:?}");
        for entry in fs::read_dir(in_project("src/xen")).expect("the folder").flatten() {
            // The witness of tests is called by nothing else.
            if entry.path().is_dir() || entry.file_name() == "libxenguest.rs" {
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("UTF-8");
            for rest in text.split("sys::").skip(1) {
                let name: String =
                    rest.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
                let called = rest[name.len()..].starts_with('(');
                if called && name.starts_with("xc_") {
                    found.insert(name);
                }
            }
        }
        found
    }

    /// Those that only give back, close or tell a number, and fail without anything to do about it.
    const SILENT: [&str; 4] = ["xc_cpu_policy_destroy", "xc_dom_release", "xc_interface_close", "xc_cpupool_infofree"];

    #[test]
    fn every_call_has_its_advice() {
        let listed: BTreeSet<&str> = table().map(|(name, _)| *name).collect();
        let called = called();
        assert!(called.len() > 50, "{called:?}");
        let missing: Vec<_> =
            called.iter().filter(|name| !listed.contains(name.as_str()) && !SILENT.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "no line in the tables of src/cli/call_advice: {missing:?}");
    }

    #[test]
    fn the_table_is_in_order_and_says_something() {
        assert!(table().is_sorted_by(|one, other| one.0 < other.0), "each call once, in alphabetical order");
        assert!(xenstore_calls::CALLS.iter().all(|(call, _)| call.starts_with("xs_")));
        for (call, known) in table() {
            assert!(!known.is_empty(), "{call}");
            for (index, (errno, text)) in known.iter().enumerate() {
                assert!(!known[..index].iter().any(|(other, _)| other == errno), "{call} has {errno} twice");
                assert!(text.len() > 15 && !text.ends_with('.') && !text.contains(['|', '\n']), "{call}: {text}");
                assert_eq!(advice(call, *errno), Some(*text));
            }
        }
    }

    /// xl changes the limit of a guest whose configuration it keeps, and so of none that dombuild has made.
    #[test]
    fn xl_mem_max_is_advised_for_guests_of_xl() {
        let texts: Vec<&str> = table().flat_map(|(_, known)| known.iter()).map(|(_, text)| *text).collect();
        let about: Vec<&str> = texts.into_iter().filter(|text| text.contains("mem-max")).collect();
        assert!(!about.is_empty(), "{about:?}");
        assert!(about.iter().all(|text| text.contains("`xl mem-max` for a guest of xl's")), "{about:?}");
    }

    #[test]
    fn an_errno_means_what_its_call_makes_it_mean() {
        let says = |call, errno, word: &str| {
            let text = advice(call, errno).unwrap_or_default();
            assert!(text.contains(word), "{call} {errno}: {text}");
        };
        says("xc_domain_create", Errno::ESRCH, "CPU pool");
        says("xc_domain_setmaxmem", Errno::ESRCH, "the domain is gone");
        says("xc_dom_boot_mem_init", Errno::E2BIG, "raise its limit");
        says("xc_dom_boot_mem_init", Errno::ENOMEM, "outstanding_claims");
        says("xc_domain_create", Errno::ENOMEM, "--max-grant-frames");
        says("xc_physinfo", Errno::EACCES, "another release");
        says("xs_write", Errno::EPIPE, "xenstored ended");
        says("xs_open", Errno::EACCES, "as root");
        says("xc_evtchn_alloc_unbound", Errno::ENOSPC, "--event-channels");
        assert_eq!(advice("xc_domain_setmaxmem", Errno::ELOOP), None, "nothing is made up");
    }

    /// docs/errors.md holds the table as it is. `DOMBUILD_WRITE_DOCS=1 cargo test` writes it there.
    #[test]
    fn the_page_has_this_table() {
        assert_page_has("docs/errors.md", "calls", &describe());
    }

    proptest! {
        /// What Xen says of any domain has an answer for every call that names one.
        #[test]
        fn the_usual_refusals_are_always_explained(index in 0..table().count()) {
            let (call, _) = table().nth(index).expect("a call");
            let usual = if call.starts_with("xs_") {
                [Errno::EACCES, Errno::EPIPE, Errno::ENOMEM, Errno::ENOSPC]
            } else {
                [Errno::EPERM, Errno::ESRCH, Errno::ENOMEM, Errno::EFAULT]
            };
            for errno in usual {
                prop_assert!(advice(call, errno).is_some(), "{} {}", call, errno);
            }
        }
    }
}
