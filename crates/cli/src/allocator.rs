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
    {
        // A new thread gets the arena after that of the one before. One that cannot be started leaves memory where it is.
        for _ in 0..ARENAS {
            let emptied = std::thread::Builder::new().name("allocator".to_owned()).spawn(give_back_the_end);
            drop(emptied.map(std::thread::JoinHandle::join));
        }
        // SAFETY: the call takes a number only, and may be made by any thread at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Gives back what is free at the end of the arena of this thread, which `malloc_trim` does with the first arena only. All of it
/// goes when there is more than may be kept, so as much is taken, without being touched, and dropped.
#[cfg(target_env = "gnu")]
fn give_back_the_end() {
    // The largest that come from an arena; there may be free room for some elsewhere in it.
    let piece = usize::try_from(MAPPED - (1 << 12)).unwrap_or_default();
    let pieces = (0..2 * KEPT / MAPPED).map(|_| Vec::<u8>::with_capacity(piece));
    drop(std::hint::black_box(pieces.collect::<Vec<_>>()));
}

#[cfg(target_env = "gnu")]
#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Barrier;

    use super::*;

    const MIB: usize = 1 << 20;
    /// Set in the process that has this test alone.
    const ALONE: &str = "WINDLASS_TEST_ALONE";

    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Other tests are threads of this process, and have arenas from before the allocator was set up.
    #[test]
    fn what_is_free_in_any_arena_goes_back_to_the_system() {
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "allocator::tests::what_is_free_in_any_arena_goes_back_to_the_system"]);
            let output = alone.arg("--test-threads=1").env(ALONE, "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        set_up();
        let before = resident();
        let all_have_some = Barrier::new(usize::try_from(ARENAS).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..ARENAS {
                scope.spawn(|| {
                    let used: Vec<_> = (0..12 * 16).map(|_| vec![1_u8; MIB / 16]).collect();
                    all_have_some.wait();
                    drop(used);
                });
            }
        });
        assert!(resident() > before + 16 * MIB, "the allocator keeps what two threads used");
        give_back();
        let after = resident();
        assert!(after < before + MIB, "{} KiB are left", after.saturating_sub(before) / 1024);
    }
}
