//! The Hyper-V features that a guest sees: from XenServer's keys, or from the words of xl's `viridian`.

use crate::xen::enlightenment::{
    APIC_ASSIST, BASE, CPU_HOTPLUG, CRASH_CTL, EX_PROCESSOR_MASKS, HCALL_IPI, HCALL_REMOTE_TLB_FLUSH, NO_FREQ,
    NO_VP_LIMIT, REFERENCE_TSC, STIMER, SYNIC, TIME_REF_COUNT,
};

/// The groups of enlightenments, masks of `HVMPV_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Viridian {
    /// By `platform/viridian` as XenServer has it: the guest sees Hyper-V, or none of the next two count.
    pub shown: bool,
    /// What the other keys of XenServer ask for.
    pub more: u32,
    /// Whether the synthetic timer was asked for, or forbidden.
    pub stimer: Option<bool>,
    /// By the words of xl's `viridian`: the whole mask.
    pub exact: Option<u32>,
}

impl Viridian {
    /// The value of `HVM_PARAM_VIRIDIAN`, where the guest sees Hyper-V. XenServer's base has the frequencies and hotplug
    /// of vCPUs; its synthetic timer brings the synthetic interrupt controller along, and comes by itself where an
    /// NVIDIA vGPU meets one of the reference clocks.
    #[must_use]
    pub fn mask(&self, vgpu: bool) -> Option<u32> {
        if self.exact.is_some() {
            return self.exact;
        }
        let clocks = self.more & (REFERENCE_TSC | TIME_REF_COUNT) != 0;
        let timer = if self.stimer.unwrap_or(vgpu && clocks) { SYNIC | STIMER } else { 0 };
        self.shown.then_some(self.more | BASE | CPU_HOTPLUG | timer)
    }

    /// Whether XenServer's keys are set in addition to xl's.
    pub(super) fn is_said_twice(&self) -> bool {
        self.exact.is_some() && (self.more != 0 || self.stimer.is_some())
    }
}

/// What xl's words stand for (`hvm_set_viridian_features`, libxl, Xen 4.17 and 4.20). `freq` takes a bit away.
const WORDS: [(&str, u32); 13] = [
    ("base", BASE | NO_FREQ),
    ("freq", 0),
    ("time_ref_count", TIME_REF_COUNT),
    ("reference_tsc", REFERENCE_TSC),
    ("hcall_remote_tlb_flush", HCALL_REMOTE_TLB_FLUSH),
    ("apic_assist", APIC_ASSIST),
    ("crash_ctl", CRASH_CTL),
    ("synic", SYNIC),
    ("stimer", TIME_REF_COUNT | SYNIC | STIMER),
    ("hcall_ipi", HCALL_IPI),
    ("ex_processor_masks", EX_PROCESSOR_MASKS),
    ("no_vp_limit", NO_VP_LIMIT),
    ("cpu_hotplug", CPU_HOTPLUG),
];

/// The meaning of `defaults`, and of xl's `viridian=1`.
const DEFAULTS: [&str; 7] =
    ["base", "freq", "time_ref_count", "apic_assist", "crash_ctl", "no_vp_limit", "cpu_hotplug"];

/// The mask that words of xl's `viridian` ask for, with commas between them.
///
/// # Errors
/// Where xl refuses them: a word that there is not, one that is asked for and forbidden, and a set without `base`.
pub(super) fn of_words(text: &str) -> Result<u32, String> {
    let mut asked = [false; WORDS.len()];
    let mut forbidden = [false; WORDS.len()];
    let mut defaults = false;
    for word in text.split(',').map(str::trim) {
        let (list, plain) = match word.strip_prefix('!') {
            Some(plain) => (&mut forbidden, plain),
            None => (&mut asked, word),
        };
        match WORDS.iter().position(|(name, _)| *name == plain) {
            Some(index) => list[index] = true,
            None if word == "defaults" => defaults = true,
            None if word == "all" => asked = [true; WORDS.len()],
            None => return Err(format!("{plain:?} is no group of enlightenments")),
        }
    }
    if let Some(index) = (0..WORDS.len()).find(|index| asked[*index] && forbidden[*index]) {
        return Err(format!("{} is both asked for and forbidden", WORDS[index].0));
    }
    let has = |name: &str| {
        let index = WORDS.iter().position(|(word, _)| *word == name);
        index.is_some_and(|index| (asked[index] || defaults && DEFAULTS.contains(&name)) && !forbidden[index])
    };
    let mask = WORDS.iter().filter(|(name, _)| has(name)).fold(0, |mask, (_, bits)| mask | bits);
    match (has("base"), has("freq")) {
        (false, _) => Err("no other group works without base".to_owned()),
        (true, true) => Ok(mask & !NO_FREQ),
        (true, false) => Ok(mask),
    }
}

