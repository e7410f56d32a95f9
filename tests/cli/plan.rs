//! `plan`: figures that add up, for people and for programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};

use super::run::{FIRST_CALL, Files, Ran, line, refused, run, text};

const KIB: [&str; 17] = [
    "static_max_kib",
    "target_kib",
    "video_kib",
    "build_max_kib",
    "build_start_kib",
    "guest_kib",
    "balloon_kib",
    "xen_max_kib",
    "shadow_kib",
    "extra_internal_kib",
    "extra_external_kib",
    "vcpu_overhead_kib",
    "shim_kib",
    "rounding_kib",
    "overhead_kib",
    "footprint_kib",
    "paging_pool_kib",
];
const OTHERS: [&str; 9] = [
    "lowmem_end_bytes",
    "mmio_start_bytes",
    "mmio_size_bytes",
    "highmem_end_bytes",
    "owned_pages_built",
    "owned_pages_running",
    "max_pages",
    "pod_cache_pages",
    "pod_entries",
];

const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

fn plan(arguments: &str) -> Value {
    let ran = line(&format!("plan --json {arguments}"));
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{arguments}: {ran:?}");
    ran.json()
}

fn number(plan: &Value, field: &str) -> u64 {
    plan[field].as_u64().unwrap_or_else(|| panic!("{field} is no integer in {plan}"))
}

/// Every relation of xenops' memory model and the layout for an HVM guest.
fn check(plan: &Value) {
    let kib = |field: &str| number(plan, &format!("{field}_kib"));
    for field in KIB {
        assert_eq!(number(plan, field) % 1024, 0, "{field} is whole MiB: {plan}");
    }
    for field in OTHERS {
        number(plan, field);
    }
    assert_eq!(kib("static_max"), kib("guest") + kib("balloon") + kib("video"));
    assert_eq!(kib("target"), kib("guest") + kib("video"));
    assert_eq!(kib("build_max"), kib("static_max") - kib("video"));
    assert_eq!(kib("build_start"), kib("target") - kib("video"));
    assert_eq!(kib("xen_max"), kib("static_max") + kib("extra_internal"));
    assert_eq!((kib("extra_internal"), kib("extra_external")), (1024, 1024));
    assert_eq!(kib("overhead"), kib("extra_internal") + kib("extra_external") + kib("shadow"));
    assert_eq!(kib("footprint"), kib("target") + kib("overhead"));
    assert_eq!((kib("vcpu_overhead"), kib("shim"), kib("rounding")), (0, 0, 0));
    assert_eq!(kib("paging_pool"), kib("shadow"));
    assert_eq!((&plan["kind"], &plan["model"]), (&json!("hvm"), &json!("xenops")));
    assert_eq!(plan["populate_on_demand"], json!(kib("target") < kib("static_max")));

    let (low, high) = (number(plan, "lowmem_end_bytes"), number(plan, "highmem_end_bytes"));
    assert_eq!(number(plan, "mmio_start_bytes") + number(plan, "mmio_size_bytes"), FOUR_GIB);
    assert!(low <= number(plan, "mmio_start_bytes"));
    assert_eq!(low + high.saturating_sub(FOUR_GIB), kib("build_max") * 1024);

    let e820 = plan["e820"].as_array().expect("a list");
    let mut ends = 0;
    let mut ram = 0;
    for entry in e820 {
        let (addr, size) = (number(entry, "addr_bytes"), number(entry, "size_bytes"));
        assert_eq!(entry["type"], "ram");
        assert!(addr >= ends && size > 0, "in order, without overlap: {plan}");
        ends = addr + size;
        ram += size;
    }
    assert_eq!(ram + MIB, kib("build_max") * 1024, "all but the first MiB is RAM in the e820");
    assert_eq!(ends, low.max(high));

    // The VGA hole of 32 pages is left out, the special pages of the rings and the ioreq servers come on top.
    assert_eq!(number(plan, "owned_pages_built"), kib("build_start") / 4 - 32 + 16);
    let rom = if kib("video") == 0 { 0 } else { 16 };
    assert_eq!(number(plan, "owned_pages_running"), number(plan, "owned_pages_built") + kib("video") / 4 + rom);
    assert_eq!(number(plan, "max_pages"), kib("xen_max") / 4);
    let on_demand = if kib("balloon") == 0 { (0, 0) } else { (kib("build_start") / 4 - 32, kib("build_max") / 4 - 32) };
    assert_eq!((number(plan, "pod_cache_pages"), number(plan, "pod_entries")), on_demand);
}

