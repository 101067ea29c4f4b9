//! A processor that is left to whoever makes one call after another.
//!
//! Such a client and the thread that answers it take turns, and while one looks for what comes next it lets others go first (see
//! [`Lingering`](windlass_grpc::Lingering)). Where others bring content at the same time, whoever goes first keeps the processor
//! until he has taken a message, made a file or committed; meanwhile another processor may have nothing to do, because Linux does
//! not look for one when it wakes a thread while they are busy most of the time. So for as long as somebody makes calls at such a
//! rate, the other threads of the daemon keep off the processor that he is answered on. Nobody is bound to it: where something
//! else than the daemon needs it, the calls go elsewhere as they always do.
//!
//! ```text
//! Pace (of a thread that serves): calls follow each other ─► Reservation ─► Confined: all other threads ─► no such calls: released
//! ```

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};
use tokio::sync::Notify;
use tonic::codegen::{Service, http};
use tower::Layer;
use windlass::Precedence;

/// The call that brings content, which ends a row. Who makes those is no reason for others to keep off, whatever he asks in between.
const BRINGS: &str = "/containerd.services.content.v1.Content/Write";
/// How many calls a thread answers before it is looked at how long they took.
const ROW: u32 = 32;
/// How long they take at most where they follow each other: a thousand in a second.
const QUICK: Duration = Duration::from_millis(32);
/// How often it is looked whether there are such calls still, and threads that are new.
const LOOK: Duration = Duration::from_millis(50);

/// For whom a processor is reserved. One thread at a time.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    asked: Mutex<Option<Asked>>,
    wake: Notify,
    /// Goes with it.
    precedence: Precedence,
}

/// Somebody makes one call after another.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The thread that answers him.
    thread: Pid,
    /// The processor it was on.
    processor: usize,
    at: Instant,
}

impl Reservation {
    /// Says that calls follow each other on this thread.
    fn ask(&self) {
        let asked = Asked { thread: gettid(), processor: sched_getcpu(), at: Instant::now() };
        let mut latest = self.lock();
        if latest.is_some_and(|latest| latest.thread != asked.thread && latest.at.elapsed() < LOOK) {
            return;
        }
        *latest = Some(asked);
        self.wake.notify_one();
    }

    /// Returns what is taken for as long as a processor is reserved.
    pub(crate) fn precedence(&self) -> &Precedence {
        &self.precedence
    }

