//! `attach`: a disk or a network card comes to a guest that exists.

use std::time::Instant;

use crate::cli::args::devices::{AttachArgs, AttachClass};
use crate::cli::connection::{Connection, find_guest};
use crate::cli::device_flags::parse_one;
use crate::cli::device_table::DeviceRow;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::domain::paths::XenstorePaths;
use crate::error::AtStage;
use crate::lifecycle::attach_device::{NewDevice, Timeouts, attach_device};
use crate::observer;
use crate::os::Untrusted;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &AttachArgs, json: bool) -> anyhow::Result<Done> {
    let device = observer::step(reporter, Stage::CheckInput, || match arguments.class {
        AttachClass::Disk => parse_one("disk", &arguments.spec).map(NewDevice::Disk),
        AttachClass::Vif => parse_one("vif", &arguments.spec).map(NewDevice::Nic),
    })?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let context = connection.context();
    let start = Instant::now();
    let guest = (!arguments.no_wait).then_some(arguments.timeout);
    let details = attach_device(&context, &domain, device, Timeouts { script: arguments.hotplug_timeout, guest })?;
    reporter.clear_line();

    let name = connection.store.plain().read(&XenstorePaths::new(domain.domid).of_domain("name")).unwrap_or_default();
    let row = DeviceRow::new(domain.domid, name.map(Untrusted::from), details);
    let connected = if arguments.no_wait { "attached" } else { "connected" };
    let seconds = start.elapsed().as_secs_f64();
    print::finish(json, &row, &format!("{row} of domain {} is {connected} ({seconds:.1} s)", domain.domid))
}
