//! `dombuild check` against `xl create -n`, which reads a configuration and prints what it has read: generated files, right ones
//! and wrong ones.

use std::fs;

use serde_json::Value;

use super::Test;
use super::sample::{Random, count};
use super::support::{Ran, dombuild, number, path_text, run};

pub(crate) const TESTS: &[Test] =
    &[("walk_xl_and_check_read_the_same_files", same_files), ("xl_drops_what_check_refuses", dropped)];

/// A generator of texts in xl's language. Keys that no xl knows take any value; the others have values of their types, in every
/// form.
struct Generator(Random);

impl Generator {
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("small");
        usize::try_from(self.0.below(limit)).expect("small")
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    fn several(&mut self, most: usize, texts: &[&str]) -> String {
        (0..self.below(most + 1)).map(|_| self.one_of(texts)).collect()
    }

    fn blanks(&mut self) -> String {
        self.several(2, &[" ", "\t", ""])
    }

    fn quoted(&mut self) -> String {
        let quote = self.one_of(&["'", "\""]);
        let parts =
            ["x", " ", "#", ",", "[", "]", "=", ";", "é", "(", "-1", "\\n", "\\t", "\\\\", "\\\"", "\\'", "\\a"];
        format!("{quote}{}{quote}", self.several(6, &parts))
    }

    fn atom(&mut self) -> String {
        if self.below(3) == 0 {
            self.one_of(&["0", "1", "0x1f", "010", "12abc", "1g", "99999999999999999999"]).to_owned()
        } else {
            self.quoted()
        }
    }

    fn value(&mut self, depth: usize) -> String {
        if depth > 3 || self.below(3) > 0 {
            return self.atom();
        }
        let between = ["", " ", "\n", "# c\n", "\r\n"];
        let items = self.below(4);
        let mut text = format!("[{}", self.several(2, &between));
        for item in 0..items {
            text.push_str(&self.value(depth + 1));
            text.push_str(&self.several(2, &between));
            if item + 1 < items || self.below(3) == 0 {
                text.push(',');
                text.push_str(&self.several(2, &between));
            }
        }
        text + "]"
    }

    /// Settings of keys that no xl knows, with a byte or two changed in every second text.
    fn unknown(&mut self) -> Vec<u8> {
        let mut text = String::new();
        for _ in 0..self.below(5) {
            let (key, assign) = (self.one_of(&["a", "b", "c1", "d.e_f"]), self.one_of(&["=", "=", "+="]));
            let (blanks, value) = (self.blanks(), self.value(0));
            let end = self.one_of(&["\n", "\n", ";", "\r\n", "# c\n", " \n\n", ";;\n"]);
            text.push_str(&format!("{blanks}{key}{blanks}{assign}{blanks}{value}{blanks}{end}"));
        }
        let mut bytes = text.into_bytes();
        for _ in 0..self.below(4).saturating_sub(1) {
            let at = self.below(bytes.len() + 1);
            match self.below(3) {
                0 if at < bytes.len() => {
                    bytes.remove(at);
                }
                1 if at < bytes.len() => bytes[at] = u8::try_from(1 + self.below(255)).expect("a byte"),
                _ => {
                    let byte = self.one_of(&[
                        "=", "[", "]", ",", ";", "\n", "#", "'", "\"", "\\", " ", "a", "1", "A", "-", "(", "+",
                    ]);
                    bytes.splice(at..at, byte.bytes());
                }
            }
        }
        bytes
    }

    /// Settings that xl prints.
    fn known(&mut self) -> String {
        let mut text = String::new();
        let memory = self.one_of(&["64", "0x40", "'64'", "\" 0x80\"", "'0200'", "65"]);
        let vcpus = self.one_of(&["2", "'3'", "0x4", "01"]);
        let kind = self.one_of(&["pv", "pvh"]);
        for _ in 0..=self.below(2) {
            text.push_str(&format!("extra = {}\n", self.quoted()));
        }
        for _ in 0..self.below(3) {
            text.push_str(&format!("extra += {}{}", self.quoted(), self.one_of(&["\n", " # c\n", ";", "\r\n"])));
        }
        text.push_str(&format!(
            "name = 'x'; name = \"generated\"\ntype={kind:?};kernel = '/k'\nmemory={memory}\nvcpus = {vcpus}"
        ));
        text + self.one_of(&["", "\n", "\r\n", " # the end", " # the end\r\n", ";", "\n\n"])
    }

    fn file(&mut self) -> Vec<u8> {
        let mark = if self.below(10) == 0 { "\u{feff}" } else { "" };
        [mark.as_bytes(), &self.unknown(), b"\n", self.known().as_bytes()].concat()
    }
}

