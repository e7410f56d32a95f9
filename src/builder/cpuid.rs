//! The CPUID policy of a guest: its features, and the layout of its vCPUs in sockets.

use crate::config::platform::Platform;
use crate::context::Context;
use crate::error::Error;
use crate::error::host::HostError;
use crate::memory::Kind;
use crate::xen::{CpuidBase, CpuidLeaf, CpuidRules, DomId, FeaturesetOf, LeafRules, PolicyOf};

/// The subleaf of a leaf without subleaves (`XEN_CPUID_NO_SUBLEAF`, xen/include/public/arch-x86/xen.h).
const NO_SUBLEAF: u32 = u32::MAX;

/// Features as bits of a featureset, counted from bit 0 of word 0 (xen/include/public/arch-x86/cpufeatureset.h).
mod feature {
    pub(crate) const PAE: usize = 6;
    pub(crate) const VMX: usize = 32 + 5;
    pub(crate) const NX: usize = 2 * 32 + 20;
    pub(crate) const SVM: usize = 3 * 32 + 2;
    pub(crate) const ITSC: usize = 7 * 32 + 8;
}

/// Checks that Xen's policies have the leaves that the rules of a guest change (`xc_cpuid_xend_policy`, Xen 4.17 and 4.20).
///
/// # Errors
/// [`HostError::CpuidLeaf`]; an error of Xen.
pub(crate) fn check_cpuid_rules(context: &Context<'_>, kind: Kind, rules: &CpuidRules) -> Result<(), Error> {
    if rules.leaves.is_empty() {
        return Ok(());
    }
    let default = if kind == Kind::Pv { PolicyOf::Pv } else { PolicyOf::Hvm };
    for policy in [PolicyOf::Host, default] {
        let known = context.xen.system_cpuid_policy(policy)?;
        let lacks = |rule: &&LeafRules| {
            let inputs = (rule.leaf, rule.subleaf.unwrap_or(NO_SUBLEAF));
            known.iter().all(|leaf| (leaf.leaf, leaf.subleaf) != inputs)
        };
        if let Some(rule) = rules.leaves.iter().find(lacks) {
            let subleaves = known.iter().filter(|leaf| leaf.leaf == rule.leaf).map(|leaf| leaf.subleaf).collect();
            return Err(HostError::CpuidLeaf { leaf: rule.leaf, subleaf: rule.subleaf, subleaves }.into());
        }
    }
    Ok(())
}

/// Sets the CPUID policy of a guest.
pub(crate) fn apply_cpuid(context: &Context<'_>, domid: DomId, kind: Kind, platform: &Platform) -> Result<(), Error> {
    let (xen, rules) = (context.xen, &platform.cpuid);
    check_cpuid_rules(context, kind, rules)?;
    let itsc = platform.nomigrate || platform.nested;
    match &platform.featureset {
        // Without a featureset, libxc cannot remove NX, and cannot remove PAE from a PV guest.
        None if platform.nx && (platform.pae || kind != Kind::Pv) => {
            let (pae, nested) = (platform.pae, platform.nested);
            xen.apply_cpuid_policy(domid, CpuidBase::Default { pae, itsc, nested }, rules)?;
        }
        given => {
            let mut words = match given {
                Some(words) => words.clone(),
                None if kind == Kind::Pv => xen.featureset(FeaturesetOf::Pv)?,
                None => xen.featureset(FeaturesetOf::Hvm)?,
            };
            let host = xen.featureset(FeaturesetOf::Host)?;
            if let Some(index) = words.iter().skip(host.len()).position(|word| *word != 0) {
                return Err(HostError::Featureset { word: host.len() + index, known: host.len() }.into());
            }
            words.truncate(host.len());
            choose_features(&mut words, &host, platform);
            xen.apply_cpuid_policy(domid, CpuidBase::Featureset(&words), rules)?;
        }
    }
    if let Some(cores) = platform.cores_per_socket.filter(|_| kind != Kind::Pv) {
        let changed = with_cores_per_socket(&xen.cpuid_policy(domid)?, cores);
        xen.set_cpuid_leaves(domid, &changed)?;
    }
    Ok(())
}

fn choose_features(words: &mut Vec<u32>, host: &[u32], platform: &Platform) {
    let mut put = |feature: usize, shown: bool| {
        let (word, bit) = (feature / 32, 1 << (feature % 32));
        if words.len() <= word && shown {
            words.resize(word + 1, 0);
        }
        if let Some(word) = words.get_mut(word) {
            *word = *word & !bit | if shown { bit } else { 0 };
        }
    };
    let host_has = |feature: usize| host.get(feature / 32).is_some_and(|word| word >> (feature % 32) & 1 == 1);
    if !platform.nx {
        put(feature::NX, false);
    }
    if !platform.pae {
        put(feature::PAE, false);
    }
    if (platform.nomigrate || platform.nested) && host_has(feature::ITSC) {
        put(feature::ITSC, true);
    }
    for virtualisation in [feature::VMX, feature::SVM] {
        put(virtualisation, platform.nested && host_has(virtualisation));
    }
}

