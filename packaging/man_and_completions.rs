//! Writes the man pages and the completions of dombuild: `man-and-completions DIRECTORY`.
//!
//! All text is that of `--help`, except the list of files, which stands here. The shipped program does not contain this,
//! so that its start costs nothing for it.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use dombuild::cli::args::Cli;

/// A path, what it is for, and the verbs that use it. Every path stands in the source below src/ in the same spelling.
const FILES: [(&str, &str, &[&str]); 13] = [
    (
        "/run/dombuild",
        "One record for each run that is under way. cleanup finds by it what a killed run left.",
        &[
            "create",
            "build",
            "destroy",
            "cleanup",
            "balloon",
            "attach",
            "save",
            "restore",
            "migrate",
            "migrate-receive",
            "resume",
        ],
    ),
    ("/run/dombuild/empty", "The root directory of every QEMU: empty, and mode 0.", &["create", "restore"]),
    ("/var/cache/dombuild/kernels", "Kernels that were unpacked before.", &["create", "build", "xenguest", "cleanup"]),
    (
        "/var/log/xen",
        "QEMU's logs: qemu-dm-NAME.log, and qemu-dm-NAME.log.1 of the name's last guest.",
        &["create", "restore", "migrate-receive"],
    ),
    (
        "/var/run/xen",
        "The sockets of QEMU's monitor: qmp-libxl-DOMID and qmp-libxenstat-DOMID.",
        &["create", "destroy", "cleanup", "save", "restore", "migrate", "migrate-receive", "resume"],
    ),
    (
        "/var/lock/xl",
        "Locked while memory for a guest is found and taken, as xl does.",
        &["create", "build", "restore", "migrate-receive"],
    ),
    (
        "/var/lock/xen-buildvm-lock",
        "Locked during a build, as OpenXT's toolstack does.",
        &["create", "build", "restore", "migrate-receive"],
    ),
    ("/run/xenstored/socket", "xenstored. XENSTORED_PATH names another socket.", WITH_XENSTORE),
    ("/dev/xen/xenbus", "xenstored, if there is no socket.", WITH_XENSTORE),
    (
        "/sys/fs/cgroup",
        "In it, dombuild/: one cgroup for each guest's QEMU.",
        &["create", "restore", "migrate-receive", "destroy", "cleanup"],
    ),
    (
        "/usr/lib/xen/boot/hvmloader",
        "hvmloader, if Xen's own directory has none. `dombuild features` shows which.",
        &["create", "build"],
    ),
    ("/usr/share/seabios/bios-256k.bin", "SeaBIOS.", &["create", "build"]),
    ("/usr/share/ovmf/OVMF.fd", "OVMF.", &["create", "build"]),
];

/// The verbs that connect to xenstored.
const WITH_XENSTORE: &[&str] = &[
    "create",
    "build",
    "inspect",
    "pci",
    "list",
    "balloon",
    "attach",
    "detach",
    "insert",
    "eject",
    "save",
    "restore",
    "migrate",
    "migrate-receive",
    "resume",
    "destroy",
    "cleanup",
    "xenguest",
    "features",
];

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        bail!("usage: man-and-completions DIRECTORY");
    };
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&man, &completions] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    for (name, page) in pages()? {
        let path = man.join(format!("{name}.1"));
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        write_completion(shell, &completions)?;
    }
    Ok(())
}

fn write_completion(shell: Shell, directory: &Path) -> Result<()> {
    clap_complete::generate_to(shell, &mut Cli::command(), "dombuild", directory)
        .with_context(|| format!("cannot write the completion for {shell}"))?;
    Ok(())
}

/// All man pages: name and text.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut program = Cli::command();
    program.build();
    let verbs: Vec<&Command> = verbs(&program).collect();
    let mut see_also: Vec<String> = vec!["dombuild".to_owned()];
    see_also.extend(verbs.iter().map(|verb| format!("dombuild-{}", verb.get_name())));
    let mut all = vec![("dombuild".to_owned(), page(&program, None, &see_also)?)];
    for verb in verbs {
        all.push((format!("dombuild-{}", verb.get_name()), page(verb, Some(verb.get_name()), &see_also)?));
    }
    Ok(all)
}

/// The verbs that have a page. clap's own `help` has none.
fn verbs(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
}