/// The number of a group in libxl (`libxl_viridian_enlightenment`).
#[must_use]
pub fn group(word: &str) -> Option<usize> {
    WORDS.iter().position(|(name, _)| *name == word)
}

/// The groups that make exactly this mask, by their numbers in libxl (`libxl_viridian_enlightenment`). `None` if no groups
/// do: XenServer's synthetic timer comes without the reference counter, and libxl's brings it along.
#[must_use]
pub fn groups_of(mask: u32) -> Option<Vec<usize>> {
    if mask & BASE == 0 {
        return None;
    }
    let has = |(name, bits): &(&str, u32)| match *name {
        "base" => true,
        "freq" => mask & NO_FREQ == 0,
        _ => mask & bits == *bits,
    };
    let groups: Vec<usize> = (0..WORDS.len()).filter(|group| has(&WORDS[*group])).collect();
    let words: Vec<&str> = groups.iter().map(|group| WORDS[*group].0).collect();
    (of_words(&words.join(",")) == Ok(mask)).then_some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xenservers_keys() {
        let base = BASE | CPU_HOTPLUG;
        let mask = |more, stimer, vgpu| Viridian { shown: true, more, stimer, exact: None }.mask(vgpu);
        assert_eq!(mask(0, None, true), Some(base), "no clock, no timer");
        assert_eq!(mask(REFERENCE_TSC, None, false), Some(base | REFERENCE_TSC));
        assert_eq!(mask(REFERENCE_TSC, None, true), Some(base | REFERENCE_TSC | SYNIC | STIMER));
        assert_eq!(mask(REFERENCE_TSC, Some(false), true), Some(base | REFERENCE_TSC));
        assert_eq!(mask(0, Some(true), false), Some(base | SYNIC | STIMER));
        assert_eq!(Viridian { more: REFERENCE_TSC, ..Viridian::default() }.mask(true), None);
    }

    #[test]
    fn xls_words() {
        assert_eq!(of_words("base"), Ok(0x3));
        assert_eq!(of_words("base,freq"), Ok(0x1));
        assert_eq!(of_words("freq, base, stimer"), Ok(0x185));
        assert_eq!(of_words("defaults"), Ok(0x1865));
        assert_eq!(of_words("defaults,!freq,!no_vp_limit"), Ok(0x1067));
        assert_eq!(of_words("all"), Ok(0x1ffd));
        for (words, reason) in [
            ("freq", "without base"),
            ("defaults,!base", "without base"),
            ("!apic_assist", "without base"),
            ("base,!base", "base is both"),
            ("all,!synic", "synic is both"),
            ("base,frequency", "\"frequency\" is no group"),
            ("!defaults", "\"defaults\" is no group"),
            ("!all", "\"all\" is no group"),
            ("", "\"\" is no group"),
        ] {
            let refused = of_words(words).expect_err(words);
            assert!(refused.contains(reason), "{words}: {refused}");
        }
    }

    #[test]
    fn libxls_groups_make_the_same_mask() {
        assert_eq!(groups_of(0x1), Some(vec![0, 1]));
        assert_eq!(groups_of(0x3), Some(vec![0]));
        assert_eq!(groups_of(0x1ffd), Some((0..13).collect()));
        assert_eq!(groups_of(BASE | STIMER | SYNIC), None, "libxl would add the reference counter");
        assert_eq!(groups_of(TIME_REF_COUNT), None, "libxl takes nothing without base");
        for words in ["base", "defaults", "defaults,!freq", "all", "base,synic,hcall_ipi"] {
            let mask = of_words(words).expect("known words");
            let groups = groups_of(mask).expect("groups");
            let again: Vec<&str> = groups.iter().map(|group| WORDS[*group].0).collect();
            assert_eq!(of_words(&again.join(",")), Ok(mask), "{words}");
        }
    }
}
