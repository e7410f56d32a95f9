//! The figures of each model and kind.

use proptest::prelude::*;

use super::rules::Extras;
use super::*;
use crate::limits::{HVM_MAX_VCPUS, MAX_STATIC_MAX};
use crate::units::Mib;

fn multiplier(value: f64) -> ShadowMultiplier {
    ShadowMultiplier::new(value).expect("a valid multiplier")
}

/// An HVM request by xenops' model; sizes in MiB.
fn request(target: u32, static_max: u32, video: u32, vcpus: u32, by: f64) -> Request {
    Request {
        static_max: Some(Mib(static_max).to_kib()),
        video: Some(Mib(video).to_kib()),
        vcpus,
        shadow_multiplier: multiplier(by),
        ..Request::new(Mib(target).to_kib())
    }
}

fn memory(request: &Request) -> Memory {
    Memory::new(request).expect("a plan")
}

fn refused(request: &Request) -> PlanError {
    Memory::new(request).expect_err("no plan")
}

/// As OpenXT's and xen-api's `memory.ml`.
#[test]
fn the_figures_of_xenops_and_xapi() {
    #[rustfmt::skip]
    let vectors = [
        // static max, target, vcpus, by, video -> build max, build start, xen max, shadow,
        // overhead and footprint of xenops, and of xapi
        (256,   256,   1,  1.0, 0,  256,   256,   257,   3,   (5, 261),     (6, 262)),
        (512,   512,   1,  1.0, 4,  508,   508,   513,   5,   (7, 519),     (8, 520)),
        (1024,  512,   1,  1.0, 4,  1020,  508,   1025,  9,   (11, 523),    (12, 524)),
        (2048,  2048,  2,  1.0, 4,  2044,  2044,  2049,  18,  (20, 2068),   (21, 2069)),
        (4096,  4096,  2,  1.0, 16, 4080,  4080,  4097,  34,  (36, 4132),   (37, 4133)),
        (4096,  2048,  4,  1.5, 8,  4088,  2040,  4097,  54,  (56, 2104),   (57, 2105)),
        (8192,  8192,  8,  1.0, 16, 8176,  8176,  8193,  72,  (74, 8266),   (76, 8268)),
        (65536, 65536, 32, 1.0, 16, 65520, 65520, 65537, 544, (546, 66082), (551, 66087)),
        (2,     2,     1,  0.1, 0,  2,     2,     3,     1,   (3, 5),       (4, 6)),
    ];
    let mib = |mib: u32| Mib(mib).to_kib();
    for (smax, target, vcpus, by, video, bmax, bstart, xmax, shadow, xenops, xapi) in vectors {
        let hvm = request(target, smax, video, vcpus, by);
        for (model, (overhead, footprint)) in [(Model::Xenops, xenops), (Model::Xapi, xapi)] {
            let expected = Memory {
                static_max: mib(smax),
                target: mib(target),
                video: mib(video),
                build_max: mib(bmax),
                build_start: mib(bstart),
                guest: mib(bstart),
                balloon: mib(smax - target),
                xen_max: mib(xmax),
                shadow: mib(shadow),
                extra_internal: mib(1),
                extra_external: mib(1),
                vcpu_overhead: mib(overhead - xenops.0),
                shim: Kib(0),
                rounding: Kib(0),
                overhead: mib(overhead),
                footprint: mib(footprint),
                populate_on_demand: smax > target,
            };
            assert_eq!(memory(&Request { model, ..hvm.clone() }), expected);
            // PVH has no video RAM and uses the HVM figures.
            let pvh = memory(&Request { model, kind: Kind::Pvh, video: None, ..hvm.clone() });
            let without = Memory {
                video: Kib(0),
                build_max: mib(smax),
                build_start: mib(target),
                guest: mib(target),
                ..expected
            };
            assert_eq!(pvh, without);
        }
    }
}

