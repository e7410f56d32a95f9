//! Finds Xen's libraries, binds their headers, and passes Xen's version to dependent crates.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::rc::Rc;

use bindgen::callbacks::{EnumVariantValue, ParseCallbacks};

/// The oldest minor release of Xen 4 that the bindings support.
const OLDEST_MINOR: u32 = 17;
/// The newest minor release for which a cfg `xen_4_N_or_later` is declared.
const NEWEST_MINOR: u32 = 23;

/// pkg-config modules, in link order.
const LIBRARIES: [&str; 3] = ["xenguest", "xencontrol", "xentoollog"];

const FUNCTIONS: &str = concat!(
    "xc_(interface_(open|close)|version|physinfo",
    "|domain_(create|destroy|pause|unpause|max_vcpus|setmaxmem|claim_pages|set_memory_map|set_memmap_limit|getinfolist",
    "|send_trigger|dumpcore|set_tsc_info|get_tsc_info|set_time_offset|hvm_getcontext|[gs]et_pod_target|node_setaffinity",
    "|get_native_protocol|(ioport|irq|iomem)_permission|memory_mapping|save|restore|resume|shutdown|[gs]etvnuma)|shadow_control|vcpu_(getinfo|[gs]etaffinity)|get_(cpumap|nodemap)_size",
    "|sched_credit2?_domain_[gs]et|domain_populate_physmap|get_cpu_featureset|cpupool_(getinfo|infofree)",
    "|cpu_policy_(init|destroy|get_size|get_domain|get_system|serialise)|set_domain_cpu_policy",
    "|[gs]et_paging_mempool_size|evtchn_alloc_unbound|hvm_param_[gs]et|cpuid_apply_policy",
    "|physdev_(un)?map_pirq|(test_assign|assign|deassign|get)_device(_group)?|cputopoinfo|get_machine_memory_map|numainfo|domain_node_getaffinity|send_debug_keys|readconsolering|gnttab_query_size|reserved_device_memory_map|map_foreign_range|flask_context_to_sid",
    "|dom_(allocate|release|kernel_mem|module_mem|kernel_max_size|module_max_size|boot_xen_init|parse_image",
    "|mem_init|boot_mem_init|build_image|boot_image|gnttab_init|pfn_to_ptr",
    // Only tests use these.
    "|alloc_segment|virt_(base|entry|hypercall)|feature_get))",
    "|vasprintf",
);
const TYPES: &str = "xentoollog_.*|xen_domctl_createdomain|hvm_info_table|xsd_sockmsg|xsd_sockmsg_type|e820entry";
const VARS: &str = "HVM_PARAM_.*|HVM_MAX_VCPUS|HVM_INFO_(PFN|OFFSET)|XEN_DOMCTL_CDF_.*|XEN_DOMINF_.*\
|XEN_X86_EMU_.*|XEN_X86_MSR_RELAXED|XEN_SYSCTL_PHYSCAP_.*|XEN_DOMCTL_GRANT_.*|XENVER_.*|E820_.*|XC_DOM_.*|XENSTORE_PAYLOAD_MAX|XEN_DOMCTL_INTERFACE_VERSION\
|XENFEAT_.*|XEN_SYSCTL_cpu_(featureset|policy)_.*|XEN_VCPUAFFINITY_.*|HVMPV_.*|GNTST_okay|SHUTDOWN_.*|XEN_DOMCTL_SENDTRIGGER_POWER|XC_PAGE_S.*|X86_HVM_.*|XG_MAX_MODULES|XENMEMF_.*|XEN_CPUID_INPUT_UNUSED|XC_MSR_INPUT_UNUSED|XGR_SDD_MISSING_.*|XCFLAGS_LIVE|XEN_DOMCTL_SHADOW_OP_OFF|XGS_POLICY_.*|XEN_DOMCTL_DEV_RDM_RELAXED";

fn main() {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    println!("cargo::rerun-if-changed=wrapper.h");

    let mut include_paths = Vec::new();
    let mut version = String::new();
    for name in LIBRARIES {
        match pkg_config::Config::new().probe(name) {
            Ok(library) => {
                if name == "xencontrol" {
                    version = library.version;
                }
                include_paths.extend(library.include_paths);
            }
            Err(error) => fail(&format!(
                "Xen's library {name} was not found by pkg-config.\n\
                 Install Debian's package libxen-dev (and pkg-config), or point PKG_CONFIG_PATH at the \
                 .pc files of your Xen.\n{error}"
            )),
        }
    }
    announce_version(&version);
    bind(&include_paths);
}

