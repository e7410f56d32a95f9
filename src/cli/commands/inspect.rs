//! `inspect`: measures a live domain of any toolstack, and compares it with the plan that fits it.

use std::fmt;
use std::io::{IsTerminal, stdout};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;

use crate::cli::args::InspectArgs;
use crate::cli::connection::{Connection, find_domain};
use crate::cli::print::{self, Done, picture};
use crate::cli::reporter::Reporter;
use crate::domain::measure::{count_special_pages, measure};
use crate::domain::node_pages::count_by_node;
use crate::domain::paths::XenstorePaths;
use crate::domain::saved_request::{RequestSource, find_request};
use crate::error::{AtStage, Error, Failure};
use crate::memory::{Difference, Kib, Kind, Measured, Model, NodeFigure, Pages, Plan, by_node, compare, touched};
use crate::observer::Running;
use crate::os::{self, Untrusted};
use crate::picture::comparison::draw_comparison;
use crate::picture::svg::comparison::svg_comparison;
use crate::stage::Stage;
use crate::xen::DomId;

/// Puts the cursor to the upper left corner and clears what follows (ECMA-48).
const HOME: &str = "\x1b[H\x1b[J";
const SLICE: Duration = Duration::from_millis(100);

pub(crate) fn run(reporter: &Reporter, arguments: &InspectArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, arguments.watch.is_some(), arguments.store.store_timeout)?;
    let running = Running::begin(reporter, Stage::Inspect);
    let domid = find_domain(&connection, &arguments.domain).at(Stage::Inspect)?;
    let Some(every) = arguments.watch else {
        let inspection = Inspection::of(&connection, domid, arguments)?;
        let svg = arguments.svg.as_deref();
        if svg.is_some() && inspection.plan.is_none() {
            let reason = inspection.no_plan.unwrap_or_default();
            return Err(Error::BadConfig(format!("there is no plan to draw next to domain {domid}: {reason}")))
                .at(Stage::Inspect)?;
        }
        let shown = picture(svg, json, || inspection.draw()).at(Stage::Inspect)?;
        running.done();
        let text = inspection.to_string();
        return if shown { Done::new(&inspection, &text) } else { print::finish(json, &inspection, &text) };
    };
    // At most so often, whatever was asked for.
    let last = watch(&connection, domid, arguments, every.max(SLICE), json)?;
    running.done();
    let text = last.as_ref().map_or_else(|| format!("domain {domid} is gone"), Inspection::to_string);
    Done::new(&last, &text)
}

/// Measures and shows the domain repeatedly, until it ends, the user stops or the reader has gone. Returns the last
/// result.
fn watch(
    connection: &Connection<'_>,
    domid: DomId,
    arguments: &InspectArgs,
    every: Duration,
    json: bool,
) -> anyhow::Result<Option<Inspection>> {
    let clear = stdout().is_terminal() && !json;
    let mut last = None;
    loop {
        let inspection = match Inspection::of(connection, domid, arguments) {
            Ok(inspection) => inspection,
            // The end of the domain is the end of the watch.
            Err(Failure { error: Error::NoSuchDomain(_), .. }) => return Ok(last),
            Err(failure) => return Err(failure.into()),
        };
        let text = if json {
            os::json(&serde_json::to_string(&inspection)?).into_owned()
        } else {
            format!("{}{inspection}", if clear { HOME } else { "" })
        };
        let wanted = print::print_more(&text)?;
        last = Some(inspection);
        if !wanted {
            return Ok(last);
        }
        let next = Instant::now() + every;
        while Instant::now() < next {
            if connection.cancel.check().is_err() {
                return Ok(last);
            }
            thread::sleep(SLICE);
        }
    }
}

/// A domain, measured.
#[derive(Debug, Serialize)]
struct Inspection {
    domid: DomId,
    name: Option<Untrusted>,
    kind: Kind,
    /// Whose plan it is held against.
    model: Option<Model>,
    /// Whether dombuild recorded at the build what the plan goes by.
    recorded: bool,
    #[serde(skip)]
    asked_for: bool,
    vcpus: u32,
    #[serde(flatten)]
    measured: Measured,
    /// Pages that were touched since all was marked to be populated on demand.
    touched_pages: Option<Pages>,
    /// The PoD target, which Xen does not report: while anything is left to populate, what the domain owns.
    pod_target_pages_derived: Option<Pages>,
    memory_target_kib: Option<Kib>,
    static_max_kib: Option<Kib>,
    video_kib: Option<Kib>,
    /// Frames of its grant table, which are Xen's own and not among its pages.
    grant_frames: u32,
    max_grant_frames: u32,
    /// Pages in the places of the special and ioreq server pages.
    special_pages: Option<Pages>,
    /// Its pages by NUMA node, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeFigure>,
    /// What there is to say against the plan.
    differences: Vec<Difference>,
    /// The plan that fits it, if one does.
    plan: Option<Plan>,
    /// Why there is no plan.
    no_plan: Option<String>,
}