/// The leaves of Xen's policy that change for a guest with `cores` vCPUs per socket.
///
/// vCPU N has the APIC id 2 N. A socket therefore has twice as many ids as vCPUs, and every second id is unused. XenServer
/// shows its guests the same layout.
fn with_cores_per_socket(policy: &[CpuidLeaf], cores: u32) -> Vec<CpuidLeaf> {
    const EAX: usize = 0;
    const EBX: usize = 1;
    const ECX: usize = 2;
    let put = |register: u32, lowest: u32, width: u32, value: u32| {
        let most = (1 << width) - 1;
        register & !(most << lowest) | value.min(most) << lowest
    };
    let intel = policy.iter().any(|leaf| leaf.leaf == 0 && leaf.registers[EBX] == u32::from_le_bytes(*b"Genu"));
    let ids = cores * 2;
    policy
        .iter()
        .filter_map(|old| {
            let mut leaf = *old;
            match leaf.leaf {
                // Logical processors in a package.
                1 => leaf.registers[EBX] = put(leaf.registers[EBX], 16, 8, ids),
                // For each cache (type in bits 4:0): core ids in the package, less 1; threads that share the cache, less 1.
                4 if intel && leaf.registers[EAX] & 0x1f != 0 => {
                    leaf.registers[EAX] = put(put(leaf.registers[EAX], 26, 6, ids - 1), 14, 12, 0);
                }
                // CmpLegacy: the package's logical processors are cores.
                0x8000_0001 if !intel => leaf.registers[ECX] |= 1 << 1,
                // Cores, less 1. An APIC id width of 0 means that the width follows from the core count.
                0x8000_0008 if !intel => leaf.registers[ECX] = put(put(leaf.registers[ECX], 0, 8, ids - 1), 12, 4, 0),
                _ => return None,
            }
            Some(leaf)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(leaf: u32, subleaf: u32, registers: [u32; 4]) -> CpuidLeaf {
        CpuidLeaf { leaf, subleaf, registers }
    }

    const NONE: u32 = NO_SUBLEAF;

    #[test]
    fn sockets_of_amd_and_of_intel() {
        let amd = [
            leaf(0, NONE, [0xd, u32::from_le_bytes(*b"Auth"), 0, 0]),
            leaf(1, NONE, [1, 0xff11_2233, 3, 4]),
            leaf(4, 0, [0x21, 0, 0, 0]),
            leaf(0x8000_0001, NONE, [0, 0, 0x20, 0]),
            leaf(0x8000_0008, NONE, [0x3030, 0, 0xabcd_7fff, 5]),
        ];
        assert_eq!(
            with_cores_per_socket(&amd, 2),
            [
                leaf(1, NONE, [1, 0xff04_2233, 3, 4]),
                leaf(0x8000_0001, NONE, [0, 0, 0x22, 0]),
                leaf(0x8000_0008, NONE, [0x3030, 0, 0xabcd_0f03, 5]),
            ]
        );
        let intel = [
            leaf(0, NONE, [0xd, u32::from_le_bytes(*b"Genu"), 0, 0]),
            leaf(1, NONE, [1, 0, 3, 4]),
            leaf(4, 0, [0xffff_c121, 1, 2, 3]),
            leaf(4, 1, [0, 0, 0, 0]),
            leaf(0x8000_0001, NONE, [0, 0, 0x20, 0]),
        ];
        assert_eq!(
            with_cores_per_socket(&intel, 4),
            [leaf(1, NONE, [1, 8 << 16, 3, 4]), leaf(4, 0, [7 << 26 | 0x121, 1, 2, 3])]
        );
        // A value that does not fit into its field becomes the largest that does.
        assert_eq!(with_cores_per_socket(&intel[..2], 128), [leaf(1, NONE, [1, 0xff << 16, 3, 4])]);
    }

    #[test]
    fn features_are_taken_away_and_given_where_the_host_has_them() {
        let host = [u32::MAX; 22];
        let mut words = vec![u32::MAX; 10];
        choose_features(&mut words, &host, &Platform::default());
        assert_eq!(words[0], !(1 << 6), "PAE");
        assert_eq!((words[1], words[3]), (!(1 << 5), !(1 << 2)), "VMX and SVM");
        assert_eq!(words[2], !(1 << 20), "NX");
        assert_eq!(words[7], u32::MAX);

        let mut all = Platform::default();
        (all.nx, all.pae, all.nested) = (true, true, true);
        let mut words = vec![0; 2];
        choose_features(&mut words, &host, &all);
        assert_eq!(words, [0, 1 << 5, 0, 1 << 2, 0, 0, 0, 1 << 8]);
        let mut words = vec![0; 2];
        choose_features(&mut words, &[0; 22], &all);
        assert_eq!(words, [0, 0], "a host that has none");
    }
}
