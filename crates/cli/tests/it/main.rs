//! The `dist` command from the outside: the real binary, real directories, real mounts, real peers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod archives;
mod attached;
mod bad_input;
mod by_daemon;
mod content;
mod ctr;
mod daemon;
mod daemon_killed;
mod differences;
mod dist;
mod doctor;
mod fixture;
mod fsck;
mod full;
mod gc;
mod help;
mod images;
mod kill;
mod leases;
mod limits;
mod login;
mod namespaces;
mod no_sync;
mod owner;
mod peers;
mod power;
mod proxied;
mod pull;
mod push;
mod remote;
mod resume;
mod sharing;
mod survivor;
mod tools;
mod usage;
mod verification;
