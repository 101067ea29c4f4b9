//! How the process keeps memory that was given back to the allocator.
#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrapper")]

/// How many arenas glibc's allocator may have. By default it gives one to nearly each thread, up to eight a core, and each
/// keeps what its threads gave back: buffers of half a mebibyte, made by one thread and dropped by another one, then take three
/// times the room that is in use at any time.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// From how many bytes on a piece of memory is the system's at once when it is given back, and how much may lie at the end of an
/// arena until that is. By default glibc gives back two mebibytes at a time: content passes in pieces of one, each of which is
/// then taken from the system anew, and its pages cleared, one fault each.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 4 << 20;
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 16 << 20;

/// Lets all threads take memory from the same few places, and these keep some. Has to be called before there are other threads.
pub(crate) fn set_up() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, KEPT)]
    {
        // SAFETY: the call takes numbers only, and nothing else is allocating while this is the only thread.
        if unsafe { libc::mallopt(what, value) } == 0 {
            tracing::debug!(what, value, "the allocator goes on as it does by default");
        }
    }
}

/// Gives memory back to the system that was given back to the allocator: for a process that goes on and has nothing to do.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number only, and may be made by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
