//! What happens to a guest that has ended (`libxl_action_on_shutdown`, libxl_types.idl, Xen 4.17).

use crate::xen::ShutdownReason;

/// What happens to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnEnd {
    /// It is destroyed
    Destroy,
    /// It is destroyed, and starts again
    Restart,
    /// It stays as it is under another name, and a new one starts
    RenameRestart,
    /// It stays as it is
    Preserve,
    /// Its memory is written to a file, and it is destroyed
    CoredumpDestroy,
    /// Its memory is written to a file, and it starts again
    CoredumpRestart,
    /// As restart: its memory is not kept
    SoftReset,
}

impl OnEnd {
    /// Its word in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
            Self::Restart => "restart",
            Self::RenameRestart => "rename-restart",
            Self::Preserve => "preserve",
            Self::CoredumpDestroy => "coredump-destroy",
            Self::CoredumpRestart => "coredump-restart",
            Self::SoftReset => "soft-reset",
        }
    }

    /// Whether the guest starts again.
    #[must_use]
    pub const fn restarts(self) -> bool {
        matches!(self, Self::Restart | Self::RenameRestart | Self::CoredumpRestart | Self::SoftReset)
    }

    /// Whether its memory is written to a file.
    #[must_use]
    pub const fn dumps(self) -> bool {
        matches!(self, Self::CoredumpDestroy | Self::CoredumpRestart)
    }
}

/// What happens to a guest, by the reason of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndActions {
    /// It has powered off.
    pub poweroff: OnEnd,
    /// It has asked for a reboot.
    pub reboot: OnEnd,
    /// It has crashed.
    pub crash: OnEnd,
    /// Its watchdog has expired.
    pub watchdog: OnEnd,
    /// It has asked for a soft reset.
    pub soft_reset: OnEnd,
}

/// xl's defaults (`parse_config_data`, xl_parse.c, Xen 4.17).
impl Default for EndActions {
    fn default() -> Self {
        Self {
            poweroff: OnEnd::Destroy,
            reboot: OnEnd::Restart,
            crash: OnEnd::Destroy,
            watchdog: OnEnd::Destroy,
            soft_reset: OnEnd::SoftReset,
        }
    }
}

impl EndActions {
    /// What happens after this end. xl leaves a guest that has suspended itself, and destroys one that ended in an unknown way
    /// (`handle_domain_death`, xl_vmcontrol.c, Xen 4.17).
    #[must_use]
    pub const fn of(&self, reason: ShutdownReason) -> OnEnd {
        match reason {
            ShutdownReason::Poweroff => self.poweroff,
            ShutdownReason::Reboot => self.reboot,
            ShutdownReason::Crash => self.crash,
            ShutdownReason::Watchdog => self.watchdog,
            ShutdownReason::SoftReset => self.soft_reset,
            ShutdownReason::Suspend => OnEnd::Preserve,
            ShutdownReason::Other(_) => OnEnd::Destroy,
        }
    }
}
