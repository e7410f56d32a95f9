//! Resizes (balloons) a running guest.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::builder::host_memory::free_memory;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::domain::DomainError;
use crate::error::{AtStage, Error, Failure, Wait};
use crate::memory::{Kib, Kind, Move, Pages};
use crate::observer::{Progress, Unit};
use crate::runs::build_lock;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, PodPages};

const POLL: Duration = Duration::from_millis(200);

/// Resizes a guest as `there` says, and waits at most `wait` for it. Returns the pages that it owns then.
///
/// A higher memory limit and PoD target are set before the balloon target. A lower limit is set after the guest has reached its
/// size, unless another program has changed the balloon target since.
///
/// # Errors
/// [`Error::NotEnoughMemory`] if the host has less than the guest would take, outside the reserves of other runs;
/// [`Error::TimedOut`] if the guest does not reach its size in time, or another run does not release the build lock; an error
/// of Xen or xenstored.
pub fn balloon(context: &Context<'_>, domain: &DomainInfo, there: &Move, wait: Duration) -> Result<Pages, Failure> {
    let domid = domain.domid;
    let limit = there.max_memory.to_pages_floor();
    let set_limit = || context.step(Stage::SetMaxMemory, || context.xen.set_max_memory(domid, there.max_memory));
    if there.up {
        context.step(Stage::WaitFreeMemory, || {
            // A build holds the lock from its check of free memory until its reserve is visible.
            let _locks = build_lock::take(context, false, wait).map_err(|error| match error {
                Error::TimedOut { what, after, .. } => Error::TimedOut { what, after, wait: Wait::ResizeLock },
                other => other,
            })?;
            let free = free_memory(context)?;
            let required = Pages(there.moved.0.saturating_sub(domain.owned_pages.0)).to_kib();
            if free < required {
                Err(crate::builder::shortage::shortage(context, None, required, free))
            } else {
                Ok(())
            }
        })?;
    }
    if limit > domain.max_pages {
        set_limit()?;
    }
    if let Some(target) = there.pod_target {
        context.step(Stage::PodTarget, || context.xen.set_pod_target(domid, target))?;
    }
    let key = XenstorePaths::new(domid).of_domain("memory/target");
    let target_text = there.memory_target.0.to_string();
    context.step(Stage::BalloonTarget, || {
        context.store.transaction(|transaction| {
            // A write would create a missing node, which nothing would remove if the domain is gone.
            transaction.read(&key)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
            Ok::<_, Error>(transaction.write(&key, &target_text)?)
        })
    })?;
    // Its failure is reported when the guest has arrived: the target is set, and the guest follows it.
    let recorded = context.step(Stage::BalloonTarget, || {
        userdata::update(context, domain.held(), |configuration| set_target(configuration, there.memory_target))
    });
    let owned = context.step(Stage::WaitBalloon, || wait_arrival(context, domain, there, wait))?;
    if limit < domain.max_pages {
        let now = context.store.plain().read(&key).at(Stage::SetMaxMemory)?;
        if now.as_deref() == Some(target_text.as_str()) {
            set_limit()?;
        } else {
            log::warn!("another program has resized domain {domid} since; its limit is left as it is");
        }
    }
    recorded?;
    Ok(owned)
}

/// Sets the target in libxl's configuration of a guest, from the target of its balloon driver. libxl counts the video RAM, and
/// for an HVM guest whose target is below its static max the 1 MiB by which it had lowered the driver's target
/// (`libxl__get_targetmem_fudge`, Xen 4.17).
pub(crate) fn set_target(configuration: &mut Value, memory_target: Kib) {
    const LOWERED_BY: u64 = 1024;
    let Some(info) = configuration.get_mut("b_info").and_then(Value::as_object_mut) else { return };
    let size = |name: &str| info.get(name).and_then(Value::as_u64);
    let lowered = info.contains_key("type.hvm") && size("max_memkb") > size("target_memkb");
    let lowered_by = if lowered { LOWERED_BY } else { 0 };
    let target = memory_target.0.saturating_add(size("video_memkb").unwrap_or(0)).saturating_add(lowered_by);
    info.insert("target_memkb".to_owned(), target.into());
}

