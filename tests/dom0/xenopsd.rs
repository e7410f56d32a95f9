//! A substitute for xenopsd: it makes the preparations of the helper's caller itself, and calls `xenguest` as xenopsd
//! does.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use dombuild::memory::{Gfn, Kib, Kind};
use dombuild::xen::{DomId, EventPort, Interface, Permissions, Store};
use uuid::Uuid;

use super::support::{CMDLINE, GUEST_INITRD, GUEST_KERNEL, destroy, dombuild, empty_domain, shell, wait_for};

/// hvmloader of the running Xen.
pub(crate) fn hvmloader() -> String {
    shell("ls /usr/lib/xen-*/boot/hvmloader | head -1").trim().to_owned()
}

/// A domain that the stand-in has made, as far as a build needs it.
pub(crate) struct Vm {
    pub(crate) domid: DomId,
    pub(crate) kind: Kind,
    pub(crate) xen: Interface,
    pub(crate) store: Store,
    uuid: Uuid,
    pub(crate) store_port: EventPort,
    pub(crate) console_port: EventPort,
    max_mib: u64,
    start_mib: u64,
}

/// What the helper answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) status: Option<i32>,
}

impl Reply {
    /// The frames of the two rings, and the rest of the line.
    pub(crate) fn result(&self) -> (u64, u64, Option<String>) {
        assert_eq!(self.status, Some(0), "{self:?}");
        let line = self.text.strip_prefix("result:").and_then(|rest| rest.strip_suffix('\n'));
        let words: Vec<&str> = line.unwrap_or_else(|| panic!("{self:?}")).split(' ').collect();
        let number = |index: usize| words[index].parse().unwrap_or_else(|_| panic!("{self:?}"));
        assert!(words.len() <= 3 && !self.text.trim_end().contains('\n'), "one line: {self:?}");
        (number(0), number(1), words.get(2).map(|word| (*word).to_owned()))
    }

    /// Checks that this is one error line with this beginning, and exit status 1; the line.
    pub(crate) fn error(&self, beginning: &str) -> String {
        assert_eq!(self.status, Some(1), "{self:?}");
        assert!(self.text.ends_with('\n') && self.text.matches('\n').count() == 1, "one line: {self:?}");
        assert!(self.text.starts_with(&format!("error:{beginning}")), "{self:?}");
        self.text.trim_end().to_owned()
    }
}

/// The keys without which a guest has nothing.
pub(crate) const USUAL: &[(&str, &str)] = &[
    ("platform/nx", "true"),
    ("platform/pae", "true"),
    ("platform/apic", "true"),
    ("platform/acpi", "true"),
    ("platform/acpi_s3", "1"),
    ("platform/acpi_s4", "1"),
];

impl Vm {
    /// Creates a domain, its vCPUs, limits and event channels, and writes its keys.
    pub(crate) fn new(kind: Kind, vcpus: u32, start_mib: u64, max_mib: u64, keys: &[(&str, &str)]) -> Self {
        let (xen, store) = (Interface::open().expect("Xen"), Store::open().expect("xenstored"));
        let nested = keys.contains(&("platform/nested-virt", "true"));
        let domid = empty_domain(&xen, kind, vcpus, nested).expect("a domain");
        let uuid = xen.domain(domid).expect("asked").expect("there").uuid;
        let path = format!("/local/domain/{domid}");
        store
            .transaction(|transaction| {
                transaction.make_as(&path, Permissions::read_only_for(domid))?;
                transaction.make_as(&format!("/vm/{uuid}"), Permissions::read_only_for(domid))?;
                for node in ["control/shutdown", "data", "device", "drivers", "feature", "error", "attr"] {
                    transaction.make_as(&format!("{path}/{node}"), Permissions::owned_by(domid))?;
                }
                transaction.write(&format!("{path}/vm"), &format!("/vm/{uuid}"))?;
                transaction.write(&format!("{path}/name"), "t")?;
                let count = vcpus.to_string();
                let vcpu_keys = [("platform/vcpu/number", count.as_str()), ("platform/vcpu/current", count.as_str())];
                for (name, value) in vcpu_keys.iter().chain(keys) {
                    transaction.write(&format!("{path}/{name}"), value)?;
                }
                Ok::<_, dombuild::xen::XenError>(())
            })
            .expect("written");
        xen.max_vcpus(domid, vcpus).expect("vCPUs");
        xen.set_max_memory(domid, Kib((max_mib + 16 + 2) * 1024)).expect("a limit");
        if kind == Kind::Pv {
            xen.set_memory_map_limit(domid, Kib(max_mib * 1024)).expect("a memory map");
        } else {
            xen.set_paging_pool(domid, Kib(u64::from(vcpus) * 1024 + max_mib.div_ceil(128) * 1024)).expect("a pool");
        }
        let port = || xen.alloc_event_port(domid, DomId::DOM0).expect("a port");
        let (store_port, console_port) = (port(), port());
        Self { domid, kind, xen, store, uuid, store_port, console_port, max_mib, start_mib }
    }