/// A PV guest has no extra internal.
#[test]
fn the_figures_of_pv_by_xenops_and_xapi() {
    #[rustfmt::skip]
    let vectors = [
        // static max, target, vcpus, by -> xen max, shadow, overhead and footprint of xenops, and of xapi
        (256, 256, 1, 1.0, 256, 3, (4, 260), (5, 261)),
        (512, 512, 1, 1.0, 512, 5, (6, 518), (7, 519)),
        (1024, 512, 1, 1.0, 1024, 9, (10, 522), (11, 523)),
        (2048, 2048, 2, 1.0, 2048, 18, (19, 2067), (20, 2068)),
        (4096, 4096, 2, 1.0, 4096, 34, (35, 4131), (36, 4132)),
        (4096, 2048, 4, 1.5, 4096, 54, (55, 2103), (56, 2104)),
        (8192, 8192, 8, 1.0, 8192, 72, (73, 8265), (75, 8267)),
        (65536, 65536, 32, 1.0, 65536, 544, (545, 66081), (550, 66086)),
        (2, 2, 1, 0.1, 2, 1, (2, 4), (3, 5)),
    ];
    let mib = |mib: u32| Mib(mib).to_kib();
    for (smax, target, vcpus, by, xmax, shadow, xenops, xapi) in vectors {
        for (model, (overhead, footprint)) in [(Model::Xenops, xenops), (Model::Xapi, xapi)] {
            let pv = Request { model, kind: Kind::Pv, video: None, ..request(target, smax, 0, vcpus, by) };
            let memory = memory(&pv);
            assert_eq!((memory.build_max, memory.build_start), (mib(smax), mib(target)));
            assert_eq!((memory.xen_max, memory.shadow), (mib(xmax), mib(shadow)));
            assert_eq!((memory.extra_internal, memory.extra_external), (Kib(0), mib(1)));
            assert_eq!((memory.overhead, memory.footprint), (mib(overhead), mib(footprint)));
            assert!(!memory.populate_on_demand);
            assert_eq!(memory.balloon_target(), mib(target));
        }
    }
}

#[test]
fn the_figures_of_the_shim_by_xapi() {
    #[rustfmt::skip]
    let vectors = [
        // static max, target, vcpus, by ->
        // build max, build start, xen max, shadow, vcpu overhead, shim, overhead, footprint
        (256, 256, 1, 1.0, [281, 281, 282, 3, 1, 25, 31, 287]),
        (512, 512, 1, 1.0, [540, 540, 541, 5, 1, 28, 36, 548]),
        (1024, 512, 1, 1.0, [1058, 540, 1059, 9, 1, 34, 46, 558]),
        (2048, 2048, 2, 1.0, [2093, 2093, 2094, 18, 1, 45, 66, 2114]),
        (4096, 4096, 2, 1.0, [4164, 4164, 4165, 34, 1, 68, 105, 4201]),
        (4096, 2048, 4, 1.5, [4164, 2093, 4165, 54, 1, 68, 125, 2173]),
        (8192, 8192, 8, 1.0, [8306, 8306, 8307, 72, 2, 114, 190, 8382]),
        (65536, 65536, 32, 1.0, [66287, 66287, 66288, 544, 5, 751, 1302, 66838]),
        (2, 2, 1, 0.1, [25, 25, 26, 1, 1, 23, 27, 29]),
    ];
    for (smax, target, vcpus, by, expected) in vectors {
        let shim = Request {
            model: Model::Xapi,
            kind: Kind::Pvh,
            video: None,
            shim: true,
            ..request(target, smax, 0, vcpus, by)
        };
        let m = memory(&shim);
        let got = [m.build_max, m.build_start, m.xen_max, m.shadow, m.vcpu_overhead, m.shim, m.overhead, m.footprint];
        assert_eq!(got, expected.map(|mib| Mib(mib).to_kib()), "{m:?}");
        // The balloon driver runs in the guest inside the shim, which keeps its own part.
        let less = if target < smax { 1 } else { 0 };
        assert_eq!(m.balloon_target(), Mib(target - less).to_kib());
        assert_eq!(m.populate_on_demand, target < smax);
    }
}

