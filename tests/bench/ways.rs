//! The ways to a paused guest that are compared, and one run of each.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use dombuild::memory::Kind;
use dombuild::xen::{DomId, Interface};
use serde::Serialize;

use super::guests::{Guest, NAME};
use super::run::{self, Calls, Ran};
use super::support::{destroy, dombuild, empty_domain, shell, wait_for};
use super::xenopsd::{USUAL, Vm};

const XL_CONFIG: &str = "/tmp/bench.cfg";
/// Where dombuild may keep kernels that it has unpacked.
const KERNEL_CACHE: &str = "/var/cache/dombuild";

/// A program, and what is there when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Way {
    /// `/bin/true`: what a process costs.
    True,
    /// The floor: domain and guest.
    Floor,
    /// The floor, into a domain that was only created.
    FloorBuild,
    /// The floor, into a domain that has limits, pool, vCPUs and event channels.
    FloorImage,
    /// `dombuild build`, into a domain that was only created.
    Build,
    /// `dombuild xenguest`, into a domain in the state in which xenopsd leaves it.
    Xenguest,
    /// `dombuild create` without a device model.
    Bare,
    /// `dombuild create`, of a kernel that it has not seen.
    First,
    /// `dombuild create`: with QEMU where the guest needs one, of a kernel that it has seen.
    Create,
    /// `xl create -p`: with QEMU where the guest needs one.
    Xl,
}

impl Way {
    /// What has a row for a guest of that kind.
    pub(crate) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Hvm => &[
                Self::FloorImage,
                Self::Xenguest,
                Self::FloorBuild,
                Self::Build,
                Self::Floor,
                Self::Bare,
                Self::Create,
                Self::Xl,
            ],
            Kind::Pvh | Kind::Pv => &[Self::FloorBuild, Self::Build, Self::Floor, Self::First, Self::Create, Self::Xl],
        }
    }

    /// The floor that it is held against.
    pub(crate) fn floor(self) -> Option<Self> {
        match self {
            Self::True | Self::Floor | Self::FloorBuild | Self::FloorImage => None,
            Self::Build => Some(Self::FloorBuild),
            Self::Xenguest => Some(Self::FloorImage),
            Self::Bare | Self::First | Self::Create | Self::Xl => Some(Self::Floor),
        }
    }

    /// Whether it makes the domain, too, as xl does.
    pub(crate) fn creates(self) -> bool {
        matches!(self, Self::Bare | Self::First | Self::Create)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::True => "`/bin/true`",
            Self::Floor => "floor",
            Self::FloorBuild => "floor, into a created domain",
            Self::FloorImage => "floor, into a prepared domain",
            Self::Build => "`dombuild build`",
            Self::Xenguest => "`dombuild xenguest`",
            Self::Bare => "`dombuild create --device-model none`",
            Self::First => "`dombuild create`, kernel not seen before",
            Self::Create => "`dombuild create`",
            Self::Xl => "`xl create -p`",
        }
    }
}

/// What a run leaves.
enum Left {
    Nothing,
    /// A domain that has no keys; the floor prints the number of one that it made.
    Domain(DomId),
    Printed,
    Vm(Box<Vm>),
    Dombuild,
    Xl,
}

/// A run that is about to begin.
struct Prepared {
    words: Vec<String>,
    lines: bool,
    left: Left,
}

/// The bench's own handle on Xen.
pub(crate) struct Bench {
    pub(crate) xen: Interface,
    /// How long the host idles after each guest.
    rest: Duration,
}

impl Bench {
    /// After a guest the host idles for `rest`: 20 s are enough to scrub all that it got back.
    pub(crate) fn open(rest: u64) -> Self {
        Self { xen: Interface::open().expect("Xen"), rest: Duration::from_secs(rest) }
    }

    /// One run, from the state of memory that the guest wants back to a host without guests.
    pub(crate) fn time(&self, guest: &Guest, way: Way) -> Ran {
        let prepared = self.prepare(guest, way);
        if guest.dirty {
            self.dirty_memory();
        }
        let ran = run::launch(prepared.lines, &prepared.words);
        self.clean_up(prepared.left, &ran);
        ran
    }

    /// One run of dombuild that writes its events to the descriptor whose lines are timed.
    pub(crate) fn time_with_events(&self, guest: &Guest, way: Way) -> Ran {
        let mut prepared = self.prepare(guest, way);
        prepared.words.extend(["--events-fd", "7"].map(str::to_owned));
        let ran = run::launch(true, &prepared.words);
        self.clean_up(prepared.left, &ran);
        ran
    }

    /// One more run, for its calls.
    pub(crate) fn count(&self, guest: &Guest, way: Way) -> Calls {
        let prepared = self.prepare(guest, way);
        let ran = run::trace(prepared.lines, &prepared.words);
        self.clean_up(prepared.left, &ran);
        run::calls()
    }

