//! `--cpuid`: a guest's CPUID policy beside that of xl's guest with the same `cpuid`, in both of xl's languages.

use std::collections::BTreeMap;

use dombuild::xen::DomId;
use serde_json::Value;

use super::Test;
use super::libxl_record::listed;
use super::platform::policy;
use super::support::{GUEST_KERNEL, create, dombuild, domid, file, path_text, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("cpuid_is_changed_as_xl_changes_it", same_as_xls),
    ("cpuid_that_this_host_has_not_is_refused_before_anything", refused),
];

type Policy = BTreeMap<(u32, u32), [u32; 4]>;

const NONE: u32 = u32::MAX;

/// The flags of a guest of this kind.
fn flags<'a>(kind: &'a str, texts: &[&'a str]) -> Vec<&'a str> {
    let of_kind: &[&str] = match kind {
        "hvm" => &["--kind", "hvm", "--device-model", "none", "--video", "0"],
        _ => &["--kind", kind, "--kernel", GUEST_KERNEL],
    };
    let cpuid = texts.iter().flat_map(|text| ["--cpuid", text]);
    of_kind.iter().copied().chain(["--memory", "96", "--paused"]).chain(cpuid).collect()
}

/// The policy of dombuild's guest, and the changes in its configuration for libxl.
fn ours(kind: &str, texts: &[&str]) -> (Policy, Value) {
    let guest = create("t", &flags(kind, texts));
    let found = (policy(domid(&guest)), listed("t")["b_info"]["cpuid"].clone());
    dombuild(&["destroy", "t"]).success();
    found
}

/// The policy of xl's guest.
fn xls(kind: &str, cpuid: &str) -> (Policy, Value) {
    let kernel = if kind == "hvm" { "vga=\"none\"".to_owned() } else { format!("kernel={GUEST_KERNEL:?}") };
    let text = format!("name=\"t\"\ntype={kind:?}\nmemory=96\n{kernel}\ncpuid={cpuid}\n");
    let config = file(text.as_bytes());
    run("xl", &["create", "-p", path_text(&config)]).success();
    let theirs = DomId::new(shell("xl domid t").trim().parse().expect("a domid")).expect("a domid");
    let found = (policy(theirs), listed("t")["b_info"]["cpuid"].clone());
    run("xl", &["destroy", "t"]).success();
    found
}

fn same_as_xls() {
    let default = "x".repeat(32);
    let (off, on) = (format!("{}0", "x".repeat(31)), format!("{}1", "x".repeat(31)));
    let registers = [format!("1:ecx={off},edx={on}"), format!("7,0:ebx={off}"), format!("1:eax={default}")];
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let list = |texts: &[&str]| format!("[ {} ]", texts.iter().map(|text| format!("{text:?},")).collect::<String>());
    for kind in ["hvm", "pvh", "pv"] {
        let (plain, nothing) = ours(kind, &[]);
        assert!(nothing.is_null(), "{kind}: {nothing}");
        let by_name = "host,sse3=0,x2apic=k,family=25,model=0x5a,stepping=3,rdrand=0,brandid=7,maxhvleaf=k";
        let (policy, changes) = ours(kind, &[by_name]);
        assert_eq!((policy.clone(), changes), xls(kind, &format!("{by_name:?}")), "{kind}");
        let (before, after) = (plain[&(1, NONE)], policy[&(1, NONE)]);
        assert_eq!(after[2] & 1, 0, "{kind}: no SSE3: {after:x?}");
        assert_eq!(after[0] & 0x0fff_0fff, 0x00a5_0fa3, "{kind}: {after:x?}");
        assert_ne!(before, after, "{kind}");
    }
    let (policy, changes) = ours("pvh", &registers);
    assert_eq!((policy.clone(), changes), xls("pvh", &list(&registers)));
    assert_eq!(policy[&(1, NONE)][2] & 1, 0, "{policy:x?}");
    // An MSR that describes features; whether Xen takes it depends on the CPU. Both say the same.
    let config = file(b"name=\"t\"\ntype=\"hvm\"\nmemory=96\nvga=\"none\"\ncpuid=\"host,rdcl-no=0,eibrs=s\"\n");
    let theirs = run("xl", &["create", "-p", path_text(&config)]);
    if theirs.status == Some(0) {
        let changes = listed("t")["b_info"]["cpuid"].clone();
        run("xl", &["destroy", "t"]).success();
        assert_eq!(ours("hvm", &["host,rdcl-no=0,eibrs=s"]).1, changes);
    } else {
        let arguments = [&["create", "--name", "t"], &flags("hvm", &["host,rdcl-no=0,eibrs=s"])[..]].concat();
        let error = dombuild(&arguments).failed_with(5, "xen-refused");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("xc_cpuid_apply_policy")), "{error}");
    }
}

fn refused() {
    let bits = "x".repeat(32);
    for (text, problem) in [
        (format!("7:ebx={bits}"), "its subleaves are [0"),
        (format!("1,0:ebx={bits}"), "the leaf has no subleaves"),
        (format!("0x50000000:eax={bits}"), "neither this host's CPU nor Xen's default policy has it"),
    ] {
        for dry_run in [&["--dry-run"][..], &[]] {
            let arguments = [&["create", "--name", "t"], dry_run, &flags("hvm", &[&text])[..]].concat();
            let error = dombuild(&arguments).failed_with(3, "bad-config");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(problem)), "{text}: {error}");
        }
    }
    let dry = [&["create", "--name", "t", "--dry-run"], &flags("hvm", &["host,sse3=0"])[..]].concat();
    let shown = dombuild(&dry).success().json();
    let bits = shown["cpuid"]["cpuid"][0]["ecx"].as_str().expect("a text");
    assert_eq!((bits.len(), bits.ends_with("x0")), (32, true), "{shown}");
    assert!(shown["checks"].to_string().contains("CPUID: changes in 1 leaves"), "{shown}");
}
