//! Pulls over in-memory implementations: what is recorded, what is moved, and what a failure leaves behind.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod archives;
mod attached;
mod conversions;
mod dropping;
mod failures;
mod here;
mod in_parts;
mod interrupted;
mod once;
mod one_pass;
mod plans;
mod pulls;
mod pushes;
mod repair;
mod scrub;
mod site;
mod verification;
