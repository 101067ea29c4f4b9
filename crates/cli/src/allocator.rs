//! How the process keeps memory that was given back to the allocator.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// How many arenas glibc's allocator may have. By default it gives one to nearly each thread, up to eight a core, and each
/// keeps what its threads gave back: buffers of half a mebibyte, made by one thread and dropped by another one, then take three
/// times the room that is in use at any time.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Lets all threads take memory from the same few places. Has to be called before there are other threads.
pub(crate) fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes numbers only, and nothing else is allocating while this is the only thread.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) } == 0 {
        tracing::debug!("memory that is given back stays with the thread that had it");
    }
}
