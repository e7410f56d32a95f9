//! The breakdown of an HVM domain's memory: the model of `xenops/memory.ml` (OpenXT toolstack, stable-6).
//!
//! Static max, target and video come in; everything else follows from them, the vCPUs and the shadow multiplier. The
//! model counts in MiB, and KiB that come in are rounded up. The drawing in [`picture`](super::picture) shows how the parts
//! add up.

use super::error::PlanError;
use super::multiplier::ShadowMultiplier;
use super::units::{Bytes, GIB, Kib, MIB, Mib, PAGES_PER_MIB};

/// Most vCPUs of an HVM guest (`HVM_MAX_VCPUS`, `xen/include/public/hvm/hvm_info_table.h`, Xen 4.17).
pub const HVM_MAX_VCPUS: u32 = 128;
/// What Xen lets a domain hold past its static max, for pages that a device model adds.
pub const EXTRA_INTERNAL: Mib = Mib(1);
/// What Xen allocates for a domain without counting it as the domain's.
pub const EXTRA_EXTERNAL: Mib = Mib(1);
/// Pages of paging pool for each vCPU.
pub const SHADOW_PAGES_PER_VCPU: u64 = 256;
/// Pages of paging pool for each MiB of static max: one for the p2m and one for the shadows of resident pages.
pub const SHADOW_PAGES_PER_MIB: u64 = 2;
/// Least that a guest can be built with (as `xc_hvm_build` had it, `tools/libxc/xc_hvm_build_x86.c`, Xen 4.6).
pub const MIN_BUILD_START: Mib = Mib(2);
/// Video RAM where none is asked for: QEMU's own default for its std VGA card.
pub const DEFAULT_VIDEO: Kib = Kib(16 * 1024);
/// Most that QEMU's VGA cards take; they clamp without a word (`vga_common_init`, `hw/display/vga.c`, QEMU 7.2).
pub const MAX_VIDEO: Mib = Mib(512);
/// The MMIO hole where none is asked for (`HVM_BELOW_4G_MMIO_LENGTH`, `xen/include/public/hvm/e820.h`), and the least:
/// libxl and hvmloader take no smaller one.
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

/// What is asked for: the input of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What the guest runs with, video RAM included.
    pub target: Kib,
    /// What the guest may balloon up to, video RAM included; `None` is the target.
    pub static_max: Option<Kib>,
    /// Video RAM: 0 for no VGA card, or a power of two of MiB.
    pub video: Kib,
    /// How many vCPUs, from 1 to [`HVM_MAX_VCPUS`].
    pub vcpus: u32,
    /// Scales the paging pool.
    pub shadow_multiplier: ShadowMultiplier,
    /// The hole for devices below 4 GiB: whole MiB, from [`DEFAULT_MMIO_HOLE`] to [`MAX_MMIO_HOLE`].
    pub mmio_hole: Bytes,
    /// Whether a QEMU will be there, which adds its video RAM and option ROM to the guest.
    pub device_model: bool,
}

impl Request {
    /// A request for `target`, with the defaults for everything else: no balloon, 16 MiB of video, 1 vCPU, multiplier 1,
    /// a hole of 256 MiB and a device model.
    #[must_use]
    pub const fn new(target: Kib) -> Self {
        Self {
            target,
            static_max: None,
            video: DEFAULT_VIDEO,
            vcpus: 1,
            shadow_multiplier: ShadowMultiplier::ONE,
            mmio_hole: DEFAULT_MMIO_HOLE,
            device_model: true,
        }
    }
}

