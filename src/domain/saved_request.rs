//! The request for which a domain was built, saved with the domain so that later commands use the same memory model.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::paths::XenstorePaths;
use crate::error::Error;
use crate::error::domain::DomainError;
use crate::memory::{Bytes, Kib, Kind, Measured, Model, NodePages, Plan, Request};
use crate::xen::{DomainInfo, Store, Transaction, XenError};

/// The saved value.
#[derive(Serialize, Deserialize)]
struct Record {
    /// The domain's UUID: the value does not hold for a later domain with the same domid.
    uuid: Uuid,
    request: Request,
    /// Its pages by NUMA node of the host, as they were planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodePages>,
}

/// The node below `/local/domain/N` that has the same value once libxl has restored the domain: libxl does not keep `/libxl/N`.
pub(crate) const RESTORED_NODE: &str = "dombuild/request";

/// A domain's request and its source.
#[derive(Debug, Clone)]
pub struct RequestSource {
    /// The request.
    pub request: Request,
    /// Whether dombuild saved it when it built the domain. Otherwise it is derived from xenstore and Xen.
    pub recorded: bool,
    /// The planned pages by NUMA node of the host, if dombuild placed the domain.
    pub nodes: Vec<NodePages>,
}

/// Saves the request with the domain.
///
/// # Errors
/// An error of xenstored.
pub(crate) fn save_request(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    uuid: Uuid,
    request: &Request,
    nodes: Vec<NodePages>,
) -> Result<(), Error> {
    let record = Record { uuid, request: request.clone(), nodes };
    Ok(transaction.write(&keys.saved_request(), &serde_json::to_string(&record)?)?)
}

/// The saved value, as text.
///
/// # Errors
/// [`Error::Json`].
pub(super) fn text(uuid: Uuid, request: &Request) -> Result<String, Error> {
    Ok(serde_json::to_string(&Record { uuid, request: request.clone(), nodes: Vec::new() })?)
}

/// The request in the value of a domain's node [`XenstorePaths::saved_request`], if it is of this domain.
#[must_use]
pub fn request_of(text: &str, domain: &DomainInfo) -> Option<Request> {
    let record = serde_json::from_str::<Record>(text).ok()?;
    (record.uuid == domain.uuid).then_some(record.request)
}

/// The request in the value that libxl's configuration of a guest has under [`RESTORED_NODE`].
pub(crate) fn of_text(text: &str) -> Option<Request> {
    serde_json::from_str::<Record>(text).ok().map(|record| record.request)
}

/// The request for which a domain was built. A guest of another toolstack has no saved request: it is derived from the
/// guest's keys, by `model` or else by the model whose plan agrees best with what Xen reports.
///
/// # Errors
/// An error of xenstored; [`Error::BadConfig`] if the keys with the guest's sizes are missing.
pub fn find_request(
    store: &Store,
    domain: &DomainInfo,
    measured: &Measured,
    model: Option<Model>,
) -> Result<RequestSource, Error> {
    if let Some(Record { request, nodes, .. }) = recorded(store, domain)? {
        return Ok(RequestSource {
            request: Request { model: model.unwrap_or(request.model), ..request },
            recorded: true,
            nodes,
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
    Ok(RequestSource { request, recorded: false, nodes: Vec::new() })
}

/// The saved request of a domain. `None` if it belongs to an earlier domain. A guest cannot write to either node.
fn recorded(store: &Store, domain: &DomainInfo) -> Result<Option<Record>, XenError> {
    let keys = XenstorePaths::new(domain.domid);
    let texts = store.plain().read_all(&[keys.saved_request(), keys.of_domain(RESTORED_NODE)])?;
    let mut records = texts.iter().flatten().filter_map(|text| serde_json::from_str::<Record>(text).ok());
    Ok(records.find(|record| record.uuid == domain.uuid))
}

/// Derives the request from a domain's keys by this model.
fn put_together(store: &Store, domain: &DomainInfo, model: Model) -> Result<Request, Error> {
    let keys = XenstorePaths::new(domain.domid);
    let plain = store.plain();
    let number = |name: &str| -> Result<Option<u64>, XenError> {
        Ok(plain.read(&keys.of_domain(name))?.and_then(|text| text.trim().parse().ok()))
    };
    let needed = |name: &str| {
        number(name)?.ok_or_else(|| Error::from(DomainError::NotManaged { domid: domain.domid, key: name.to_owned() }))
    };
    let static_max = Kib(needed("memory/static-max")?);
    let video = Kib(number("memory/videoram")?.unwrap_or(0));
    let balloon_target = needed("memory/target")?.saturating_add(video.0);
    let target = Kib(match model {
        // libxl's limit is its target plus 1 MiB. memory/target differs from that, depending on the last operation.
        Model::Libxl => domain.max_pages.to_kib().0.saturating_sub(1024),
        Model::Xenops | Model::Xapi => balloon_target,
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
