//! Saves and restores a domain's state by libxenguest, and suspends and resumes domains.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::raw::{c_int, c_uint, c_void};
use std::ptr;

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, EventPort, Interface};
use dombuild_memory::{Gfn, Pages};

/// `SHUTDOWN_suspend` as `xc_domain_shutdown` takes it.
const SUSPEND: c_int = sys::SHUTDOWN_suspend.cast_signed();

/// The event channels of the rings of a domain that is restored, and the domains of the daemons that serve them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPorts {
    /// The event channel of the xenstore ring.
    pub store: EventPort,
    /// The domain in which xenstored runs.
    pub store_domain: DomId,
    /// The event channel of the console ring.
    pub console: EventPort,
    /// The domain in which xenconsoled runs.
    pub console_domain: DomId,
}

/// What a live save has written, at the begin or the end of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The rounds that have begun before; 0 when nothing is written yet.
    pub iteration: u32,
    /// The pages that are written.
    pub written: Pages,
    /// The pages that the guest has changed since, if the round has just ended.
    pub dirty: Option<Pages>,
}

/// What a live save does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRound {
    /// It writes the changed pages while the guest runs.
    Continue,
    /// It suspends the guest, and writes the rest.
    Stop,
    /// It gives up; the guest runs on.
    Abort,
}

/// What a save asks of its caller meanwhile.
pub trait SaveCallbacks {
    /// Everything is ready: returns whether the domain has shut down with the reason suspend.
    fn suspend(&mut self) -> bool;
    /// A live save has begun or ended a round.
    fn round(&mut self, round: Round) -> NextRound;
    /// A program in dom0 that writes to the guest's memory, QEMU, is to record where it writes, or not any more. Returns whether it
    /// does. It is called for HVM and PVH guests.
    fn log_dirty(&mut self, on: bool) -> bool;
}

/// What the callbacks of libxenguest reach.
struct Saving<'a> {
    callbacks: &'a mut dyn SaveCallbacks,
}

