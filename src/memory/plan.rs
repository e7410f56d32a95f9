//! A plan: the memory model and the layout of one domain, and the figures that Xen will report for it.

use serde::{Serialize, Serializer};

use super::error::PlanError;
use super::layout::{E820Entry, IOREQ_SERVER_PAGES, Layout, SPECIAL_PAGES, VGA_HOLE_PAGES};
use super::model::{Memory, Request};
use super::multiplier::ShadowMultiplier;
use super::units::{Bytes, Kib, Pages};

/// Version of the JSON object that a plan serializes to. It grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;
/// Pages that QEMU populates for the option ROM of its std VGA card.
///
/// 16 pages hold the 64 KiB that vgabios-stdvga.bin is rounded up to. Measured: 4112 pages for a card with 16 MiB (QEMU
/// 7.2 under Xen 4.17).
pub const VGA_ROM: Pages = Pages(16);

/// Everything that is decided before a domain is built.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The breakdown of its memory.
    pub memory: Memory,
    /// Where that memory stands in the guest.
    pub layout: Layout,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// What the paging pool was scaled with.
    pub shadow_multiplier: ShadowMultiplier,
    /// Whether a QEMU will be there.
    pub device_model: bool,
    /// Pages that Xen counts as the domain's when the build ends.
    pub owned_pages_built: Pages,
    /// Pages that Xen counts as the domain's once QEMU has added its video RAM and ROM, and before the guest is unpaused
    /// (hvmloader then adds a few more). A network card's ROM would come on top.
    pub owned_pages_running: Pages,
    /// Xen's limit for the domain, in pages: xen max.
    pub max_pages: Pages,
}

impl Plan {
    /// The plan for a request.
    ///
    /// # Errors
    /// Where the request cannot be built: see [`PlanError`].
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        let memory = Memory::new(request)?;
        let layout = Layout::new(memory.build_max, request.mmio_hole)?;
        // hvmloader places PCI memory in [mmio_start, 0xfc000000), each BAR aligned to its size: a card's memory finds its
        // place, and leaves some to other devices, exactly where the hole is at least twice as large.
        if request.device_model && memory.video.to_bytes() > Bytes(layout.mmio_size.get() / 2) {
            return Err(PlanError::VideoPastHole { video: memory.video, hole: layout.mmio_size });
        }
        let too_small = PlanError::TooSmall { target: memory.target, video: memory.video };
        let too_large = PlanError::TooLarge { what: "target", size: memory.target.to_kib(), limit: memory.target };

        // Populate on demand changes nothing here: pages waiting in the cache are owned too, and the cache is filled up to
        // build start less the VGA hole (`meminit_hvm`, tools/libs/guest/xg_dom_x86.c).
        let owned_pages_built = memory
            .build_start
            .to_pages()
            .checked_sub(VGA_HOLE_PAGES)
            .ok_or(too_small)?
            .checked_add(SPECIAL_PAGES)
            .and_then(|pages| pages.checked_add(IOREQ_SERVER_PAGES))
            .ok_or_else(|| too_large.clone())?;
        let owned_pages_running = if request.device_model && !memory.video.is_zero() {
            owned_pages_built
                .checked_add(memory.video.to_pages())
                .and_then(|pages| pages.checked_add(VGA_ROM))
                .ok_or(too_large)?
        } else {
            owned_pages_built
        };
        Ok(Self {
            max_pages: memory.xen_max.to_pages(),
            memory,
            layout,
            vcpus: request.vcpus,
            shadow_multiplier: request.shadow_multiplier,
            device_model: request.device_model,
            owned_pages_built,
            owned_pages_running,
        })
    }
}