#[test]
fn the_figures_of_libxl() {
    #[rustfmt::skip]
    let vectors = [
        // kind, static max, target, vcpus, by, video, all in KiB ->
        // build max, build start, xen max, shadow, rounding, overhead, footprint
        (Kind::Hvm, 262144, 262144, 1, 1.0, 16384, [245760, 245760, 263168, 2048, 0, 4096, 266240]),
        (Kind::Hvm, 524288, 261121, 1, 1.0, 0, [524288, 261121, 262145, 3072, 2047, 7167, 268288]),
        (Kind::Hvm, 1048576, 524288, 1, 1.0, 4096, [1044480, 520192, 525312, 5120, 1024, 8192, 532480]),
        (Kind::Hvm, 4194304, 2097152, 4, 1.5, 8192, [4186112, 2088960, 2098176, 30720, 0, 32768, 2129920]),
        (Kind::Hvm, 4194304, 4194304, 2, 0.333, 16384, [4177920, 4177920, 4195328, 6136, 8, 8192, 4202496]),
        (Kind::Hvm, 8388608, 8388608, 8, 1.0, 16384, [8372224, 8372224, 8389632, 40960, 0, 43008, 8431616]),
        (Kind::Hvm, 67108864, 67108864, 32, 1.0, 16384, [67092480, 67092480, 67109888, 294912, 0, 296960, 67405824]),
        (Kind::Hvm, 2048, 2048, 1, 0.001, 0, [2048, 2048, 3072, 4, 2044, 4096, 6144]),
        (Kind::Pvh, 131072, 131072, 1, 1.0, 0, [131072, 131072, 132096, 1536, 512, 4096, 135168]),
        (Kind::Pvh, 262144, 204800, 2, 1.0, 0, [262144, 204800, 205824, 3072, 1024, 6144, 210944]),
        (Kind::Pvh, 524288, 300001, 3, 1.0, 0, [524288, 300001, 301025, 5120, 31, 7199, 307200]),
        (Kind::Pvh, 1048576, 1048576, 1, 0.5, 0, [1048576, 1048576, 1049600, 2560, 1536, 6144, 1054720]),
        (Kind::Pvh, 2097152, 2097152, 2, 1.0, 0, [2097152, 2097152, 2098176, 10240, 0, 12288, 2109440]),
        (Kind::Pvh, 4194304, 4194304, 16, 1.0, 0, [4194304, 4194304, 4195328, 32768, 0, 34816, 4229120]),
        (Kind::Pvh, 8388608, 2097152, 8, 2.5, 0, [8388608, 2097152, 2098176, 102400, 0, 104448, 2201600]),
        (Kind::Pvh, 67108864, 67108864, 128, 1.0, 0, [67108864, 67108864, 67109888, 393216, 0, 395264, 67504128]),
        (Kind::Pv, 262144, 262144, 1, 1.0, 0, [262144, 262144, 263168, 2048, 1024, 4096, 266240]),
        (Kind::Pv, 524288, 524288, 1, 1.0, 0, [524288, 524288, 525312, 3072, 0, 4096, 528384]),
        (Kind::Pv, 1048576, 524288, 2, 1.0, 0, [1048576, 524288, 525312, 6144, 1024, 8192, 532480]),
        (Kind::Pv, 2097152, 2097152, 2, 1.5, 0, [2097152, 2097152, 2098176, 15360, 0, 16384, 2113536]),
        (Kind::Pv, 4194304, 4194304, 4, 1.0, 0, [4194304, 4194304, 4195328, 20480, 1024, 22528, 4216832]),
        (Kind::Pv, 8388608, 4195328, 8, 1.0, 0, [8388608, 4195328, 4196352, 40960, 0, 41984, 4237312]),
        (Kind::Pv, 67108864, 67108864, 32, 1.0, 0, [67108864, 67108864, 67109888, 294912, 1024, 296960, 67405824]),
        (Kind::Pv, 3072, 2048, 128, 0.0001, 0, [3072, 2048, 3072, 12, 1012, 2048, 4096]),
    ];
    for (kind, smax, target, vcpus, by, video, expected) in vectors {
        let request = Request {
            kind,
            model: Model::Libxl,
            static_max: Some(Kib(smax)),
            video: Some(Kib(video)),
            vcpus,
            shadow_multiplier: multiplier(by),
            ..Request::new(Kib(target))
        };
        let m = memory(&request);
        let got = [m.build_max, m.build_start, m.xen_max, m.shadow, m.rounding, m.overhead, m.footprint];
        assert_eq!(got.map(Kib::get), expected, "{m:?}");
        let external = if kind == Kind::Pv { 0 } else { 1024 };
        assert_eq!((m.extra_internal, m.extra_external), (Kib(1024), Kib(external)));
        assert_eq!((m.vcpu_overhead, m.shim), (Kib(0), Kib(0)));
        // The shim uses the guest's own memory.
        if kind == Kind::Pvh {
            assert_eq!(memory(&Request { shim: true, ..request }), m);
        }
    }
}

