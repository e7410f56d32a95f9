//! Builds an HVM guest into an empty domain that another program created: `build_into_domain DOMID MEMORY`.
//!
//! Run it as root in dom0. The domain has one vCPU and hardware-assisted paging, and owns no memory yet. The program
//! starts no device model, so the plan has no video RAM.

use std::env;
use std::error::Error;
use std::time::Duration;

use dombuild::builder::given_domain::build_given_domain;
use dombuild::cancel::Cancel;
use dombuild::config::autoballoon::Dom0Share;
use dombuild::config::guest::{Claim, Guest};
use dombuild::config::platform::Platform;
use dombuild::context::Context;
use dombuild::memory::{Kib, Plan, Request, size};
use dombuild::observer::{Observer, Progress};
use dombuild::payload::boot_files::{BootFiles, FirmwareModules};
use dombuild::payload::firmware::FirmwareChoice;
use dombuild::payload::search::{read_firmware, read_hvmloader};
use dombuild::stage::Stage;
use dombuild::xen::{DomId, ImageLimits, Interface, STORE_TIMEOUT, Store};

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

/// A guest with SeaBIOS from the host's usual directories.
fn guest(memory: Kib) -> Result<Guest, Box<dyn Error>> {
    let request = Request { video: Some(Kib::ZERO), device_model: false, ..Request::new(memory) };
    let plan = Plan::new(&request)?;
    let choice = FirmwareChoice::default();
    let boot_files = BootFiles::Firmware {
        hvmloader: read_hvmloader(None, &plan)?,
        kind: choice.kind,
        firmware: read_firmware(&choice, plan.low_memory_at_start())?,
        modules: FirmwareModules::default(),
    };
    Ok(Guest {
        plan,
        boot_files,
        platform: Platform::asked::<&str>(&[])?,
        limits: ImageLimits::default(),
        devices: Vec::new(),
        wait_memory: Duration::ZERO,
        claim: Claim::Built,
        build_locks: true,
        dom0_share: Dom0Share::NOTHING,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(domid), Some(memory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build_into_domain DOMID MEMORY".into());
    };
    let domid = DomId::new(domid.parse()?).ok_or("a domid is at most 32751")?;
    let mut guest = guest(size::parse(&memory)?)?;

    // SIGINT, SIGTERM and SIGHUP end the build between two steps.
    let cancel = Cancel::install()?;
    let xen = Interface::open()?;
    let store = Store::open_with(STORE_TIMEOUT, cancel.interrupt())?;
    let context = Context { xen: &xen, store: &store, observer: &Printer, cancel: &cancel };

    let built = build_given_domain(&context, domid, &mut guest, None)?;
    println!("domain {} is built\n{built}", built.domid);
    Ok(())
}
