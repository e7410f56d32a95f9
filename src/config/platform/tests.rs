//! The table, its parsers, and the page that is made from it.

use proptest::prelude::*;

use super::*;
use crate::config::tests::assert_page_has;
use crate::xen::enlightenment;

fn of_keys(keys: &[(&str, &str)]) -> Result<Platform, ConfigError> {
    Platform::of_keys(&keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn the_usual_platform_is_valid() {
    assert_eq!(Platform::asked::<&str>(&[]).expect("valid defaults"), Platform::usual());
    assert_ne!(Platform::usual(), Platform::default());
}

#[test]
fn missing_keys_count_as_they_always_have() {
    let platform = of_keys(&[]).expect("nothing is wrong");
    let expected = Platform { hpet: true, crash_on_triple_fault: true, ..Platform::default() };
    assert_eq!(platform, expected, "no NX, no PAE, no APIC, no ACPI; but a HPET");
    // An empty value is a missing one.
    let names: Vec<_> = SETTINGS.iter().flat_map(Setting::names).map(|name| (name, "")).collect();
    assert_eq!(of_keys(&names).expect("nothing is wrong"), expected);

    let usual = Platform::asked::<&str>(&[]).expect("nothing is wrong");
    let expected = Platform {
        nx: true,
        pae: true,
        apic: true,
        acpi: true,
        acpi_s3: true,
        acpi_s4: true,
        hpet: true,
        timer_mode: Some(1),
        vpt_align: Some(true),
        ..Platform::default()
    };
    assert_eq!(usual, expected, "libxl's");
}

#[test]
fn only_nodes_that_are_listed_are_read() {
    assert_eq!(Vec::from_iter(Platform::directories()), ["hvmloader", "platform", "platform/vcpu"]);
    let listed = [
        "platform/nested",
        "platform/vcpu",
        "platform/vcpu/number",
        "platform/vcpu/7",
        "platform/vcpu/x",
        "platform/7",
    ];
    let nodes = Platform::nodes(&listed.map(str::to_owned).into());
    assert_eq!(
        nodes,
        ["platform/vcpu/number", "platform/vcpu/7/affinity", "platform/vcpu/7/soft-affinity", "platform/nested"]
    );
}

#[test]
fn every_key_is_read_by_each_of_its_names() {
    type Case = (&'static str, &'static str, fn(&Platform) -> bool);
    let cases: &[Case] = &[
        ("platform/vcpu/number", "3", |p| p.vcpus == Some(3)),
        ("platform/vcpu_number", "3", |p| p.vcpus == Some(3)),
        ("platform/vcpu/current", "2", |p| p.online_vcpus == Some(2)),
        ("platform/vcpu_current", "2", |p| p.online_vcpus == Some(2)),
        ("platform/vcpu/weight", "512", |p| p.weight == Some(512)),
        ("platform/vcpu/weight", "0", |p| p.weight.is_none()),
        ("platform/vcpu/cap", "150", |p| p.cap == Some(150)),
        ("platform/nx", "true", |p| p.nx),
        ("platform/pae", "1", |p| p.pae),
        ("platform/featureset", "1-2:0xff-", |p| p.featureset == Some(vec![1, 2, 255])),
        ("platform/cores-per-socket", "2", |p| p.cores_per_socket == Some(2)),
        ("platform/cores-per-socket", "0", |p| p.cores_per_socket.is_none()),
        ("platform/nested-virt", "true", |p| p.nested),
        ("platform/exp-nested-hvm", "true", |p| p.nested),
        ("platform/nested", "1", |p| p.nested),
        ("platform/nomigrate", "TRUE", |p| p.nomigrate),
        ("platform/viridian", "0x1", |p| p.viridian.shown && p.viridian.mask(false) == Some(0x1001)),
        ("platform/viridian_time_ref_count", "1", |p| p.viridian.more == enlightenment::TIME_REF_COUNT),
        ("platform/viridian_reference_tsc", "1", |p| p.viridian.more == enlightenment::REFERENCE_TSC),
        ("platform/viridian_hcall_remote_tlb_flush", "1", |p| p.viridian.more == enlightenment::HCALL_REMOTE_TLB_FLUSH),
        ("platform/viridian_apic_assist", "1", |p| p.viridian.more == enlightenment::APIC_ASSIST),
        ("platform/viridian_crash_ctl", "1", |p| p.viridian.more == enlightenment::CRASH_CTL),
        ("platform/viridian_hcall_ipi", "1", |p| p.viridian.more == enlightenment::HCALL_IPI),
        ("platform/viridian_stimer", "false", |p| p.viridian.stimer == Some(false)),
        ("platform/apic", "true", |p| p.apic),
        ("platform/acpi", "true", |p| p.acpi),
        ("platform/acpi_s3", "1", |p| p.acpi_s3),
        ("platform/acpi_s4", "7", |p| p.acpi_s4),
        ("platform/acpi_laptop_slate", "true", |p| p.acpi_laptop_slate),
        ("platform/tsc_mode", "2", |p| p.tsc_mode == 2),
        ("platform/hpet", "False", |p| !p.hpet),
        ("platform/timer_mode", "3", |p| p.timer_mode == Some(3)),
        ("platform/timer-mode", "0", |p| p.timer_mode == Some(0)),
        ("platform/vpt-align", "0", |p| p.vpt_align == Some(false)),
        ("platform/vpt_align", "1", |p| p.vpt_align == Some(true)),
        ("platform/x87-fip-width", "8", |p| p.x87_fip_width == Some(8)),
        ("platform/generation-id", "1:2", |p| p.generation_id.as_deref() == Some("1:2")),
        ("platform/generation-id", "generate", |p| p.generation_id.as_ref().is_some_and(|id| id.contains(':'))),
        ("platform/mca-caps", "lmce", |p| p.local_machine_checks),
        ("platform/timeoffset", "-3600", |p| p.time_offset == -3600),
        ("hvmloader/bios", "ovmf", |p| p.firmware == Some(FirmwareKind::Ovmf)),
        ("platform/ovmf-override", "OVMF-debug.fd", |p| p.ovmf_override.as_deref() == Some("OVMF-debug.fd")),
        ("platform/smbios-pt", "true", |p| p.smbios_passthrough),
        ("platform/acpi-pt", "1", |p| p.acpi_passthrough),
    ];
    for (name, value, holds) in cases {
        let platform = of_keys(&[(*name, *value)]).unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
        assert!(holds(&platform), "{name} = {value}: {platform:?}");
    }
    for name in SETTINGS.iter().flat_map(Setting::names).filter(|name| !name.contains("/N/")) {
        assert!(cases.iter().any(|(case, ..)| *case == name), "{name} has no case here");
    }
}

#[test]
fn the_first_name_that_has_a_value_counts() {
    let both = [("platform/nested-virt", "false"), ("platform/exp-nested-hvm", "true")];
    assert!(!of_keys(&both).expect("good").nested);
    let empty = [("platform/nested-virt", ""), ("platform/exp-nested-hvm", "true")];
    assert!(of_keys(&empty).expect("good").nested);
}

#[test]
fn affinity_is_read_for_each_vcpu() {
    let keys = [
        ("platform/vcpu/number", "3"),
        ("platform/vcpu/0/affinity", "01"),
        ("platform/vcpu/2/affinity", "1000000001"),
        ("platform/vcpu/3/affinity", "not read"),
    ];
    let platform = of_keys(&keys).expect("good");
    let maps: Vec<_> = platform.affinity.iter().map(|(vcpu, map)| (*vcpu, map.bytes().to_vec())).collect();
    assert_eq!(maps, [(0, vec![2]), (2, vec![1, 2])]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (name, value) in [
        ("platform/vcpu/number", "0"),
        ("platform/vcpu/number", "129"),
        ("platform/vcpu/number", "two"),
        ("platform/vcpu/number", "-1"),
        ("platform/vcpu/number", "99999999999999999999"),
        ("platform/vcpu/weight", "65536"),
        ("platform/nx", "yes"),
        ("platform/pae", "+1"),
        ("platform/featureset", "1-g"),
        ("platform/featureset", "1--2"),
        ("platform/featureset", "123456789"),
        ("platform/featureset", "-"),
        ("platform/tsc_mode", "3"),
        ("platform/timer_mode", "4"),
        ("platform/x87-fip-width", "5"),
        ("platform/timeoffset", "1.5"),
        ("platform/timeoffset", "3000000000"),
        ("platform/viridian_stimer", "maybe"),
        ("platform/viridian", "freq"),
        ("platform/viridian", "base,timer"),
        ("hvmloader/bios", "rombios"),
        ("platform/ovmf-override", "../../etc/shadow"),
        ("platform/ovmf-override", ".."),
    ] {
        let error = of_keys(&[(name, value)]).expect_err(name).to_string();
        assert!(error.starts_with(&format!("{name} is {value:?}: ")), "{error}");
    }
    let keys = [("platform/vcpu/number", "1"), ("platform/vcpu/0/affinity", "00")];
    let error = of_keys(&keys).expect_err("no CPU").to_string();
    assert!(error.starts_with("platform/vcpu/0/affinity"), "{error}");
}

#[test]
fn flags_take_the_same_words() {
    let platform =
        Platform::asked(&["nx=false", "platform/vcpu/1/affinity=1", "timer-mode=2", "nx=true", "vcpu/weight=77"])
            .expect("good");
    assert!(platform.nx && platform.timer_mode == Some(2) && platform.weight == Some(77));
    assert_eq!(platform.affinity[&1].bytes(), [1]);
    for (text, words) in [
        ("nx", "not KEY=VALUE"),
        ("colour=blue", "no platform setting"),
        ("vcpu/x/affinity=1", "no platform setting"),
        ("vcpu/number=2", "--vcpus"),
        ("hvmloader/bios=ovmf", "--firmware"),
        ("nx=maybe", "neither true nor false"),
    ] {
        let error = Platform::asked(&[text]).expect_err(text).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_does_not_fit_the_guest() {
    let refused = |text: &str, vcpus, on_demand| {
        let platform = Platform::asked(&[text]).expect("good by itself");
        platform.check(Kind::Pvh, vcpus, on_demand).expect_err(text).to_string()
    };
    assert!(refused("vcpu/current=3", 2, false).contains("1 to 2"));
    assert!(refused("vcpu/2/affinity=1", 2, false).contains("vCPUs 0 to 1"));
    assert!(refused("cores-per-socket=2", 3, false).contains("does not divide"));
    assert!(refused("nested-virt=true", 1, true).contains("populated on demand"));
    assert!(refused("viridian=base", 1, false).contains("for HVM guests"));
    let twice = Platform::asked(&["viridian=base", "viridian_stimer=true"]).expect("each is good");
    let reason = twice.check(Kind::Hvm, 1, false).expect_err("twice").to_string();
    assert!(reason.contains("give the words alone"), "{reason}");
    let fits = Platform::asked(&["vcpu/current=2", "vcpu/1/affinity=1", "cores-per-socket=2", "nested-virt=1"]);
    fits.expect("good").check(Kind::Hvm, 4, false).expect("it fits");
}

/// docs/platform.md holds the table as it is. `DOMBUILD_WRITE_DOCS=1 cargo test` writes it there.
#[test]
fn the_page_has_this_table() {
    assert_page_has("docs/platform.md", "settings", &describe());
}

proptest! {
    #[test]
    fn no_value_panics(index in 0..SETTINGS.len(), value in ".{0,40}") {
        let setting = &SETTINGS[index];
        let name = setting.name.replace('N', "0");
        let _ = of_keys(&[("platform/vcpu/number", "1"), (&name, &value)]);
        let _ = Platform::asked(&[format!("{name}={value}")]);
    }

    #[test]
    fn numbers_are_numbers(number: u64) {
        for text in [format!("{number}"), format!("0x{number:x}"), format!("0{number:o}")] {
            prop_assert_eq!(value::number(&text), Ok(number));
        }
    }
}
