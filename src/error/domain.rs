//! What is wrong with a domain.

use uuid::Uuid;

use crate::memory::Kind;
use crate::xen::{DomId, ShutdownReason};

/// What is wrong with a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// The domain is shut down or dying.
    #[error("domain {0} is shut down or being destroyed")]
    Ended(DomId),
    /// The domain has shut down, and so cannot be resized.
    #[error("domain {domid} has stopped ({reason}); it cannot be resized")]
    Stopped {
        /// The domain.
        domid: DomId,
        /// Why it shut down.
        reason: ShutdownReason,
    },
    /// Another run saves or migrates the domain.
    #[error("another run of dombuild saves or migrates domain {0}: it cannot be changed meanwhile")]
    Leaves(DomId),
    /// The domain was created as another kind.
    #[error("domain {domid} was created as a {was} guest, not as a {wanted} one")]
    WrongKind {
        /// The domain.
        domid: DomId,
        /// Its kind.
        was: Kind,
        /// The kind of the guest.
        wanted: Kind,
    },
    /// The domain has shadow paging.
    #[error("domain {0} was not created under hardware-assisted paging")]
    NotHap(DomId),
    /// The domain owns memory already.
    #[error("domain {domid} owns {pages} pages already; only an empty domain can be built")]
    NotEmpty {
        /// The domain.
        domid: DomId,
        /// The pages that it owns.
        pages: u64,
    },
    /// The domain was created for another number of vCPUs.
    #[error("domain {domid} was created with {created} vCPUs, but the guest has {asked}; they must be equal")]
    VcpusDiffer {
        /// The domain.
        domid: DomId,
        /// Its vCPUs.
        created: u32,
        /// The guest's vCPUs.
        asked: u32,
    },
    /// The domain has no vCPUs yet.
    #[error("domain {0} has no vCPUs yet: call xc_domain_max_vcpus first")]
    NoVcpus(DomId),
    /// Another domain has the UUID.
    #[error("the UUID {uuid} belongs to domain {domid}")]
    UuidTaken {
        /// The UUID.
        uuid: Uuid,
        /// The domain that has it.
        domid: DomId,
    },
    /// A key that every toolstack writes is missing.
    #[error("domain {domid} has no {key} in xenstore: it is not a guest whose memory a toolstack manages")]
    NotManaged {
        /// The domain.
        domid: DomId,
        /// The key, below the domain's directory.
        key: String,
    },
}
