//! Generated files, right and wrong ones, through all that reads them: the language, the keys, libxl's form, the flags, and what
//! `create` makes of those. Nothing panics, and the time grows with the text. `DOMBUILD_FUZZ_SECONDS=600 cargo test --release --lib
//! fuzz` goes on for that long.

use std::env;
use std::time::{Duration, Instant};

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::checks::Aim;
use super::keys::{self, Type};
use super::tests::check_any;
use crate::cli::args::{Cli, Command};
use crate::cli::from_flags;

/// Right files, with which mutations begin.
const SEEDS: [&str; 4] = [
    include_str!("../../../tests/xl_cfg/web.cfg"),
    include_str!("../../../tests/xl_cfg/old.cfg"),
    include_str!("../../../tests/xl_cfg/wrong.cfg"),
    "name='a'\ntype='hvm'\nmemory=64\nvif=['mac=00:16:3e:00:00:01,bridge=b,rate=1MB/s@20ms']\ncpuid='host,tm=0'\nvnuma=[['pnode=0','size=64','vcpus=0']]\n",
];

/// Parts of values: what devices, CPU lists, CPUID policies and NUMA nodes are made of.
const PARTS: &[&str] = &[
    "phy:",
    "file:",
    "qcow2:",
    "/srv/a",
    "/dev/null",
    ",raw",
    ",xvda",
    ",hdc:cdrom",
    ",r",
    ",w",
    "target=",
    "format=",
    "vdev=",
    "access=",
    "backendtype=",
    "script=",
    "mac=",
    "00:16:3e:00:00:01",
    "bridge=",
    "rate=",
    "10Mb/s",
    "@20ms",
    "model=e1000",
    "vnc=1",
    "vncdisplay=",
    "tag=",
    "path=",
    "security_model=none",
    "connection=socket",
    "connection=pty",
    "name=",
    "backend=",
    "uuid=",
    "connectors=",
    "800x600",
    ";",
    "unique-id=",
    "type=",
    "pcm",
    "card",
    "stream",
    "bdf=",
    "01:00.0",
    "@5",
    "permissive=",
    "all",
    "node:",
    "nodes:",
    "^",
    "-",
    "0",
    "1",
    "7",
    "host",
    "tm=",
    "family=",
    "0x",
    "1:",
    "ecx=",
    "xxxxxxxx",
    "pnode=",
    "size=",
    "vcpus=",
    "vdistances=",
    "strategy=host",
    "defaults",
    "!freq",
    "oem=",
    "bios_vendor=",
    "2f8",
    "@",
    "pty",
    "tcp:",
    "=",
    ",",
    ",",
    " ",
    ":",
    "99999999999999999999",
    "\u{e9}",
];

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => select(PARTS).prop_map(str::to_owned),
        1 => "[a-z0-9]{0,6}",
        1 => "[^'\"\\\\\n\r\u{0}]{0,4}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(part(), 0..8).prop_map(|parts| parts.concat())
}

fn list(item: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(", ")))
}

fn quoted() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("'{text}'"))
}

/// A value that the key's type allows, as often as not a right one.
fn value_of(takes: Type) -> BoxedStrategy<String> {
    let words = |words: &'static [&'static str]| select(words).prop_map(|word| format!("'{word}'")).boxed();
    let flag = || select(&["0", "1"][..]).prop_map(str::to_owned).boxed();
    match takes {
        Type::Text => quoted().boxed(),
        Type::Word(all) => words(all),
        Type::Number(least, most) => {
            (least..=most.min(least.saturating_add(300))).prop_map(|it| format!("'{it}'")).boxed()
        }
        Type::Flag => flag(),
        Type::WordOrNumber(all) => prop_oneof![words(all), flag()].boxed(),
        Type::FlagOrWord(all) => prop_oneof![words(all), flag()].boxed(),
        Type::FlagOrTexts => prop_oneof![flag(), list(quoted())].boxed(),
        Type::Texts => list(quoted()).boxed(),
        Type::TextOrTexts => prop_oneof![quoted(), list(quoted())].boxed(),
        Type::Lists => list(list(quoted())).boxed(),
    }
}

fn setting() -> impl Strategy<Value = String> {
    let all: Vec<_> = keys::all().map(|key| (key.name, key.takes)).collect();
    let any = prop_oneof![quoted(), list(quoted()), list(list(quoted())), "[0-9a-fx]{1,6}".boxed()];
    let value = move |takes| prop_oneof![9 => value_of(takes), 1 => any.clone().boxed()];
    let any_key = select(all).prop_flat_map(move |(name, takes)| (Just(name), value(takes)));
    let (assign, end) = (select(&["=", "=", "=", "+="][..]), select(&["\n", "\n", ";", " # c\n", "\r\n"][..]));
    (any_key, assign, end).prop_map(|((name, value), assign, end)| format!("{name} {assign} {value}{end}"))
}

/// A guest that has what every guest needs, with other settings.
fn guest() -> impl Strategy<Value = String> {
    let kind = select(&["type='hvm'\n", "type='pvh'\nkernel='/dev/null'\n", "type='pv'\nkernel='/dev/null'\n", ""][..]);
    let others = proptest::collection::vec(setting(), 0..10);
    (kind, others).prop_map(|(kind, others)| format!("name='a'\nmemory=64\n{kind}{}", others.concat()))
}

