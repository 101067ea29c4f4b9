//! A thousand clients at a registry that refuses what is above its limit, under virtual time: the real exchange and the
//! real lines, over a transport that is made up.
//!
//! `WINDLASS_PLOT=FILE` has the arrivals drawn, as docs/retries.md shows them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tokio::task::JoinSet;
use tokio::time::Instant;
use windlass_core::Result;

use super::Exchange;
use crate::failure::Failure;
use crate::options::Timeouts;
use crate::payload::Payload;
use crate::retry::Retry;
use crate::transport::{Response, Transport};

/// How many clients there are.
const CLIENTS: usize = 1000;
/// How many requests each needs, one after the other: an image with a tag, two manifests, a configuration and some layers.
const NEEDED: usize = 20;
/// How many requests the registry takes in a second, and how many at once.
const LIMIT: f64 = 100.0;
/// How long an answer takes.
const LATENCY: Duration = Duration::from_millis(40);
/// How long it takes, in seconds, until the crowd that came at once has been told apart; what comes later is not to come in
/// waves.
const CROWD: usize = 30;
/// Over how many seconds a wave would show: with what comes on average so long before and after, each second is compared.
const AROUND: usize = 15;

/// What the registry tells those it refuses.
#[derive(Debug, Clone, Copy)]
enum Says {
    Nothing,
    RetryAfter(u32),
}

/// The registry.
#[derive(Debug)]
struct Registry {
    began: Instant,
    says: Says,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    tokens: f64,
    at: Duration,
    /// When each request came, and whether it was taken.
    arrivals: Vec<(Duration, bool)>,
}

impl Registry {
    fn new(says: Says) -> Arc<Self> {
        let seen = Seen { tokens: LIMIT, at: Duration::ZERO, arrivals: Vec::new() };
        Arc::new(Self { began: Instant::now(), says, seen: Mutex::new(seen) })
    }

    /// Takes a request, or not.
    fn take(&self) -> bool {
        let now = self.began.elapsed();
        let mut seen = self.seen.lock().unwrap();
        seen.tokens = (seen.tokens + now.saturating_sub(seen.at).as_secs_f64() * LIMIT).min(LIMIT);
        seen.at = now;
        let taken = seen.tokens >= 1.0;
        if taken {
            seen.tokens -= 1.0;
        }
        seen.arrivals.push((now, taken));
        taken
    }
}

/// The way to the registry.
struct Way(Arc<Registry>);

#[async_trait]
impl Transport for Way {
    async fn send(&self, _: Request<Payload>) -> Result<Result<Response, Failure>> {
        tokio::time::sleep(LATENCY / 2).await;
        let taken = self.0.take();
        tokio::time::sleep(LATENCY / 2).await;
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        if !taken {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            if let Says::RetryAfter(seconds) = self.0.says {
                response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
            }
        }
        Ok(Ok(response))
    }
}

/// What came of a simulation.
struct Outcome {
    registry: Arc<Registry>,
    finished: usize,
    took: Duration,
}

impl Outcome {
    /// Returns how many requests were taken and how many refused, second by second.
    fn by_second(&self) -> Vec<(usize, usize)> {
        let mut seconds = vec![(0, 0); usize::try_from(self.took.as_secs()).unwrap() + 1];
        for (at, taken) in &self.registry.seen.lock().unwrap().arrivals {
            let second = &mut seconds[usize::try_from(at.as_secs()).unwrap()];
            if *taken { second.0 += 1 } else { second.1 += 1 }
        }
        seconds
    }

    /// Asserts what is promised, and that no second has so many times as many as those around it.
    #[expect(clippy::cast_precision_loss, reason = "there are some ten thousand")]
    fn assert_orderly(&self, most: f64) {
        assert_eq!(self.finished, CLIENTS);
        let seconds = self.by_second();
        let all: Vec<f64> = seconds.iter().map(|(taken, refused)| (taken + refused) as f64).collect();
        let (total, needed) = (all.iter().sum::<f64>(), (CLIENTS * NEEDED) as f64);
        // At the end the last ones are alone, and a mean of them says nothing.
        let steady = &all[CROWD - AROUND..all.len() * 8 / 10];
        let (mut wave, mut peak) = (0.0, 0.0);
        for around in steady.windows(2 * AROUND + 1) {
            let mean = around.iter().sum::<f64>() / around.len() as f64;
            wave = f64::max(wave, around[AROUND] / mean);
            peak = f64::max(peak, around[AROUND]);
        }
        let (took, ideal) = (self.took.as_secs_f64(), needed / LIMIT);
        println!(
            "{total} requests for {needed} ({:.3}); a second has {wave:.2} of the mean around it and {peak} at most; \
             {took:.0} s of at least {ideal:.0} s",
            total / needed
        );
        assert!(total <= 1.2 * needed, "{total} requests for {needed}");
        assert!(wave <= most, "a second has {wave} times as many as those around it");
        // As many as the registry takes in a second after one in which nobody came.
        assert!(peak <= 2.0 * LIMIT, "a second has {peak}, long after the crowd");
        assert!(took <= 2.0 * ideal, "it took {took} s, and could have taken {ideal} s");
    }