#[test]
fn one_word_everywhere() {
    for model in Model::ALL {
        assert_eq!(model.to_string().parse(), Ok(model));
        let json = serde_json::to_string(&model).expect("json");
        assert_eq!(json, format!("\"{model}\""));
        assert_eq!(serde_json::from_str::<Model>(&json).expect("a model"), model);
    }
    assert_eq!(Model::default(), Model::Xenops);
    let error = "xl".parse::<Model>().expect_err("no model");
    assert_eq!(error.to_string(), "`xl` is not a memory model: use xenops, xapi or libxl");
}

#[test]
fn kib_round_up_and_never_make_a_balloon() {
    let odd = Request { static_max: Some(Kib(262_100)), ..Request::new(Kib(261_121)) };
    for model in [Model::Xenops, Model::Xapi] {
        let memory = memory(&Request { model, ..odd.clone() });
        assert_eq!((memory.target, memory.static_max), (Mib(256).to_kib(), Mib(256).to_kib()));
        assert_eq!((memory.populate_on_demand, memory.balloon_target()), (false, Mib(240).to_kib()));
    }
    let grown = memory(&request(256, 512, 16, 1, 1.0));
    assert_eq!(grown.balloon_target(), Mib(239).to_kib());
    let exact = Request { model: Model::Libxl, static_max: Some(Mib(256).to_kib()), ..odd };
    let memory = memory(&exact);
    assert_eq!((memory.target, memory.balloon), (Kib(261_121), Kib(1023)));
    assert_eq!(memory.balloon_target(), Kib(261_121 - 16 * 1024 - 1024));
}

#[test]
fn what_cannot_be_is_refused() {
    assert_eq!(refused(&request(256, 256, 16, 0, 1.0)), PlanError::NoVcpus);
    assert_eq!(refused(&request(256, 256, 16, 129, 1.0)), PlanError::TooManyVcpus { vcpus: 129 });
    let error = PlanError::TargetAboveStaticMax { target: Mib(257).to_kib(), static_max: Mib(256).to_kib() };
    assert_eq!(refused(&request(257, 256, 16, 1, 1.0)), error);
    for video in [16, 32] {
        let error = PlanError::VideoNotBelowTarget { video: Mib(video), target: Mib(16).to_kib() };
        assert_eq!(refused(&request(16, 16, video, 1, 1.0)), error);
    }
    let error = PlanError::TooSmall { target: Mib(17).to_kib(), video: Mib(16) };
    assert_eq!(refused(&request(17, 17, 16, 1, 1.0)), error);
    assert_eq!(refused(&request(256, 256, 12, 1, 1.0)), PlanError::VideoNotPowerOfTwo { video: Kib(12 << 10) });
    let half = Request { video: Some(Kib(512)), ..Request::new(Mib(256).to_kib()) };
    assert_eq!(refused(&half), PlanError::VideoNotPowerOfTwo { video: Kib(512) });
    let video = Mib(1024);
    assert_eq!(refused(&request(4096, 4096, 1024, 1, 1.0)), PlanError::VideoTooLarge { video });
    assert!(Memory::new(&Request { device_model: false, ..request(4096, 4096, 1024, 1, 1.0) }).is_ok());
}

