//! `build`: pre, hvm and post on a domain that somebody else created.

use super::{Built, Connection, settings};
use crate::args::BuildArgs;
use crate::builder::{
    BuildJob, Context, Identity, Progress, Recorded, RunVerb, build_guest, build_post, build_pre, check_paging_pool,
    give_back_claim, measure,
};
use crate::config::{Build, Claim};
use crate::error::{AtStage, Error, Failure, Stage};
use crate::events;
use crate::memory::Kind;
use crate::report::{self, Done};
use crate::xen::DomainInfo;

pub(super) fn run(arguments: &BuildArgs, json: bool) -> anyhow::Result<Done> {
    let mut config = events::step(Stage::CheckInput, || settings::build(arguments))?;
    let connection = Connection::open(true, arguments.store.store_timeout)?;
    let progress = Progress::new();
    let context =
        Context { xen: &connection.xen, store: &connection.store, progress: &progress, cancel: &connection.cancel };
    let planned = config.guest.ask_reserved(context.xen).at(Stage::CreateDomain);
    let built = planned.and_then(|()| build(&context, &mut config)).map_err(|failure| {
        let whose = format!("domain {} is left to whoever created it", config.domid);
        let aftermath = failure.aftermath.map_or(whose.clone(), |more| format!("{whose}; {more}"));
        Failure { aftermath: Some(aftermath), ..failure }
    })?;
    drop(progress);
    report::finish(json, &built, &format!("domain {} is built\n{built}", built.domid))
}

fn build(context: &Context<'_>, config: &mut Build) -> Result<Built, Failure> {
    let domid = config.domid;
    let (domain, mut run) = context.step(Stage::CreateDomain, || {
        let domain = check(context, config)?;
        let run = Recorded::begin(RunVerb::Build, domain.uuid, Some(domid))?;
        Ok::<_, Error>((domain, run))
    })?;
    if domain.outstanding_pages.0 > 0 {
        // A domain has one claim at a time, and this one is not ours to change or to give back.
        log::info!("{} pages are claimed for domain {domid} already: that claim stays", domain.outstanding_pages.0);
        config.guest.claim = Claim::Nothing { device_model: false };
    }
    let built = build_into(context, config, &domain, &mut run);
    // The domain stays whatever happened; what is claimed for it and not used goes back.
    if let Err(failure) = give_back_claim(context, domid, &run).at(Stage::ClaimMemory) {
        // By that a later cleanup knows of the claim.
        run.leave();
        let aftermath = Some(format!("`dombuild cleanup --apply` gives back what is still claimed for domain {domid}"));
        let failure = Failure { aftermath, ..failure };
        // What went wrong first is what matters.
        if built.is_ok() {
            return Err(failure);
        }
        log::warn!("{failure}");
    }
    built
}

fn build_into(
    context: &Context<'_>,
    config: &Build,
    domain: &DomainInfo,
    run: &mut Recorded,
) -> Result<Built, Failure> {
    let (domid, guest) = (config.domid, &config.guest);
    let ports = build_pre(context, domid, guest, config.ports, run)?;
    let rings = build_guest(context, BuildJob { domid, guest, ports, beside: None })?;
    check_paging_pool(context, domid, &guest.plan)?;
    let measured_built = Some(measure(context.xen, domid).at(Stage::CheckPagingPool)?);
    let identity = Identity { uuid: domain.uuid, name: None };
    build_post(context, domid, guest, &identity, ports, rings)?;
    Ok(Built { domid, rings, ports, measured_built, measured_running: None, plan: guest.plan.clone() })
}

/// Makes sure that the domain is one that can be built into, before anything of it is changed.
fn check(context: &Context<'_>, config: &Build) -> Result<DomainInfo, Error> {
    let domid = config.domid;
    let domain = context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    let refused = |reason: String| Err(Error::BadConfig(format!("domain {domid} {reason}")));
    if domain.dying || domain.shutdown.is_some() {
        return refused("is shut down or being destroyed".to_owned());
    }
    let kind = config.guest.plan.request.kind;
    if domain.kind != kind {
        return refused(format!("was created as a {} guest, but --kind is {kind}", domain.kind));
    }
    if kind != Kind::Pv && !domain.hap {
        return refused("was not created under hardware-assisted paging".to_owned());
    }
    if domain.owned_pages.0 > 0 {
        return refused(format!("owns {} pages already; only an empty domain can be built", domain.owned_pages.0));
    }
    let created = context.xen.created_vcpus(domid)?;
    let asked = config.guest.plan.vcpus;
    if created != asked {
        return refused(format!("was created with {created} vCPUs, but --vcpus is {asked}; they must be equal"));
    }
    Ok(domain)
}
