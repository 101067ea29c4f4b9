//! What the messages of several nouns have in common: filters, masks, labels, descriptors and values of any type.

use std::collections::HashMap;

use prost::Message;
use prost_types::FieldMask as WireMask;
use windlass_core::any::Any;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Descriptor, Error, Labels, Platform, Result};
use windlass_proto::containerd::types;

use crate::MAX_MESSAGE;

/// Reads filters in containerd's language.
pub(crate) fn filters(texts: &[String]) -> Result<Vec<Filter>> {
    Filter::parse_all(texts.iter().map(String::as_str))
}

/// Writes filters.
pub(crate) fn filter_texts(filters: &[Filter]) -> Vec<String> {
    filters.iter().map(ToString::to_string).collect()
}

/// Reads a mask; none is one that means every field.
pub(crate) fn mask(mask: Option<WireMask>) -> Result<FieldMask> {
    FieldMask::parse(mask.unwrap_or_default().paths.iter().map(String::as_str))
}

/// Writes a mask.
#[expect(clippy::unnecessary_wraps, reason = "what the field of a message is")]
pub(crate) fn mask_paths(mask: &FieldMask) -> Option<WireMask> {
    Some(WireMask { paths: mask.paths().iter().map(ToString::to_string).collect() })
}

/// Reads labels.
pub(crate) fn labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

/// Writes labels.
pub(crate) fn label_map(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}

/// Reads a size or an offset in bytes.
///
/// # Errors
/// `InvalidArgument` for one below zero.
pub(crate) fn size(what: &str, size: i64) -> Result<u64> {
    u64::try_from(size).map_err(|_| Error::invalid_argument(format!("{what} {size} is below zero")))
}

/// Writes a size or an offset in bytes; one that does not fit, which no disk has, is the largest that does.
pub(crate) fn size_number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Reads a descriptor.
pub(crate) fn descriptor(wire: types::Descriptor) -> Result<Descriptor> {
    let size = size("the size of a descriptor,", wire.size)?;
    let mut descriptor = Descriptor::new(wire.media_type.as_str(), wire.digest.parse()?, size);
    descriptor.annotations = wire.annotations.into_iter().collect();
    Ok(descriptor)
}

/// Writes a descriptor: type, digest, size and annotations, which is all that the message has.
pub(crate) fn descriptor_message(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.to_string(),
        digest: descriptor.digest.to_string(),
        size: size_number(descriptor.size),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

/// Writes a platform.
pub(crate) fn platform_message(platform: Platform) -> types::Platform {
    types::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant.unwrap_or_default(),
        os_version: platform.os_version.unwrap_or_default(),
    }
}

/// Reads a platform; the message has no features of the system.
pub(crate) fn platform(wire: types::Platform) -> Platform {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Platform {
        os: wire.os,
        architecture: wire.architecture,
        variant: some(wire.variant),
        os_version: some(wire.os_version),
        os_features: Vec::new(),
    }
}

/// Reads a value of any type; it is not looked into.
pub(crate) fn any(wire: prost_types::Any) -> Any {
    Any { type_url: wire.type_url, value: wire.value }
}

/// Writes a value of any type.
pub(crate) fn any_message(any: &Any) -> prost_types::Any {
    prost_types::Any { type_url: any.type_url.clone(), value: any.value.clone() }
}

/// The records of an answer that has all of them in one message.
pub(crate) struct OneMessage<T> {
    records: Vec<T>,
    length: usize,
}

impl<T: Message> OneMessage<T> {
    pub(crate) fn new() -> Self {
        Self { records: Vec::new(), length: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `ResourceExhausted` when the message would be too large to be sent.
    pub(crate) fn push(&mut self, record: T) -> Result<()> {
        // A key and a length go before each record.
        self.length += record.encoded_len() + 8;
        if self.length > MAX_MESSAGE {
            return Err(Error::resource_exhausted(format!("the list is larger than a message of {MAX_MESSAGE} bytes"))
                .hint("ask for a part of it with a filter"));
        }
        self.records.push(record);
        Ok(())
    }

    pub(crate) fn into_records(self) -> Vec<T> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let wire = descriptor_message(&Descriptor::of("a/b", b"x"));
        assert_eq!(descriptor(wire.clone()).unwrap(), Descriptor::of("a/b", b"x"));
        for wrong in [types::Descriptor { size: -1, ..wire.clone() }, types::Descriptor { digest: "x".into(), ..wire }]
        {
            assert_eq!(descriptor(wrong).unwrap_err().kind(), Kind::InvalidArgument);
        }
        let paths = |path: &str| Some(WireMask { paths: vec![path.to_owned()] });
        assert_eq!(mask(paths("labels.")).unwrap_err().kind(), Kind::InvalidArgument);
        assert!(mask(None).unwrap().is_all());
    }

    #[test]
    fn a_list_that_does_not_fit_a_message_is_refused_before_it_takes_more_memory() {
        let mut list = OneMessage::new();
        let record = types::Descriptor { media_type: "x".repeat(1 << 20), ..types::Descriptor::default() };
        let refused = (0..17).map(|_| list.push(record.clone())).find_map(Result::err).unwrap();
        assert_eq!(refused.kind(), Kind::ResourceExhausted);
        assert!(list.into_records().len() < 17);
    }
}