#[test]
fn one_object_to_the_last_figure() {
    let object = plan("--memory 2GiB --maxmem 6GiB --video 32MiB --vcpus 4 --shadow-multiplier 1.5 --mmio-hole 1GiB");
    // By hand: (4 x 256 + 6144 x 2) pages are 52 MiB, times 1.5 are 78; 6112 - 3072 MiB stand above 4 GiB.
    let mib = |count: u64| json!(count * 1024);
    let expected = json!({
        "schema": 2,
        "kind": "hvm",
        "model": "xenops",
        "vcpus": 4,
        "static_max_kib": mib(6144),
        "target_kib": mib(2048),
        "video_kib": mib(32),
        "build_max_kib": mib(6112),
        "build_start_kib": mib(2016),
        "guest_kib": mib(2016),
        "balloon_kib": mib(4096),
        "xen_max_kib": mib(6145),
        "shadow_kib": mib(78),
        "extra_internal_kib": mib(1),
        "extra_external_kib": mib(1),
        "vcpu_overhead_kib": 0,
        "shim_kib": 0,
        "rounding_kib": 0,
        "overhead_kib": mib(80),
        "footprint_kib": mib(2128),
        "paging_pool_kib": mib(78),
        "populate_on_demand": true,
        "lowmem_end_bytes": 3_221_225_472_u64,
        "mmio_start_bytes": 3_221_225_472_u64,
        "mmio_size_bytes": 1_073_741_824,
        "highmem_end_bytes": 7_482_638_336_u64,
        "e820": [
            { "addr_bytes": 1_048_576, "size_bytes": 3_220_176_896_u64, "type": "ram" },
            { "addr_bytes": 4_294_967_296_u64, "size_bytes": 3_187_671_040_u64, "type": "ram" },
        ],
        "owned_pages_built": 516_080,
        "owned_pages_running": 524_288,
        "max_pages": 1_573_120,
        "pod_cache_pages": 2016 * 256 - 32,
        "pod_entries": 6112 * 256 - 32,
    });
    // A serde_json::Value holds integers and floats apart: 4096.0 would not be equal.
    assert_eq!(object, expected);
    check(&object);
}

#[test]
fn the_defaults() {
    let object = plan("--memory 256");
    check(&object);
    assert_eq!(object, plan("--memory 256MiB --maxmem 256 --video 16 --vcpus 1 --shadow-multiplier 1 --mmio-hole 256"));
    assert_eq!(object, plan("--memory 256 --kind hvm --model xenops --passthrough"));
    assert_eq!(object["populate_on_demand"], false);
    assert_eq!((object["highmem_end_bytes"].as_u64(), object["vcpus"].as_u64()), (Some(0), Some(1)));
}

#[test]
fn every_way_to_write_a_size() {
    for (same, kib) in [
        (&["262144K", "262144KiB", "256M", "256MiB", "256", "256mib", "0.25G", "0256"][..], 262_144),
        (&["1G", "1GiB", "1024", "1048576K", "1024m", "1.0GiB"][..], 1 << 20),
        (&["1.5GiB", "1536"][..], 1536 << 10),
        (&["1T", "1TiB", "1024G"][..], 1 << 30),
        (&["262143KiB", "261121K"][..], 262_144),
    ] {
        for size in same {
            assert_eq!(number(&plan(&format!("--memory {size}")), "target_kib"), kib, "{size}");
        }
    }
    let spaced = run(&["plan", "--json", "--memory", "4 GiB"]);
    assert_eq!(number(&spaced.json(), "target_kib"), 4 << 20);
    let all = plan("--memory 3G --maxmem 4G --video 8M --mmio-hole 0.5G");
    check(&all);
    let fields = ["target_kib", "static_max_kib", "video_kib", "mmio_size_bytes"].map(|field| number(&all, field));
    assert_eq!(fields, [3 << 20, 4 << 20, 8 << 10, 1 << 29]);
}

#[test]
fn the_edges() {
    for (arguments, field, value) in [
        ("--memory 18", "build_start_kib", 2048),
        ("--memory 2 --video 0", "build_start_kib", 2048),
        ("--memory 2 --video 0 --shadow-multiplier 0.001", "shadow_kib", 1024),
        ("--memory 256 --vcpus 128", "vcpus", 128),
        ("--memory 3856", "highmem_end_bytes", 0),
        ("--memory 3857", "highmem_end_bytes", FOUR_GIB + MIB),
        ("--memory 4G --video 128", "video_kib", 128 << 10),
        ("--memory 4G --video 512 --mmio-hole 1GiB", "video_kib", 512 << 10),
        ("--memory 4G --mmio-hole 2GiB", "mmio_start_bytes", 1 << 31),
        ("--memory 16776959 --video 0", "max_pages", 16_776_960 * 256),
    ] {
        let object = plan(arguments);
        check(&object);
        assert_eq!(number(&object, field), value, "{arguments}");
    }
}

