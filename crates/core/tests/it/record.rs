//! Records: identifiers, field masks, and what is written of them.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use windlass_core::field::{FieldMask, FieldPath};
use windlass_core::image::{Image, Name};
use windlass_core::{Descriptor, Labels, Namespace, gc, identifier};

proptest! {
    #[test]
    fn any_text_is_an_identifier_or_refused(text in any::<String>()) {
        let valid = identifier::validate("thing", &text).is_ok();
        prop_assert_eq!(text.parse::<Namespace>().is_ok(), valid);
        if valid {
            prop_assert!(text.is_ascii() && !text.contains("..") && text.len() <= identifier::MAX_LEN);
        }
    }

    #[test]
    fn words_joined_by_single_separators_are_identifiers(text in "[a-zA-Z0-9]{1,9}([._-][a-zA-Z0-9]{1,9}){0,6}") {
        prop_assert!(identifier::validate("thing", &text).is_ok());
    }

    #[test]
    fn a_field_path_is_written_as_it_was(text in any::<String>()) {
        if let Ok(path) = text.parse::<FieldPath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else(
        before in proptest::collection::btree_map("[a-c](\\.[a-c])?", "[0-9]", 0..5),
        change in proptest::collection::btree_map("[a-c](\\.[a-c])?", "[0-9]", 0..5),
        named in "[a-c](\\.[a-c])?",
    ) {
        let before: Labels = before.into_iter().collect();
        let change: Labels = change.into_iter().collect();
        let mut labels = before.clone();
        let mask = FieldMask::parse([format!("labels.{named}").as_str()]).unwrap();
        prop_assert!(mask.apply_to_labels(&mut labels, &change).is_empty());
        prop_assert_eq!(labels.get(&named), change.get(&named));
        for (key, value) in before.iter().filter(|(key, _)| *key != named) {
            prop_assert_eq!(labels.get(key), Some(value));
        }
        let mut all = before;
        prop_assert!(FieldMask::all().apply_to_labels(&mut all, &change).is_empty());
        prop_assert_eq!(all, change);
    }

    #[test]
    fn any_labels_have_references_or_none(labels in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..5)) {
        let labels: Labels = labels.into_iter().collect();
        let _ = gc::Edges::of(&labels);
        let _ = labels.validate();
    }

    #[test]
    fn a_record_is_read_as_it_was_written(name in "[^\\p{Cc}]{1,40}", seconds in 0..253_402_300_800_u64, nanos in 0..1_000_000_000_u32) {
        let mut image = Image::new(name.parse::<Name>().unwrap(), Descriptor::of("x/y", b"content"));
        image.created_at = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        let json = serde_json::to_string(&image).unwrap();
        prop_assert_eq!(serde_json::from_str::<Image>(&json).unwrap(), image);
    }

    #[test]
    fn a_time_that_has_no_text_is_an_error_and_no_panic(seconds in 253_402_300_800..1_000_000_000_000_u64) {
        let mut image = Image::new("name".parse::<Name>().unwrap(), Descriptor::of("x/y", b"content"));
        for time in [SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), SystemTime::UNIX_EPOCH - Duration::from_secs(1)] {
            image.created_at = time;
            prop_assert!(serde_json::to_string(&image).is_err());
        }
    }
}
