//! Tells the service manager how far the daemon is: sd_notify(3).
//!
//! The protocol is one datagram of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names; a name that begins with `@`
//! is in the abstract namespace. Without the variable nobody wants to know.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

/// The daemon answers.
pub(crate) const READY: &str = "READY=1";
/// The daemon stops.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Sends a state to a socket.
pub(crate) fn send(socket: &OsStr, state: &str) -> Result<()> {
    let send = || {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    send().attempt(|| format!("tell the service manager at {} {state}", socket.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_state_arrives_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), READY).unwrap();
        assert_eq!(received(&listener), "READY=1");
        let name = format!("windlass-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        assert_eq!(received(&listener), "STOPPING=1");
    }

    #[test]
    fn nobody_at_the_socket_is_an_error_that_names_it() {
        let error = send(OsStr::new("/nonexistent/notify"), READY).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/notify"), "{error}");
    }
}