/// The JSON object of `plan --json`: flat, sizes of the model in KiB, addresses in bytes.
#[derive(Serialize)]
struct View<'a> {
    schema: u32,
    vcpus: u32,
    static_max_kib: Kib,
    target_kib: Kib,
    video_kib: Kib,
    build_max_kib: Kib,
    build_start_kib: Kib,
    guest_kib: Kib,
    balloon_kib: Kib,
    xen_max_kib: Kib,
    shadow_kib: Kib,
    extra_internal_kib: Kib,
    extra_external_kib: Kib,
    overhead_kib: Kib,
    footprint_kib: Kib,
    populate_on_demand: bool,
    lowmem_end: Bytes,
    mmio_start: Bytes,
    mmio_size: Bytes,
    highmem_end: Bytes,
    e820: &'a [E820Entry],
    owned_pages_built: Pages,
    owned_pages_running: Pages,
    max_pages: Pages,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { memory, layout, .. } = self;
        View {
            schema: SCHEMA,
            vcpus: self.vcpus,
            static_max_kib: memory.static_max.to_kib(),
            target_kib: memory.target.to_kib(),
            video_kib: memory.video.to_kib(),
            build_max_kib: memory.build_max.to_kib(),
            build_start_kib: memory.build_start.to_kib(),
            guest_kib: memory.guest.to_kib(),
            balloon_kib: memory.balloon.to_kib(),
            xen_max_kib: memory.xen_max.to_kib(),
            shadow_kib: memory.shadow.to_kib(),
            extra_internal_kib: memory.extra_internal.to_kib(),
            extra_external_kib: memory.extra_external.to_kib(),
            overhead_kib: memory.overhead.to_kib(),
            footprint_kib: memory.footprint.to_kib(),
            populate_on_demand: memory.populate_on_demand,
            lowmem_end: layout.lowmem_end,
            mmio_start: layout.mmio_start,
            mmio_size: layout.mmio_size,
            highmem_end: layout.highmem_end,
            e820: &layout.e820,
            owned_pages_built: self.owned_pages_built,
            owned_pages_running: self.owned_pages_running,
            max_pages: self.max_pages,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::units::Mib;
    use super::*;

    fn mib(target: u32) -> Request {
        Request::new(Mib(target).to_kib())
    }

    #[test]
    fn the_pages_that_xen_counts() {
        let plan = Plan::new(&mib(256)).expect("a plan");
        // 240 MiB, less 32 pages of VGA hole, and 16 special pages; then 16 MiB of video RAM and its ROM.
        assert_eq!(plan.owned_pages_built, Pages(61_440 - 32 + 16));
        assert_eq!(plan.owned_pages_running, Pages(61_440 - 32 + 16 + 4112));
        assert_eq!(plan.max_pages, Pages(257 * 256));

        let alone = Plan::new(&Request { device_model: false, ..mib(256) }).expect("a plan");
        assert_eq!(alone.owned_pages_running, alone.owned_pages_built);
        let no_vga = Plan::new(&Request { video: Kib(0), ..mib(256) }).expect("a plan");
        assert_eq!(no_vga.owned_pages_running, Pages(65_536 - 16));
        assert_eq!(no_vga.owned_pages_running, no_vga.owned_pages_built);

        let ballooned = Plan::new(&Request { static_max: Some(Mib(512).to_kib()), ..mib(256) }).expect("a plan");
        assert_eq!(ballooned.owned_pages_built, plan.owned_pages_built);
        assert_eq!(ballooned.max_pages, Pages(513 * 256));
        assert_eq!(ballooned.layout.lowmem_end, Mib(496).to_bytes());
    }

    #[test]
    fn video_needs_room_in_the_hole() {
        let request =
            |video: u32, hole: u64| Request { video: Mib(video).to_kib(), mmio_hole: Bytes(hole << 20), ..mib(4096) };
        for (video, hole) in [(128, 256), (256, 512), (512, 1024)] {
            assert!(Plan::new(&request(video, hole)).is_ok());
            let less = Plan::new(&request(video * 2, hole)).expect_err("no room");
            match less {
                PlanError::VideoPastHole { .. } => {
                    let advice = format!("--mmio-hole {}MiB", video * 4);
                    assert!(less.to_string().ends_with(&advice), "{less}");
                }
                _ => assert_eq!(less, PlanError::VideoTooLarge { video: Mib(1024) }),
            }
        }
        assert!(Plan::new(&Request { device_model: false, ..request(256, 256) }).is_ok());
    }

    /// The object as the users of `plan --json` see it: a change here is a change of the interface.
    #[test]
    fn the_json_object() {
        let request = Request { static_max: Some(Mib(5120).to_kib()), vcpus: 2, ..mib(4096) };
        let json = serde_json::to_string_pretty(&Plan::new(&request).expect("a plan")).expect("json");
        let expected = r#"{
  "schema": 1,
  "vcpus": 2,
  "static_max_kib": 5242880,
  "target_kib": 4194304,
  "video_kib": 16384,
  "build_max_kib": 5226496,
  "build_start_kib": 4177920,
  "guest_kib": 4177920,
  "balloon_kib": 1048576,
  "xen_max_kib": 5243904,
  "shadow_kib": 43008,
  "extra_internal_kib": 1024,
  "extra_external_kib": 1024,
  "overhead_kib": 45056,
  "footprint_kib": 4239360,
  "populate_on_demand": true,
  "lowmem_end": 4026531840,
  "mmio_start": 4026531840,
  "mmio_size": 268435456,
  "highmem_end": 5620367360,
  "e820": [
    {
      "addr": 1048576,
      "size": 4025483264,
      "type": "ram"
    },
    {
      "addr": 4294967296,
      "size": 1325400064,
      "type": "ram"
    }
  ],
  "owned_pages_built": 1044464,
  "owned_pages_running": 1048576,
  "max_pages": 1310976
}"#;
        assert_eq!(json, expected);
    }

    proptest! {
        #[test]
        fn what_is_owned_fits_under_the_limit(guest in 2_u32..1 << 22, balloon in 0_u32..1 << 22, shift in 0_u32..9) {
            let video = (1 << shift) / 2;
            let target = guest + video;
            let static_max = Some(Mib(target + balloon).to_kib());
            let plan = Plan::new(&Request { static_max, video: Mib(video).to_kib(), ..mib(target) }).expect("a plan");
            prop_assert!(plan.owned_pages_built <= plan.owned_pages_running);
            prop_assert!(plan.owned_pages_running <= plan.max_pages);
            prop_assert!(plan.owned_pages_running.0 + 256 >= plan.memory.target.to_pages().0);
        }

        #[test]
        fn no_request_panics(target: u64, static_max: Option<u64>, video: u64, vcpus: u32, hole: u64) {
            let request = Request {
                static_max: static_max.map(Kib),
                video: Kib(video),
                vcpus,
                mmio_hole: Bytes(hole),
                ..Request::new(Kib(target))
            };
            let _ = Plan::new(&request);
        }
    }
}
