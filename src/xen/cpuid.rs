//! CPUID policies of guests.

use std::ptr::NonNull;

use xen_sys as sys;

use super::cpuid_rules::{CpuidRules, RawRules};
use super::error::{self, XenError};
use super::{DomId, Interface};

/// A featureset of Xen (`XEN_SYSCTL_get_cpu_featureset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeaturesetOf {
    /// The features of the host's CPUs.
    Host,
    /// The most that PV guests may have.
    Pv,
    /// The most that HVM and PVH guests may have.
    Hvm,
}

/// The base of a guest's CPUID policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuidBase<'a> {
    /// Xen's default policy for the kind of guest, with these features. PAE and nested virtualisation are for HVM and
    /// PVH.
    Default {
        /// Physical address extension; long mode requires it.
        pae: bool,
        /// Invariant TSC.
        itsc: bool,
        /// VMX or SVM; the domain must have been created for it.
        nested: bool,
    },
    /// A featureset, word by word (xen/include/public/arch-x86/cpufeatureset.h).
    Featureset(&'a [u32]),
}

/// A CPUID policy of Xen (`XEN_SYSCTL_get_cpu_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyOf {
    /// The host's.
    Host,
    /// The default of PV guests.
    Pv,
    /// The default of HVM and PVH guests.
    Hvm,
}

/// One leaf of a CPUID policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// The input in EAX.
    pub leaf: u32,
    /// The input in ECX; all ones if the leaf has no subleaves.
    pub subleaf: u32,
    /// The output in EAX, EBX, ECX and EDX.
    pub registers: [u32; 4],
}

impl Interface {
    /// Reads a featureset of Xen.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn featureset(&self, of: FeaturesetOf) -> Result<Vec<u32>, XenError> {
        const CALL: &str = "xc_get_cpu_featureset";
        let index = match of {
            FeaturesetOf::Host => sys::XEN_SYSCTL_cpu_featureset_host,
            FeaturesetOf::Pv => sys::XEN_SYSCTL_cpu_featureset_pv,
            FeaturesetOf::Hvm => sys::XEN_SYSCTL_cpu_featureset_hvm,
        };
        let mut count = 0;
        // SAFETY: with a null buffer, the call returns the number of words.
        let returned =
            unsafe { sys::xc_get_cpu_featureset(self.as_raw(), index, &raw mut count, std::ptr::null_mut()) };
        error::minus_one(CALL, format_args!("{of:?}, size"), returned)?;
        let mut words = vec![0_u32; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the buffer has `count` words.
        let returned = unsafe { sys::xc_get_cpu_featureset(self.as_raw(), index, &raw mut count, words.as_mut_ptr()) };
        error::minus_one(CALL, format_args!("{of:?}"), returned)?;
        words.truncate(usize::try_from(count).unwrap_or(0));
        Ok(words)
    }

    /// Sets a guest's CPUID policy: the base with the changes that the rules make.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a featureset with more words than this Xen knows; `EINVAL` for a rule of a leaf that Xen's policies
    /// lack, and for a policy that Xen does not give to this guest.
    pub fn apply_cpuid_policy(&self, domid: DomId, base: CpuidBase<'_>, rules: &CpuidRules) -> Result<(), XenError> {
        let (featureset, pae, itsc, nested) = match base {
            CpuidBase::Default { pae, itsc, nested } => (&[][..], pae, itsc, nested),
            CpuidBase::Featureset(words) => (words, false, false, false),
        };
        let words = if featureset.is_empty() { std::ptr::null() } else { featureset.as_ptr() };
        let count = u32::try_from(featureset.len()).unwrap_or(u32::MAX);
        let raw = RawRules::new(rules);
        // SAFETY: `words` points to `count` words, or is null for Xen's default. The lists of rules are null or end with an
        // unused one; they live until the call returns, which does not keep them.
        let returned = unsafe {
            sys::xc_cpuid_apply_policy(
                self.as_raw(),
                domid.get(),
                false,
                words,
                count,
                pae,
                itsc,
                nested,
                raw.leaves(),
                raw.msrs(),
            )
        };
        let shown = if rules.is_empty() { String::new() } else { format!(", {rules:x?}") };
        error::negative_errno("xc_cpuid_apply_policy", format_args!("domid {domid}, {base:x?}{shown}"), returned)
    }

