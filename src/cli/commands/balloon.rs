//! `balloon`: a running guest is moved to another size.

use std::time::Instant;

use serde_json::json;

use crate::cli::args::BalloonArgs;
use crate::cli::connection::{Connection, find_domain};
use crate::cli::plan_advice;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::domain::measure::measure;
use crate::domain::paths::XenstorePaths;
use crate::domain::saved_request::find_request;
use crate::error::{AtStage, Error};
use crate::lifecycle::balloon::balloon;
use crate::memory::{Kib, Move, Present};
use crate::observer::Running;
use crate::runs::journal::check_stays;
use crate::stage::Stage;
use crate::xen::DomId;

pub(crate) fn run(reporter: &Reporter, arguments: &BalloonArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let checking = Running::begin(reporter, Stage::CheckInput);
    let domid = find_domain(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let refused = |reason: String| Err(Error::BadConfig(reason)).at(Stage::CheckInput);
    if domid == DomId::DOM0 {
        return Ok(refused("domain 0 is not a guest; `xl mem-set 0` moves it".to_owned())?);
    }
    let gone = || Error::NoSuchDomain(arguments.domain.clone());
    let domain = connection.xen.domain(domid).at(Stage::CheckInput)?.ok_or_else(gone).at(Stage::CheckInput)?;
    check_stays(domain.held()).at(Stage::CheckInput)?;
    if domain.dying || domain.shutdown.is_some() {
        return Ok(refused(format!("domain {domid} has stopped; it cannot be moved"))?);
    }
    let measured = measure(&connection.xen, domid).at(Stage::CheckInput)?;
    let origin = find_request(&connection.store, &domain, &measured, arguments.model).at(Stage::CheckInput)?;
    let text =
        connection.store.plain().read(&XenstorePaths::new(domid).of_domain("memory/target")).at(Stage::CheckInput)?;
    let Some(memory_target) = text.and_then(|text| text.trim().parse().ok()).map(Kib) else {
        return Ok(refused(format!(
            "domain {domid} has no memory/target in xenstore: no balloon driver would follow"
        ))?);
    };
    let now = Present { owned: measured.owned_pages, memory_target, on_demand: measured.pod_entries.0 > 0 };
    let there = Move::new(&origin.request, now, arguments.size, arguments.force)
        .map_err(|error| Error::BadConfig(format!("{error}: {}", plan_advice::balloon_advice(&error))))
        .at(Stage::CheckInput)?;
    checking.done();

    let context = connection.context();
    let start = Instant::now();
    let owned = balloon(&context, &domain, &there, arguments.timeout)?;
    let after = connection.xen.domain(domid).at(Stage::WaitBalloon)?.ok_or_else(gone).at(Stage::WaitBalloon)?;
    reporter.clear_line();

    let seconds = start.elapsed().as_secs_f64();
    let object = json!({
        "domid": domid,
        "model": origin.request.model,
        "size_kib": arguments.size,
        "memory_target_kib": there.memory_target,
        "owned_pages_before": domain.owned_pages,
        "owned_pages": owned,
        "max_pages_before": domain.max_pages,
        "max_pages": after.max_pages,
        "seconds": (seconds * 10.0).round() / 10.0,
    });
    let text = format!(
        "domain {domid} is at {} ({seconds:.1} s)\n\
         {:>15} {:>12} {:>12}\n  owned pages   {:>12} {owned:>12}\n  max pages     {:>12} {:>12}\n  \
         memory/target is {} KiB; model {}",
        arguments.size,
        "",
        "before",
        "now",
        domain.owned_pages.0,
        domain.max_pages.0,
        after.max_pages.0,
        there.memory_target.0,
        origin.request.model,
        owned = owned.0,
    );
    print::finish(json, &object, &text)
}
