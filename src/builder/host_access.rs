//! The host's I/O ports, interrupts and I/O memory that a domain may use, in libxl's order (`domcreate_launch_dm`,
//! tools/libs/light/libxl_create.c, Xen 4.17 and 4.20).

use crate::config::host_access::{HostAccess, Irq};
use crate::context::Context;
use crate::error::{Error, Failure};
use crate::memory::Kind;
use crate::stage::Stage;
use crate::xen::{Access, DomId};

/// Gives a domain of this kind what it may reach. Its memory must be there: I/O memory is mapped into it.
///
/// # Errors
/// The call that Xen refused, with the numbers.
pub fn give_access(context: &Context<'_>, domid: DomId, kind: Kind, access: &HostAccess) -> Result<(), Failure> {
    if access.is_empty() {
        return Ok(());
    }
    let xen = context.xen;
    context.step::<_, Error>(Stage::HostAccess, || {
        for ports in &access.ports {
            xen.permit_ports(domid, ports.first, ports.count, Access::Allow)?;
        }
        for Irq(irq) in &access.irqs {
            xen.permit_irq(domid, *irq)?;
        }
        for memory in &access.memory {
            xen.permit_memory(domid, memory.start, memory.count, Access::Allow)?;
            // A PV guest maps it itself.
            if kind != Kind::Pv {
                xen.map_memory(domid, memory.gfn.unwrap_or(memory.start), memory.start, memory.count)?;
            }
        }
        Ok(())
    })
}