/// Escapes by number are what xl reads wrongly, and NUL is where it cuts.
fn is_misread(file: &[u8]) -> bool {
    file.contains(&0)
        || file.windows(2).any(|pair| pair[0] == b'\\' && (pair[1] == b'x' || (b'0'..=b'7').contains(&pair[1])))
}

/// What xl refuses for no reason, written so that it does not.
fn for_xl(file: &[u8]) -> Vec<u8> {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    let mut bytes = Vec::new();
    let mut rest = file.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\r' || rest.peek().is_some_and(|next| *next != b'\n') {
            bytes.push(byte);
        }
    }
    bytes.push(b'\n');
    bytes
}

/// Runs both on a file; what xl prints where it reads the file.
fn both(directory: &tempfile::TempDir, file: &[u8]) -> (Option<Value>, Ran) {
    let (ours, xls) = (directory.path().join("ours.cfg"), directory.path().join("xl.cfg"));
    fs::write(&ours, file).expect("written");
    fs::write(&xls, for_xl(file)).expect("written");
    let xl = run("xl", &["create", "-n", path_text(&xls)]);
    (xl.status.filter(|status| *status == 0).map(|_| xl.json()), dombuild(&["check", path_text(&ours)]))
}

/// The text of a key in what `check` prints.
fn text<'a>(checked: &'a Value, key: &str) -> Option<&'a str> {
    let keys = checked["keys"].as_array().expect("a list");
    keys.iter().find(|setting| setting["key"] == key).and_then(|setting| setting["value"].as_str())
}

fn same_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut generator = Generator(Random::new("xl_cfg"));
    let (mut read, mut refused) = (0, 0);
    for _ in 0..count(16, 1000) {
        let file = generator.file();
        if is_misread(&file) {
            continue;
        }
        let shown = String::from_utf8_lossy(&file).into_owned();
        let (xl, ran) = both(&directory, &file);
        let Some(xl) = xl else {
            ran.failed_with(3, "bad-config");
            refused += 1;
            continue;
        };
        assert_eq!(ran.status, Some(0), "{shown:?}: {ran:?}");
        let checked = ran.json();
        let (created, built) = (&xl["c_info"], &xl["b_info"]);
        assert_eq!(text(&checked, "name"), created["name"].as_str(), "{shown:?}");
        assert_eq!(checked["kind"], created["type"], "{shown:?}");
        assert_eq!(text(&checked, "kernel"), built["kernel"].as_str(), "{shown:?}");
        assert_eq!(text(&checked, "extra"), built["cmdline"].as_str(), "{shown:?}");
        let plan = &checked["plan"];
        assert_eq!(number(plan, "target_kib"), number(built, "target_memkb"), "{shown:?}");
        assert_eq!(number(plan, "static_max_kib"), number(built, "max_memkb"), "{shown:?}");
        assert_eq!(number(plan, "vcpus"), number(built, "max_vcpus"), "{shown:?}");
        read += 1;
    }
    println!("{read} files are read, {refused} are refused");
    assert!(read > 0 && refused > 0, "{read} and {refused}: the generator makes both");
}

/// What xl goes on without, with a warning or in silence, is an error or a warning of `check`.
fn dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    for (line, field, problem) in [
        ("maxmem = 'lots'", "", "maxmem is \"lots\""),
        ("maxvcpus = [ 4 ]", "", "maxvcpus takes a whole number"),
        ("vcpus = '2 '", "", "vcpus is \"2 \""),
        ("disk = 'phy:/dev/null,xvda,w'", "disks", "put it into [ ]"),
        ("vif = [ 'brigde=x' ]", "", "\"brigde\" is unknown"),
        ("nomigrate = 'yes'", "", "it takes 1 or 0"),
    ] {
        let file = format!("name = 'x'\ntype = 'pvh'\nkernel = '/k'\nmemory = 64\n{line}\n");
        let (xl, ran) = both(&directory, file.as_bytes());
        let xl = xl.unwrap_or_else(|| panic!("{line}: xl refuses it"));
        assert!(field.is_empty() || xl[field].as_array().is_none_or(Vec::is_empty), "{line}: {xl}");
        let error = ran.failed_with(3, "bad-config");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(problem)), "{line}: {error}");
    }
    for (line, problem) in [("vcpu = 2", "did you mean vcpus?"), ("vcpus = 1\nvcpus = 2", "vcpus is set twice")] {
        let file = format!("name = 'x'\ntype = 'pvh'\nkernel = '/k'\nmemory = 64\n{line}\n");
        let (xl, ran) = both(&directory, file.as_bytes());
        assert!(xl.is_some(), "{line}");
        let problems = ran.success().json()["problems"].clone();
        assert!(problems[0]["message"].as_str().is_some_and(|message| message.contains(problem)), "{line}: {problems}");
    }
}
