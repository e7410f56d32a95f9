//! dom0's own memory: how much it can spare, and how it shrinks for a guest (autoballoon).

use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::{Dom0Memory, Error};
use crate::memory::balloon::floor;
use crate::memory::{Kib, Pages};
use crate::os::meminfo::MachineMemory;
use crate::xen::{DomId, Transaction, XenError};

/// The target of dom0's balloon driver, in KiB.
const TARGET: &str = "/local/domain/0/memory/target";
/// The most that dom0 may have, in KiB. libxl expects this key wherever there is a target.
const STATIC_MAX: &str = "/local/domain/0/memory/static-max";
const MIB: u64 = 1024;

/// How much dom0 owns and how much of it is spare. The spare part is above `least` (by default, above what a guest with as
/// much memory needs to live) and unused by dom0's programs. `None` if that is unknown: error messages use it too, and must
/// not fail because of it.
#[must_use]
pub fn dom0_memory(context: &Context<'_>, least: Option<Kib>) -> Option<Dom0Memory> {
    let owned = context.xen.domain(DomId::DOM0).ok()??.owned_pages.to_kib();
    let machine = MachineMemory::now().ok()?;
    let most = context.store.plain().read(STATIC_MAX).ok().flatten().and_then(|text| text.trim().parse().ok());
    let least = least.unwrap_or_else(|| floor(most.map_or(owned, Kib), Kib(0)));
    let unused = Kib(machine.available.0.saturating_sub(machine.reserve().0));
    Some(Dom0Memory { owned, spare: Kib(owned.0.saturating_sub(least.0)).min(unused) })
}

/// Whether dom0 may shrink for this guest.
///
/// # Errors
/// Xen does not report its command line.
pub fn may_shrink_dom0(context: &Context<'_>, guest: &Guest) -> Result<bool, XenError> {
    Ok(guest.dom0_share.autoballoon.is_on(&context.xen.version()?.command_line))
}

/// The changes to dom0's target while a guest waits for memory.
#[derive(Debug)]
pub(crate) struct ShrinkingDom0 {
    least: Option<Kib>,
    /// The target of dom0's balloon driver before this run. The next field is the target that this run has written.
    before: Kib,
    new_target: Option<Kib>,
    /// How many KiB dom0 owned above its target before this run; negative if below.
    surplus: i128,
}

impl ShrinkingDom0 {
    /// Reads dom0's present size and target. `None` if dom0 must keep its memory.
    ///
    /// # Errors
    /// An error of Xen or xenstored.
    pub(crate) fn new(context: &Context<'_>, guest: &Guest) -> Result<Option<Self>, Error> {
        if !may_shrink_dom0(context, guest)? {
            return Ok(None);
        }
        let Some(dom0) = context.xen.domain(DomId::DOM0)? else { return Ok(None) };
        let owned = dom0.owned_pages.to_kib();
        let before = read_target(&context.store.plain())?.unwrap_or(owned);
        let surplus = i128::from(owned.0) - i128::from(before.0);
        Ok(Some(Self { least: guest.dom0_share.least, before, new_target: None, surplus }))
    }

    /// Whether this run has lowered dom0's target.
    pub(crate) fn is_shrinking(&self) -> bool {
        self.new_target.is_some()
    }

    /// Lowers dom0's target by `missing`, if dom0 can spare all of that. Returns whether there is a change to wait for.
    ///
    /// # Errors
    /// An error of Xen or xenstored.
    pub(crate) fn shrink(&mut self, context: &Context<'_>, missing: Kib) -> Result<bool, Error> {
        let (Some(memory), Some(dom0)) = (dom0_memory(context, self.least), context.xen.domain(DomId::DOM0)?) else {
            return Ok(false);
        };
        let missing = Kib(missing.0.next_multiple_of(MIB));
        if missing > memory.spare {
            return Ok(false);
        }
        let target = i128::from(memory.owned.0) - i128::from(missing.0) - self.surplus;
        let Ok(target) = u64::try_from(target).map(Kib) else { return Ok(false) };
        let lowered = context.store.transaction(|transaction| {
            match read_target(transaction)? {
                // The target is as low already, and dom0 does not follow it.
                Some(now) if now <= target => return Ok(false),
                Some(_) => {}
                None => {
                    let most = if dom0.max_pages < Pages(u32::MAX.into()) {
                        dom0.max_pages.to_kib()
                    } else {
                        context.xen.physinfo()?.total_kib
                    };
                    transaction.write(STATIC_MAX, &most.0.to_string())?;
                }
            }
            transaction.write(TARGET, &target.0.to_string())?;
            Ok::<_, XenError>(true)
        })?;
        if lowered {
            self.new_target = Some(target);
            let text =
                format!("dom0 is made smaller for this guest: from {} to {} MiB", self.before.0 / MIB, target.0 / MIB);
            log::info!("{text}");
            context.observer.note(&text);
        }
        Ok(lowered)
    }

    /// The guest has its memory: reports to the user how much dom0 shrank.
    pub(crate) fn tell(&self) {
        if let Some(new_target) = self.new_target {
            log::warn!(
                "dom0 was made smaller for this guest, from {} to {} MiB (--autoballoon); `xl mem-set 0 {}m` gives it back \
                 what it had once there is room",
                self.before.0 / MIB,
                new_target.0 / MIB,
                self.before.0 / MIB
            );
        }
    }

    /// The guest does not get its memory: restores dom0's target, unless another program has changed it since.
    pub(crate) fn restore(&self, context: &Context<'_>) {
        let Some(new_target) = self.new_target else { return };
        let restored = context.store.transaction(|transaction| {
            let created_by_dombuild = read_target(transaction)? == Some(new_target);
            if created_by_dombuild { transaction.write(TARGET, &self.before.0.to_string()) } else { Ok(()) }
        });
        if let Err(error) = restored {
            log::warn!("dom0 stays at {} MiB, it had {}: {error}", new_target.0 / MIB, self.before.0 / MIB);
        }
    }
}

fn read_target(transaction: &Transaction<'_>) -> Result<Option<Kib>, XenError> {
    Ok(transaction.read(TARGET)?.and_then(|text| text.trim().parse().ok()).map(Kib))
}
