//! A program that links the library: it plans, builds and measures guests in domains that it is given.

use std::env;
use std::error::Error;
use std::ffi::CString;
use std::path::Path;

use dombuild::builder::given_domain::build_given_domain;
use dombuild::cancel::Cancel;
use dombuild::config::guest::Guest;
use dombuild::context::Context;
use dombuild::domain::measure::measure;
use dombuild::memory::{Kind, Mib, Plan, Request};
use dombuild::observer::Silent;
use dombuild::payload::boot_files::{BootFiles, FirmwareModules};
use dombuild::payload::firmware::FirmwareChoice;
use dombuild::payload::kernel::{Keep, Unpacker};
use dombuild::payload::read::{KernelFiles, ShimFiles, hvm_boot_files, kernel_boot_files};
use dombuild::xen::{DomId, Interface, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["plan"] => println!("{}", serde_json::to_string(&plan(Kind::Hvm)?)?),
        ["hvm", domid] => {
            let plan = plan(Kind::Hvm)?;
            let files = hvm_boot_files(&plan, None, &FirmwareChoice::default(), FirmwareModules::default())?;
            build(domid, plan, files)?;
        }
        ["pvh", domid, unpacker, kernel] => {
            let plan = plan(Kind::Pvh)?;
            let (cmdline, shim) = (CString::default(), ShimFiles::default());
            let files = KernelFiles { kernel: Path::new(kernel), ramdisk: None, cmdline, shim };
            let files = kernel_boot_files(&Unpacker::new(unpacker.into()), &plan, files, Keep::No)?;
            build(domid, plan, files)?;
        }
        ["measure", domid] => {
            println!("{}", serde_json::to_string(&measure(&Interface::open()?, number(domid)?)?)?);
        }
        other => return Err(format!("not started by the test: {other:?}").into()),
    }
    Ok(())
}

fn plan(kind: Kind) -> Result<Plan, Box<dyn Error>> {
    Ok(Plan::new(&Request { kind, device_model: false, ..Request::new(Mib(128).to_kib()) })?)
}

fn build(domid: &str, plan: Plan, files: BootFiles) -> Result<(), Box<dyn Error>> {
    let (xen, store, cancel) = (Interface::open()?, Store::open()?, Cancel::default());
    let context = Context { xen: &xen, store: &store, observer: &Silent, cancel: &cancel };
    let built = build_given_domain(&context, number(domid)?, &mut Guest::new(plan, files), None)?;
    println!("{}", serde_json::to_string(&built)?);
    Ok(())
}

fn number(text: &str) -> Result<DomId, Box<dyn Error>> {
    DomId::new(text.parse()?).ok_or_else(|| "not a domid".into())
}