/// A file, with some bytes changed in every second one.
fn file() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![8 => guest(), 1 => select(&SEEDS[..]).prop_map(str::to_owned)];
    let byte = prop_oneof![select(&b"=[],;\n#'\"\\ a1A-(+\0\r\xc3"[..]), any::<u8>()];
    let change = (any::<Index>(), 0..3_u8, byte);
    let changes = prop_oneof![Just(Vec::new()), proptest::collection::vec(change, 0..4)];
    (whole, changes).prop_map(|(whole, changes)| {
        let mut bytes = whole.into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len().saturating_add(1));
            match (how, bytes.get(at).is_some()) {
                (0, true) => drop(bytes.remove(at)),
                (1, true) => bytes.splice(at..=at, [byte]).for_each(drop),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// What `create` does with flags before it looks at the host.
fn create(words: Vec<String>) {
    let command = Cli::command().mut_subcommand("create", |command| command.args_override_self(true));
    let words = ["dombuild".to_owned(), "create".to_owned()].into_iter().chain(words);
    let matches: Result<ArgMatches, _> = command.try_get_matches_from(words);
    let Ok(Ok(Cli { command: Command::Create(arguments), .. })) = matches.map(|it| Cli::from_arg_matches(&it)) else {
        return;
    };
    // A file that it does not find is an error.
    let _ = from_flags::create(&arguments, None);
}

/// Reads the file in each way; whether it makes a guest.
fn read(file: &[u8]) -> bool {
    check_any(file, Aim::Check);
    check_any(file, Aim::LibxlJson);
    let report = check_any(file, Aim::Create);
    let is_right = !report.diagnostics.failed();
    if is_right {
        create(report.flags.into_iter().map(|flag| flag.word).collect());
    }
    is_right
}

/// Texts that grow at one place: whole settings, one text, one list, a list of lists, and what is appended to a key.
fn grown(way: u8, key: &str, part: &str, bytes: usize) -> String {
    let (before, one, after) = match way {
        0 => (String::new(), part.to_owned(), ""),
        1 => (format!("{key} = '"), part.to_owned(), "'"),
        2 => (format!("{key} = ["), format!("'{part}',"), "]"),
        3 => (format!("{key} = [["), format!("'{part}',"), "]]"),
        4 => (format!("{key} = ["), format!("['{part}'],"), "]"),
        5 => (String::new(), format!("{key} += '{part}'\n"), ""),
        _ => (String::new(), format!("{key} += ['{part}']\n"), ""),
    };
    let count = bytes / one.len().max(1);
    format!("name='a'\nmemory=64\ntype='hvm'\n{before}{}{after}\n", one.repeat(count))
}

/// The least time that it takes, of so many.
fn time(text: &str, times: usize) -> Duration {
    let once = || {
        let start = Instant::now();
        read(text.as_bytes());
        start.elapsed()
    };
    (0..times).map(|_| once()).min().unwrap_or_default()
}

/// A length in bytes, and how often a file of at most 1 MiB has it.
const SMALL: usize = 8 << 10;
const TIMES: usize = 128;

/// Far from the square: large texts outgrow caches, and their memory is new to the process.
const MOST: u128 = 200;

/// The time for each byte at the large length, against that at the small one, in tenths: 10 where it grows with the length, 1280 where
/// it grows with the square. Other programs take the processor meanwhile: a bad number is measured again.
fn growth(way: u8, key: &str, part: &str) -> u128 {
    let [small, large] = [SMALL, SMALL * TIMES].map(|bytes| grown(way, key, part, bytes));
    let mut least = u128::MAX;
    for times in [1, 3, 9] {
        let slope = time(&large, times).as_nanos() * 10 / 128 / time(&small, times + 1).as_nanos().max(1);
        least = least.min(slope);
        if least < MOST {
            break;
        }
    }
    least
}

#[test]
fn fuzz_files_end_in_a_guest_or_in_errors_and_in_time() {
    let seconds = env::var("DOMBUILD_FUZZ_SECONDS").map_or(3, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let growing = {
        let names: Vec<&str> = keys::all().map(|key| key.name).collect();
        let part = prop_oneof![text(), part(), setting()];
        (0..7_u8, select(names), part)
    };
    let (mut files, mut guests, mut measured, mut worst) = (0_u64, 0_u64, 0_u64, (0, String::new()));
    while Instant::now() < end {
        // A runner counts to the end once.
        let mut runner = TestRunner::new(config.clone());
        let (read_files, right) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let ran = runner.run(&file(), |file| {
            read_files.set(read_files.get() + 1);
            right.set(right.get() + u64::from(read(&file)));
            Ok(())
        });
        ran.unwrap_or_else(|failure| panic!("{failure}"));
        files += read_files.get();
        guests += right.get();
        let (way, key, part) = growing.new_tree(&mut runner).expect("one").current();
        let part = if way == 0 { format!("{part}\n") } else { part.replace(['\'', '\n', '\r', '\\'], "") };
        let slope = growth(way, key, &part);
        assert!(slope < MOST, "a byte takes {slope} tenths of the time: way {way}, {key}, {part:?}");
        measured += 1;
        if slope > worst.0 {
            worst = (slope, format!("way {way}, {key}, {part:?}"));
        }
    }
    println!("{files} files, of which {guests} make a guest; {measured} growing texts, the worst {worst:?}");
    assert!(guests > 0 && guests < files, "the generator makes both");
}