fn page(command: &Command, verb: Option<&str>, see_also: &[String]) -> Result<Vec<u8>> {
    let name = verb.map_or_else(|| "dombuild".to_owned(), |verb| format!("dombuild-{verb}"));
    let man = Man::new(command.clone().display_name(&name))
        .source(format!("dombuild {}", env!("CARGO_PKG_VERSION")))
        .manual("dombuild");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if verb.is_none() {
        man.render_subcommands_section(&mut out)?;
    }
    if verb.is_some() && command.has_subcommands() {
        let mut roff = Roff::new();
        roff.control("SH", ["COMMANDS"]);
        for action in verbs(command) {
            let words = action.get_positionals().map(|word| format!(" {word}"));
            let flags = action.get_opts().filter(|flag| !flag.is_hide_set() && !flag.is_global_set());
            let term = format!("{}{}", action.get_name(), words.collect::<String>());
            let about = action.get_about().map(ToString::to_string).unwrap_or_default();
            let flags: Vec<String> =
                flags.filter_map(|flag| Some(format!("--{}: {}", flag.get_long()?, flag.get_help()?))).collect();
            item(&mut roff, &term, &[vec![about], flags].concat().join(". "));
        }
        roff.to_writer(&mut out)?;
    }
    let footer = Footer::of(command).with_context(|| format!("the help of {name}"))?;
    let mut roff = Roff::new();
    footer.render(&mut roff);
    files(verb, &mut roff);
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<&String> = see_also.iter().filter(|other| **other != name).collect();
    for (index, other) in others.iter().enumerate() {
        roff.text([bold(other.as_str()), roman(if index + 1 < others.len() { "(1)," } else { "(1)" })]);
    }
    roff.text([roman("/usr/share/doc/dombuild/ has the contract for programs and the memory model.")]);
    roff.to_writer(&mut out)?;
    out.flush()?;
    Ok(out)
}

/// The FILES section: those of a verb, or all.
fn files(verb: Option<&str>, roff: &mut Roff) {
    let used: Vec<_> = FILES.iter().filter(|(.., verbs)| verb.is_none_or(|verb| verbs.contains(&verb))).collect();
    if !used.is_empty() {
        roff.control("SH", ["FILES"]);
    }
    for (path, purpose, _) in used {
        item(roff, path, purpose);
    }
    if verb.is_none() {
        item(roff, "/etc/dombuild/NAME.cfg", "The configuration of the guest that dombuild@NAME.service starts.");
        item(roff, "/etc/dombuild/NAME.conf", "More arguments of dombuild run for that guest: RUN_ARGS=\"...\".");
        item(
            roff,
            "/etc/dombuild/auto",
            "Links to configurations: their guests start with the host, one after the other.",
        );
    }
}

fn item(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([italic(term)]);
    roff.text([roman(text)]);
}

/// What stands below the options in `--help`: notes, examples, exit codes and remarks about those.
#[derive(Debug, Default)]
struct Footer {
    notes: Vec<String>,
    examples: Vec<String>,
    exit_codes: Vec<(String, String)>,
    remarks: Vec<String>,
}

impl Footer {
    fn of(command: &Command) -> Result<Self> {
        let text = command.get_after_long_help().or_else(|| command.get_after_help()).context("it has no footer")?;
        let mut footer = Self::default();
        let mut heading = "";
        let text = text.to_string();
        for line in text.lines() {
            match line {
                "Examples:" | "Exit codes:" => heading = line,
                _ if heading.is_empty() => footer.notes.push(line.to_owned()),
                _ if line.trim().is_empty() => {}
                _ if heading == "Examples:" => footer.examples.push(line.to_owned()),
                _ if line.starts_with(' ') => exit_codes(line, &mut footer.exit_codes)?,
                _ => footer.remarks.push(line.to_owned()),
            }
        }
        ensure!(!footer.examples.is_empty(), "it has no examples");
        ensure!(!footer.exit_codes.is_empty(), "it has no exit codes");
        Ok(footer)
    }