    /// Returns for whom a processor is to be reserved now.
    fn current(&self) -> Option<Asked> {
        self.lock().filter(|asked| asked.at.elapsed() <= LOOK)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Asked>> {
        // It is replaced as a whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the threads of this process keep off a processor for as long as that is asked for. Ends where there is one processor.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            let Some(asked) = self.current() else { continue };
            let confined = match Confined::begin(asked) {
                Ok(Some(confined)) => confined,
                Ok(None) => return,
                // Such as that the thread has ended.
                Err(error) => {
                    tracing::debug!(%error, "no processor is left to who makes one call after another");
                    continue;
                }
            };
            tracing::debug!(
                processor = asked.processor,
                "somebody makes one call after another: other threads keep off"
            );
            let first = self.precedence.take();
            while self.current().is_some_and(|asked| asked.thread == confined.except) {
                // Threads that were made meanwhile have the processors of those that made them.
                confined.confine_all();
                tokio::time::sleep(LOOK).await;
            }
            drop(first);
            confined.release();
            // Once more: one that was just being made by one that kept off keeps off as well.
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The threads of this process but for one, while they keep off a processor. Dropping it releases them.
#[derive(Debug)]
struct Confined {
    except: Pid,
    all: CpuSet,
    others: CpuSet,
}

impl Confined {
    /// Has nobody keep off yet; none where there is one processor.
    fn begin(asked: Asked) -> io::Result<Option<Self>> {
        let all = sched_getaffinity(Some(asked.thread))?;
        let mut others = all;
        others.unset(asked.processor);
        let possible = others.count() > 0 && others != all;
        Ok(possible.then_some(Self { except: asked.thread, all, others }))
    }

    fn confine_all(&self) {
        threads().into_iter().filter(|thread| *thread != self.except).for_each(|thread| set(thread, &self.others));
    }

    fn release(&self) {
        for thread in threads() {
            set(thread, &self.all);
        }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        self.release();
    }
}

/// Returns the threads of this process.
fn threads() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Sets the processors of a thread. One that has ended by now has none.
fn set(thread: Pid, processors: &CpuSet) {
    let _ = sched_setaffinity(Some(thread), processors);
}

/// Looks at how calls follow each other on one thread that serves. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    row: Arc<Mutex<Row>>,
    reservation: Arc<Reservation>,
}

/// Calls of a thread.
#[derive(Debug)]
struct Row {
    calls: u32,
    since: Instant,
}

impl Pace {
    /// Returns that of another thread.
    pub(crate) fn new(reservation: &Arc<Reservation>) -> Self {
        let row = Row { calls: 0, since: Instant::now() };
        Self { row: Arc::new(Mutex::new(row)), reservation: reservation.clone() }
    }

    /// A call begins on this thread.
    fn begins(&self, path: &str) {
        // Two numbers, of which any are right; only the thread itself comes here.
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        if path == BRINGS {
            *row = Row { calls: 0, since: Instant::now() };
            return;
        }
        row.calls += 1;
        if row.calls < ROW {
            return;
        }
        let now = Instant::now();
        let took = now - row.since;
        *row = Row { calls: 0, since: now };
        drop(row);
        if took <= QUICK {
            self.reservation.ask();
        }
    }
}

impl<S> Layer<S> for Pace {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Paced<S> {
        Paced { inner, pace: self.clone() }
    }
}

/// The services, whose calls are looked at.
#[derive(Debug, Clone)]
pub(crate) struct Paced<S> {
    inner: S,
    pace: Pace,
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for Paced<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        self.pace.begins(request.uri().path());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const ASKS: &str = "/containerd.services.images.v1.Images/Get";

    fn processors(thread: Option<Pid>) -> CpuSet {
        sched_getaffinity(thread).unwrap()
    }

    /// Waits until that holds, for as long as a busy machine may take.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn while_calls_follow_each_other_all_other_threads_keep_off_a_processor() {
        let all = processors(None);
        let reservation = Arc::<Reservation>::default();
        let keeping = tokio::spawn(reservation.clone().keep());
        let enough = AtomicBool::new(false);
        let (says, said) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let pace = Pace::new(&reservation);
                let (child_says, child_said) = std::sync::mpsc::channel();
                thread::spawn(move || {
                    child_says.send(gettid()).unwrap();
                    thread::sleep(Duration::from_mins(1));
                });
                says.send((gettid(), child_said.recv().unwrap())).unwrap();
                while !enough.load(Ordering::Relaxed) {
                    pace.begins(ASKS);
                }
            });
            // Threads are made all the time.
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    thread::spawn(|| thread::sleep(Duration::from_mins(1)));
                    thread::sleep(Duration::from_micros(500));
                }
            });
            let (serving, its_child) = said.recv().unwrap();
            if all.count() > 1 {
                until("all others keep off", || {
                    [None, Some(its_child)].iter().all(|thread| processors(*thread).count() == all.count() - 1)
                });
                assert!(processors(Some(serving)) == all, "who serves is not bound to it");
                until("somebody goes first", || reservation.precedence().is_taken());
                until("a new thread keeps off, too", || thread::spawn(|| processors(None)).join().unwrap() != all);
            }
            enough.store(true, Ordering::Relaxed);
            until("they are released", || {
                threads().into_iter().all(|thread| sched_getaffinity(Some(thread)).is_ok_and(|its| its == all))
            });
        });
        until("nobody does", || !reservation.precedence().is_taken());
        if all.count() > 1 {
            assert!(!keeping.is_finished(), "the next one is waited for");
        } else {
            until("with one processor there is nothing to keep", || keeping.is_finished());
        }
    }

    #[test]
    fn calls_that_follow_each_other_slowly_ask_for_nothing() {
        let reservation = Arc::<Reservation>::default();
        let pace = Pace::new(&reservation);
        (1..ROW).for_each(|_| pace.begins(ASKS));
        thread::sleep(QUICK);
        pace.begins(ASKS);
        assert!(reservation.current().is_none());
        until("calls that follow each other ask", || {
            (0..ROW).for_each(|_| pace.begins(ASKS));
            reservation.current().is_some()
        });
        thread::sleep(LOOK * 2);
        assert!(reservation.current().is_none());
    }

    #[test]
    fn who_was_there_first_keeps_it() {
        let reservation = Arc::<Reservation>::default();
        // As long as this takes less than a look, that is.
        for _ in 0..100 {
            let began = Instant::now();
            reservation.ask();
            thread::scope(|scope| scope.spawn(|| reservation.ask()).join()).unwrap();
            let current = reservation.current();
            if began.elapsed() < LOOK {
                assert_eq!(current.unwrap().thread, gettid());
                return;
            }
        }
        panic!("the machine is too busy");
    }

    #[test]
    fn who_brings_content_is_not_who_makes_calls() {
        let reservation = Arc::<Reservation>::default();
        let answer = tower::service_fn(|_| async { Ok::<_, Infallible>(()) });
        let pace = Pace::new(&reservation);
        let mut paced = pace.layer(answer);
        let mut row = |path: &str| {
            for _ in 0..ROW {
                drop(paced.call(http::Request::builder().uri(path).body(()).unwrap()));
            }
        };
        (0..10).for_each(|_| row(BRINGS));
        assert!(reservation.lock().is_none());
        for _ in 0..10 * ROW {
            pace.begins(BRINGS);
            (1..ROW).for_each(|_| pace.begins(ASKS));
        }
        assert!(reservation.lock().is_none(), "nor is who asks in between");
        until("others ask", || {
            row(ASKS);
            reservation.lock().is_some()
        });
    }
}
