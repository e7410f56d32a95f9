//! Both languages. The letters are those that `xl create -n` prints for the same texts.

use proptest::prelude::*;

use super::*;

fn rules(texts: &[&str]) -> CpuidRules {
    let mut rules = CpuidRules::default();
    for text in texts {
        add(&mut rules, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    rules
}

/// `LEAF SUBLEAF REGISTER LETTERS`, as text.
fn shown(rules: &CpuidRules) -> Vec<String> {
    let leaf = |rules: &crate::xen::LeafRules| {
        let subleaf = rules.subleaf.map_or("-".to_owned(), |subleaf| subleaf.to_string());
        let of = rules.registers.iter().zip(REGISTERS).filter_map(|(bits, name)| bits.map(|bits| (bits, name)));
        of.map(|(bits, name)| format!("{:x} {subleaf} {name} {}", rules.leaf, bits.letters())).collect::<Vec<_>>()
    };
    let msr = |rules: &crate::xen::MsrRules| format!("msr {:x} {}", rules.index, rules.bits.letters());
    rules.leaves.iter().flat_map(leaf).chain(rules.msrs.iter().map(msr)).collect()
}

#[test]
fn features_by_name() {
    assert!(rules(&["host", "host,,"]).is_empty());
    assert_eq!(
        shown(&rules(&["host,tm=0,sse3=1,,sse3=0x0,lm=k,pcid=s,htt=x"])),
        [
            "1 - ecx xxxxxxxxxxxxxxsxxxxxxxxxxxxxxxx0",
            "1 - edx xx0xxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "80000001 - edx xxkxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ]
    );
    assert_eq!(
        shown(&rules(&["host,family=25,model=0x5a,stepping=3,proccount=k,maxleaf=0xd,procpkg=5,maxhvleaf=4"])),
        [
            "1 - eax xxxx000010100101xxxx111110100011",
            "1 - ebx xxxxxxxxkkkkkkkkxxxxxxxxxxxxxxxx",
            "0 - eax 00000000000000000000000000001101",
            "4 0 eax 000101xxxxxxxxxxxxxxxxxxxxxxxxxx",
            "40000000 - eax xxxxxxxxxxxxxxxxxxxxxxxx00000100",
        ]
    );
    assert_eq!(shown(&rules(&["host,family=6"])), ["1 - eax xxxx00000000xxxxxxxx0110xxxxxxxx"]);
    assert_eq!(
        shown(&rules(&["host,rdcl-no=0,eibrs=s,rfds-no=1,rdcl-no=1"])),
        [format!("msr 10a {}1{}k1", "x".repeat(36), "x".repeat(25))]
    );
}

#[test]
fn registers_by_their_bits() {
    let (all, none) = ("1".repeat(32), "x".repeat(32));
    assert_eq!(
        shown(&rules(&[
            &format!("1:ecx={none}, edx={all},"),
            &format!("0x7,0:ebx={none}"),
            &format!("1:edx={none},ecx={all},ecx={none}"),
        ])),
        [format!("1 - ecx {none}"), format!("1 - edx {none}"), format!("7 0 ebx {none}")]
    );
    let mixed = format!("{}01xks", "x".repeat(27));
    assert_eq!(shown(&rules(&[&format!("017,1:eax={mixed}"), "host"])), [format!("f 1 eax {mixed}")]);
    // One language changes what the other has said.
    assert_eq!(shown(&rules(&[&format!("1:ecx={all}"), "host,sse3=0"])), [format!("1 - ecx {}0", "1".repeat(31))]);
}

#[test]
fn every_error_has_its_place() {
    let bits = "x".repeat(32);
    let long = format!("1:ecx={bits}x");
    let letter = format!("1:ecx={}é", "x".repeat(30));
    let bad_bit = format!("1:edx={bits},ecx={}?{}", "x".repeat(3), "x".repeat(28));
    for (text, wrong, message) in [
        ("", "", "there is no colon"),
        ("hots,tm=0", "", "there is no colon"),
        ("host,tm", "tm", "\"tm\" has no value"),
        ("host, tm=0", " tm", "\" tm\" is no CPU feature"),
        ("host,TM=0", "TM", "is no CPU feature"),
        ("host,tm=", "", "tm is \"\"; it takes 0, 1, x, k or s"),
        ("host,tm=2", "2", "tm is \"2\""),
        ("host,tm=xx", "xx", "tm is \"xx\""),
        ("host,sse3=0,tm=-1", "-1", "tm is \"-1\""),
        ("host,stepping=16", "16", "stepping is \"16\"; it takes a number from 0 to 15, x, k or s"),
        ("host,family=128", "128", "family is \"128\"; it takes a number from 0 to 127"),
        ("host,family=x", "x", "it takes a number from 0 to 127"),
        ("host,rdcl-no=0x1", "0x1", "rdcl-no is \"0x1\""),
        ("x:ecx=1", "x", "\"x\" is no number of 32 bits"),
        ("0xffffffff:ecx=1", "0xffffffff", "is no number of 32 bits"),
        ("7,:ecx=1", "", "\"\" is no number of 32 bits"),
        ("1:", "", "\"\" is no register"),
        ("1:ecx", "ecx", "\"ecx\" is no register"),
        ("1:esi=1", "esi=1", "is no register"),
        ("1:ecx=01", "01", "ecx has 2 bits; it takes 32"),
        (&long, &long[6..], "ecx has 33 bits"),
        (&letter, "é", "'é' is no bit"),
        (&bad_bit, "?", "'?' is no bit"),
    ] {
        let mut rules = CpuidRules::default();
        let error = add(&mut rules, text).expect_err(text);
        assert_eq!(text.get(error.span.clone()), Some(wrong), "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert!(rules.is_empty(), "{text}");
    }
    let error = add_features(&mut CpuidRules::default(), "tm=0").expect_err("no host");
    assert_eq!((error.span.clone(), error.to_string().contains("the first word is host")), (0..4, true));
}

proptest! {
    #[test]
    fn any_text_is_read_or_has_a_place(text in "(host|1|0x7,0|é)?[:,]?([a-z0-9=,xks: é]|sse3=|ecx=){0,40}") {
        for read in [add, add_features, add_registers] {
            let mut rules = CpuidRules::default();
            if let Err(error) = read(&mut rules, &text) {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
                prop_assert!(rules.is_empty());
            }
        }
    }
}
