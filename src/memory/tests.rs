//! Properties of every valid request, of each kind and model.

use proptest::prelude::*;

use super::layout::{E820_LOW_START, FOUR_GIB, VGA_HOLE_PAGES};
use super::limits::{HVM_MAX_VCPUS, MAX_STATIC_MAX, PVH_MMIO_HOLE};
use super::*;

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn models() -> impl Strategy<Value = Model> {
    prop::sample::select(Model::ALL.to_vec())
}

prop_compose! {
    /// A valid request of up to 8 TiB. If the model allows it, the target is no whole number of MiB.
    fn requests()(
        kind in kinds(), model in models(), guest in 3_u64..1 << 22, shift in 0_u32..8, vcpus in 1..=HVM_MAX_VCPUS,
        balloon in prop_oneof![Just(0), 1_u64..1 << 22], cut in 0_u64..1024, by in prop_oneof![Just(1.0), 0.001..=100.0],
        (device_model, shim) in any::<(bool, bool)>(), hole in prop::option::of(256_u64..=2048),
    ) -> Request {
        let video = if kind == Kind::Hvm { (1 << shift) / 2 } else { 0 };
        let target = (guest + video) * 1024;
        let cut = if balloon == 0 || kind == Kind::Pv { 0 } else { cut };
        Request {
            kind,
            model,
            static_max: Some(Kib(target + balloon * 1024)),
            video: (kind == Kind::Hvm).then_some(Kib(video * 1024)),
            vcpus,
            shadow_multiplier: ShadowMultiplier::new(by).expect("a multiplier"),
            mmio_hole: hole.filter(|_| kind == Kind::Hvm).map(|mib| Bytes(mib << 20)),
            device_model,
            shim: shim && kind == Kind::Pvh && model != Model::Xenops,
            ..Request::new(Kib(target - cut))
        }
    }
}

fn sum(parts: &[Kib]) -> u64 {
    parts.iter().map(|part| part.0).sum()
}

