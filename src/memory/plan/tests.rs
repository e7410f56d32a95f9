//! Plans of every kind.

use super::*;
use crate::model::Model;
use crate::multiplier::ShadowMultiplier;
use crate::reserved::Reserved;
use crate::units::Mib;

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
    let no_vga = Plan::new(&Request { video: Some(Kib(0)), ..mib(256) }).expect("a plan");
    assert_eq!(no_vga.owned_pages_running, Pages(65_536 - 16));
    assert_eq!(no_vga.owned_pages_running, no_vga.owned_pages_built);

    let ballooned = Plan::new(&Request { static_max: Some(Mib(512).to_kib()), ..mib(256) }).expect("a plan");
    assert_eq!(ballooned.owned_pages_built, plan.owned_pages_built);
    assert_eq!(ballooned.max_pages, Pages(513 * 256));
    assert_eq!(ballooned.layout.lowmem_end, Mib(496).to_bytes());
}

#[test]
fn video_needs_room_in_the_hole() {
    let request = |video: u32, hole: u64| Request {
        video: Some(Mib(video).to_kib()),
        mmio_hole: Some(Bytes(hole << 20)),
        ..mib(4096)
    };
    for (video, hole) in [(128, 256), (256, 512), (512, 1024)] {
        assert!(Plan::new(&request(video, hole)).is_ok());
        let less = Plan::new(&request(video * 2, hole)).expect_err("no room");
        let video = Mib(video * 2);
        let expected = if video.0 > 512 {
            PlanError::VideoTooLarge { video }
        } else {
            PlanError::VideoPastHole { video, hole: Bytes(hole << 20) }
        };
        assert_eq!(less, expected);
    }
    assert!(Plan::new(&Request { device_model: false, ..request(256, 256) }).is_ok());
}

/// The object as the users of `plan --json` see it: a change here is a change of the interface.
#[test]
fn the_json_object() {
    let request = Request { static_max: Some(Mib(5120).to_kib()), vcpus: 2, ..mib(4096) };
    let json = serde_json::to_string_pretty(&Plan::new(&request).expect("a plan")).expect("json");
    let expected = r#"{
  "schema": 2,
  "kind": "hvm",
  "model": "xenops",
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
  "vcpu_overhead_kib": 0,
  "shim_kib": 0,
  "rounding_kib": 0,
  "overhead_kib": 45056,
  "footprint_kib": 4239360,
  "paging_pool_kib": 43008,
  "populate_on_demand": true,
  "lowmem_end_bytes": 4026531840,
  "mmio_start_bytes": 4026531840,
  "mmio_size_bytes": 268435456,
  "highmem_end_bytes": 5620367360,
  "e820": [
    {
      "addr_bytes": 1048576,
      "size_bytes": 4025483264,
      "type": "ram"
    },
    {
      "addr_bytes": 4294967296,
      "size_bytes": 1325400064,
      "type": "ram"
    }
  ],
  "owned_pages_built": 1044464,
  "owned_pages_running": 1048576,
  "max_pages": 1310976,
  "pod_cache_pages": 1044448,
  "pod_entries": 1306592
}"#;
    assert_eq!(json, expected);
}

/// Xen 4.17's counts, see [`Pod`].
#[test]
fn what_waits_on_demand() {
    let ballooned = |kind, target: u32, static_max: u32, video| {
        let static_max = Some(Mib(static_max).to_kib());
        Plan::new(&Request { kind, static_max, video, ..mib(target) }).expect("a plan").pod
    };
    let measured = ballooned(Kind::Hvm, 256, 512, Some(Kib(0))).expect("on demand");
    assert_eq!((measured.entries, measured.cache), (Pages(130_921 + 119), Pages(65_385 + 119)));
    assert_eq!(measured.entries.0 - measured.cache.0, 256 * 256);
    let pvh = ballooned(Kind::Pvh, 256, 512, None).expect("on demand");
    assert_eq!((pvh.entries, pvh.cache), (Pages(131_072), Pages(65_536)));
    assert_eq!(ballooned(Kind::Pv, 256, 512, None), None);
    for kind in Kind::ALL {
        assert_eq!(ballooned(kind, 256, 256, None), None);
    }
}

#[test]
fn the_pages_of_pvh_and_pv() {
    for device_model in [true, false] {
        let pvh = Plan::new(&Request { kind: Kind::Pvh, device_model, ..mib(256) }).expect("a plan");
        assert_eq!((pvh.owned_pages_built, pvh.owned_pages_running), (Pages(65_536 + 9), Pages(65_536 + 9)));
        assert_eq!((pvh.device_model, pvh.paging_pool, pvh.max_pages), (false, pvh.memory.shadow, Pages(257 * 256)));

        let pv = Plan::new(&Request { kind: Kind::Pv, device_model, ..mib(256) }).expect("a plan");
        assert_eq!((pv.owned_pages_built, pv.owned_pages_running), (Pages(65_536), Pages(65_536)));
        assert_eq!((pv.device_model, pv.paging_pool, pv.max_pages), (false, Kib(0), Pages(65_536)));
        assert_eq!(pv.memory.shadow, Mib(3).to_kib());
    }
}

/// libxl counts in KiB and drops a partial page.
#[test]
fn libxl_cuts_pages() {
    let request = Request {
        model: Model::Libxl,
        static_max: Some(Mib(512).to_kib()),
        video: Some(Kib(0)),
        ..Request::new(Kib(262_143))
    };
    let plan = Plan::new(&request).expect("a plan");
    assert_eq!(plan.owned_pages_built, Pages(65_535 - 16));
    assert_eq!(plan.max_pages, Pages(65_535 + 256));
    let pod = plan.pod.expect("on demand");
    assert_eq!((pod.cache, pod.entries), (Pages(65_535 - 32), Pages(131_072 - 32)));
}

/// A request is saved with its domain: later versions must read it.
#[test]
fn a_request_is_recorded() {
    let request = Request {
        kind: Kind::Pvh,
        model: Model::Xapi,
        static_max: Some(Mib(512).to_kib()),
        shadow_multiplier: ShadowMultiplier::new(1.1).expect("a multiplier"),
        shim: true,
        ..mib(256)
    };
    let plan = Plan::new(&request).expect("a plan");
    assert_eq!(plan.request, request);
    let json = serde_json::to_string(&plan.request).expect("json");
    let expected = concat!(
        r#"{"kind":"pvh","model":"xapi","target":262144,"static_max":524288,"video":null,"vcpus":1,"#,
        r#""shadow_multiplier":"1.1","mmio_hole":null,"device_model":true,"passthrough":false,"shim":true}"#
    );
    assert_eq!(json, expected);
    let read: Request = serde_json::from_str(&json).expect("a request");
    assert_eq!(Plan::new(&read).expect("a plan"), plan);

    let reserved = vec![Reserved { start: Bytes(0x8000_0000), size: Bytes(0x2000) }];
    let devices = Request { passthrough: true, reserved, vgpu: true, ..mib(4096) };
    let json = serde_json::to_string(&devices).expect("json");
    assert!(json.ends_with(r#""shim":false,"reserved":[{"start":2147483648,"size":8192}],"vgpu":true}"#), "{json}");
    let read: Request = serde_json::from_str(&json).expect("a request");
    assert_eq!(read, devices);
}