#[test]
fn what_a_kind_does_not_have_is_refused() {
    let base = Request::new(Kib(1 << 20));
    for kind in [Kind::Pvh, Kind::Pv] {
        let without = Request { kind, ..base.clone() };
        assert_eq!(memory(&without).video, Kib(0));
        assert_eq!(memory(&Request { video: Some(Kib(0)), ..without.clone() }), memory(&without));
        let video = Kib(4096);
        let with_card = Request { video: Some(video), ..without.clone() };
        assert_eq!(refused(&with_card), PlanError::VideoNotHvm { kind, video });
        let with_hole = Request { mmio_hole: Some(Mib(256).to_bytes()), ..without };
        assert_eq!(refused(&with_hole), PlanError::HoleNotHvm { kind });
    }
    for kind in [Kind::Hvm, Kind::Pv] {
        let error = refused(&Request { kind, shim: true, ..base.clone() });
        assert_eq!(error, PlanError::ShimNotPvh { kind });
    }
    let shim = Request { kind: Kind::Pvh, shim: true, ..base };
    let error = refused(&shim);
    assert_eq!(error, PlanError::ShimUnknown { model: Model::Xenops });
}

#[test]
fn libxl_takes_whole_mib_only() {
    let libxl = |kind, target, static_max: Option<u64>| Request {
        kind,
        model: Model::Libxl,
        static_max: static_max.map(Kib),
        ..Request::new(Kib(target))
    };
    let odd = Mib(256).to_kib().0 - 1;
    for kind in Kind::ALL {
        let error = PlanError::NotWholeMib { what: "target", size: Kib(odd), below: Mib(255), above: Mib(256) };
        assert_eq!(refused(&libxl(kind, odd, None)), error);
        let what = "static max";
        let error = PlanError::NotWholeMib { what, size: Kib(odd), below: Mib(255), above: Mib(256) };
        assert_eq!(refused(&libxl(kind, 200 << 10, Some(odd))), error);
    }
    // The start size of a translated guest is in pages.
    assert!(Memory::new(&libxl(Kind::Hvm, odd, Some(256 << 10))).is_ok());
    assert!(Memory::new(&libxl(Kind::Pvh, odd, Some(256 << 10))).is_ok());
    let error = PlanError::NotWholeMib { what: "target", size: Kib(odd), below: Mib(255), above: Mib(256) };
    assert_eq!(refused(&libxl(Kind::Pv, odd, Some(256 << 10))), error);
}

#[test]
fn devices_and_populate_on_demand_exclude_each_other() {
    for model in Model::ALL {
        for kind in Kind::ALL {
            let whole = Request { kind, model, passthrough: true, ..Request::new(Kib(1 << 20)) };
            assert!(Memory::new(&whole).is_ok());
            let ballooned = Request { static_max: Some(Kib(2 << 20)), ..whole };
            match Memory::new(&ballooned) {
                Ok(memory) => assert!(kind == Kind::Pv && !memory.populate_on_demand),
                Err(error) => assert!(kind != Kind::Pv && error.to_string().contains("IOMMU"), "{error}"),
            }
        }
    }
}

#[test]
fn a_model_may_forbid_to_start_ballooned_down() {
    let rules = Rules {
        extras: |kind| Extras { can_start_ballooned_down: kind == Kind::Hvm, ..(xenops::RULES.extras)(kind) },
        ..xenops::RULES
    };
    let whole = Request { kind: Kind::Pv, ..Request::new(Kib(1 << 20)) };
    assert!(Memory::by_rules(&whole, &rules).is_ok());
    let ballooned = Request { static_max: Some(Kib(2 << 20)), ..whole };
    let error = PlanError::CannotStartBalloonedDown { kind: Kind::Pv, model: Model::Xenops };
    assert_eq!(Memory::by_rules(&ballooned, &rules), Err(error));
    assert!(Memory::by_rules(&Request { kind: Kind::Hvm, ..ballooned }, &rules).is_ok());
}

