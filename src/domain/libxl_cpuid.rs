//! A CPUID policy as libxl keeps it (`libxl_cpuid_policy_list_gen_json`, libxl_cpuid.c, Xen 4.17 and 4.20).

use serde_json::{Value, json};

use super::libxl_fields::Fields;
use crate::xen::CpuidRules;

/// The names of the registers, in the order of CPUID's output.
const REGISTERS: [&str; 4] = ["eax", "ebx", "ecx", "edx"];

/// The rules; `None` if there are none.
#[must_use]
pub fn policy(rules: &CpuidRules) -> Option<Value> {
    if rules.is_empty() {
        return None;
    }
    let leaves = rules.leaves.iter().map(|rule| {
        let mut fields = Fields::default();
        fields.put("leaf", rule.leaf);
        fields.put_some("subleaf", rule.subleaf);
        for (name, bits) in REGISTERS.into_iter().zip(&rule.registers) {
            fields.put_some(name, bits.as_ref().map(|bits| bits.letters()));
        }
        Value::from(fields)
    });
    let msrs = rules.msrs.iter().map(|rule| json!({ "index": rule.index, "policy": rule.bits.letters() }));
    Some(json!({ "cpuid": leaves.collect::<Vec<_>>(), "msr": msrs.collect::<Vec<_>>() }))
}