/// # Safety
/// `data` is the `Saving` of the call that is under way, which refers to it alone.
unsafe fn saving<'a>(data: *mut c_void) -> &'a mut dyn SaveCallbacks {
    // SAFETY: the caller's promise.
    unsafe { (*data.cast::<Saving<'a>>()).callbacks }
}

/// libxenguest calls it once, when it is ready to read the rest of the guest's memory.
unsafe extern "C" fn suspend(data: *mut c_void) -> c_int {
    // SAFETY: `data` is what `Interface::save` gave to the call that is under way.
    c_int::from(unsafe { saving(data) }.suspend())
}

/// libxenguest calls it before and after each round of a live save.
unsafe extern "C" fn precopy(stats: sys::precopy_stats, data: *mut c_void) -> c_int {
    let round = Round {
        iteration: stats.iteration,
        written: Pages(stats.total_written),
        dirty: u64::try_from(stats.dirty_count).ok().map(Pages),
    };
    // SAFETY: `data` is what `Interface::save` gave to the call that is under way.
    match unsafe { saving(data) }.round(round) {
        NextRound::Continue => sys::XGS_POLICY_CONTINUE_PRECOPY.cast_signed(),
        NextRound::Stop => sys::XGS_POLICY_STOP_AND_COPY.cast_signed(),
        NextRound::Abort => sys::XGS_POLICY_ABORT,
    }
}

/// libxenguest calls it for HVM and PVH guests at the begin and the end of a save. Returns 0 if it is done.
unsafe extern "C" fn log_dirty(_domid: u32, enable: c_uint, data: *mut c_void) -> c_int {
    // SAFETY: `data` is what `Interface::save` gave to the call that is under way.
    if unsafe { saving(data) }.log_dirty(enable != 0) { 0 } else { -1 }
}

/// libxenguest calls it behind the records that come before memory. `data` receives what they lack. Returns 0 to go on.
unsafe extern "C" fn static_data_done(missing: c_uint, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the integer of the call that is under way, which nothing else uses meanwhile.
    unsafe { data.cast::<c_uint>().write(missing) };
    if missing & sys::XGR_SDD_MISSING_CPUID == 0 { 0 } else { -1 }
}

impl Interface {
    /// Writes the state of a domain to a descriptor, as a libxc stream of version 3: its CPUID policy, its memory and its
    /// vCPUs, for an HVM or PVH guest also the devices that Xen emulates. A `live` save writes memory in rounds while the guest
    /// runs, and suspends it for the last. The domain stays suspended.
    ///
    /// The call has no deadline, and ends this process where an assertion fails.
    ///
    /// # Errors
    /// If Xen refuses a call, or the stream cannot be written. Without an errno if a callback refuses.
    pub fn save(
        &self,
        domid: DomId,
        stream: BorrowedFd<'_>,
        live: bool,
        callbacks: &mut dyn SaveCallbacks,
    ) -> Result<(), XenError> {
        let mut saving = Saving { callbacks };
        let mut callbacks = sys::save_callbacks {
            suspend: Some(suspend),
            precopy_policy: Some(precopy),
            switch_qemu_logdirty: Some(log_dirty),
            data: (&raw mut saving).cast(),
            ..Default::default()
        };
        Errno::clear();
        // SAFETY: the descriptor is open, and the callbacks and what they reach outlive the call. A plain stream has no way back.
        let returned = unsafe {
            sys::xc_domain_save(
                self.as_raw(),
                stream.as_raw_fd(),
                domid.get(),
                if live { sys::XCFLAGS_LIVE } else { 0 },
                &raw mut callbacks,
                sys::xc_stream_type_t::XC_STREAM_PLAIN,
                -1,
            )
        };
        error::builder("xc_domain_save", format_args!("domid {domid}"), returned)
    }

    /// Reads a libxc stream of version 2 or 3 into a domain that has its vCPUs, its limits and its paging pool, and nothing
    /// else. Returns the frames of its xenstore and console rings; they are machine frames for PV.
    ///
    /// The call has no deadline, takes as much memory as the stream says, and ends this process where an assertion fails.
    ///
    /// # Errors
    /// If Xen refuses a call, or the stream is not one for this domain; without an errno if it ends early.
    pub fn restore(&self, domid: DomId, stream: BorrowedFd<'_>, ports: RingPorts) -> Result<(Gfn, Gfn), XenError> {
        const CALL: &str = "xc_domain_restore";
        let (mut store, mut console) = (0, 0);
        let mut missing: c_uint = 0;
        let mut callbacks = sys::restore_callbacks {
            static_data_done: Some(static_data_done),
            data: (&raw mut missing).cast(),
            ..Default::default()
        };
        Errno::clear();
        // SAFETY: the descriptor is open; the two frames, the callbacks and what they reach outlive the call. A plain stream has
        // no way back.
        let returned = unsafe {
            sys::xc_domain_restore(
                self.as_raw(),
                stream.as_raw_fd(),
                domid.get(),
                ports.store.0,
                &raw mut store,
                ports.store_domain.get(),
                ports.console.0,
                &raw mut console,
                ports.console_domain.get(),
                sys::xc_stream_type_t::XC_STREAM_PLAIN,
                &raw mut callbacks,
                -1,
                #[cfg(xen_4_22_or_later)]
                0,
            )
        };
        let restored = error::builder(CALL, format_args!("domid {domid}"), returned);
        if missing & sys::XGR_SDD_MISSING_CPUID != 0 {
            let detail = "the stream has no CPUID policy: it is of Xen 4.13 or older".to_owned();
            return Err(XenError::unexpected(CALL, format!("domid {domid}"), detail));
        }
        restored.map(|()| (Gfn(store), Gfn(console)))
    }

    /// Shuts a domain down with the reason suspend, without asking it. A guest whose PV drivers run does not survive that.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn shut_down_to_suspend(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_shutdown(self.as_raw(), domid.get(), SUSPEND) };
        error::minus_one("xc_domain_shutdown", format_args!("domid {domid}, suspend"), returned).map(drop)
    }

    /// Lets a suspended domain run on, where it is (libxenguest's cooperative resume): its drivers see that the suspension was
    /// cancelled. A guest without PV drivers sees nothing.
    ///
    /// # Errors
    /// `EINVAL` if a guest with PV drivers is not suspended.
    pub fn resume_suspended(&self, domid: DomId) -> Result<(), XenError> {
        const COOPERATIVE: c_int = 1;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_resume(self.as_raw(), domid.get(), COOPERATIVE) };
        error::minus_one("xc_domain_resume", format_args!("domid {domid}, cooperative"), returned).map(drop)
    }

    /// Lets a suspended domain run on, where its drivers connect everything again (libxenguest's resume that any guest can take). The
    /// store and the devices of the domain must be new.
    ///
    /// # Errors
    /// If the domain is not suspended, or its memory cannot be changed.
    pub fn resume_anew(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_resume(self.as_raw(), domid.get(), 0) };
        error::minus_one("xc_domain_resume", format_args!("domid {domid}, anew"), returned).map(drop)
    }

    /// Ends the recording of changed pages, which a live save that was killed leaves on. Nothing is done where it is off.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn stop_log_dirty(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid; the operation takes no size of a pool, so that the pointer may be null.
        let returned = unsafe {
            sys::xc_shadow_control(self.as_raw(), domid.get(), sys::XEN_DOMCTL_SHADOW_OP_OFF, ptr::null_mut(), 0)
        };
        match error::minus_one("xc_shadow_control", format_args!("domid {domid}, off"), returned) {
            Err(error) if error.errno == Some(Errno::EINVAL) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Whether a guest sees NUMA nodes, which a libxc stream does not have.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn has_vnuma(&self, domid: DomId) -> Result<bool, XenError> {
        let (mut nodes, mut ranges, mut vcpus) = (0, 0, 0);
        // SAFETY: with room for no node, range and vCPU, Xen writes their numbers alone.
        let returned = unsafe {
            sys::xc_domain_getvnuma(
                self.as_raw(),
                domid.get(),
                &raw mut nodes,
                &raw mut ranges,
                &raw mut vcpus,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        match error::minus_one("xc_domain_getvnuma", format_args!("domid {domid}"), returned) {
            Ok(_) => Ok(true),
            Err(error) if error.errno == Some(Errno::EOPNOTSUPP) => Ok(false),
            Err(error) if error.errno == Some(Errno::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