impl Inspection {
    fn of(connection: &Connection<'_>, domid: DomId, arguments: &InspectArgs) -> Result<Self, Failure> {
        let gone = |error| match error {
            // It went while it was being measured.
            Error::Xen(error) if error.errno == Some(Errno::ESRCH) => Error::NoSuchDomain(domid.to_string()),
            error => error,
        };
        Self::gather(connection, domid, arguments).map_err(gone).at(Stage::Inspect)
    }

    fn shown_name(&self) -> String {
        self.name.as_ref().map_or_else(|| "(no name)".to_owned(), Untrusted::to_string)
    }

    /// Plan and domain side by side; empty where there is no plan.
    fn draw(&self) -> String {
        let title = format!("{}, domain {}", self.shown_name(), self.domid);
        self.plan.as_ref().map_or_else(String::new, |plan| {
            svg_comparison(plan, &self.measured, &self.nodes, &self.differences, &title)
        })
    }

    fn gather(connection: &Connection<'_>, domid: DomId, arguments: &InspectArgs) -> Result<Self, Error> {
        let model = arguments.model;
        let (xen, store) = (&connection.xen, connection.store.plain());
        let domain = xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
        let measured = measure(xen, domid)?;
        let keys = XenstorePaths::new(domid);
        let kib = |name: &str| -> Result<Option<Kib>, Error> {
            Ok(store.read(&keys.of_domain(name))?.and_then(|text| text.trim().parse().ok()).map(Kib))
        };
        let memory_target_kib = kib("memory/target")?;
        let (origin, plan, no_plan) = match plan_of(connection, &domain, &measured, model) {
            Ok((origin, plan)) => (Some(origin), Some(plan), None),
            Err(error @ Error::Xen(_)) => return Err(error),
            Err(error) => (None, None, Some(error.to_string())),
        };
        let recorded = origin.as_ref().is_some_and(|origin| origin.recorded);
        let (grant_frames, max_grant_frames) = xen.grant_frames(domid)?;
        let nodes = if arguments.nodes {
            let planned = origin.as_ref().map(|origin| &origin.nodes[..]).unwrap_or_default();
            by_node(planned, &count_by_node(xen, &connection.cancel, domid)?, measured.pod_cache_pages)
        } else {
            Vec::new()
        };
        Ok(Self {
            domid,
            name: store.read(&keys.of_domain("name"))?.map(Untrusted::from),
            kind: domain.kind,
            model: origin.as_ref().map(|origin| origin.request.model),
            recorded,
            asked_for: model.is_some(),
            vcpus: domain.existing_vcpus,
            touched_pages: plan.as_ref().and_then(|plan| touched(plan, &measured)),
            pod_target_pages_derived: (measured.pod_entries.0 > 0).then_some(measured.owned_pages),
            memory_target_kib,
            static_max_kib: kib("memory/static-max")?,
            video_kib: kib("memory/videoram")?,
            grant_frames,
            max_grant_frames,
            special_pages: (domain.kind != Kind::Pv).then(|| count_special_pages(xen, domid)),
            differences: plan
                .as_ref()
                .map_or_else(Vec::new, |plan| compare(plan, &measured, memory_target_kib, recorded)),
            measured,
            nodes,
            plan,
            no_plan,
        })
    }
}

fn plan_of(
    connection: &Connection<'_>,
    domain: &crate::xen::DomainInfo,
    measured: &Measured,
    model: Option<Model>,
) -> Result<(RequestSource, Plan), Error> {
    if domain.domid == DomId::DOM0 {
        return Err(Error::BadConfig("domain 0 was built by Xen itself".to_owned()));
    }
    let origin = find_request(&connection.store, domain, measured, model)?;
    let plan = Plan::new(&origin.request)?;
    Ok((origin, plan))
}

