//! `features`: what this dombuild and this host can do.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::print::{self, Done};
use crate::payload::firmware::FirmwareKind;
use crate::payload::search::Candidates;
use crate::xen::{Interface, PhysInfo, VersionInfo, XenError};

#[derive(Debug, Serialize)]
struct Features {
    version: &'static str,
    built_for_xen: &'static str,
    xen: Option<Host>,
    /// Why there is none, where there is none.
    xen_error: Option<String>,
    files: Vec<Found>,
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Host {
    #[serde(flatten)]
    version: VersionInfo,
    #[serde(flatten)]
    host: PhysInfo,
    /// The running Xen is the release that this program was built for.
    matches: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    what: &'static str,
    path: Option<PathBuf>,
}

pub(crate) fn run(json: bool) -> anyhow::Result<Done> {
    let (xen, xen_error) = match ask_xen() {
        Ok(host) => (Some(host), None),
        Err(error) => (None, Some(print::explain_call(&error))),
    };
    let candidates = [
        Candidates::kernel(),
        Candidates::shim(),
        Candidates::firmware(FirmwareKind::SeaBios),
        Candidates::firmware(FirmwareKind::Ovmf),
        Candidates::device_model(),
    ];
    let files: Vec<Found> =
        candidates.iter().map(|candidate| Found { what: candidate.what, path: candidate.find() }).collect();
    let missing = candidates
        .iter()
        .filter(|candidate| candidate.find().is_none())
        .map(|candidate| format!("{} (Debian package {})", candidate.what, candidate.package))
        .collect();
    let features = Features {
        version: env!("CARGO_PKG_VERSION"),
        built_for_xen: env!("DOMBUILD_XEN_VERSION"),
        xen,
        xen_error,
        files,
        missing,
    };
    print::finish(json, &features, &features.to_string())
}

fn ask_xen() -> Result<Host, XenError> {
    let xen = Interface::open()?;
    let version = xen.version()?;
    let built_for = env!("DOMBUILD_XEN_VERSION");
    let matches = version.version.strip_prefix(built_for).is_some_and(|rest| !rest.starts_with(char::is_numeric));
    Ok(Host { host: xen.physinfo()?, version, matches })
}

impl fmt::Display for Features {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |can: bool| if can { "yes" } else { "no" };
        writeln!(formatter, "dombuild        {}, built for Xen {}", self.version, self.built_for_xen)?;
        match (&self.xen, &self.xen_error) {
            (Some(xen), _) => {
                let differs = if xen.matches { "" } else { "; not what dombuild was built for, most calls will fail" };
                writeln!(formatter, "running Xen     {}{differs}", xen.version.version)?;
                writeln!(formatter, "HVM, PVH guests {}", yes(xen.host.hvm && xen.host.hap))?;
                writeln!(formatter, "PV guests       {}", yes(xen.host.pv))?;
                writeln!(formatter, "PCI passthrough {}", yes(xen.host.directio))?;
                writeln!(formatter, "HAP             {}", yes(xen.host.hap))?;
                writeln!(formatter, "shadow paging   {}", yes(xen.host.shadow))?;
                writeln!(
                    formatter,
                    "free memory     {} of {} KiB, {} KiB of it claimed",
                    xen.host.free_kib.0, xen.host.total_kib.0, xen.host.claimed_kib.0
                )?;
            }
            (None, error) => writeln!(formatter, "running Xen     none: {}", error.as_deref().unwrap_or("unknown"))?,
        }
        for file in &self.files {
            let path = file.path.as_ref().map_or_else(|| "not found".to_owned(), |path| path.display().to_string());
            writeln!(formatter, "{:<15} {path}", file.what)?;
        }
        for missing in &self.missing {
            writeln!(formatter, "missing         {missing}")?;
        }
        Ok(())
    }
}
