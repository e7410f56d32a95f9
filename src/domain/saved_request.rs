//! What was asked for when a domain was built, kept with it, so that later commands go by the same model.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::paths::XenstorePaths;
use crate::error::Error;
use crate::memory::{Bytes, Kib, Kind, Measured, Model, Plan, Request};
use crate::xen::{DomainInfo, Store, Transaction, XenError};

/// The value of the domain's record.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Lest it be taken for a later domain's of the same number.
    uuid: Uuid,
    request: Request,
}

/// A domain's request, and where it is from.
#[derive(Debug, Clone)]
pub struct RequestSource {
    /// What was asked for.
    pub request: Request,
    /// dombuild recorded it when it built the domain; otherwise it was put together from what xenstore and Xen tell.
    pub recorded: bool,
}

/// Keeps the request with the domain.
///
/// # Errors
/// Where xenstored refuses.
pub(crate) fn save_request(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    uuid: Uuid,
    request: &Request,
) -> Result<(), Error> {
    let record = Record { uuid, request: request.clone() };
    let text = serde_json::to_string(&record).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(transaction.write(&keys.saved_request(), &text)?)
}

/// The request that a domain was built for. Another toolstack's guest has no record: what was asked for is put together
/// from its keys, by the model whose plan agrees with most of what Xen shows, unless `model` says which.
///
/// # Errors
/// Where xenstored refuses, or the keys that tell a guest's sizes are not there.
pub fn fitting_origin(
    store: &Store,
    domain: &DomainInfo,
    measured: &Measured,
    model: Option<Model>,
) -> Result<RequestSource, Error> {
    if let Some(request) = recorded(store, domain)? {
        return Ok(RequestSource {
            request: Request { model: model.unwrap_or(request.model), ..request },
            recorded: true,
        });
    }
    let agrees = |request: &Request| {
        Plan::new(request).map_or(0, |plan| {
            u32::from(plan.max_pages == measured.max_pages) + u32::from(plan.paging_pool == measured.paging_pool_kib)
        })
    };
    let mut request = put_together(store, domain, model.unwrap_or(Model::Libxl))?;
    if model.is_none() {
        for other in [Model::Xapi, Model::Xenops] {
            let other = put_together(store, domain, other)?;
            if agrees(&other) > agrees(&request) {
                request = other;
            }
        }
    }
    Ok(RequestSource { request, recorded: false })
}

/// The record of a domain, unless it is an earlier one's.
fn recorded(store: &Store, domain: &DomainInfo) -> Result<Option<Request>, XenError> {
    let text = store.plain().read(&XenstorePaths::new(domain.domid).saved_request())?;
    let record = text.and_then(|text| serde_json::from_str::<Record>(&text).ok());
    Ok(record.filter(|record| record.uuid == domain.uuid).map(|record| record.request))
}

/// What must have been asked for, by a domain's keys and this model.
fn put_together(store: &Store, domain: &DomainInfo, model: Model) -> Result<Request, Error> {
    let keys = XenstorePaths::new(domain.domid);
    let plain = store.plain();
    let number = |name: &str| -> Result<Option<u64>, XenError> {
        Ok(plain.read(&keys.of_domain(name))?.and_then(|text| text.trim().parse().ok()))
    };
    let needed = |name: &str| {
        number(name)?.ok_or_else(|| {
            Error::BadConfig(format!(
                "domain {} has no {name} in xenstore: it is not a guest whose memory a toolstack manages",
                domain.domid
            ))
        })
    };
    let static_max = Kib(needed("memory/static-max")?);
    let video = Kib(number("memory/videoram")?.unwrap_or(0));
    let told = needed("memory/target")?.saturating_add(video.0);
    let target = Kib(match model {
        // libxl's limit is its target and 1 MiB; memory/target differs from that in ways that depend on what came last.
        Model::Libxl => domain.max_pages.to_kib().0.saturating_sub(1024),
        Model::Xenops | Model::Xapi => told,
    }
    .min(static_max.0)
    .max(1));
    let mmio_hole = number("platform/mmio_hole_size")?.map(Bytes);
    let device_model = domain.kind == Kind::Hvm && plain.read(&keys.device_model_pid())?.is_some();
    Ok(Request {
        kind: domain.kind,
        model,
        static_max: Some(static_max),
        video: Some(video),
        vcpus: domain.existing_vcpus,
        mmio_hole,
        device_model,
        ..Request::new(target)
    })
}
