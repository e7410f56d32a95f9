//! The JSON form of a plan.

use serde::{Serialize, Serializer};

use super::Plan;
use crate::kind::Kind;
use crate::layout::E820Entry;
use crate::model::Model;
use crate::units::{Bytes, Kib, Pages};
use crate::vnuma::Vnuma;

/// The version of the JSON object. It increases when a field changes its meaning or is removed.
pub const SCHEMA: u32 = 2;

/// The object of `plan --json`: flat; the model's sizes in KiB, addresses in bytes.
#[derive(Serialize)]
struct View<'a> {
    schema: u32,
    kind: Kind,
    model: Model,
    vcpus: u32,
    static_max_kib: Kib,
    target_kib: Kib,
    video_kib: Kib,
    build_max_kib: Kib,
    build_start_kib: Kib,
    guest_kib: Kib,
    balloon_kib: Kib,
    xen_max_kib: Kib,
    shadow_kib: Kib,
    extra_internal_kib: Kib,
    extra_external_kib: Kib,
    vcpu_overhead_kib: Kib,
    shim_kib: Kib,
    rounding_kib: Kib,
    overhead_kib: Kib,
    footprint_kib: Kib,
    paging_pool_kib: Kib,
    populate_on_demand: bool,
    lowmem_end_bytes: Bytes,
    mmio_start_bytes: Bytes,
    mmio_size_bytes: Bytes,
    highmem_end_bytes: Bytes,
    e820: &'a [E820Entry],
    owned_pages_built: Pages,
    owned_pages_running: Pages,
    max_pages: Pages,
    pod_cache_pages: Pages,
    pod_entries: Pages,
    #[serde(skip_serializing_if = "Option::is_none")]
    vnuma: Option<&'a Vnuma>,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { memory, layout, .. } = self;
        View {
            schema: SCHEMA,
            kind: self.request.kind,
            model: self.request.model,
            vcpus: self.vcpus,
            static_max_kib: memory.static_max,
            target_kib: memory.target,
            video_kib: memory.video,
            build_max_kib: memory.build_max,
            build_start_kib: memory.build_start,
            guest_kib: memory.guest,
            balloon_kib: memory.balloon,
            xen_max_kib: memory.xen_max,
            shadow_kib: memory.shadow,
            extra_internal_kib: memory.extra_internal,
            extra_external_kib: memory.extra_external,
            vcpu_overhead_kib: memory.vcpu_overhead,
            shim_kib: memory.shim,
            rounding_kib: memory.rounding,
            overhead_kib: memory.overhead,
            footprint_kib: memory.footprint,
            paging_pool_kib: self.paging_pool,
            populate_on_demand: memory.populate_on_demand,
            lowmem_end_bytes: layout.lowmem_end,
            mmio_start_bytes: layout.mmio_start,
            mmio_size_bytes: layout.mmio_size,
            highmem_end_bytes: layout.highmem_end,
            e820: &layout.e820,
            owned_pages_built: self.owned_pages_built,
            owned_pages_running: self.owned_pages_running,
            max_pages: self.max_pages,
            pod_cache_pages: self.pod.map_or(Pages::ZERO, |pod| pod.cache),
            pod_entries: self.pod.map_or(Pages::ZERO, |pod| pod.entries),
            vnuma: self.vnuma.as_ref(),
        }
        .serialize(serializer)
    }
}