#[test]
fn the_largest_and_past_it() {
    let most = MAX_STATIC_MAX;
    for model in Model::ALL {
        let memory = memory(&Request { model, ..request(most.0, most.0, 0, HVM_MAX_VCPUS, 100.0) });
        assert!(memory.xen_max.to_pages_floor().0 <= u64::from(u32::MAX));
        assert!(memory.shadow.to_pages_floor().0 <= u64::from(u32::MAX));
        for size in [Kib(most.to_kib().0 + 1), Kib(1 << 42), Kib(u64::MAX)] {
            let target = refused(&Request { model, ..Request::new(size) });
            assert_eq!(target, PlanError::TooLarge { what: "target", size, limit: most });
            let ballooned = Request { model, static_max: Some(size), ..Request::new(Kib(1 << 20)) };
            assert_eq!(refused(&ballooned), PlanError::TooLarge { what: "static max", size, limit: most });
        }
    }
    let video = Request { video: Some(Kib(u64::MAX)), ..Request::new(Kib(1 << 20)) };
    assert_eq!(refused(&video), PlanError::VideoNotPowerOfTwo { video: Kib(u64::MAX) });
    // The shim's part is added to static max.
    let shim =
        Request { kind: Kind::Pvh, model: Model::Xapi, shim: true, video: None, ..request(most.0, most.0, 0, 1, 1.0) };
    let size = Mib(most.0 + 1 + 23 + most.0 / 90).to_kib();
    assert_eq!(refused(&shim), PlanError::TooLarge { what: "xen max", size, limit: MAX_COUNTABLE_SIZE });
}

proptest! {
    #[test]
    fn the_multiplier_scales(target in 2_u64..1 << 34, vcpus in 1..=HVM_MAX_VCPUS, by in 0.001..=100.0_f64) {
        for model in Model::ALL {
            let target = Kib(target * 1024).min(MAX_STATIC_MAX.to_kib());
            let kind = Kind::Pvh;
            let pool = |by| {
                let shadow_multiplier = multiplier(by);
                memory(&Request { kind, model, vcpus, shadow_multiplier, ..Request::new(target) }).shadow
            };
            let unit = if model == Model::Libxl { 4 } else { 1024 };
            prop_assert!(pool(by).0.is_multiple_of(unit) && pool(by).0 >= unit);
            prop_assert!(pool(by / 2.0) <= pool(by));
        }
    }
}

/// A requested extra internal replaces the model's figure in every sum.
#[test]
fn extra_internal_is_counted_by_every_model() {
    for model in Model::ALL {
        for kind in [Kind::Hvm, Kind::Pvh, Kind::Pv] {
            let base = Request { kind, model, ..Request::new(Mib(256).to_kib()) };
            let plain = memory(&base);
            let asked = memory(&Request { extra_internal: Some(Mib(40).to_kib()), ..base.clone() });
            let more = 40 * 1024 - plain.extra_internal.0;
            assert_eq!(asked.extra_internal, Mib(40).to_kib());
            assert_eq!(asked.xen_max.0, plain.xen_max.0 + more, "{model} {kind}");
            let unrounded = |memory: &Memory| memory.footprint.0 - memory.rounding.0;
            assert_eq!(unrounded(&asked), unrounded(&plain) + more, "{model} {kind}");
            assert_eq!((asked.build_max, asked.build_start), (plain.build_max, plain.build_start));
            let same = Request { extra_internal: Some(plain.extra_internal), ..base.clone() };
            assert_eq!(memory(&same), plain);
            if let Some(less) = plain.extra_internal.0.checked_sub(1024).filter(|less| *less < plain.extra_internal.0) {
                let error = refused(&Request { extra_internal: Some(Kib(less)), ..base });
                assert!(error.to_string().contains("an extra internal of 0 MiB is less than the 1 MiB"), "{error}");
            }
        }
    }
}
