//! The parts of a saved guest's configuration (libxl's JSON) that bound its state, or tell what is in the file, whether dombuild
//! can give the guest all of it or not.

use serde_json::Value;
use uuid::Uuid;

use super::libxc_records::Bounds;
use crate::error::migration::FileProblem;
use crate::memory::{Kib, Kind};
use crate::os::Untrusted;

/// The most devices that are shown.
const MOST_SHOWN: usize = 256;

/// What a configuration says of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its kind.
    pub kind: Kind,
    /// Its name, if it has one.
    pub name: Option<Untrusted>,
    /// Its UUID, if it is one.
    pub uuid: Option<Uuid>,
    /// The number of its vCPUs.
    pub vcpus: u32,
    /// The target of its balloon driver.
    pub target: Kib,
    /// The most memory that it can have.
    pub static_max: Kib,
    video: Kib,
    /// Its devices: the name of their list in the configuration, and what tells one from the others.
    pub devices: Vec<(Untrusted, Untrusted)>,
}

impl Outline {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`FileProblem::Missing`] for what bounds the state.
    pub fn read(configuration: &Value) -> Result<Self, FileProblem> {
        let (create, build) = (&configuration["c_info"], &configuration["b_info"]);
        let missing = |name: &str| FileProblem::Missing(name.to_owned());
        let kind = match create["type"].as_str() {
            Some("hvm") => Kind::Hvm,
            Some("pvh") => Kind::Pvh,
            Some("pv") => Kind::Pv,
            _ => return Err(missing("c_info.type")),
        };
        // libxl's value of a size that was not chosen is the greatest number.
        let size = |name: &str| build[name].as_u64().filter(|size| *size != u64::MAX).map(Kib);
        let static_max = size("max_memkb").ok_or_else(|| missing("b_info.max_memkb"))?;
        let vcpus = build["max_vcpus"].as_u64().and_then(|vcpus| u32::try_from(vcpus).ok());
        Ok(Self {
            kind,
            name: create["name"].as_str().map(Untrusted::from),
            uuid: create["uuid"].as_str().and_then(|uuid| Uuid::parse_str(uuid).ok()),
            vcpus: vcpus.filter(|vcpus| *vcpus > 0).unwrap_or(1),
            target: size("target_memkb").unwrap_or(static_max).min(static_max),
            static_max,
            video: size("video_memkb").unwrap_or_default(),
            devices: devices(configuration),
        })
    }

    /// What bounds its state. The last frame is that of its memory or below 4 GiB, and of QEMU's cards above that.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        const FOUR_GIB: Kib = Kib(4 << 20);
        const CARDS: Kib = Kib(1 << 20);
        let holes = if self.kind == Kind::Pv { Kib(0) } else { FOUR_GIB };
        let sizes = [self.static_max, holes, self.video, CARDS];
        let last = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(size.to_pages_floor().0));
        Bounds::new(last, self.vcpus)
    }
}

/// The entries of all lists of the configuration.
fn devices(configuration: &Value) -> Vec<(Untrusted, Untrusted)> {
    let lists = configuration.as_object().into_iter().flatten();
    let entries = lists.filter_map(|(name, list)| Some((name, list.as_array()?)));
    let all = entries.flat_map(|(name, list)| list.iter().map(move |device| (name.as_str(), device)));
    all.take(MOST_SHOWN).map(|(name, device)| (name.into(), Untrusted::from(details(device)).shortened(200))).collect()
}

/// The place, the image and the addresses of a device, as far as it has them.
fn details(device: &Value) -> String {
    let fields = ["vdev", "pdev_path", "mac", "bridge", "name", "tag", "path"];
    fields
        .iter()
        .filter_map(|field| device[field].as_str())
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
