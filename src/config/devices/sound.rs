//! A paravirtual sound card, which a program in dom0 or another domain serves.

/// A sound card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SoundCard {
    /// The name or number of the domain that serves it; `None`: dom0.
    pub backend_domain: Option<String>,
    /// Its short name.
    pub short_name: Option<String>,
    /// Its long name.
    pub long_name: Option<String>,
    /// What its devices have where they have nothing of their own.
    pub params: SoundParams,
    /// Its PCM devices.
    pub pcms: Vec<Pcm>,
}

/// A PCM device of a sound card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pcm {
    /// Its name.
    pub name: Option<String>,
    /// What its streams have where they have nothing of their own.
    pub params: SoundParams,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// A stream of a PCM device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// How the backend names it.
    pub unique_id: Option<String>,
    /// Where it leads.
    pub direction: Option<StreamDirection>,
    /// Its own settings.
    pub params: SoundParams,
}

/// Where a stream leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDirection {
    /// From the guest to a loudspeaker.
    Playback,
    /// From a microphone to the guest.
    Capture,
}

impl StreamDirection {
    /// The word for xl and xenstore.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Playback => "p",
            Self::Capture => "c",
        }
    }
}

/// The settings that a card, a PCM device or a stream can have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SoundParams {
    /// The sample rates in Hz; empty: not set.
    pub sample_rates: Vec<u32>,
    /// The sample formats, each one of [`SAMPLE_FORMATS`]; empty: not set.
    pub sample_formats: Vec<&'static str>,
    /// The least number of channels.
    pub channels_min: Option<u32>,
    /// The most channels.
    pub channels_max: Option<u32>,
    /// The largest buffer of a stream, in bytes.
    pub buffer_size: Option<u32>,
}

/// The sample formats of libxl (`vsnd_pcm_format`, tools/libs/light/libxl_types.idl, Xen 4.17 and 4.20). Its documentation has
/// `float_le` and the like, which xl refuses.
pub const SAMPLE_FORMATS: [&str; 25] = [
    "s8",
    "u8",
    "s16_le",
    "s16_be",
    "u16_le",
    "u16_be",
    "s24_le",
    "s24_be",
    "u24_le",
    "u24_be",
    "s32_le",
    "s32_be",
    "u32_le",
    "u32_be",
    "f32_le",
    "f32_be",
    "f64_le",
    "f64_be",
    "iec958_subframe_le",
    "iec958_subframe_be",
    "mu_law",
    "a_law",
    "ima_adpcm",
    "mpeg",
    "gsm",
];