/// The same guest of each kind by each model: the figures in which they differ, by hand.
#[test]
fn every_kind_by_every_model() {
    // 512 MiB of 1024 with 2 vCPUs: 512 + 2048 pages of paging pool by xenops, 512 + 1024 by libxl.
    let fields = ["build_start", "xen_max", "shadow", "vcpu_overhead", "rounding", "overhead", "footprint"];
    #[rustfmt::skip]
    let table = [
        ("hvm", "xenops", [496, 1025, 10, 0, 0, 12, 524]),
        ("hvm", "xapi",   [496, 1025, 10, 1, 0, 13, 525]),
        ("hvm", "libxl",  [496, 513,  6,  0, 0, 8,  520]),
        ("pvh", "xenops", [512, 1025, 10, 0, 0, 12, 524]),
        ("pvh", "xapi",   [512, 1025, 10, 1, 0, 13, 525]),
        ("pvh", "libxl",  [512, 513,  6,  0, 0, 8,  520]),
        ("pv",  "xenops", [512, 1024, 10, 0, 0, 11, 523]),
        ("pv",  "xapi",   [512, 1024, 10, 1, 0, 12, 524]),
        ("pv",  "libxl",  [512, 513,  6,  0, 1, 8,  520]),
    ];
    for (kind, model, expected) in table {
        let arguments = format!("--kind {kind} --model {model} --memory 512 --maxmem 1024 --vcpus 2");
        let object = plan(&arguments);
        assert_eq!((&object["kind"], &object["model"]), (&json!(kind), &json!(model)));
        let got = fields.map(|field| number(&object, &format!("{field}_kib")));
        assert_eq!(got, expected.map(|mib| mib * 1024), "{arguments}");
        assert_eq!(object["populate_on_demand"], kind != "pv");
        let pool = if kind == "pv" { 0 } else { number(&object, "shadow_kib") };
        assert_eq!(number(&object, "paging_pool_kib"), pool);
        assert_eq!(number(&object, "pod_entries") > 0, kind != "pv");
        let types: Vec<&str> =
            object["e820"].as_array().expect("a list").iter().filter_map(|entry| entry["type"].as_str()).collect();
        assert_eq!(types, if kind == "pvh" { vec!["ram", "acpi", "reserved"] } else { vec!["ram"] }, "{arguments}");

        let drawn = line(&format!("plan {arguments}"));
        let title = format!("{} guest of 512 MiB that may grow to 1024 MiB, with 2 vCPUs", kind.to_uppercase());
        assert!(drawn.exit == 0 && drawn.stdout.starts_with(&title), "{}", drawn.stdout);
        assert!(drawn.stdout.lines().all(|line| line.chars().count() <= 80), "{}", drawn.stdout);
    }
    let shim = plan("--kind pvh --model xapi --shim --memory 512 --maxmem 1024");
    let fields = ["shim_kib", "build_max_kib", "build_start_kib", "xen_max_kib"].map(|field| number(&shim, field));
    assert_eq!(fields, [34, 1058, 540, 1059].map(|mib| mib * 1024));
}

#[test]
fn the_picture_tells_the_same_figures() {
    let arguments = "--memory 2GiB --maxmem 3GiB --vcpus 2";
    let Ran { exit, stdout, stderr } = line(&format!("plan {arguments}"));
    assert_eq!((exit, stderr.as_str()), (0, ""));
    let object = plan(arguments);
    let words: Vec<&str> = stdout.split_whitespace().collect();
    for field in KIB {
        if number(&object, field) == 0 {
            // What a model does not know, or a guest does not have, is not drawn.
            continue;
        }
        let mib = (number(&object, field) / 1024).to_string();
        assert!(words.windows(2).any(|pair| pair == [&mib, "MiB"]), "{field}, {mib} MiB:\n{stdout}");
        let word = field.trim_end_matches("_kib").replace('_', " ");
        assert!(stdout.contains(&word), "{word}:\n{stdout}");
    }
    for field in ["owned_pages_built", "owned_pages_running", "max_pages"] {
        assert!(words.contains(&number(&object, field).to_string().as_str()), "{field}:\n{stdout}");
    }
    assert!(stdout.contains(&format!("{:#x}", number(&object, "mmio_start_bytes"))), "{stdout}");
    assert!(stdout.contains("Populate on demand"), "{stdout}");
    assert!(!stdout.contains('\x1b'), "no escape sequences");
    assert!(stdout.lines().all(|line| line.chars().count() <= 80), "{stdout}");
    assert!(stdout.ends_with('\n') && !stdout.ends_with("\n\n"));
}

/// The words of a picture.
fn words(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error} in\n{svg}"));
    assert!(document.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")), "{svg}");
    let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts.filter_map(|node| node.text().map(str::to_owned)).collect()
}

