//! `build`: pre, hvm and post on a domain that somebody else created.

use crate::builder::build::{BuildJob, build_guest};
use crate::builder::claim::give_back_claim;
use crate::builder::image::check_paging_pool;
use crate::builder::post::{Identity, build_post};
use crate::builder::pre::build_pre;
use crate::cli::args::BuildArgs;
use crate::cli::built::Built;
use crate::cli::connection::Connection;
use crate::cli::from_flags::{self, Build};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::guest::Claim;
use crate::context::Context;
use crate::devices::pci::plan_around_reserved;
use crate::domain::measure::measure;
use crate::error::{AtStage, Error, Failure};
use crate::memory::Kind;
use crate::observer;
use crate::runs::journal::{JournalEntry, RunVerb};
use crate::stage::Stage;
use crate::xen::DomainInfo;

pub(crate) fn run(reporter: &Reporter, arguments: &BuildArgs, json: bool) -> anyhow::Result<Done> {
    let mut config = observer::step(reporter, Stage::CheckInput, || from_flags::build(arguments))?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let context = connection.context();
    let planned = plan_around_reserved(&mut config.guest, context.xen).at(Stage::CreateDomain);
    let built = planned.and_then(|()| build(&context, &mut config)).map_err(|failure| {
        let whose = format!("domain {} is left to whoever created it", config.domid);
        let aftermath = failure.aftermath.map_or(whose.clone(), |more| format!("{whose}; {more}"));
        Failure { aftermath: Some(aftermath), ..failure }
    })?;
    reporter.clear_line();
    print::finish(json, &built, &format!("domain {} is built\n{built}", built.domid))
}

fn build(context: &Context<'_>, config: &mut Build) -> Result<Built, Failure> {
    let domid = config.domid;
    let (domain, mut run) = context.step(Stage::CreateDomain, || {
        let domain = check(context, config)?;
        let run = JournalEntry::begin(RunVerb::Build, domain.uuid, Some(domid))?;
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
    run: &mut JournalEntry,
) -> Result<Built, Failure> {
    let (domid, guest) = (config.domid, &config.guest);
    let ports = build_pre(context, domid, guest, config.ports, run)?;
    let rings = build_guest(context, BuildJob { domid, guest, ports, start_device_model: None })?;
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