    /// Makes a guest that stays.
    pub(crate) fn start(&self, guest: &Guest, way: Way) {
        run::launch(false, &self.prepare(guest, way).words);
    }

    /// Ends what [`Self::start`] made.
    pub(crate) fn end(&self, way: Way) {
        if way == Way::Xl {
            shell(&format!("xl destroy {NAME}"));
        } else {
            dombuild(&["destroy", NAME]).success();
        }
        self.settle();
    }

    fn prepare(&self, guest: &Guest, way: Way) -> Prepared {
        let domain = || empty_domain(&self.xen, guest.kind, guest.vcpus, false).expect("a domain");
        let dombuild = |verb: &str| [&["dombuild", verb].map(str::to_owned)[..], &guest.flags()].concat();
        let create = || [&dombuild("create")[..], &["--name", NAME, "--paused"].map(str::to_owned)].concat();
        let (words, lines, left) = match way {
            Way::True => (vec!["/bin/true".to_owned()], false, Left::Nothing),
            Way::Floor => (guest.floor(), false, Left::Printed),
            Way::FloorBuild => {
                let domid = domain();
                ([&guest.floor()[..], &[domid.to_string()]].concat(), false, Left::Domain(domid))
            }
            Way::Build => {
                let domid = domain();
                let domid_words = ["--domid".to_owned(), domid.to_string()];
                ([&dombuild("build")[..], &domid_words].concat(), false, Left::Domain(domid))
            }
            Way::FloorImage | Way::Xenguest => {
                let (start, most) = guest.built();
                let vm = Vm::new(guest.kind, guest.vcpus, start, most, USUAL);
                let arguments = vm.arguments();
                let value = |name: &str| {
                    let at = arguments.iter().position(|word| word == name).expect("an argument");
                    arguments[at + 1].clone()
                };
                let words = if way == Way::FloorImage {
                    let more = [value("-domid"), value("-store_port"), value("-console_port")];
                    [&guest.floor()[..], &more].concat()
                } else {
                    let front = ["xenguest", "-controloutfd", "7", "-controlinfd", "8"].map(str::to_owned);
                    [&front[..], &arguments].concat()
                };
                (words, way == Way::Xenguest, Left::Vm(Box::new(vm)))
            }
            Way::Bare => {
                let none = ["--device-model", "none"].map(str::to_owned);
                ([&create()[..], &none].concat(), false, Left::Dombuild)
            }
            Way::First => {
                if Path::new(KERNEL_CACHE).exists() {
                    fs::remove_dir_all(KERNEL_CACHE).expect("removed");
                }
                (create(), false, Left::Dombuild)
            }
            Way::Create => (create(), false, Left::Dombuild),
            Way::Xl => {
                fs::write(XL_CONFIG, guest.xl_config()).expect("written");
                (["xl", "create", "-p", XL_CONFIG].map(str::to_owned).to_vec(), false, Left::Xl)
            }
        };
        Prepared { words, lines, left }
    }

    fn clean_up(&self, left: Left, ran: &Ran) {
        match left {
            Left::Nothing => return,
            Left::Domain(domid) => self.destroy(domid),
            Left::Printed => {
                let domid = ran.output.trim().parse().ok().and_then(DomId::new);
                self.destroy(domid.unwrap_or_else(|| panic!("no domid: {ran:?}")));
            }
            Left::Vm(vm) => {
                if let [(_, line)] = &ran.lines[..] {
                    assert!(line.starts_with("result:"), "{ran:?}");
                }
                vm.destroy();
            }
            Left::Dombuild => return self.end(Way::Create),
            Left::Xl => return self.end(Way::Xl),
        }
        self.settle();
    }

    /// Ends a domain and what keys it may have.
    fn destroy(&self, domid: DomId) {
        destroy(&self.xen, domid);
        for path in ["/local/domain", "/libxl"].map(|path| format!("{path}/{domid}")) {
            shell(&format!("xenstore-rm {path} 2>/dev/null || true"));
        }
    }

    /// Until nothing is left and Xen, idle, has scrubbed what it got back.
    pub(crate) fn settle(&self) {
        wait_for("every guest is gone", 60, || self.xen.domains().expect("domains").len() == 1);
        self.rest();
    }

    /// Until Xen has scrubbed what it got back, if nothing else runs.
    pub(crate) fn rest(&self) {
        thread::sleep(self.rest);
    }

    /// A guest takes nearly all memory and ends, and no process idles until the measured program begins.
    fn dirty_memory(&self) {
        let free = self.xen.physinfo().expect("physinfo").free_kib.0 / 1024;
        let size = free - free / 64 - 64;
        let hog = Guest::hvm("", size);
        let ran = run::launch(false, &hog.floor());
        let domid = ran.output.trim().parse().ok().and_then(DomId::new).expect("a domid");
        destroy(&self.xen, domid);
        while self.xen.domain(domid).expect("asked").is_some() {}
    }
}