fn wait_arrival(context: &Context<'_>, domain: &DomainInfo, there: &Move, wait: Duration) -> Result<Pages, Error> {
    let start = Instant::now();
    loop {
        let now = present(context, domain.domid)?;
        let pod = if now.kind == Kind::Pv { PodPages::default() } else { context.xen.pod_pages(now.domid)? };
        if there.has_arrived(now.owned_pages, pod.cache, pod.entries) {
            return Ok(now.owned_pages);
        }
        if start.elapsed() >= wait {
            return Err(too_slow(domain, &now, pod, there, wait));
        }
        let text = format!(
            "the guest owns {} MiB, on its way from {} to {}",
            mib(now.owned_pages),
            mib(domain.owned_pages),
            mib(there.goal)
        );
        let (done, total) = way(domain.owned_pages, now.owned_pages, there.goal);
        context.observer.progress(&Progress { what: "resizing", done, total, unit: Unit::Pages, text: &text });
        thread::sleep(POLL);
        context.cancel.check()?;
    }
}

fn present(context: &Context<'_>, domid: DomId) -> Result<DomainInfo, Error> {
    let gone = || Error::NoSuchDomain(domid.to_string());
    let now = context.xen.domain(domid)?.filter(|now| !now.dying).ok_or_else(gone)?;
    match now.shutdown {
        Some(reason) => Err(DomainError::Stopped { domid, reason }.into()),
        None => Ok(now),
    }
}

/// The pages that the guest has released or taken so far, and in all. 0 so far if it went the other way.
fn way(from: Pages, now: Pages, goal: Pages) -> (u64, u64) {
    let total = from.0.abs_diff(goal.0);
    let done = if goal < from { from.0.saturating_sub(now.0) } else { now.0.saturating_sub(from.0) };
    (done.min(total), total)
}

/// The error of a guest that is too slow: how far it came, and the likely cause.
fn too_slow(was: &DomainInfo, now: &DomainInfo, pod: PodPages, there: &Move, after: Duration) -> Error {
    let owed = Pages(pod.entries.0.saturating_sub(pod.cache.0));
    let owed = if owed.0 > 0 { format!(" and has {} MiB yet to give back", mib(owed)) } else { String::new() };
    Error::TimedOut {
        what: format!(
            "domain {} has not arrived at {} MiB (it owned {} MiB, owns {} MiB now{owed})",
            now.domid,
            mib(there.goal),
            mib(was.owned_pages),
            mib(now.owned_pages)
        ),
        after,
        wait: Wait::Resize { paused: now.paused },
    }
}

/// MiB, rounded to the nearest, for messages.
fn mib(pages: Pages) -> u64 {
    (pages.0 + 128) / 256
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn libxls_configuration_gets_the_target_and_keeps_the_rest() {
        let target = |mut configuration: Value, target| {
            set_target(&mut configuration, Kib(target));
            configuration
        };
        let pvh = |target| json!({"c_info": {"new": [1]}, "b_info": {"target_memkb": target, "max_memkb": 9000, "type.pvh": {}}});
        assert_eq!(target(pvh(8000), 7000), pvh(7000));
        let hvm = |max, target| json!({"b_info": {"target_memkb": target, "max_memkb": max, "video_memkb": 500, "type.hvm": {}}});
        assert_eq!(target(hvm(9000, 9000), 7000), hvm(9000, 7500));
        assert_eq!(target(hvm(9000, 8000), 6000), hvm(9000, 7524));
        for odd in [json!(null), json!([1]), json!({"b_info": 7})] {
            assert_eq!(target(odd.clone(), 1), odd);
        }
    }

    #[test]
    fn the_way_is_counted_in_either_direction() {
        let way = |from, now, goal| way(Pages(from), Pages(now), Pages(goal));
        assert_eq!(way(1000, 900, 600), (100, 400));
        assert_eq!(way(600, 900, 1000), (300, 400));
        assert_eq!(way(600, 500, 1000), (0, 400));
        assert_eq!(way(1000, 1100, 600), (0, 400));
        assert_eq!(way(600, 1010, 1000), (400, 400));
    }
}