/// Sets the cfgs `xen_4_N_or_later` here, and passes the version to dependent crates through `links` metadata.
fn announce_version(version: &str) {
    let minor = version.strip_prefix("4.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let Some(minor) = minor else {
        fail(&format!("pkg-config calls the version of libxenctrl {version:?}; expected 4.N"));
    };
    if minor < OLDEST_MINOR {
        fail(&format!(
            "libxenctrl {version} is too old: xen-sys needs Xen 4.{OLDEST_MINOR} or later (Debian 12's libxen-dev)"
        ));
    }
    for candidate in OLDEST_MINOR + 1..=NEWEST_MINOR {
        println!("cargo::rustc-check-cfg=cfg(xen_4_{candidate}_or_later)");
        if minor >= candidate {
            println!("cargo::rustc-cfg=xen_4_{candidate}_or_later");
        }
    }
    println!("cargo::metadata=version=4.{minor}");
    println!("cargo::metadata=newest={NEWEST_MINOR}");
}

/// Runs bindgen over `wrapper.h`. In the repository it is a link to the one at the top, in the published package a copy.
fn bind(include_paths: &[PathBuf]) {
    // bindgen panics where libclang cannot be loaded; say what to install instead of showing a backtrace.
    panic::set_hook(Box::new(|_| {}));
    let clang = panic::catch_unwind(bindgen::clang_version);
    let _ = panic::take_hook();
    if clang.is_err() {
        fail("libclang was not found. Install Debian's packages libclang-dev and clang, or set LIBCLANG_PATH.");
    }

    let features = Rc::new(RefCell::new(BTreeMap::new()));
    let generated = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(include_paths.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_function(FUNCTIONS)
        .allowlist_type(TYPES)
        .allowlist_var(VARS)
        .default_enum_style(bindgen::EnumVariation::NewType { is_bitfield: false, is_global: false })
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(true)
        .derive_default(true)
        .derive_debug(true)
        .wrap_unsafe_ops(true)
        .rust_target(bindgen::RustTarget::stable(85, 0).unwrap_or_default())
        .rust_edition(bindgen::RustEdition::Edition2024)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .parse_callbacks(Box::new(CpuFeatures(Rc::clone(&features))))
        .generate();
    let generated = match generated {
        Ok(generated) => generated,
        Err(error) => fail(&format!(
            "bindgen could not read Xen's headers: {error}\n\
             Install Debian's packages libxen-dev, libclang-dev and clang (clang brings the compiler's own headers)."
        )),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let written = |file: &Path, result: std::io::Result<()>| {
        result.unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", file.display())));
    };
    let bindings = out.join("bindings.rs");
    written(&bindings, generated.write_to_file(&bindings));
    let file = out.join("cpu_features.rs");
    written(&file, std::fs::write(&file, cpu_features(&features.borrow())));
}

/// Collects the features of xen/arch-x86/cpufeatureset.h by name: an enum without a name, of which bindgen would make constants
/// that nothing can iterate.
#[derive(Debug)]
struct CpuFeatures(Rc<RefCell<BTreeMap<String, u32>>>);

impl ParseCallbacks for CpuFeatures {
    fn enum_variant_name(&self, _: Option<&str>, name: &str, value: EnumVariantValue) -> Option<String> {
        let name = name.strip_prefix("XEN_X86_FEATURE_")?;
        let bit = match value {
            EnumVariantValue::Signed(bit) => u32::try_from(bit),
            EnumVariantValue::Unsigned(bit) => u32::try_from(bit),
            EnumVariantValue::Boolean(bit) => Ok(bit.into()),
        };
        // libxl's spelling (xen/tools/gen-cpuid.py).
        self.0.borrow_mut().insert(name.to_ascii_lowercase().replace('_', "-"), bit.ok()?);
        None
    }
}

/// The features as a table in Rust, in the order of their names.
fn cpu_features(features: &BTreeMap<String, u32>) -> String {
    let mut table = "/// The features of x86 CPUs that Xen knows, in the order of their names, which are libxl's: each with its bit in a \
                     featureset.\npub const CPU_FEATURES: &[(&str, u32)] = &[\n"
        .to_owned();
    for (name, bit) in features {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "    ({name:?}, {bit}),");
    }
    if features.is_empty() {
        fail("xen/arch-x86/cpufeatureset.h names no CPU features");
    }
    table + "];\n"
}

/// Ends the build with a readable message.
#[expect(clippy::exit, reason = "a build script has no caller to return an error to but cargo")]
fn fail(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    process::exit(1);
}
