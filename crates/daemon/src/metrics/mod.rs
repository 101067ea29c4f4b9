//! Numbers for Prometheus: what is counted, and how it is written down.
//!
//! Calls have the names that gRPC servers written in Go have for them, so that dashboards fit. What the engine knows is asked
//! when somebody asks for the numbers.

mod listen;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tonic::Code;
use windlass::Collections;

pub(crate) use listen::listen;

/// The upper bounds of the buckets of latencies, in seconds: Prometheus' own default.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How many methods are told apart. Paths come from clients, who may make some up.
const MAX_METHODS: usize = 256;
/// What stands for all others.
const OTHERS: (&str, &str) = ("other", "other");

/// What is counted of calls.
#[derive(Default)]
pub(crate) struct Numbers {
    methods: Mutex<BTreeMap<(String, String), Method>>,
    open: AtomicI64,
    ended: AtomicU64,
    one_ended: Notify,
}

/// What is counted of a method.
#[derive(Default)]
struct Method {
    started: u64,
    ended: BTreeMap<&'static str, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
}

/// A call that is counted; dropping it ends it.
pub(crate) struct Counted {
    numbers: std::sync::Arc<Numbers>,
    method: (String, String),
    began: Instant,
    /// How it ended; a client that went away is all that is known without.
    pub(crate) code: Option<Code>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.numbers.open.fetch_sub(1, Ordering::Relaxed);
        self.numbers.ended.fetch_add(1, Ordering::Relaxed);
        self.numbers.one_ended.notify_one();
        self.numbers.count(&self.method, self.code.unwrap_or(Code::Cancelled), self.began.elapsed());
    }
}

impl Numbers {
    /// Counts a call from its beginning: `path` is `/SERVICE/METHOD`.
    pub(crate) fn begin(self: &std::sync::Arc<Self>, path: &str) -> Counted {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or(OTHERS);
        let mut key = (service.to_owned(), method.to_owned());
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if methods.len() >= MAX_METHODS && !methods.contains_key(&key) {
            key = (OTHERS.0.to_owned(), OTHERS.1.to_owned());
        }
        methods.entry(key.clone()).or_default().started += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted { numbers: self.clone(), method: key, began: Instant::now(), code: None }
    }

    fn count(&self, method: &(String, String), code: Code, took: Duration) {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(method) = methods.get_mut(method) else { return };
        let seconds = took.as_secs_f64();
        *method.ended.entry(name(code)).or_default() += 1;
        method.seconds += seconds;
        for (bucket, _) in method.buckets.iter_mut().zip(BUCKETS).filter(|(_, bound)| seconds <= *bound) {
            *bucket += 1;
        }
    }

    /// Returns how many calls are open.
    pub(crate) fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns how many calls have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until a call has ended since this returned last.
    pub(crate) async fn one_ended(&self) {
        self.one_ended.notified().await;
    }

    /// Writes down what was counted.
    pub(crate) fn write(&self, page: &mut Page) {
        page.metric("windlass_grpc_open_calls", "gauge", "Calls that have not ended, streams among them.");
        page.value("windlass_grpc_open_calls", &[], self.open());
        let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        page.metric("grpc_server_started_total", "counter", "Calls that began.");
        for ((service, method), counted) in &*methods {
            let labels = [("grpc_service", service.as_str()), ("grpc_method", method)];
            page.value("grpc_server_started_total", &labels, counted.started);
        }
        page.metric("grpc_server_handled_total", "counter", "Calls that ended, by code.");
        for ((service, method), counted) in &*methods {
            for (code, ended) in &counted.ended {
                let labels = [("grpc_service", service.as_str()), ("grpc_method", method), ("grpc_code", code)];
                page.value("grpc_server_handled_total", &labels, ended);
            }
        }
        page.metric("grpc_server_handling_seconds", "histogram", "How long calls took, streams to their end.");
        for ((service, method), counted) in &*methods {
            counted.write(page, service, method);
        }
    }
}

impl Method {
    fn write(&self, page: &mut Page, service: &str, method: &str) {
        let labels = [("grpc_service", service), ("grpc_method", method)];
        let ended: u64 = self.ended.values().sum();
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(self.buckets.iter().copied().chain([ended])) {
            let [service, method] = labels;
            page.value("grpc_server_handling_seconds_bucket", &[service, method, ("le", &bound)], count);
        }
        page.value("grpc_server_handling_seconds_sum", &labels, self.seconds);
        page.value("grpc_server_handling_seconds_count", &labels, ended);
    }
}

/// Writes down what a store tells of its collections.
pub(crate) fn collections(page: &mut Page, collections: Collections) {
    page.metric("windlass_gc_runs_total", "counter", "Garbage collections.");
    page.value("windlass_gc_runs_total", &[], collections.runs);
    page.metric("windlass_gc_pause_seconds_total", "counter", "How long writers had to wait for them.");
    page.value("windlass_gc_pause_seconds_total", &[], collections.pauses.as_secs_f64());
}

/// Numbers in Prometheus' text format, version 0.0.4.
#[derive(Default)]
pub(crate) struct Page(pub(crate) String);

impl Page {
    /// Says what a metric is.
    pub(crate) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes everything.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Writes a value of it.
    pub(crate) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Returns the name of a code, as Go's gRPC has it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn page(numbers: &Numbers) -> String {
        let mut page = Page::default();
        numbers.write(&mut page);
        page.0
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let numbers = Arc::new(Numbers::default());
        let mut fine = numbers.begin("/s.v1.S/Get");
        fine.code = Some(Code::Ok);
        drop(fine);
        drop(numbers.begin("/s.v1.S/Get"));
        let open = numbers.begin("/s.v1.S/Watch");
        let text = page(&numbers);
        for line in [
            "windlass_grpc_open_calls 1",
            "grpc_server_started_total{grpc_service=\"s.v1.S\",grpc_method=\"Get\"} 2",
            "grpc_server_started_total{grpc_service=\"s.v1.S\",grpc_method=\"Watch\"} 1",
            "grpc_server_handled_total{grpc_service=\"s.v1.S\",grpc_method=\"Get\",grpc_code=\"OK\"} 1",
            "grpc_server_handled_total{grpc_service=\"s.v1.S\",grpc_method=\"Get\",grpc_code=\"Canceled\"} 1",
            "grpc_server_handling_seconds_bucket{grpc_service=\"s.v1.S\",grpc_method=\"Get\",le=\"+Inf\"} 2",
            "grpc_server_handling_seconds_count{grpc_service=\"s.v1.S\",grpc_method=\"Watch\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert_eq!(numbers.open(), 0);
    }

    #[test]
    fn methods_that_clients_make_up_take_no_memory() {
        let numbers = Arc::new(Numbers::default());
        for at in 0..10_000 {
            drop(numbers.begin(&format!("/made.up/{at}")));
        }
        assert_eq!(numbers.methods.lock().unwrap().len(), MAX_METHODS + 1);
        assert!(page(&numbers).contains("grpc_server_started_total{grpc_service=\"other\",grpc_method=\"other\"}"));
    }

    #[test]
    fn labels_cannot_break_a_line() {
        let mut page = Page::default();
        page.value("m", &[("l", "a\"b\\c\nd")], 1);
        assert_eq!(page.0, "m{l=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
