//! Builds an HVM guest into an empty domain that another program created: `build_into_domain DOMID MEMORY`.
//!
//! Run it as root in dom0. The domain has one vCPU and hardware-assisted paging, and owns no memory yet. The program
//! starts no device model, so the plan has no video RAM.

use std::env;
use std::error::Error;

use dombuild::builder::given_domain::build_given_domain;
use dombuild::cancel::Cancel;
use dombuild::config::guest::Guest;
use dombuild::context::Context;
use dombuild::memory::{Kib, Plan, Request, size};
use dombuild::observer::{Observer, Progress};
use dombuild::payload::boot_files::FirmwareModules;
use dombuild::payload::firmware::FirmwareChoice;
use dombuild::payload::read::hvm_boot_files;
use dombuild::stage::Stage;
use dombuild::xen::{DomId, Interface, STORE_TIMEOUT, Store};

/// Prints each step.
#[derive(Debug)]
struct Printer;

impl Observer for Printer {
    fn stage_started(&self, stage: Stage) {
        println!("{stage}");
    }

    fn progress(&self, progress: &Progress<'_>) {
        println!("  {}", progress.text);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(domid), Some(memory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build_into_domain DOMID MEMORY".into());
    };
    let domid = DomId::new(domid.parse()?).ok_or("a domid is at most 32751")?;
    let request = Request { video: Some(Kib::ZERO), device_model: false, ..Request::new(size::parse(&memory)?) };
    let plan = Plan::new(&request)?;
    let files = hvm_boot_files(&plan, None, &FirmwareChoice::default(), FirmwareModules::default())?;
    let mut guest = Guest::new(plan, files);

    // SIGINT, SIGTERM and SIGHUP end the build between two steps.
    let cancel = Cancel::install()?;
    let xen = Interface::open()?;
    let store = Store::open_with(STORE_TIMEOUT, cancel.interrupt())?;
    let context = Context { xen: &xen, store: &store, observer: &Printer, cancel: &cancel };

    let built = build_given_domain(&context, domid, &mut guest, None)?;
    println!("domain {} is built\n{built}", built.domid);
    Ok(())
}
