//! One setting of the platform.

use std::collections::BTreeSet;

use super::Platform;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The node below `/local/domain/DOMID`; N stands for a vCPU's number. `--platform` takes it without `platform/`.
    pub name: &'static str,
    /// Other spellings, older ones and OpenXT's; the first name that has a value counts.
    pub others: &'static [&'static str],
    /// Its possible values, as text for the user.
    pub values: &'static str,
    /// What counts where the node is missing or empty; nothing is left alone where this is empty.
    pub absent: &'static str,
    /// What counts for `create` and `build`, where nothing is asked for: libxl's default.
    pub usual: &'static str,
    /// The flag of `create` and `build` that replaces `--platform` for it.
    pub flag: Option<&'static str>,
    /// Its effect.
    pub effect: &'static str,
    /// Where its effect is visible.
    pub seen: &'static str,
    /// Puts a value into a platform; the number is the vCPU's, where it is one's.
    pub(super) apply: fn(&mut Platform, u32, &str) -> Result<(), String>,
}

impl Setting {
    /// Whether there is one of it for each vCPU.
    #[must_use]
    pub fn is_of_vcpu(&self) -> bool {
        self.name.contains("/N/")
    }

    /// Every spelling.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.others.iter().copied())
    }

    /// The nodes that have it, of those that are listed. For a vCPU, its directory is.
    pub(super) fn nodes(&self, listed: &BTreeSet<String>) -> Vec<String> {
        let Some((vcpus, name)) = self.name.split_once("/N/") else {
            return self.names().filter(|name| listed.contains(*name)).map(str::to_owned).collect();
        };
        let number = |node: &str| {
            let number = node.strip_prefix(vcpus).and_then(|rest| rest.strip_prefix('/'));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        listed.iter().filter(|node| number(node)).map(|node| format!("{node}/{name}")).collect()
    }
}
