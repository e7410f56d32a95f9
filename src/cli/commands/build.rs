//! `build`: build_pre, hvm_build and build_post on a domain that another program created.

use crate::builder::given_domain::build_given_domain;
use crate::cli::args::BuildArgs;
use crate::cli::connection::Connection;
use crate::cli::from_flags;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::devices::pci::plan_around_reserved;
use crate::error::{AtStage, Failure};
use crate::observer;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &BuildArgs, json: bool) -> anyhow::Result<Done> {
    let mut config = observer::step(reporter, Stage::CheckInput, || from_flags::build(arguments))?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let context = connection.context();
    let planned = plan_around_reserved(&mut config.guest, context.xen).at(Stage::CreateDomain);
    let built = planned
        .and_then(|()| build_given_domain(&context, config.domid, &mut config.guest, config.ports))
        .map_err(|failure| {
            let whose = format!("domain {} is left to whoever created it", config.domid);
            let aftermath = failure.aftermath.map_or(whose.clone(), |more| format!("{whose}; {more}"));
            Failure { aftermath: Some(aftermath), ..failure }
        })?;
    reporter.clear_line();
    print::finish(json, &built, &format!("domain {} is built\n{built}", built.domid))
}