    /// Reads a guest's CPUID policy, sorted by leaf.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn cpuid_policy(&self, domid: DomId) -> Result<Vec<CpuidLeaf>, XenError> {
        let policy = Policy::new()?;
        // SAFETY: the handle and the policy are valid.
        let returned = unsafe { sys::xc_cpu_policy_get_domain(self.as_raw(), domid.get(), policy.0.as_ptr()) };
        error::minus_one("xc_cpu_policy_get_domain", format_args!("domid {domid}"), returned)?;
        self.leaves_of(&policy)
    }

    /// Reads one of Xen's own CPUID policies, sorted by leaf.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn system_cpuid_policy(&self, of: PolicyOf) -> Result<Vec<CpuidLeaf>, XenError> {
        let index = match of {
            PolicyOf::Host => sys::XEN_SYSCTL_cpu_policy_host,
            PolicyOf::Pv => sys::XEN_SYSCTL_cpu_policy_pv_default,
            PolicyOf::Hvm => sys::XEN_SYSCTL_cpu_policy_hvm_default,
        };
        let policy = Policy::new()?;
        // SAFETY: the handle and the policy are valid.
        let returned = unsafe { sys::xc_cpu_policy_get_system(self.as_raw(), index, policy.0.as_ptr()) };
        error::minus_one("xc_cpu_policy_get_system", format_args!("{of:?}"), returned)?;
        self.leaves_of(&policy)
    }

    fn leaves_of(&self, policy: &Policy) -> Result<Vec<CpuidLeaf>, XenError> {
        let (mut leaves, mut msrs) = (0, 0);
        // SAFETY: both pointers are to live integers.
        let returned = unsafe { sys::xc_cpu_policy_get_size(self.as_raw(), &raw mut leaves, &raw mut msrs) };
        error::minus_one("xc_cpu_policy_get_size", format_args!(""), returned)?;

        let mut buffer = vec![sys::xen_cpuid_leaf_t::default(); usize::try_from(leaves).unwrap_or(0)];
        let mut no_msrs = 0;
        // SAFETY: the buffer has room for `leaves` leaves; a null buffer of 0 MSRs asks for none.
        let returned = unsafe {
            sys::xc_cpu_policy_serialise(
                self.as_raw(),
                policy.0.as_ptr(),
                buffer.as_mut_ptr(),
                &raw mut leaves,
                std::ptr::null_mut(),
                &raw mut no_msrs,
            )
        };
        error::minus_one("xc_cpu_policy_serialise", format_args!("{leaves} leaves"), returned)?;
        buffer.truncate(usize::try_from(leaves).unwrap_or(0));
        Ok(buffer
            .iter()
            .map(|raw| CpuidLeaf { leaf: raw.leaf, subleaf: raw.subleaf, registers: [raw.a, raw.b, raw.c, raw.d] })
            .collect())
    }

    /// Replaces these leaves of a guest's CPUID policy.
    ///
    /// # Errors
    /// If Xen refuses one of them.
    pub fn set_cpuid_leaves(&self, domid: DomId, leaves: &[CpuidLeaf]) -> Result<(), XenError> {
        let mut raw: Vec<_> = leaves
            .iter()
            .map(|leaf| {
                let [a, b, c, d] = leaf.registers;
                sys::xen_cpuid_leaf_t { leaf: leaf.leaf, subleaf: leaf.subleaf, a, b, c, d }
            })
            .collect();
        let count = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let (mut bad_leaf, mut bad_subleaf, mut bad_msr) = (u32::MAX, u32::MAX, u32::MAX);
        // SAFETY: the buffer has `count` leaves; there are no MSRs; the last three are live integers.
        let returned = unsafe {
            sys::xc_set_domain_cpu_policy(
                self.as_raw(),
                domid.get(),
                count,
                raw.as_mut_ptr(),
                0,
                std::ptr::null_mut(),
                &raw mut bad_leaf,
                &raw mut bad_subleaf,
                &raw mut bad_msr,
            )
        };
        let arguments = format_args!("domid {domid}, {leaves:x?}, refused leaf {bad_leaf:#x} {bad_subleaf:#x}");
        error::minus_one("xc_set_domain_cpu_policy", arguments, returned).map(drop)
    }
}

/// A `xc_cpu_policy_t`, freed when dropped.
struct Policy(NonNull<sys::xc_cpu_policy_t>);

impl Policy {
    fn new() -> Result<Self, XenError> {
        // SAFETY: the call takes no arguments, and returns an object that the caller owns.
        error::pointer("xc_cpu_policy_init", format_args!(""), unsafe { sys::xc_cpu_policy_init() }).map(Self)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        // SAFETY: the policy came from xc_cpu_policy_init and is freed once.
        unsafe { sys::xc_cpu_policy_destroy(self.0.as_ptr()) };
    }
}