proptest! {
    #[test]
    fn the_parts_add_up(request in requests()) {
        let plan = Plan::new(&request).expect("a plan");
        let m = &plan.memory;
        prop_assert_eq!(sum(&[m.guest, m.balloon, m.video]), m.static_max.0);
        prop_assert_eq!(sum(&[m.guest, m.video]), m.target.0);
        prop_assert_eq!(sum(&[m.guest, m.balloon, m.shim]), m.build_max.0);
        prop_assert_eq!(m.footprint.0, sum(&[m.target, m.overhead]));
        let parts = [m.shadow, m.extra_internal, m.extra_external, m.vcpu_overhead, m.shim, m.rounding];
        prop_assert_eq!(m.overhead.0, sum(&parts));
        let limited = if request.model == Model::Libxl { m.target } else { m.static_max };
        prop_assert_eq!(m.xen_max.0, sum(&[limited, m.extra_internal, m.shim]));

        prop_assert!(!m.build_start.is_zero() && m.build_start <= m.build_max);
        prop_assert!(m.guest <= m.build_start && m.build_start.0 <= m.guest.0 + m.shim.0);
        prop_assert!(m.target <= m.static_max && limited <= m.xen_max && m.target < m.footprint);
        prop_assert_eq!(m.build_max.0 % 1024, 0);
        prop_assert_eq!(m.populate_on_demand, m.target < m.static_max && request.kind != Kind::Pv);
        if request.model == Model::Libxl {
            prop_assert!(m.footprint.0.is_multiple_of(2048) && m.rounding < Kib(2048));
            prop_assert_eq!(m.target, request.target);
        } else {
            prop_assert_eq!(m.rounding, Kib(0));
            for size in parts.iter().chain(&[m.target, m.static_max, m.xen_max, m.build_start, m.footprint]) {
                prop_assert_eq!(size.0 % 1024, 0);
            }
        }
        if request.model != Model::Xapi {
            prop_assert_eq!((m.vcpu_overhead, m.shim), (Kib(0), Kib(0)));
            prop_assert_eq!(m.build_start, m.guest);
        }
        let less = if m.populate_on_demand { 1024 } else { 0 };
        prop_assert_eq!(m.balloon_target().0 + less, m.guest.0);
    }

    #[test]
    fn what_is_owned_fits_under_the_limit(request in requests()) {
        let plan = Plan::new(&request).expect("a plan");
        prop_assert!(plan.owned_pages_built <= plan.owned_pages_running);
        prop_assert!(plan.owned_pages_running <= plan.max_pages, "{:?}", plan);
        prop_assert!(plan.owned_pages_built.0 + 16 >= plan.memory.build_start.to_pages_floor().0);
        prop_assert_eq!(plan.device_model, request.device_model && request.kind == Kind::Hvm);
        match request.kind {
            Kind::Pv => prop_assert_eq!(plan.paging_pool, Kib(0)),
            Kind::Hvm | Kind::Pvh => {
                prop_assert_eq!(plan.paging_pool, plan.memory.shadow);
                prop_assert!(plan.paging_pool.to_pages_exact().is_some_and(|pages| !pages.is_zero()));
            }
        }
        prop_assert_eq!(plan.pod.is_some(), plan.memory.populate_on_demand);
        if let Some(pod) = plan.pod {
            let hole = if request.kind == Kind::Hvm { VGA_HOLE_PAGES.0 } else { 0 };
            prop_assert_eq!(pod.entries.0 + hole, plan.memory.build_max.to_pages_floor().0);
            prop_assert_eq!(pod.cache.0 + hole, plan.memory.build_start.to_pages_floor().0);
            prop_assert!(pod.cache <= plan.owned_pages_built);
            let balloon = plan.memory.balloon.0.div_ceil(4);
            let more = if request.shim { plan.memory.shim.to_pages_floor().0 } else { 0 };
            prop_assert!((balloon..=balloon + more).contains(&(pod.entries.0 - pod.cache.0)));
        }
    }

    #[test]
    fn the_layout_holds_what_is_built(request in requests()) {
        let plan = Plan::new(&request).expect("a plan");
        let layout = &plan.layout;
        let built = plan.memory.build_max.to_bytes_saturating().0;
        prop_assert_eq!(layout.lowmem_end.0 + layout.highmem().0, built);
        prop_assert!(layout.e820.iter().all(|entry| !entry.size.is_zero()));
        prop_assert!(layout.e820.windows(2).all(|pair| pair[0].addr.0 + pair[0].size.0 <= pair[1].addr.0));
        let ram: u64 = layout.e820.iter().filter(|e| e.kind == E820Kind::Ram).map(|e| e.size.0).sum();
        let below = if request.kind == Kind::Hvm { E820_LOW_START.0 } else { 0 };
        prop_assert_eq!(ram + below, built);
        if request.kind == Kind::Pv {
            prop_assert_eq!((layout.mmio_start, layout.mmio_size, layout.highmem_end), Default::default());
            prop_assert_eq!(layout.e820.len(), 1);
        } else {
            prop_assert_eq!(layout.mmio_start.0 + layout.mmio_size.0, FOUR_GIB.0);
            prop_assert!(layout.lowmem_end <= layout.mmio_start);
            prop_assert!(layout.highmem_end.is_zero() || layout.lowmem_end == layout.mmio_start);
            prop_assert!(request.kind == Kind::Hvm || layout.mmio_size == PVH_MMIO_HOLE);
        }
    }

    #[test]
    fn more_never_takes_less(request in requests()) {
        let plan = |request: &Request| Plan::new(request).expect("a plan");
        let m = plan(&request).memory;
        let static_max = request.static_max.map(|size| Kib(size.0 + 1024));

        let grown = plan(&Request { static_max, ..request.clone() }).memory;
        prop_assert!(grown.build_max > m.build_max && grown.xen_max >= m.xen_max && grown.shadow >= m.shadow);
        prop_assert!(grown.footprint >= m.footprint && grown.overhead.0 + 2048 > m.overhead.0);
        prop_assert_eq!(grown.build_start, m.build_start);

        let target = Kib(request.target.0 + 1024);
        let larger = plan(&Request { target, static_max, ..request.clone() }).memory;
        prop_assert!(larger.build_start > m.build_start && larger.build_max > m.build_max);
        prop_assert!(larger.xen_max > m.xen_max && larger.footprint >= grown.footprint);

        let vcpus = (request.vcpus + 1).min(HVM_MAX_VCPUS);
        let wider = plan(&Request { vcpus, ..request }).memory;
        prop_assert!(wider.shadow >= m.shadow && wider.footprint >= m.footprint);
        prop_assert!(wider.vcpu_overhead >= m.vcpu_overhead && wider.xen_max == m.xen_max);
    }

    #[test]
    fn every_plan_can_be_told(request in requests()) {
        let plan = Plan::new(&request).expect("a plan");
        let json = serde_json::to_value(&plan).expect("json");
        prop_assert_eq!(json["footprint_kib"].as_u64(), Some(plan.memory.footprint.0));
        let read: Request = serde_json::from_value(serde_json::to_value(&request).expect("json")).expect("a request");
        prop_assert_eq!(read, request);
    }

    #[test]
    fn no_request_panics(
        (kind, model) in (kinds(), models()), target: u64, static_max: Option<u64>, video: Option<u64>, vcpus: u32,
        hole: Option<u64>, flags: (bool, bool, bool),
    ) {
        let (device_model, passthrough, shim) = flags;
        for target in [Kib(target), Kib(target >> 30)] {
            let request = Request {
                kind,
                model,
                static_max: static_max.map(Kib),
                video: video.map(Kib),
                vcpus,
                mmio_hole: hole.map(Bytes),
                device_model,
                passthrough,
                shim,
                ..Request::new(target)
            };
            for request in [Request { vcpus: 1, static_max: None, ..request.clone() }, request] {
                match Plan::new(&request) {
                    Ok(plan) => prop_assert!(plan.memory.static_max <= MAX_STATIC_MAX.to_kib()),
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}