#[test]
fn the_picture_as_svg() {
    let files = Files::new();
    let path = text(&files.path("plan.svg"));
    let arguments = ["plan", "--memory", "2GiB", "--maxmem", "3GiB", "--vcpus", "2"];
    let with_svg = |to: &str| run(&[&arguments[..], &["--svg", to]].concat());

    let drawn = with_svg(&path);
    let plain = run(&arguments);
    assert_eq!((drawn.exit, drawn.stderr.as_str(), &drawn.stdout), (0, "", &plain.stdout), "the plan is shown as ever");
    let svg = fs::read_to_string(&path).expect("a picture");
    let words = words(&svg);
    let object = plan("--memory 2GiB --maxmem 3GiB --vcpus 2");
    for field in KIB.into_iter().filter(|field| number(&object, field) > 0) {
        let size = format!("{} MiB", number(&object, field) / 1024);
        assert!(words.contains(&size), "{field}, {size}: {words:?}");
        let name = field.trim_end_matches("_kib").replace('_', " ");
        assert!(words.contains(&name), "{name}: {words:?}");
    }
    for field in ["owned_pages_built", "owned_pages_running", "max_pages", "pod_cache_pages", "pod_entries"] {
        assert!(words.contains(&number(&object, field).to_string()), "{field}: {words:?}");
    }

    let alone = with_svg("-");
    assert_eq!((alone.exit, alone.stderr.as_str(), alone.stdout), (0, "", svg.clone()), "nothing but the picture");
    let json = run(&[&arguments[..], &["--json", "--svg", &path]].concat());
    assert_eq!((json.exit, json.json()), (0, object));
    assert_eq!(fs::read_to_string(&path).expect("a picture"), svg);
}

#[test]
fn an_svg_takes_the_place_of_an_older_file() {
    let files = Files::new();
    let older = files.add("plan.svg", b"older");
    let link = files.path("link.svg");
    symlink("plan.svg", &link).expect("a link");
    let before = fs::read_dir(files.path("")).expect("a directory").count();
    // A file that others may read where they may read what this user makes: like any other new file.
    let usual = files.path("usual");
    fs::write(&usual, "").expect("written");
    let mode = |path| fs::metadata(path).expect("a file").permissions().mode();
    let usual_mode = mode(&usual);
    fs::remove_file(&usual).expect("removed");

    for (to, memory) in [(&older, "256"), (&link, "512")] {
        let ran = run(&["plan", "--memory", memory, "--svg", &text(to)]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
        let svg = fs::read_to_string(&older).expect("a picture");
        assert!(words(&svg).contains(&format!("HVM guest of {memory} MiB with 1 vCPU")));
        assert_eq!(mode(&older), usual_mode);
    }
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink(), "the link leads where it led");
    assert_eq!(fs::read_dir(files.path("")).expect("a directory").count(), before, "nothing else is left");
}

#[test]
fn an_svg_that_cannot_be_written_is_a_bad_file() {
    let files = Files::new();
    let directory = files.path("");
    let missing = files.path("missing/plan.svg");
    let before = fs::read_dir(&directory).expect("a directory").count();
    for path in [text(&missing), text(&directory), "/dev/null".to_owned(), "/dev/full/plan.svg".to_owned()] {
        let error = refused(&["plan", "--memory", "256", "--svg", &path], 3, "bad-file");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(&path)), "{error}");
    }
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), before, "nothing is left");
    // What makes no guest makes no picture.
    let svg = text(&files.path("plan.svg"));
    refused(&["plan", "--memory", "0", "--svg", &svg], 3, "bad-memory");
    assert!(!files.path("plan.svg").exists());

    let both = line("plan --memory 256 --json --svg -");
    assert_eq!((both.exit, &both.error()["code"]), (3, &json!("bad-config")));
    assert!(both.stderr.contains("--svg") && !both.stderr.contains(FIRST_CALL), "{}", both.stderr);
}

proptest! {
    #![proptest_config(Config { cases: 64, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_is_asked_adds_up_or_is_refused(
        memory in 0_u64..1 << 24, more in -64_i64..1 << 23, shift in 0_u32..11, vcpus in 0_u32..132, hole in 250_u64..2100,
    ) {
        let maxmem = memory.saturating_add_signed(more);
        let video = (1_u64 << shift) / 2;
        let arguments = format!("--memory {memory} --maxmem {maxmem} --video {video} --vcpus {vcpus} --mmio-hole {hole}");
        let ran = line(&format!("plan --json {arguments}"));
        match ran.exit {
            0 => check(&ran.json()),
            3 => prop_assert_eq!(&ran.error()["code"], "bad-memory", "{}", arguments),
            other => prop_assert!(false, "{arguments} ends with {other}"),
        }
    }
}
