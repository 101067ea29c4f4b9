//! Remotes over the OCI distribution protocol, and OCI layout directories.
//!
//! [`Remote`] is the one resolver: it gives a reference such as `docker.io/library/redis:7` to a registry and one such as
//! `oci:DIRECTORY:TAG` to a directory. The way of a request, from the top:
//!
//! ```text
//! resolver, fetcher,     what to ask for, and what an answer means
//!   pusher
//!   elsewhere            which places are asked that an image names
//!   hosts                where to ask, in which order
//!   client, ask          authorised, redirects followed
//!     auth, challenge    who we say we are, to whom
//!     redirect           where a request may be sent on to
//!   exchange, retry      one request to one host, tried again when that may help
//!     line, traffic      how fast, and how much at once, for everybody who asks a host
//!   payload              what is sent with it
//!   transport, tls       connections
//! ```
//!
//! Not here: what is done with the bytes (they come unverified), where credentials files are and what the environment
//! says (a command line knows; all state is passed in [`Options`]).

mod ask;
mod auth;
mod balance;
mod body;
mod challenge;
mod client;
mod connection;
mod credentials;
mod delete;
mod dial;
mod docker_config;
mod doctor;
mod elsewhere;
mod error;
mod exchange;
mod failure;
mod fetcher;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hosts;
mod layout;
mod line;
mod link;
mod login;
mod lookup;
mod manifest;
mod options;
mod passed_over;
mod payload;
mod proxy;
mod pusher;
mod quoted;
mod redirect;
mod referrers;
mod remote;
mod resolver;
mod retry;
mod scopes;
mod senders;
mod tags;
mod tls;
mod token;
mod traffic;
mod transport;
mod validators;
mod x509;

pub use balance::Balance;
pub use credentials::{Anonymous, Credential, Credentials, ForHost, InOrder, Known, Secret};
pub use docker_config::{DockerConfig, Kept};
pub use hosts::HOSTS_DIRS;
pub use login::Login;
pub use options::{Fallback, Floor, ForeignUrls, Options, PlainHttp, Timeouts};
pub use passed_over::PassedOver;
pub use proxy::Proxies;
pub use remote::Remote;
pub use retry::Retry;
pub use tls::Certificate;
