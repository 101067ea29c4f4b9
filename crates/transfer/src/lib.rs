//! The workflows: resolve, plan, fetch, unpack, record.
//!
//! They see traits only, so the one [`pull()`] serves a program that embeds the engine, the command, and a client of a
//! daemon. Read [`mod@pull`] first: it tells the story top-down, and the other modules are its chapters.
//!
//! Not here: how bytes travel (`registry`), where they are kept (`store`), how a layer becomes files (`layer`,
//! `snapshot`).

mod arrival;
pub mod budget;
pub mod check;
pub mod convert;
mod copy;
pub mod difference;
mod documents;
mod download;
mod dropped;
pub mod export;
pub mod familiar;
mod fetch;
mod here;
pub mod import;
mod inlined;
pub mod inspect;
mod interrupted;
mod inventory;
mod missing;
mod parts;
mod passing;
pub mod plan;
pub mod present;
pub mod pull;
pub mod push;
pub mod referrers;
pub mod repair;
pub mod room;
pub mod rootfs;
mod run;
pub mod scrub;
mod stop;
pub mod unfinished;
mod unpack;
pub mod usage;
pub mod verify;
pub mod walk;

pub use budget::{Budget, Priority};
pub use convert::{Convert, Converted, convert};
pub use copy::copy;
pub use export::{Export, Exported, export};
pub use import::{Import, Imported, Naming, import};
pub use inspect::{Inspected, inspect};
pub use parts::Parts;
pub use plan::Plan;
pub use pull::{Content, Fetched, Pull, Pulled, Unpack, fetch, plan, pull};
pub use push::{Push, Pushed, push};
pub use referrers::Referrers;
pub use scrub::scrub;
pub use stop::Stop;
pub use unfinished::Unfinished;
pub use verify::Verifier;