    fn render(&self, roff: &mut Roff) {
        if self.notes.iter().any(|line| !line.is_empty()) {
            roff.control("SH", ["NOTES"]);
        }
        paragraphs(&self.notes, roff);
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in &self.examples {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
        roff.control("SH", ["EXIT STATUS"]);
        let mut codes = self.exit_codes.clone();
        codes.sort_by_key(|(code, _)| code.split(',').next().and_then(|first| first.parse::<u8>().ok()));
        for (code, meaning) in codes {
            roff.control("TP", []);
            roff.text([bold(code)]);
            roff.text([roman(meaning)]);
        }
        if !self.remarks.is_empty() {
            roff.control("PP", []);
        }
        paragraphs(&self.remarks, roff);
    }
}

fn paragraphs(lines: &[String], roff: &mut Roff) {
    let mut begun = false;
    for line in lines {
        if !line.is_empty() {
            roff.text([roman(line.as_str())]);
            begun = true;
        } else if begun {
            roff.control("PP", []);
            begun = false;
        }
    }
}

/// The cells of a line such as `  0 done      130, 143 after SIGINT, SIGTERM`. A cell without a number continues the last one.
fn exit_codes(line: &str, codes: &mut Vec<(String, String)>) -> Result<()> {
    for cell in line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()) {
        let meaning = cell.trim_start_matches(|letter: char| letter.is_ascii_digit() || ", ".contains(letter));
        let number = cell[..cell.len() - meaning.len()].trim();
        match codes.last_mut() {
            _ if !number.is_empty() => codes.push((number.to_owned(), meaning.to_owned())),
            Some((_, before)) => *before = format!("{before} {meaning}").trim().to_owned(),
            None => bail!("{cell:?} is no exit code"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The numbers of the exit codes in a footer.
    fn numbers(command: &Command) -> BTreeSet<u8> {
        let footer = Footer::of(command).expect("a footer");
        footer
            .exit_codes
            .iter()
            .flat_map(|(codes, _)| codes.split(','))
            .map(|code| code.trim().parse().expect("a number"))
            .collect()
    }

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_exit_codes_are_those_of_the_interface() {
        let document = fs::read_to_string(repository().join("docs/interface.md")).expect("the interface");
        let table = document.split_once("| exit | `code` | meaning |").expect("the table").1;
        let documented: BTreeSet<u8> = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .flat_map(|line| line.split('|').nth(1).expect("a first column").split(','))
            .map(|code| code.trim().parse().expect("a number"))
            .collect();
        assert!(documented.contains(&143), "{documented:?}");
        let program = Cli::command();
        assert_eq!(numbers(&program), documented);
        for verb in verbs(&program) {
            let own = numbers(verb);
            assert!(own.is_subset(&documented), "{}: {own:?}", verb.get_name());
        }
    }

    #[test]
    fn exit_codes_of_every_layout_are_read() {
        let mut codes = Vec::new();
        exit_codes("  0 done     4 not enough", &mut codes).expect("codes");
        exit_codes("             memory", &mut codes).expect("a continued line");
        exit_codes("  130, 143   after SIGINT, SIGTERM", &mut codes).expect("columns");
        let codes: Vec<(&str, &str)> = codes.iter().map(|(code, text)| (code.as_str(), text.as_str())).collect();
        assert_eq!(codes, [("0", "done"), ("4", "not enough memory"), ("130, 143", "after SIGINT, SIGTERM")]);
        assert!(exit_codes("  done", &mut Vec::new()).is_err());
    }

    #[test]
    fn every_page_has_the_options_of_its_verb() {
        let mut program = Cli::command();
        program.build();
        let pages = pages().expect("pages");
        for verb in verbs(&program) {
            let (_, page) =
                pages.iter().find(|(name, _)| *name == format!("dombuild-{}", verb.get_name())).expect("it");
            let page = String::from_utf8_lossy(page).replace("\\-", "-");
            for option in verb.get_arguments().filter(|option| !option.is_hide_set()).filter_map(|it| it.get_long()) {
                assert!(page.contains(&format!("--{option}")), "{}: --{option}", verb.get_name());
            }
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES", ".SH \"EXIT STATUS\""] {
                assert!(page.contains(section), "{}: {section}", verb.get_name());
            }
        }
        assert_eq!(pages.len(), verbs(&program).count() + 1);
    }

    #[test]
    fn the_files_are_those_of_the_program() {
        let mut source = String::new();
        read_all(&repository().join("src"), &mut source);
        for (path, _, verbs) in FILES {
            assert!(source.contains(&format!("\"{path}\"")), "{path} is not in the source");
            for verb in verbs {
                assert!(Cli::command().find_subcommand(verb).is_some(), "{path}: there is no verb {verb}");
            }
        }
    }

    fn read_all(directory: &Path, text: &mut String) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                read_all(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).expect("text"));
            }
        }
    }
}