    /// The helper's arguments, in xenopsd's order.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (mode, image) = match self.kind {
            Kind::Hvm => ("hvm_build", hvmloader()),
            Kind::Pvh => ("pvh_build", GUEST_KERNEL.to_owned()),
            Kind::Pv => ("linux_build", GUEST_KERNEL.to_owned()),
        };
        let mut words: Vec<String> = ["-mode", mode, "-image", &image].map(str::to_owned).to_vec();
        let mut add = |some: &[&str]| words.extend(some.iter().map(|word| (*word).to_owned()));
        match self.kind {
            Kind::Hvm => {}
            Kind::Pvh => {
                add(&["-cmdline", CMDLINE, "-features", "", "-flags", "0", "-module", GUEST_INITRD]);
            }
            Kind::Pv => {
                add(&["-cmdline", CMDLINE, "-ramdisk", GUEST_INITRD, "-features", "", "-flags", "0"]);
            }
        }
        for (option, value) in [
            ("-domid", u64::from(self.domid.get())),
            ("-store_port", self.store_port.0.into()),
            ("-store_domid", 0),
            ("-console_port", self.console_port.0.into()),
            ("-console_domid", 0),
            ("-mem_max_mib", self.max_mib),
            ("-mem_start_mib", self.start_mib),
        ] {
            add(&[option, &value.to_string()]);
        }
        words
    }

    /// Starts the helper with these words behind its own.
    pub(crate) fn spawn(&self, more: &[&str]) -> Child {
        // The numbers are the caller's to choose; nothing else of the child's is connected with them.
        const LINE: &str = "exec xenguest -controloutfd 7 -controlinfd 8 \"$@\" 7>&1 8</dev/zero >/dev/null";
        Command::new("sh")
            .args(["-c", LINE, "xenopsd"])
            .args(self.arguments())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh")
    }

    /// Runs the helper to its end.
    pub(crate) fn build(&self, more: &[&str]) -> Reply {
        let mut child = self.spawn(more);
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        Reply { text, status: child.wait().expect("it ended").code() }
    }

    /// A node of the domain's.
    pub(crate) fn key(&self, name: &str) -> Option<String> {
        self.store.plain().read(&format!("/local/domain/{}/{name}", self.domid)).expect("asked")
    }

    /// Writes what guests look for, and introduces the domain.
    pub(crate) fn introduce(&self, store: u64, console: u64) {
        let path = format!("/local/domain/{}", self.domid);
        for (name, value) in [
            ("memory/static-max", self.max_mib * 1024),
            ("memory/target", self.start_mib * 1024),
            ("domid", self.domid.get().into()),
            ("store/port", self.store_port.0.into()),
            ("store/ring-ref", store),
            ("console/port", self.console_port.0.into()),
            ("console/ring-ref", console),
            ("console/limit", 65_536),
        ] {
            self.store.plain().write(&format!("{path}/{name}"), &value.to_string()).expect("written");
        }
        self.store.introduce(self.domid, Gfn(store), self.store_port).expect("introduced");
    }

    /// Ends the domain as a toolstack does.
    pub(crate) fn destroy(self) {
        let model = self.store.plain().read(&format!("/local/domain/0/device-model/{}/state", self.domid));
        if model.expect("asked").is_some() {
            // It is found by the node that xenopsd writes.
            dombuild(&["destroy", "--force", &self.domid.to_string()]).success();
        } else {
            destroy(&self.xen, self.domid);
        }
        for path in [
            format!("/local/domain/{}", self.domid),
            format!("/vm/{}", self.uuid),
            format!("/libxl/{}", self.domid),
            format!("/local/domain/0/device-model/{}", self.domid),
        ] {
            self.store.plain().remove(&path).expect("removed");
        }
        wait_for("the domain is gone", 20, || self.xen.domain(self.domid).expect("asked").is_none());
    }
}
