//! Finds the setting for which Xen refuses to create a domain: it returns `EINVAL` for many of them.

use nix::errno::Errno;
use xen_sys as sys;

use super::{CreateDomain, DomId, Interface, PhysInfo, XenError, XenParameter};
use dombuild_memory::Kind;

/// The most vCPUs of a PV guest (`MAX_VIRT_CPUS`, xen/include/public/xen.h: XEN_LEGACY_MAX_VCPUS is not the limit
/// here).
const MAX_VIRT_CPUS: u32 = 8192;

/// The most frames of the grant and maptrack tables of a domain; `None` means no limit or an unknown one.
///
/// Since Xen 4.18 the boot options are defaults, not limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrantLimits {
    /// Grant table: `gnttab_max_frames`.
    pub frames: Option<u32>,
    /// Maptrack table: `gnttab_max_maptrack_frames`.
    pub maptrack_frames: Option<u32>,
}

impl Interface {
    /// The running Xen's limits for this domain. dom0's grant table has the boot option's limit; only hypfs reports the
    /// maptrack limit.
    #[must_use]
    pub fn grant_limits(&self, wanted: &CreateDomain) -> GrantLimits {
        let of_dom0 = || self.grant_frames(DomId::DOM0).ok().map(|(_, most)| most);
        let frames = || self.parameter(XenParameter::MaxGrantFrames).or_else(of_dom0);
        let maptrack_frames = || self.parameter(XenParameter::MaxMaptrackFrames);
        GrantLimits {
            frames: wanted.max_grant_frames.and_then(|_| frames()),
            maptrack_frames: wanted.max_maptrack_frames.and_then(|_| maptrack_frames()),
        }
    }
}

impl CreateDomain {
    /// Names the setting above its limit, with the limit and its boot option; `None` if no setting is.
    #[must_use]
    pub fn above(&self, limits: &GrantLimits) -> Option<String> {
        if cfg!(xen_4_18_or_later) {
            return None;
        }
        let tables = [
            ("--max-grant-frames", self.max_grant_frames, limits.frames, XenParameter::MaxGrantFrames),
            (
                "--max-maptrack-frames",
                self.max_maptrack_frames,
                limits.maptrack_frames,
                XenParameter::MaxMaptrackFrames,
            ),
        ];
        let above = tables.into_iter().filter_map(|(flag, asked, limit, option)| {
            let (asked, option) = (u32::try_from(asked?).ok()?, option.name());
            (asked > limit?).then(|| {
                format!(
                    "{flag} {asked}, and this Xen gives {} at most: lower it, or boot Xen with {option}={asked}",
                    limit.unwrap_or(0)
                )
            })
        });
        let above: Vec<String> = above.collect();
        (!above.is_empty()).then(|| above.join("; "))
    }

    /// Adds the cause to an error of `xc_domain_create`, as far as Xen's checks (`sanitise_domain_config`,
    /// `arch_sanitise_domain_config`, `evtchn_init`, `grant_table_init`, `cpupool_add_domain`; Xen 4.17 to 4.20) and
    /// the host's abilities show it.
    #[must_use]
    pub fn explain(&self, error: XenError, host: &PhysInfo, limits: &GrantLimits) -> XenError {
        let Some(cause) = error.errno.and_then(|errno| self.cause(errno, host, limits)) else { return error };
        let detail = error.detail.map_or_else(|| cause.clone(), |said| format!("{said}: {cause}"));
        XenError { detail: Some(detail), ..error }
    }

    fn cause(&self, errno: Errno, host: &PhysInfo, limits: &GrantLimits) -> Option<String> {
        match errno {
            Errno::EINVAL => self.invalid(host, limits),
            Errno::ESRCH | Errno::ENODEV => Some(format!("--cpupool {}", self.cpupool)),
            Errno::ENOMEM => {
                let tables = [
                    ("--max-grant-frames", self.max_grant_frames),
                    ("--max-maptrack-frames", self.max_maptrack_frames),
                ];
                let asked = tables.iter().filter_map(|(flag, frames)| frames.map(|frames| format!("{flag} {frames}")));
                let asked: Vec<String> = asked.chain([format!("{} vCPUs", self.vcpus)]).collect();
                Some(format!("it asked for {}", asked.join(", ")))
            }
            Errno::EACCES | Errno::EPERM if self.ssid != 0 => Some("with the label of --seclabel".to_owned()),
            _ => None,
        }
    }

