//! The domain itself: name, memory, vCPUs, scheduling, limits.

use super::Mapper;
use crate::cli::xl_cfg::reader::Read;
use crate::cli::xl_cfg::{cpu_list, vnuma};
use crate::memory::Kind;

/// xl's memory of a guest whose file names none, in MiB (`libxl__domain_build_info_setdefault`, libxl_create.c, Xen 4.17).
const USUAL_MEMORY: i64 = 32;

impl Mapper<'_> {
    pub(super) fn domain(&mut self) {
        self.same("name", "--name");
        self.same("uuid", "--uuid");
        self.same("seclabel", "--seclabel");
        if self.word("init_seclabel").is_some() {
            self.refuse("init_seclabel", "a guest has one label from its start: give seclabel alone");
        }
        self.same("pool", "--cpupool");
        self.memory();
        self.vcpus();
        self.affinity("cpus", "affinity");
        self.affinity("cpus_soft", "soft-affinity");
        for (key, setting) in [("cpu_weight", "vcpu/weight"), ("cap", "vcpu/cap")] {
            if let Some(number) = self.number(key) {
                self.platform(key, &format!("{setting}={number}"));
            }
        }
        self.same("max_event_channels", "--event-channels");
        self.same("max_grant_frames", "--max-grant-frames");
        self.same("max_maptrack_frames", "--max-maptrack-frames");
        self.same("max_grant_version", "--max-grant-version");
        self.same("vpmu", "--vpmu");
        self.same("driver_domain", "--driver-domain");
        self.same("hvm_pirq", "--hvm-pirq");
        if let Some(kib) = self.number("vmtrace_buf_kb").filter(|kib| *kib != 0) {
            self.add("vmtrace_buf_kb", format!("--vmtrace={kib}KiB"));
        }
        // The old key asks for what it meant when there was one mode.
        match (self.text("altp2m").filter(|mode| *mode != "disabled"), self.flag("altp2mhvm")) {
            (Some(mode), _) => self.add("altp2m", format!("--altp2m={mode}")),
            (None, Some(true)) => self.add("altp2mhvm", "--altp2m=mixed"),
            (None, _) => {}
        }
        self.same("msr_relaxed", "--msr-relaxed");
        match self.text("passthrough") {
            None | Some("disabled") => {}
            Some("enabled") => self.add("passthrough", "--passthrough"),
            Some(mode) => self.refuse("passthrough", format!("dombuild does not choose {mode}: give enabled")),
        }
    }

    fn memory(&mut self) {
        let memory = self.number("memory");
        // The sizes of the nodes make maxmem.
        let nodes = self.vnuma();
        let sum: i64 = nodes.iter().filter_map(|node| node.memory_mib).filter_map(|mib| i64::try_from(mib).ok()).sum();
        let maxmem = self.number("maxmem").or((!nodes.is_empty()).then_some(sum));
        match memory.or(maxmem) {
            Some(mib) => self.add(if memory.is_some() { "memory" } else { "maxmem" }, format!("--memory={mib}MiB")),
            None => self.usual(format!("--memory={USUAL_MEMORY}MiB")),
        }
        if let (Some(_), Some(mib)) = (memory, maxmem) {
            self.add(if nodes.is_empty() { "maxmem" } else { "vnuma" }, format!("--maxmem={mib}MiB"));
        }
        for node in &nodes {
            self.add("vnuma", format!("--vnode={}", node.flag()));
        }
        if let Some(mib) = self.number("shadow_memory") {
            self.add("shadow_memory", format!("--shadow-memory={mib}MiB"));
        }
        if let Some(mib) = self.number("mmio_hole") {
            self.add("mmio_hole", format!("--mmio-hole={mib}MiB"));
        }
    }

    /// The nodes of `vnuma`.
    fn vnuma(&mut self) -> Vec<vnuma::Node> {
        match self.take("vnuma") {
            Some(Read::Lists(lists)) => vnuma::nodes(lists).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// How many vCPUs the guest has: those of its nodes, if it has some.
    fn all_vcpus(&mut self) -> i64 {
        let nodes = self.vnuma();
        if !nodes.is_empty() {
            return i64::try_from(nodes.iter().map(|node| node.vcpus.len()).sum::<usize>()).unwrap_or(i64::MAX);
        }
        self.number("maxvcpus").or_else(|| self.number("vcpus")).unwrap_or(1)
    }

    fn vcpus(&mut self) {
        let all = self.all_vcpus();
        let key = match (self.vnuma().is_empty(), self.number("maxvcpus")) {
            (false, _) => "vnuma",
            (true, Some(_)) => "maxvcpus",
            (true, None) => "vcpus",
        };
        if key == "vnuma" || self.number(key).is_some() {
            self.add(key, format!("--vcpus={all}"));
        }
        // Without vcpus, xl starts one of maxvcpus.
        let online = self.number("vcpus").unwrap_or(1);
        if online < all {
            self.platform("vcpus", &format!("vcpu/current={online}"));
        }
    }

    /// A text is for every vCPU; a list has one for each, and the vCPUs behind its end may run everywhere.
    fn affinity(&mut self, key: &'static str, setting: &str) {
        let (Ok(vcpus), Some(value)) = (usize::try_from(self.all_vcpus()), self.take(key)) else { return };
        let lists: Vec<&str> = match value {
            Read::Text(text) => vec![text.as_str(); vcpus],
            Read::Texts(items) => items.iter().map(|(text, _)| text.as_str()).take(vcpus).collect(),
            _ => Vec::new(),
        };
        for (vcpu, list) in lists.into_iter().enumerate() {
            match cpu_list::map(list) {
                Ok(Some(map)) => self.platform(key, &format!("vcpu/{vcpu}/{setting}={map}")),
                Ok(None) => {}
                Err(reason) => self.refuse(key, reason),
            }
        }
    }

    /// Whether the kind has QEMU's machine.
    pub(super) fn is_hvm(&self) -> bool {
        self.kind == Kind::Hvm
    }
}