/// The breakdown of a domain's memory, all of it in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The most that the guest can balloon up to: guest + balloon + video.
    pub static_max: Mib,
    /// What the guest runs with: guest + video.
    pub target: Mib,
    /// Video RAM, which QEMU adds to the guest; 0 for no VGA card.
    pub video: Mib,
    /// The RAM that the guest is built to see: static max - video. QEMU's `-m` is this too.
    pub build_max: Mib,
    /// The RAM that the guest is built to hold: target - video.
    pub build_start: Mib,
    /// The guest's own part of the target, the same as build start.
    pub guest: Mib,
    /// What the guest sees but does not hold: static max - target.
    pub balloon: Mib,
    /// The limit set with `xc_domain_setmaxmem`: static max + extra internal.
    pub xen_max: Mib,
    /// The paging pool (shadow or HAP), which Xen holds for the domain but does not count as its own.
    pub shadow: Mib,
    /// Room under the limit for pages that a device model adds.
    pub extra_internal: Mib,
    /// What Xen allocates for the domain outside its limit and its paging pool.
    pub extra_external: Mib,
    /// Extra internal + extra external + shadow.
    pub overhead: Mib,
    /// What the host must have free to build and run the domain: target + overhead.
    pub footprint: Mib,
    /// Whether the guest is built holding less than it sees, the rest to be filled in as it is touched.
    pub populate_on_demand: bool,
}

impl Memory {
    /// The breakdown for a request. KiB are rounded up to MiB before anything is compared or computed.
    ///
    /// # Errors
    /// Where the request cannot be built: see [`PlanError`]. The MMIO hole is [`Layout`](super::Layout)'s to check.
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        match request.vcpus {
            0 => return Err(PlanError::NoVcpus),
            1..=HVM_MAX_VCPUS => {}
            vcpus => return Err(PlanError::TooManyVcpus { vcpus }),
        }
        let limit = MAX_STATIC_MAX;
        let whole_mib = |what, size: Kib| {
            size.to_mib_ceil().filter(|mib| *mib <= limit).ok_or(PlanError::TooLarge { what, size, limit })
        };
        let video = match request.video.to_mib_exact() {
            Some(video) if video.is_zero() || video.get().is_power_of_two() => video,
            _ => return Err(PlanError::VideoNotPowerOfTwo { video: request.video }),
        };
        let target = whole_mib("target", request.target)?;
        let static_max = whole_mib("static max", request.static_max.unwrap_or(request.target))?;

        let balloon = static_max.checked_sub(target).ok_or(PlanError::TargetAboveStaticMax { target, static_max })?;
        let build_start = target
            .checked_sub(video)
            .filter(|rest| !rest.is_zero())
            .ok_or(PlanError::VideoNotBelowTarget { video, target })?;
        if build_start < MIN_BUILD_START {
            return Err(PlanError::TooSmall { target, video });
        }
        if request.device_model && video > MAX_VIDEO {
            return Err(PlanError::VideoTooLarge { video });
        }

        let shadow = shadow(static_max, request.vcpus, request.shadow_multiplier)
            .filter(|pool| *pool <= MAX_COUNTED)
            .ok_or(PlanError::PagingPoolTooLarge { multiplier: request.shadow_multiplier })?;
        // Every part is below 2^24, so none of these sums can overflow; the error is for the day that a limit moves.
        let too_large = PlanError::TooLarge { what: "static max", size: static_max.to_kib(), limit };
        let sum = |parts: &[Mib]| {
            parts.iter().try_fold(Mib::ZERO, |sum, part| sum.checked_add(*part)).ok_or_else(|| too_large.clone())
        };
        let overhead = sum(&[EXTRA_INTERNAL, EXTRA_EXTERNAL, shadow])?;
        Ok(Self {
            static_max,
            target,
            video,
            build_max: sum(&[build_start, balloon])?,
            build_start,
            guest: build_start,
            balloon,
            xen_max: sum(&[static_max, EXTRA_INTERNAL])?,
            shadow,
            extra_internal: EXTRA_INTERNAL,
            extra_external: EXTRA_EXTERNAL,
            overhead,
            footprint: sum(&[target, overhead])?,
            populate_on_demand: !balloon.is_zero(),
        })
    }

    /// What belongs in the guest's xenstore key `memory/target`, by which its balloon driver goes: build start, and under
    /// populate on demand 1 MiB less.
    ///
    /// Guests count what they were given in different ways; the MiB keeps one that counts short from touching more than
    /// it was granted (XSA-153; `libxl__get_targetmem_fudge`, `tools/libs/light/libxl_internal.h`, Xen 4.17).
    #[must_use]
    pub fn balloon_target(&self) -> Kib {
        let granted = self.build_start.to_kib();
        if self.populate_on_demand { granted.checked_sub(Kib(1024)).unwrap_or(granted) } else { granted }
    }
}

