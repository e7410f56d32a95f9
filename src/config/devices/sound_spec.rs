//! The text of a sound card: the strings of one inner list of xl's `vsnd=[[...]]` with commas between them (xl.cfg.5;
//! `parse_vsnd_item`, xl_parse.c, Xen 4.17).
//!
//! Differences from xl: a number or a format that is none, and what is unknown or given twice, is an error.

use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::sound::{Pcm, SAMPLE_FORMATS, SoundCard, SoundParams, Stream, StreamDirection};
use super::text::{Word, decimal, words};

/// The words of a sound card.
pub(super) const WORDS: &str = "CARD, PCM and STREAM; backend=, short-name= and long-name= of a CARD; name= of a PCM; unique-id= \
    and type= of a STREAM; sample-rates=, sample-formats=, channels-min=, channels-max= and buffer-size= of each";

/// The longest names of a card and of a PCM device, in bytes (xen/include/public/io/sndif.h).
const LONGEST_SHORT_NAME: usize = 31;
const LONGEST_NAME: usize = 79;

/// The most channels (`channels-max` is a `uint8_t` in sndif.h).
const MOST_CHANNELS: u64 = 255;

/// The part of a card whose settings follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Card,
    Pcm,
    Stream,
}

impl Item {
    fn of(word: &str) -> Option<Self> {
        [("card", Self::Card), ("pcm", Self::Pcm), ("stream", Self::Stream)]
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, item)| item)
    }
}

impl FromStr for SoundCard {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut card, mut seen, mut backend, mut item) = (Self::default(), None, None, None);
        for (key, value) in words(spec) {
            let Some(value) = value else {
                match Item::of(key.text).ok_or_else(|| unknown(key))? {
                    Item::Card => key.once(&mut seen, "CARD", ())?,
                    Item::Pcm => card.pcms.push(Pcm::default()),
                    // As in xl, a stream without a PCM device has one of its own.
                    Item::Stream => card.last_pcm().streams.push(Stream::default()),
                }
                item = Item::of(key.text);
                continue;
            };
            match (item, key.text) {
                (Some(Item::Card), "backend") => key.once(&mut backend, "backend", value.backend_domain()?)?,
                (Some(Item::Card), "short-name") => {
                    let takes = "1 to 31 bytes";
                    let name = text(value, "short-name", LONGEST_SHORT_NAME, takes)?;
                    key.once(&mut card.short_name, "short-name", name)?;
                }
                (Some(Item::Card), "long-name") => {
                    let name = text(value, "long-name", LONGEST_NAME, "1 to 79 bytes")?;
                    key.once(&mut card.long_name, "long-name", name)?;
                }
                (Some(Item::Card), _) => set(&mut card.params, key, value)?,
                (Some(Item::Pcm), "name") => {
                    let name = text(value, "name", LONGEST_NAME, "1 to 79 bytes")?;
                    key.once(&mut card.last_pcm().name, "name", name)?;
                }
                (Some(Item::Pcm), _) => set(&mut card.last_pcm().params, key, value)?,
                (Some(Item::Stream), _) => {
                    let Some(stream) = card.last_pcm().streams.last_mut() else { return Err(unknown(key)) };
                    set_stream(stream, key, value)?;
                }
                (None, word) => {
                    let reason = "it belongs to a CARD, a PCM or a STREAM: that word comes before it";
                    return Err(key.error(SpecProblem::Unsupported { word: word.to_owned(), reason }));
                }
            }
        }
        card.backend_domain = backend.flatten();
        Ok(card)
    }
}

impl SoundCard {
    fn last_pcm(&mut self) -> &mut Pcm {
        if self.pcms.is_empty() {
            self.pcms.push(Pcm::default());
        }
        let last = self.pcms.len() - 1;
        &mut self.pcms[last]
    }
}

fn unknown(key: Word<'_>) -> DeviceSpecError {
    key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS })
}

fn set_stream(stream: &mut Stream, key: Word<'_>, value: Word<'_>) -> Result<(), DeviceSpecError> {
    match key.text {
        "unique-id" => key.once(&mut stream.unique_id, "unique-id", value.value("unique-id")?),
        "type" => {
            let direction = [StreamDirection::Playback, StreamDirection::Capture]
                .into_iter()
                .find(|direction| direction.as_str().eq_ignore_ascii_case(value.text))
                .ok_or_else(|| value.bad_value("type", "p for playback, or c for capture"))?;
            key.once(&mut stream.direction, "type", direction)
        }
        _ => set(&mut stream.params, key, value),
    }
}

/// Sets what a card, a PCM device and a stream can have.
fn set(params: &mut SoundParams, key: Word<'_>, value: Word<'_>) -> Result<(), DeviceSpecError> {
    match key.text {
        "sample-rates" => {
            let rates = value.parts(';').map(|part| {
                number(part, "sample-rates", u32::MAX.into(), "rates from 1 to 4294967295 Hz with ; between them")
            });
            list(&mut params.sample_rates, key, "sample-rates", rates)
        }
        "sample-formats" => {
            let formats = value.parts(';').map(|part| {
                let format = SAMPLE_FORMATS.into_iter().find(|format| format.eq_ignore_ascii_case(part.text));
                format.ok_or_else(|| {
                    part.bad_value("sample-formats", "formats such as s16_le, u8 or f32_le with ; between them")
                })
            });
            list(&mut params.sample_formats, key, "sample-formats", formats)
        }
        "channels-min" => {
            let channels = number(value, "channels-min", MOST_CHANNELS, "1 to 255")?;
            key.once(&mut params.channels_min, "channels-min", channels)?;
            check_channels(params, value)
        }
        "channels-max" => {
            let channels = number(value, "channels-max", MOST_CHANNELS, "1 to 255")?;
            key.once(&mut params.channels_max, "channels-max", channels)?;
            check_channels(params, value)
        }
        "buffer-size" => {
            let bytes = number(value, "buffer-size", u32::MAX.into(), "1 to 4294967295 bytes")?;
            key.once(&mut params.buffer_size, "buffer-size", bytes)
        }
        _ => Err(unknown(key)),
    }
}

