//! What is asked for, and what of it cannot be.

use std::ops::Not;

use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::kind::Kind;
use super::layout::Reserved;
use super::model::Model;
use super::multiplier::ShadowMultiplier;
use super::units::{Bytes, GIB, Kib, MIB, Mib};

/// Most vCPUs of a guest (`HVM_MAX_VCPUS`, `xen/include/public/hvm/hvm_info_table.h`, Xen 4.17). Xen would let a PV guest
/// have more; one limit for all kinds is easier to remember.
pub const HVM_MAX_VCPUS: u32 = 128;
/// Least that a guest can be built with (as `xc_hvm_build` had it, `tools/libxc/xc_hvm_build_x86.c`, Xen 4.6).
pub const MIN_BUILD_START: Mib = Mib(2);
/// Video RAM of an HVM guest where none is asked for: QEMU's own default for its std VGA card.
pub const DEFAULT_VIDEO: Kib = Kib(16 * 1024);
/// Most that QEMU's VGA cards take; they clamp without a word (`vga_common_init`, `hw/display/vga.c`, QEMU 7.2).
pub const MAX_VIDEO: Mib = Mib(512);
/// The MMIO hole of an HVM guest where none is asked for (`HVM_BELOW_4G_MMIO_LENGTH`, `xen/include/public/hvm/e820.h`),
/// and the least: libxl and hvmloader take no smaller one.
pub const DEFAULT_MMIO_HOLE: Bytes = Bytes(256 * MIB);
/// The largest MMIO hole.
pub const MAX_MMIO_HOLE: Bytes = Bytes(2 * GIB);
/// The most whole MiB whose pages an `unsigned int` can count: 16 TiB less 1 MiB.
///
/// Three things in Xen 4.17 are that wide. `XEN_DOMCTL_max_mem` cuts a larger limit to fit `max_pages` without an error
/// (`xen/common/domctl.c`); `XEN_DOMCTL_shadow_op` shifts the pool's MiB left by 8 in 32 bits (`hap_domctl`); and hvm_info
/// gives the end of high RAM as a 32-bit frame number. What guest-physical addresses can be wide is up to the host's CPU
/// (`paging_max_paddr_bits`, `xen/arch/x86/include/asm/paging.h`: 36 to 48 bits) and cannot be known here.
pub const MAX_COUNTED: Mib = Mib((1 << 24) - 1);
/// The largest static max: one whose xen max is still [`MAX_COUNTED`]. The MMIO hole takes up to its own length from it.
pub const MAX_STATIC_MAX: Mib = Mib((1 << 24) - 2);

/// What is asked for: the input of the model. It is recorded with a domain that was built from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The kind of guest.
    pub kind: Kind,
    /// By whose numbers its memory is counted.
    pub model: Model,
    /// What the guest runs with, video RAM included.
    pub target: Kib,
    /// What the guest may balloon up to, video RAM included; `None` is the target.
    pub static_max: Option<Kib>,
    /// Video RAM of an HVM guest: 0 for no VGA card, or a power of two of MiB; `None` is [`DEFAULT_VIDEO`]. Other kinds have
    /// none.
    pub video: Option<Kib>,
    /// Room below Xen's limit for pages that a device model adds; `None` is the model's own figure, and the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_internal: Option<Kib>,
    /// How many vCPUs, from 1 to [`HVM_MAX_VCPUS`].
    pub vcpus: u32,
    /// Scales the paging pool.
    pub shadow_multiplier: ShadowMultiplier,
    /// The hole for devices below 4 GiB of an HVM guest: whole MiB, from [`DEFAULT_MMIO_HOLE`], which is `None`, to
    /// [`MAX_MMIO_HOLE`]. A PVH guest's is always the same, and a PV guest has none.
    pub mmio_hole: Option<Bytes>,
    /// Whether a QEMU will be there, which adds its video RAM and option ROM to the guest; of HVM guests only.
    pub device_model: bool,
    /// Whether the guest will get PCI devices of the host.
    pub passthrough: bool,
    /// Whether the kernel is Xen's PV shim, which runs a PV guest in a PVH one.
    pub shim: bool,
    /// Regions that the host reserves for these devices, in any order; of HVM guests only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Reserved>,
    /// Whether one of the devices is a vGPU of NVIDIA's, which wants a reserved region for its video RAM; of HVM guests
    /// only.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub vgpu: bool,
}

impl Request {
    /// A request for `target`, with the defaults for everything else: HVM by xenops' model, no balloon, 16 MiB of video, 1
    /// vCPU, multiplier 1, a hole of 256 MiB, a device model, no PCI devices and no shim.
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
            mmio_hole: None,
            device_model: true,
            passthrough: false,
            shim: false,
            reserved: Vec::new(),
            vgpu: false,
        }
    }

    /// Whether a QEMU will be there: only HVM guests have one.
    #[must_use]
    pub fn has_device_model(&self) -> bool {
        self.device_model && self.kind == Kind::Hvm
    }

    /// Checks what can be checked before anything is computed, and rounds sizes up to multiples of `unit`, as the model
    /// does. The MMIO hole's size is [`Layout`](super::Layout)'s to check.
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
        let flag = if self.static_max.is_some() { "--maxmem" } else { "--memory" };
        whole_mib(flag, static_max)?;
        if kind == Kind::Pv {
            whole_mib("--memory", target)?;
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

/// The sizes of a request that was checked, in the model's own rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) target: Kib,
    pub(super) static_max: Kib,
    pub(super) video: Kib,
}

/// libxenguest is told the size to build in whole MiB. Models that round up never fail here.
fn whole_mib(flag: &'static str, size: Kib) -> Result<(), PlanError> {
    match (size.to_mib_exact(), size.to_mib_floor(), size.to_mib_ceil()) {
        (None, Some(below), Some(above)) => Err(PlanError::NotWholeMib { flag, size, below, above }),
        _ => Ok(()),
    }
}