/// The paging pool. The pages are rounded up to MiB before the multiplier is applied, and the product is rounded down.
fn shadow(static_max: Mib, vcpus: u32, multiplier: ShadowMultiplier) -> Option<Mib> {
    let for_vcpus = SHADOW_PAGES_PER_VCPU.checked_mul(u64::from(vcpus))?;
    let for_memory = SHADOW_PAGES_PER_MIB.checked_mul(u64::from(static_max.get()))?;
    let plain = for_vcpus.checked_add(for_memory)?.div_ceil(PAGES_PER_MIB);
    let pool = multiplier.scale(Mib(u32::try_from(plain).ok()?))?;
    Some(pool.max(Mib(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn multiplier(value: f64) -> ShadowMultiplier {
        ShadowMultiplier::new(value).expect("a valid multiplier")
    }

    fn request(target: u32, static_max: u32, video: u32, vcpus: u32, by: f64) -> Request {
        Request {
            static_max: Some(Mib(static_max).to_kib()),
            video: Mib(video).to_kib(),
            vcpus,
            shadow_multiplier: multiplier(by),
            ..Request::new(Mib(target).to_kib())
        }
    }

    /// The figures that OpenXT's `memory.ml` gives.
    #[test]
    fn the_figures_of_xenops() {
        #[rustfmt::skip]
        let vectors = [
            // static max, target, vcpus, by, video -> build max, build start, xen max, shadow, overhead, footprint
            (256,   256,   1,  1.0, 0,  256,   256,   257,   3,   5,   261),
            (512,   512,   1,  1.0, 4,  508,   508,   513,   5,   7,   519),
            (1024,  512,   1,  1.0, 4,  1020,  508,   1025,  9,   11,  523),
            (2048,  2048,  2,  1.0, 4,  2044,  2044,  2049,  18,  20,  2068),
            (4096,  4096,  2,  1.0, 16, 4080,  4080,  4097,  34,  36,  4132),
            (4096,  2048,  4,  1.5, 8,  4088,  2040,  4097,  54,  56,  2104),
            (8192,  8192,  8,  1.0, 16, 8176,  8176,  8193,  72,  74,  8266),
            (65536, 65536, 32, 1.0, 16, 65520, 65520, 65537, 544, 546, 66082),
            (2,     2,     1,  0.1, 0,  2,     2,     3,     1,   3,   5),
        ];
        for (smax, target, vcpus, by, video, bmax, bstart, xmax, shadow, overhead, footprint) in vectors {
            let memory = Memory::new(&request(target, smax, video, vcpus, by)).expect("a plan");
            let expected = Memory {
                static_max: Mib(smax),
                target: Mib(target),
                video: Mib(video),
                build_max: Mib(bmax),
                build_start: Mib(bstart),
                guest: Mib(bstart),
                balloon: Mib(smax - target),
                xen_max: Mib(xmax),
                shadow: Mib(shadow),
                extra_internal: Mib(1),
                extra_external: Mib(1),
                overhead: Mib(overhead),
                footprint: Mib(footprint),
                populate_on_demand: smax > target,
            };
            assert_eq!(memory, expected);
        }
    }

    #[test]
    fn kib_round_up_and_never_make_a_balloon() {
        let odd = Request { static_max: Some(Kib(262_100)), ..Request::new(Kib(261_121)) };
        let memory = Memory::new(&odd).expect("a plan");
        assert_eq!((memory.target, memory.static_max, memory.populate_on_demand), (Mib(256), Mib(256), false));
        assert_eq!(memory.balloon_target(), Mib(240).to_kib());
        let grown = Memory::new(&request(256, 512, 16, 1, 1.0)).expect("a plan");
        assert_eq!(grown.balloon_target(), Mib(239).to_kib());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |request: Request| Memory::new(&request).expect_err("no plan");
        assert_eq!(refused(request(256, 256, 16, 0, 1.0)), PlanError::NoVcpus);
        assert_eq!(refused(request(256, 256, 16, 129, 1.0)), PlanError::TooManyVcpus { vcpus: 129 });
        assert_eq!(
            refused(request(257, 256, 16, 1, 1.0)),
            PlanError::TargetAboveStaticMax { target: Mib(257), static_max: Mib(256) }
        );
        for video in [16, 32] {
            let error = PlanError::VideoNotBelowTarget { video: Mib(video), target: Mib(16) };
            assert_eq!(refused(request(16, 16, video, 1, 1.0)), error);
        }
        assert_eq!(refused(request(17, 17, 16, 1, 1.0)), PlanError::TooSmall { target: Mib(17), video: Mib(16) });
        assert_eq!(refused(request(256, 256, 12, 1, 1.0)), PlanError::VideoNotPowerOfTwo { video: Kib(12 << 10) });
        let half = Request { video: Kib(512), ..Request::new(Mib(256).to_kib()) };
        assert_eq!(refused(half), PlanError::VideoNotPowerOfTwo { video: Kib(512) });
        let video = Mib(1024);
        assert_eq!(refused(request(4096, 4096, 1024, 1, 1.0)), PlanError::VideoTooLarge { video });
        assert!(Memory::new(&Request { device_model: false, ..request(4096, 4096, 1024, 1, 1.0) }).is_ok());
    }

    #[test]
    fn the_largest_and_past_it() {
        let most = MAX_STATIC_MAX;
        let memory = Memory::new(&request(most.0, most.0, 0, HVM_MAX_VCPUS, 100.0)).expect("a plan");
        assert!(memory.xen_max.to_pages().0 <= u64::from(u32::MAX));
        assert!(memory.shadow.to_pages().0 <= u64::from(u32::MAX));
        for size in [Kib(most.to_kib().0 + 1), Kib(1 << 42), Kib(u64::MAX)] {
            let target = Memory::new(&Request::new(size)).expect_err("too large");
            assert_eq!(target, PlanError::TooLarge { what: "target", size, limit: most });
            let ballooned = Request { static_max: Some(size), ..Request::new(Kib(1 << 20)) };
            let static_max = Memory::new(&ballooned).expect_err("too large");
            assert_eq!(static_max, PlanError::TooLarge { what: "static max", size, limit: most });
        }
        let video = Request { video: Kib(u64::MAX), ..Request::new(Kib(1 << 20)) };
        assert_eq!(Memory::new(&video), Err(PlanError::VideoNotPowerOfTwo { video: Kib(u64::MAX) }));
    }

    proptest! {
        #[test]
        fn the_parts_add_up(
            guest in 2_u32..1 << 22, balloon in 0_u32..1 << 22, shift in 0_u32..10, vcpus in 1..=HVM_MAX_VCPUS,
            by in 0.001..=100.0_f64,
        ) {
            let video = (1 << shift) / 2;
            let (target, static_max) = (guest + video, guest + video + balloon);
            let m = Memory::new(&request(target, static_max, video, vcpus, by)).expect("a plan");
            prop_assert_eq!(m.guest.0 + m.balloon.0 + m.video.0, m.static_max.0);
            prop_assert_eq!(m.guest.0 + m.video.0, m.target.0);
            prop_assert_eq!((m.build_start.0, m.build_max.0), (guest, guest + balloon));
            prop_assert_eq!(m.footprint.0, m.target.0 + m.overhead.0);
            prop_assert_eq!(m.overhead.0, m.shadow.0 + m.extra_internal.0 + m.extra_external.0);
            prop_assert!(m.build_start <= m.build_max && m.build_max <= m.static_max && m.static_max < m.xen_max);
            prop_assert!(m.shadow >= Mib(1) && m.populate_on_demand == (m.target < m.static_max));

            let more = Memory::new(&request(target, static_max + 1, video, vcpus, by)).expect("a plan");
            prop_assert!(more.shadow >= m.shadow && more.footprint >= m.footprint);
            let smaller = Memory::new(&request(target, static_max, video, vcpus, by / 2.0)).expect("a plan");
            prop_assert!(smaller.shadow <= m.shadow);
        }

        #[test]
        fn no_request_panics(target: u64, static_max: Option<u64>, video: u64, vcpus: u32, device_model: bool) {
            let (target, video) = (Kib(target), Kib(video));
            let static_max = static_max.map(Kib);
            let _ = Memory::new(&Request { static_max, video, vcpus, device_model, ..Request::new(target) });
        }
    }
}
