//! Builds into a domain that another program created. This program never destroys that domain.

use super::build::{BuildJob, build_guest};
use super::built::Built;
use super::claim::give_back_claim;
use super::image::check_paging_pool;
use super::numa_placement::{check_nodes, settle};
use super::platform::resolve_cpu_lists;
use super::post::{Identity, build_post};
use super::pre::build_pre;
use crate::config::guest::{Claim, Guest};
use crate::context::Context;
use crate::domain::measure::measure;
use crate::error::domain::DomainError;
use crate::error::{AtStage, Error, Failure};
use crate::memory::Kind;
use crate::runs::journal::{JournalEntry, RunVerb};
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, EventPort};

/// Checks that a guest can be built into a domain, and returns the domain. It must exist, be neither shut down nor dying,
/// have been created as this kind, and own no memory unless `owning` is set.
///
/// # Errors
/// [`Error::NoSuchDomain`]; [`Error::Domain`] with what is wrong with the domain.
pub fn check_buildable(context: &Context<'_>, domid: DomId, kind: Kind, owning: bool) -> Result<DomainInfo, Error> {
    let domain = context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    if domain.dying || domain.shutdown.is_some() {
        return Err(DomainError::Ended(domid).into());
    }
    if domain.kind != kind {
        return Err(DomainError::WrongKind { domid, was: domain.kind, wanted: kind }.into());
    }
    if domain.owned_pages.0 > 0 && !owning {
        return Err(DomainError::NotEmpty { domid, pages: domain.owned_pages.0 }.into());
    }
    Ok(domain)
}

/// Builds a guest into an empty domain, with or without vCPUs: build_pre, hvm_build (pvh_build, pv_build) and build_post.
/// `ports` are the event channels of the store's and the console's ring, if the caller has allocated them.
///
/// # Errors
/// The step and the call that failed. The unused part of this run's claim is released.
pub fn build_given_domain(
    context: &Context<'_>,
    domid: DomId,
    guest: &mut Guest,
    ports: Option<(EventPort, EventPort)>,
) -> Result<Built, Failure> {
    let (domain, mut run) = context.step(Stage::CreateDomain, || {
        let domain = check(context, domid, guest)?;
        resolve_cpu_lists(context, &mut guest.platform)?;
        check_nodes(context, guest)?;
        let run = JournalEntry::begin(RunVerb::Build, domain.uuid, Some(domid))?;
        Ok::<_, Error>((domain, run))
    })?;
    if domain.outstanding_pages.0 > 0 {
        // A domain has at most one claim, and this one belongs to another program.
        log::info!("{} pages are claimed for domain {domid} already: that claim stays", domain.outstanding_pages.0);
        guest.claim = Claim::Nothing { device_model: false };
    }
    let built = build_into(context, &domain, guest, ports, &mut run);
    // The domain stays in any case. The unused part of the claim is released.
    if let Err(failure) = give_back_claim(context, domid, &run).at(Stage::ClaimMemory) {
        // The journal entry shows the claim to a later cleanup.
        run.leave();
        let aftermath = Some(format!("`dombuild cleanup --apply` gives back what is still claimed for domain {domid}"));
        let failure = Failure { aftermath, ..failure };
        // The first failure is the one to report.
        if built.is_ok() {
            return Err(failure);
        }
        log::warn!("{failure}");
    }
    built
}

/// Checks what this procedure alone requires, because it sets the number of vCPUs and the paging pool.
fn check(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<DomainInfo, Error> {
    let kind = guest.plan.request.kind;
    let domain = check_buildable(context, domid, kind, false)?;
    if kind != Kind::Pv && !domain.hap {
        return Err(DomainError::NotHap(domid).into());
    }
    let (created, asked) = (context.xen.created_vcpus(domid)?, guest.plan.vcpus);
    if created != asked {
        return Err(DomainError::VcpusDiffer { domid, created, asked }.into());
    }
    Ok(domain)
}

fn build_into(
    context: &Context<'_>,
    domain: &DomainInfo,
    guest: &Guest,
    ports: Option<(EventPort, EventPort)>,
    run: &mut JournalEntry,
) -> Result<Built, Failure> {
    let domid = domain.domid;
    let prepared = build_pre(context, domid, guest, ports, run)?;
    let rings = build_guest(context, BuildJob { domid, guest, prepared: &prepared, start_device_model: None })?;
    check_paging_pool(context, domid, &guest.plan)?;
    let measured_built = Some(measure(context.xen, domid).at(Stage::CheckPagingPool)?);
    let identity = Identity { uuid: domain.uuid, name: None, driver_domain: false };
    build_post(context, domid, guest, &identity, &prepared, rings)?;
    settle(context, domid, guest, &prepared.nodes)?;
    let (ports, nodes) = (prepared.ports, prepared.nodes.node_pages());
    Ok(Built { domid, rings, ports, measured_built, measured_running: None, plan: guest.plan.clone(), nodes })
}