    fn invalid(&self, host: &PhysInfo, limits: &GrantLimits) -> Option<String> {
        let (hvm, kind) = (self.kind != Kind::Pv, self.kind);
        let most = if hvm { sys::HVM_MAX_VCPUS } else { MAX_VIRT_CPUS };
        let cause = if hvm && !host.hvm || !hvm && !host.pv {
            format!("this host runs no {kind} guests")
        } else if hvm && !host.hap {
            "this host has no hardware-assisted paging".to_owned()
        } else if self.vcpus == 0 || self.vcpus > most {
            format!("{} vCPUs, and a {kind} guest may have 1 to {most}", self.vcpus)
        } else if self.passthrough && !host.directio {
            "--passthrough, --pci: this host has no IOMMU, or it is off".to_owned()
        } else if self.grant_version == 0 || self.grant_version > if host.grant_v2 { 2 } else { 1 } {
            format!("version {} of the grant table, which this Xen does not offer", self.grant_version)
        } else if self.max_grant_frames.is_some_and(|frames| frames < 1) {
            "--max-grant-frames below 1".to_owned()
        } else if let Some(above) = self.above(limits) {
            above
        } else if self.max_event_channel < 1 {
            "--event-channels below 1".to_owned()
        } else if let Some(mode) = self.altp2m.filter(|_| cfg!(xen_4_19_or_later)) {
            format!("--altp2m {mode}: Xen offers it on Intel CPUs with EPT, and with altp2m on its command line")
        } else if !self.vmtrace.is_zero() {
            format!("--vmtrace {} KiB: Xen takes powers of two from 4 KiB to 64 MiB", self.vmtrace.get())
        } else if self.nested {
            // Xen 4.17 does not check it; later versions refuse it if the CPU or a boot option forbids it.
            "--platform nested-virt: this CPU or this Xen offers none".to_owned()
        } else if self.ssid != 0 {
            "--seclabel: the policy knows the label, but not for domains".to_owned()
        } else {
            return None;
        };
        Some(cause)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use dombuild_memory::Kib;

    fn host() -> PhysInfo {
        PhysInfo {
            total_kib: Kib(1),
            free_kib: Kib(1),
            claimed_kib: Kib(0),
            hvm: true,
            pv: true,
            directio: false,
            hap: true,
            shadow: true,
            grant_v2: false,
            vmtrace: false,
        }
    }

    fn wanted(change: impl FnOnce(&mut CreateDomain)) -> CreateDomain {
        let mut wanted = CreateDomain {
            kind: Kind::Hvm,
            passthrough: false,
            nested: false,
            uuid: Uuid::nil(),
            vcpus: 1,
            max_event_channel: 1023,
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: 1,
            vpmu: false,
            msr_relaxed: false,
            cpupool: 0,
            ssid: 0,
            pirqs: false,
            altp2m: None,
            vmtrace: Kib(0),
        };
        change(&mut wanted);
        wanted
    }

    fn explained(wanted: &CreateDomain, host: &PhysInfo, errno: Errno) -> String {
        let refused = XenError { call: "xc_domain_create", arguments: String::new(), errno: Some(errno), detail: None };
        wanted.explain(refused, host, &LIMITS).detail.unwrap_or_default()
    }

    const LIMITS: GrantLimits = GrantLimits { frames: Some(64), maptrack_frames: Some(1024) };

    /// Since Xen 4.18 these are not limits.
    #[test]
    fn a_table_above_the_limit_names_flag_limit_and_boot_option() {
        let both = wanted(|wanted| (wanted.max_grant_frames, wanted.max_maptrack_frames) = (Some(4096), Some(100_000)));
        let text = explained(&both, &host(), Errno::EINVAL);
        let words = [
            "--max-grant-frames 4096, and this Xen gives 64 at most",
            "gnttab_max_frames=4096",
            "--max-maptrack-frames 100000, and this Xen gives 1024 at most",
            "gnttab_max_maptrack_frames=100000",
        ];
        for word in words {
            assert_eq!(text.contains(word), cfg!(not(xen_4_18_or_later)), "{word:?}: {text}");
        }
        let most = wanted(|wanted| (wanted.max_grant_frames, wanted.max_maptrack_frames) = (Some(64), Some(1024)));
        assert_eq!(most.above(&LIMITS), None);
        assert_eq!(both.above(&GrantLimits::default()), None, "nothing is made up");
    }

    #[test]
    fn the_setting_is_named() {
        let invalid = |change: fn(&mut CreateDomain)| explained(&wanted(change), &host(), Errno::EINVAL);
        assert_eq!(invalid(|_| {}), "", "nothing is made up");
        for (text, word) in [
            (invalid(|wanted| wanted.nested = true), "nested-virt"),
            (invalid(|wanted| wanted.passthrough = true), "IOMMU"),
            (invalid(|wanted| wanted.vcpus = 129), "1 to 128"),
            (invalid(|wanted| wanted.grant_version = 2), "version 2 of the grant table"),
            (invalid(|wanted| wanted.max_grant_frames = Some(0)), "--max-grant-frames"),
            (invalid(|wanted| wanted.max_event_channel = 0), "--event-channels"),
            (invalid(|wanted| wanted.ssid = 7), "--seclabel"),
        ] {
            assert!(text.contains(word), "{text:?} lacks {word}");
        }
        let old = PhysInfo { hap: false, ..host() };
        assert!(explained(&wanted(|_| {}), &old, Errno::EINVAL).contains("hardware-assisted paging"));
        let none = PhysInfo { hvm: false, pv: false, ..host() };
        assert!(explained(&wanted(|wanted| wanted.kind = Kind::Pv), &none, Errno::EINVAL).contains("no pv guests"));
    }

    #[test]
    fn other_refusals_name_theirs() {
        assert_eq!(explained(&wanted(|wanted| wanted.cpupool = 7), &host(), Errno::ESRCH), "--cpupool 7");
        let large = wanted(|wanted| wanted.max_grant_frames = Some(1 << 30));
        assert!(explained(&large, &host(), Errno::ENOMEM).contains("--max-grant-frames 1073741824"));
        assert_eq!(explained(&large, &host(), Errno::EFAULT), "");
    }
}