    fn plot(&self, name: &str) {
        if let Some(directory) = std::env::var_os("WINDLASS_PLOT") {
            let path = std::path::Path::new(&directory).join(format!("{name}.svg"));
            std::fs::write(path, svg(&self.by_second())).unwrap();
        }
    }
}

/// Lets a thousand clients come at once, each with a line of its own, or all of one process.
async fn simulate(says: Says, exchanges: usize) -> Outcome {
    let registry = Registry::new(says);
    let retry = Retry { patience: Duration::from_hours(1), ..Retry::default() };
    let agent = HeaderValue::from_static("simulation");
    let exchange = || Exchange::new(Box::new(Way(registry.clone())), retry, Timeouts::default(), agent.clone());
    let exchanges: Vec<Arc<Exchange>> = (0..exchanges).map(|_| Arc::new(exchange())).collect();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let exchange = exchanges[number % exchanges.len()].clone();
        clients.spawn(async move {
            for _ in 0..NEEDED {
                let mut request = Request::new(Payload::Empty);
                *request.uri_mut() = "https://a.test/v2/".parse().unwrap();
                let response = exchange.send("a.test", request, None).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
            }
        });
    }
    let mut finished = 0;
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
        finished += 1;
    }
    Outcome { took: registry.began.elapsed(), registry, finished }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_processes_come_through_one_after_the_other() {
    let outcome = simulate(Says::Nothing, CLIENTS).await;
    outcome.plot("processes");
    outcome.assert_orderly(2.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_processes_that_are_all_told_the_same_moment_do_not_come_back_together() {
    let outcome = simulate(Says::RetryAfter(2), CLIENTS).await;
    outcome.plot("retry-after");
    outcome.assert_orderly(2.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pulls_of_one_process_stand_in_one_line() {
    let outcome = simulate(Says::Nothing, 1).await;
    outcome.plot("one-process");
    // One line feels its way up to the limit and halves its rate there: a saw, and no crowd.
    outcome.assert_orderly(3.0);
}

/// Draws what came, second by second: what was taken, and above it what was refused.
#[expect(clippy::cast_precision_loss, reason = "it is a drawing")]
fn svg(seconds: &[(usize, usize)]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 260.0;
    const MARGIN: f64 = 40.0;
    // What comes in the first moment would make all else too small to see; it is cut off, and said.
    let most = 3.0 * LIMIT;
    let step = (WIDTH - 2.0 * MARGIN) / seconds.len() as f64;
    let y = |requests: f64| HEIGHT - MARGIN - requests.min(most) / most * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (second, (taken, refused)) in seconds.iter().enumerate() {
        let (taken, all) = (*taken as f64, (taken + refused) as f64);
        let x = MARGIN + second as f64 * step;
        for (from, to, colour) in [(0.0, taken, "#4a90d9"), (taken, all, "#d9534f")] {
            let height = y(from) - y(to);
            if height > 0.0 {
                let top = y(to);
                writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{step:.2}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
                )
                .unwrap();
            }
        }
    }
    let (left, right, bottom) = (MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN);
    let limit = y(LIMIT);
    write!(
        svg,
        "<path d=\"M{left} {bottom}H{right}\" stroke=\"#333\"/>\n<path d=\"M{left} {limit:.1}H{right}\" stroke=\"#333\" \
         stroke-dasharray=\"4\"/>\n<text x=\"{left}\" y=\"{:.1}\">the limit, {LIMIT} requests a second</text>\n\
         <text x=\"{left}\" y=\"{:.1}\">0 s</text>\n<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{} s</text>\n\
         <text x=\"{right}\" y=\"14\" text-anchor=\"end\">requests in each second: taken (blue), refused (red); cut off \
         at {most}, the first second has {}</text>\n</svg>\n",
        limit - 4.0,
        bottom + 14.0,
        bottom + 14.0,
        seconds.len(),
        seconds.first().map_or(0, |(taken, refused)| taken + refused),
    )
    .unwrap();
    svg
}