fn check_channels(params: &SoundParams, value: Word<'_>) -> Result<(), DeviceSpecError> {
    match (params.channels_min, params.channels_max) {
        (Some(least), Some(most)) if least > most => {
            Err(value.bad_value("channels-max", "a number that is not below channels-min"))
        }
        _ => Ok(()),
    }
}

/// Fills a list that is empty as long as its key has not been given.
fn list<T>(
    place: &mut Vec<T>,
    key: Word<'_>,
    name: &'static str,
    values: impl Iterator<Item = Result<T, DeviceSpecError>>,
) -> Result<(), DeviceSpecError> {
    if !place.is_empty() {
        return Err(key.repeated(name));
    }
    *place = values.collect::<Result<_, _>>()?;
    Ok(())
}

fn number(value: Word<'_>, key: &'static str, most: u64, takes: &'static str) -> Result<u32, DeviceSpecError> {
    let number = decimal(value.text, 1, most).and_then(|number| number.try_into().ok());
    number.ok_or_else(|| value.bad_value(key, takes))
}

fn text(value: Word<'_>, key: &'static str, longest: usize, takes: &'static str) -> Result<String, DeviceSpecError> {
    let text = value.value(key)?;
    if text.len() > longest { Err(value.bad_value(key, takes)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::text::assert_documented;
    use super::*;

    fn card(spec: &str) -> SoundCard {
        spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))
    }

    #[test]
    fn a_card_has_devices_and_streams() {
        let found = card(
            "CARD, backend=audio, short-name=Main, long-name=The main card, sample-formats=s16_le;S8, buffer-size=4096, \
             PCM, name=dev, sample-rates=8000;44100, STREAM, unique-id=0, type=p, \
             STREAM, unique-id=1, type=C, channels-min=1, channels-max=2, pcm, stream, unique-id=2",
        );
        let stream = |id: &str, direction, params| Stream { unique_id: Some(id.to_owned()), direction, params };
        let (none, two) = (SoundParams::default(), Some(2));
        let expected = SoundCard {
            backend_domain: Some("audio".to_owned()),
            short_name: Some("Main".to_owned()),
            long_name: Some("The main card".to_owned()),
            params: SoundParams {
                sample_formats: vec!["s16_le", "s8"],
                buffer_size: Some(4096),
                ..SoundParams::default()
            },
            pcms: vec![
                Pcm {
                    name: Some("dev".to_owned()),
                    params: SoundParams { sample_rates: vec![8000, 44100], ..SoundParams::default() },
                    streams: vec![
                        stream("0", Some(StreamDirection::Playback), none.clone()),
                        stream(
                            "1",
                            Some(StreamDirection::Capture),
                            SoundParams { channels_min: Some(1), channels_max: two, ..SoundParams::default() },
                        ),
                    ],
                },
                Pcm { streams: vec![stream("2", None, none)], ..Pcm::default() },
            ],
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_card_can_be_plain() {
        assert_eq!(card(""), SoundCard::default());
        assert_eq!(card("CARD,backend=Domain-0"), SoundCard::default());
        let stream = card("STREAM,type=c");
        assert_eq!(stream.pcms.len(), 1);
        assert_eq!(stream.pcms[0].streams[0].direction, Some(StreamDirection::Capture));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("short-name=x", 0, "it belongs to a CARD, a PCM or a STREAM"),
            ("CARD,name=x", 5, "\"name\" is unknown; the words are CARD"),
            ("CARD,PCM,backend=x", 9, "\"backend\" is unknown"),
            ("STREAM,name=x", 7, "\"name\" is unknown"),
            ("CARD,CARD", 5, "CARD is given twice"),
            ("DISK,x=1", 0, "\"DISK\" is unknown"),
            ("CARD,sample-rates=8000;x", 23, "rates from 1 to 4294967295"),
            ("CARD,sample-rates=", 18, "rates from 1"),
            ("CARD,sample-rates=1,sample-rates=2", 20, "sample-rates is given twice"),
            ("PCM,sample-formats=s8;float_le", 22, "formats such as s16_le"),
            ("PCM,channels-min=0", 17, "1 to 255"),
            ("PCM,channels-min=3,channels-max=2", 32, "not below channels-min"),
            ("STREAM,buffer-size=4294967296", 19, "1 to 4294967295 bytes"),
            ("STREAM,type=x", 12, "p for playback"),
            ("STREAM,id=0", 7, "\"id\" is unknown"),
            ("CARD,short-name=12345678901234567890123456789012", 16, "1 to 31 bytes"),
        ] {
            let error = spec.parse::<SoundCard>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "((CARD|PCM|stream|name=|sample-rates=|channels-min=|unique-id=|type=)?[,;0-9a-z=\u{e4} ]{0,4}){0,8}"
        ) {
            if let Err(error) = text.parse::<SoundCard>() {
                prop_assert!(text.get(error.span).is_some());
            }
        }
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
