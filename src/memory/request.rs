//! The input of a plan.

use std::ops::Not;

use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::kind::Kind;
use super::limits::{DEFAULT_VIDEO, HVM_MAX_VCPUS, MAX_STATIC_MAX, MAX_VIDEO, MIN_BUILD_START};
use super::model::Model;
use super::multiplier::ShadowMultiplier;
use super::reserved::Reserved;
use super::units::{Bytes, Kib, Mib};
use super::vnuma::Vnode;

/// The input of a plan. It is saved with each domain that is built from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The kind of guest.
    pub kind: Kind,
    /// The toolstack whose figures the plan uses.
    pub model: Model,
    /// The memory of the running guest, video RAM included.
    pub target: Kib,
    /// The most that the guest may balloon up to, video RAM included; `None` means the target.
    pub static_max: Option<Kib>,
    /// Video RAM of an HVM guest: 0 for no VGA card, or a power of two of MiB; `None` means [`DEFAULT_VIDEO`]. Other
    /// kinds have none.
    pub video: Option<Kib>,
    /// Room below Xen's limit for pages that a device model adds; `None` means the model's figure, which is the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_internal: Option<Kib>,
    /// The number of vCPUs, 1 to [`HVM_MAX_VCPUS`].
    pub vcpus: u32,
    /// The factor for the paging pool.
    pub shadow_multiplier: ShadowMultiplier,
    /// The paging pool instead of the one that the model computes, rounded up to whole MiB; HVM and PVH only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_memory: Option<Kib>,
    /// The MMIO hole below 4 GiB of an HVM guest: whole MiB from [`DEFAULT_MMIO_HOLE`](super::limits::DEFAULT_MMIO_HOLE) to [`MAX_MMIO_HOLE`](super::limits::MAX_MMIO_HOLE); `None`
    /// means [`DEFAULT_MMIO_HOLE`](super::limits::DEFAULT_MMIO_HOLE). A PVH guest has a fixed hole, a PV guest has none.
    pub mmio_hole: Option<Bytes>,
    /// HVM only: a QEMU adds its video RAM and option ROM to the guest.
    pub device_model: bool,
    /// The guest gets PCI devices of the host.
    pub passthrough: bool,
    /// The kernel is Xen's PV shim, which runs a PV guest inside a PVH guest.
    pub shim: bool,
    /// HVM only: the regions that the host reserves for the guest's PCI devices, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Reserved>,
    /// HVM only: a device is an NVIDIA vGPU, which needs a reserved region for its video RAM.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub vgpu: bool,
    /// HVM and PVH only: the NUMA nodes that the guest sees; empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vnodes: Vec<Vnode>,
}

impl Request {
    /// A request for `target` with defaults: HVM, xenops' model, no balloon, 16 MiB of video RAM, 1 vCPU, multiplier 1,
    /// an MMIO hole of 256 MiB, a device model, no PCI devices, no shim.
    #[must_use]
    pub const fn new(target: Kib) -> Self {
        Self {
            kind: Kind::Hvm,
            model: Model::Xenops,
            target,
            static_max: None,
            video: None,
            extra_internal: None,
            vcpus: 1,
            shadow_multiplier: ShadowMultiplier::ONE,
            shadow_memory: None,
            mmio_hole: None,
            device_model: true,
            passthrough: false,
            shim: false,
            reserved: Vec::new(),
            vgpu: false,
            vnodes: Vec::new(),
        }
    }

    /// Whether a QEMU serves the guest: HVM guests only.
    #[must_use]
    pub fn has_device_model(&self) -> bool {
        self.device_model && self.kind == Kind::Hvm
    }

    /// Checks the request, and rounds its sizes up to multiples of `unit`. [`Layout`](super::Layout) checks the MMIO
    /// hole's size.
    pub(super) fn check(&self, unit: Kib) -> Result<Asked, PlanError> {
        let kind = self.kind;
        match self.vcpus {
            0 => return Err(PlanError::NoVcpus),
            1..=HVM_MAX_VCPUS => {}
            vcpus => return Err(PlanError::TooManyVcpus { vcpus }),
        }
        if self.mmio_hole.is_some() && kind != Kind::Hvm {
            return Err(PlanError::HoleNotHvm { kind });
        }
        if kind != Kind::Hvm && (self.vgpu || !self.reserved.is_empty()) {
            return Err(PlanError::ReservedNotHvm { kind });
        }
        if self.shim && kind != Kind::Pvh {
            return Err(PlanError::ShimNotPvh { kind });
        }
        let video = self.check_video()?;

        let limit = MAX_STATIC_MAX;
        let rounded = |what, size: Kib| {
            let fits = size.to_mib_ceil().is_some_and(|mib| mib <= limit);
            size.round_up(unit).filter(|_| fits).ok_or(PlanError::TooLarge { what, size, limit })
        };
        let target = rounded("target", self.target)?;
        let static_max = rounded("static max", self.static_max.unwrap_or(self.target))?;
        if target > static_max {
            return Err(PlanError::TargetAboveStaticMax { target, static_max });
        }
        let guest = match target.checked_sub(video.to_kib()).filter(|rest| !rest.is_zero()) {
            Some(guest) => guest,
            None if video.is_zero() => return Err(PlanError::TooSmall { target, video }),
            None => return Err(PlanError::VideoNotBelowTarget { video, target }),
        };
        if guest < MIN_BUILD_START.to_kib() {
            return Err(PlanError::TooSmall { target, video });
        }
        if self.has_device_model() && video > MAX_VIDEO {
            return Err(PlanError::VideoTooLarge { video });
        }
        let what = if self.static_max.is_some() { "static max" } else { "target" };
        whole_mib(what, static_max)?;
        if kind == Kind::Pv {
            whole_mib("target", target)?;
        }
        if self.passthrough && kind.is_translated() && target < static_max {
            return Err(PlanError::OnDemandUnderIommu { target, static_max });
        }
        Ok(Asked { target, static_max, video: video.to_kib() })
    }

    fn check_video(&self) -> Result<Mib, PlanError> {
        if self.kind != Kind::Hvm {
            return match self.video {
                None | Some(Kib::ZERO) => Ok(Mib::ZERO),
                Some(video) => Err(PlanError::VideoNotHvm { kind: self.kind, video }),
            };
        }
        let video = self.video.unwrap_or(DEFAULT_VIDEO);
        match video.to_mib_exact() {
            Some(mib) if mib.is_zero() || mib.get().is_power_of_two() => Ok(mib),
            _ => Err(PlanError::VideoNotPowerOfTwo { video }),
        }
    }
}

/// The sizes of a checked request, rounded as the model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) target: Kib,
    pub(super) static_max: Kib,
    pub(super) video: Kib,
}

/// libxenguest takes the size in whole MiB. Models that round up to MiB always pass.
fn whole_mib(what: &'static str, size: Kib) -> Result<(), PlanError> {
    match (size.to_mib_exact(), size.to_mib_floor(), size.to_mib_ceil()) {
        (None, Some(below), Some(above)) => Err(PlanError::NotWholeMib { what, size, below, above }),
        _ => Ok(()),
    }
}
