//! What a run of dombuild's in which a call has failed must have come to.

use std::io;

use dombuild::memory::{Gfn, Pages};
use dombuild::xen::{DomId, Interface};
use nix::errno::Errno;
use serde_json::{Value, json};

use super::super::support::{Host, Ran, dombuild, domid, number};
use super::shim::{Call, Traced};

/// How many calls one of libxenctrl's makes below itself before it comes to the ioctl, itself counted.
const DEEPEST: usize = 5;

/// Checks the error of a run in which the last of these calls failed.
pub(super) fn check_error(ran: &Ran, calls: &[Call], errno: Errno) -> Result<Value, String> {
    let call = calls.last().ok_or("no call was made")?;
    let error = serde_json::from_str::<Value>(&ran.stdout).map_err(|error| error.to_string())?["error"].clone();
    let message = error["message"].as_str().unwrap_or_default();
    if DEVICE_REQUESTS.iter().any(|prefix| call.inner.starts_with(prefix)) {
        return check_device_error(ran, &error, errno).map(|()| error);
    }
    let named = error["call"].as_str().unwrap_or_default();
    // A result that libxenguest ignores is found missing later: the error names the call, not the cause below it.
    let mut below = calls.iter().rev().take(DEEPEST).take_while(|above| above.outer == call.outer);
    let missed = message.contains("libxenguest took it for done") && below.any(|above| above.inner == named);
    let is_told = [&call.outer, &call.inner].contains(&&named.to_owned()) || missed;
    if !is_told || !message.contains(&format!("{named}(")) {
        return Err(format!("{} is not named", call.outer));
    }
    // libxc may have another errno for what fails below it.
    if call.inner == call.outer && error["errno"] != format!("{errno:?}") {
        return Err(format!("{errno:?} is not told"));
    }
    let (exit, code) = match (named, error["errno"].as_str()) {
        (call, _) if call.starts_with("xs_") => (6, "xenstore"),
        ("xc_interface_open", _) => (5, "no-xen"),
        ("xc_dom_kernel_mem" | "xc_dom_parse_image", _) => (3, "bad-kernel"),
        (_, Some("ENOMEM")) => (4, "not-enough-memory"),
        _ => (5, "xen-refused"),
    };
    if ran.status != Some(exit) || error["code"] != code {
        return Err(format!("it should be {exit}, {code}"));
    }
    if ran.stderr.contains(message) { Ok(error) } else { Err("stderr has not the message".to_owned()) }
}

/// How the requests begin by which devices of dom0's are made.
const DEVICE_REQUESTS: [&str; 3] = ["LOOP_", "SIOC", "TUN"];

/// The error of such a request names the device, what dombuild tried, and the errno.
fn check_device_error(ran: &Ran, error: &Value, errno: Errno) -> Result<(), String> {
    let message = error["message"].as_str().unwrap_or_default();
    if (ran.status, &error["code"], &error["stage"]) != (Some(1), &json!("device-failed"), &json!("devices")) {
        return Err("it should be 1, device-failed, devices".to_owned());
    }
    let device = ["vbd ", "vif "].iter().any(|class| message.contains(&format!("device {class}")));
    if !device || !message.contains(": cannot ") || !message.contains(&io::Error::from(errno).to_string()) {
        return Err("the message lacks the device, the action or the errno".to_owned());
    }
    if ran.stderr.contains(message) { Ok(()) } else { Err("stderr has not the message".to_owned()) }
}

/// A guest that is built although a call has failed must be complete: it has all of its memory, no claim remains, and
/// until it runs, its rings are unused.
pub(super) fn check_whole(xen: &Interface, ran: &Ran) -> Result<(), String> {
    let built = ran.json();
    let when = if built.get("measured_running").is_some() { "running" } else { "built" };
    let measured = &built[format!("measured_{when}")];
    let (owned, planned) = (number(measured, "owned_pages"), number(&built["plan"], &format!("owned_pages_{when}")));
    if owned != planned {
        return Err(format!("{owned} pages of {planned}"));
    }
    let claimed = number(measured, "claimed_pages");
    if claimed != 0 {
        return Err(format!("{claimed} pages are still claimed"));
    }
    if built["paused"] == false {
        // It has used its rings by now.
        return Ok(());
    }
    // Requests, answers and indices (xen/include/public/io/xs_wire.h and console.h); behind them is what xenstored says.
    for (ring, length) in [("store_gfn", 2 * 1024 + 16), ("console_gfn", 3 * 1024 + 16)] {
        let page = xen.map(domid(&built), Gfn(number(&built, ring)), Pages(1)).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; length];
        page.read(0, &mut bytes);
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(format!("the ring at {ring} is not empty"));
        }
    }
    Ok(())
}

/// After a failed build, the domain still exists for its owner: nothing else of the host has changed, except free
/// memory, by the pages that the domain owns. A run that could not release its claim leaves a record for a later
/// cleanup.
pub(super) fn check_left_alone(
    xen: &Interface,
    host: &Host,
    domid: DomId,
    run: &Traced,
    point: usize,
) -> Result<(), String> {
    let there = xen.domain(domid).map_err(|error| error.to_string())?;
    let info = there.filter(|info| !info.dying).ok_or("the domain is gone")?;
    let uuid = info.uuid;
    // A PV guest's is claimed again and again; to give it back is the last.
    let claims = |call: &Call| call.outer == "xc_domain_claim_pages";
    let later = run.calls.get(point + 1..).unwrap_or_default();
    if run.calls.get(point).is_some_and(claims) && !later.iter().any(|call| claims(call) && call.inner == call.outer) {
        let record = format!("new file: /run/dombuild/{uuid}.");
        if !host.differences(&Host::now()).iter().any(|difference| difference.starts_with(&record)) {
            return Err("the run is not recorded any more".to_owned());
        }
        dombuild(&["cleanup", "--apply"]).success();
    }
    let its_own = [
        format!("new domain: {domid}"),
        format!("new key: /local/domain/{domid}"),
        format!("new key: /local/domain/0/backend/console/{domid}"),
        format!("new key: /libxl/{domid}"),
        format!("new key: /vm/{uuid}"),
        "free memory:".to_owned(),
    ];
    let others: Vec<String> = host
        .differences(&Host::now())
        .into_iter()
        .filter(|difference| !its_own.iter().any(|own| difference.starts_with(own.as_str())))
        .collect();
    if others.is_empty() { Ok(()) } else { Err(others.join("\n")) }
}

/// Checks an error that reports a domain left behind, and follows its advice.
pub(super) fn check_left_behind(ran: &Ran, calls: &[&str]) -> Result<bool, String> {
    let error = ran.json()["error"].clone();
    let message = error["message"].as_str().unwrap_or_default();
    if error["code"] != "left-behind" {
        return Err("it should be left-behind".to_owned());
    }
    if let Some(call) = calls.iter().find(|call| !message.contains(**call)) {
        return Err(format!("{call} is not named"));
    }
    let domid = number(&error, "domid").to_string();
    if !message.contains(&format!("dombuild destroy --force {domid}")) {
        return Err("what to do is not told".to_owned());
    }
    let removed = dombuild(&["destroy", "--force", &domid]);
    if removed.status == Some(0) { Ok(true) } else { Err(format!("it cannot be removed either: {removed:?}")) }
}