impl fmt::Display for Inspection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vcpus = if self.vcpus == 1 { "1 vCPU".to_owned() } else { format!("{} vCPUs", self.vcpus) };
        let kind = self.kind.name().to_uppercase();
        writeln!(formatter, "{}, domain {}: {kind} guest with {vcpus}", self.shown_name(), self.domid)?;
        match (&self.model, self.recorded) {
            (Some(model), _) if self.asked_for => {
                writeln!(formatter, "The plan is model {model}'s, as was asked for.\n")?
            }
            (Some(model), true) => writeln!(formatter, "The plan is the one it was built by (model {model}).\n")?,
            (Some(model), false) => writeln!(formatter, "The plan is model {model}'s, which fits it best.\n")?,
            (None, _) => {
                writeln!(formatter, "There is no plan for it: {}.\n", self.no_plan.as_deref().unwrap_or("unknown"))?;
            }
        }
        if let Some(plan) = &self.plan {
            writeln!(formatter, "{}", draw_comparison(plan, &self.measured))?;
        }
        let planned =
            |of: &dyn Fn(&Plan) -> u64| self.plan.as_ref().map_or("-".to_owned(), |plan| of(plan).to_string());
        let xen = &self.measured;
        let pod = |plan: &Plan| plan.pod.unwrap_or_default();
        writeln!(formatter, "  {:<22} {:>12} {:>12}", "", "plan", "Xen shows")?;
        for (what, plan, xen) in [
            ("owned pages", planned(&|plan| plan.owned_pages_running.0), xen.owned_pages.0),
            ("max pages", planned(&|plan| plan.max_pages.0), xen.max_pages.0),
            ("PoD cache, pages", planned(&|plan| pod(plan).cache.0), xen.pod_cache_pages.0),
            ("PoD entries", planned(&|plan| pod(plan).entries.0), xen.pod_entries.0),
            ("paging pool, KiB", planned(&|plan| plan.paging_pool.0), xen.paging_pool_kib.0),
            ("claimed pages", planned(&|_| 0), xen.claimed_pages.0),
        ] {
            let verdict = match self.touched_pages {
                Some(touched) if what.starts_with("PoD") && touched.0 > 0 => format!("  {} touched", touched.0),
                _ if plan == xen.to_string() || plan == "-" => String::new(),
                _ => "  differs".to_owned(),
            };
            writeln!(formatter, "  {what:<22} {plan:>12} {xen:>12}{verdict}")?;
        }
        for NodeFigure { node, planned, xen } in &self.nodes {
            let what = format!("pages on node {node}");
            let shown = planned.map_or("-".to_owned(), |planned| planned.0.to_string());
            let verdict = if planned.is_some_and(|planned| planned != *xen) { "  differs" } else { "" };
            writeln!(formatter, "  {what:<22} {shown:>12} {:>12}{verdict}", xen.0)?;
        }
        if let (false, Some(vnuma)) = (self.nodes.is_empty(), self.plan.as_ref().and_then(|plan| plan.vnuma.as_ref())) {
            writeln!(formatter, "  its own nodes are on the host's nodes {:?}", vnuma.pnodes)?;
        }
        let kib = |size: Option<Kib>| size.map_or("-".to_owned(), |size| size.0.to_string());
        writeln!(formatter)?;
        writeln!(
            formatter,
            "  xenstore, KiB: memory/target {}, memory/static-max {}, memory/videoram {}",
            kib(self.memory_target_kib),
            kib(self.static_max_kib),
            kib(self.video_kib)
        )?;
        if let Some(target) = self.pod_target_pages_derived {
            writeln!(
                formatter,
                "  PoD target: {} pages (derived: what it owns while anything is left to populate)",
                target.0
            )?;
        }
        if let Some(special) = self.special_pages {
            writeln!(formatter, "  special pages: {}", special.0)?;
        }
        write!(
            formatter,
            "  grant frames: {} of at most {} (Xen's own pages)",
            self.grant_frames, self.max_grant_frames
        )?;
        if !self.differences.is_empty() {
            writeln!(formatter, "\n")?;
            for difference in &self.differences {
                let what = difference.what.replace('_', " ");
                let by = i128::from(difference.xen) - i128::from(difference.plan);
                writeln!(formatter, "  {what}: {by:+}: {}", difference.cause)?;
            }
        }
        Ok(())
    }
}
