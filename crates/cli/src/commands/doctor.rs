//! `dist doctor`: whether this machine, and the way to a registry, are as they should be.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use windlass_core::checkup::{Check, Verdict, worst};
use windlass_core::plugin::{Introspection as _, Outcome as Became, Plugin};
use windlass_core::{Error, Reference, Result};
use windlass_grpc::Client;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::familiar;
use crate::remote::Hosts;
use crate::render::printable;

/// Look at this machine and, when an image is named, at the way to its registry. Nothing is stored.
///
/// Each line is ok, warn or fail, with what to do about it. Of the machine: the root and the room there, what the kernel has,
/// the daemon. Of a registry, host by host: which rule of a hosts.toml chose it and what there was not understood, where
/// credentials are from, names, connections, certificates, clocks, whether it lets us in, how many requests are left, and what the
/// image is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist doctor                                  this machine
  dist doctor quay.io/x/y:1                    and everything on the way to that image
  dist --format json doctor redis | jq '.checks[] | select(.verdict != \"ok\")'

Exit code:
  0 when nothing fails, whatever is warned of; 1 when something does.")]
pub(crate) struct Args {
    /// Image whose registry is looked at.
    #[arg(help = "Image whose registry is looked at: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse)]
    reference: Option<Reference>,
    #[command(flatten)]
    hosts: Hosts,
}

/// Everything that was looked at.
#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    checks: Vec<Check>,
}

/// Looks.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let mut checks = machine(context).await?;
    checks.push(daemon(context).await?);
    if let Some(reference) = &args.reference {
        match args.hosts.resolver() {
            Ok(remote) => checks.extend(remote.check_up(reference).await),
            Err(error) => checks.push(Check::failed("credentials", &error)),
        }
    }
    let report = Report { verdict: worst(&checks), checks };
    if context.output().is_json() {
        context.output().record(&report, |_| String::new())?;
    } else {
        for check in &report.checks {
            tell(check)?;
        }
    }
    if report.verdict == Verdict::Fail { Err(Failure::Findings) } else { Ok(()) }
}

async fn machine(context: &Context) -> Result<Vec<Check>> {
    let root = context.root()?;
    let looked = tokio::task::spawn_blocking(move || windlass::doctor::machine(&root)).await;
    let checks = looked.map_err(|error| Error::internal("looking at the machine panicked").source(error))?;
    Ok(checks.into_iter().map(|check| check.of("machine")).collect())
}

/// Looks at the daemon that is named, or that has the root; that there is none is no problem unless one is named.
async fn daemon(context: &Context) -> Result<Check> {
    let named = context.address()?;
    let (address, hint) = match (&named, windlass::Owner::of(&context.root()?).and_then(|owner| owner.address)) {
        (Some(named), _) => (named.clone(), "start it: `dist daemon`, or leave --address and CONTAINERD_ADDRESS out"),
        (None, Some(address)) => (address, "the process that has the root does not answer: look at its log"),
        (None, None) => {
            return Ok(Check::ok("daemon", "none has the root: commands work on it by themselves").of("machine"));
        }
    };
    let shown = address.display();
    let check = match Client::connect(&address).await {
        Ok(client) => match client.introspection().plugins(&[]).await {
            Ok(plugins) => {
                let failed = plugins.iter().filter(|plugin| matches!(plugin.outcome, Became::Failed { .. }));
                let broken: Vec<String> = failed.map(Plugin::uri).collect();
                if broken.is_empty() {
                    Check::ok("daemon", format!("it answers at {shown}, with {} plugins", plugins.len()))
                } else {
                    Check::warn("daemon", format!("it answers at {shown}; what failed there: {}", broken.join(", ")))
                        .hint("`dist plugins ls -d` says why")
                }
            }
            Err(error) => Check::fail("daemon", format!("it does not answer at {shown}: {error}")).hint(hint),
        },
        Err(error) => Check::fail("daemon", format!("it does not answer at {shown}: {error}")).hint(hint),
    };
    Ok(check.of("machine"))
}

fn tell(check: &Check) -> Outcome {
    let (word, colour) = match check.verdict {
        Verdict::Ok => ("ok", AnsiColor::Green),
        Verdict::Warn => ("warn", AnsiColor::Yellow),
        Verdict::Fail => ("fail", AnsiColor::Red),
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let of = check.of.as_deref().map(|of| format!("{of}: ")).unwrap_or_default();
    let found = format!("{of}{}", check.found);
    // Whether anybody sees colours is decided there.
    let mut out = anstream::stdout().lock();
    let mut said = writeln!(out, "{style}{word:4}{style:#}  {:15}  {}", check.about, printable(&found));
    if let Some(hint) = check.hint.as_ref().filter(|_| check.verdict != Verdict::Ok) {
        said = said.and_then(|()| writeln!(out, "{:4}  {:15}  hint: {}", "", "", printable(hint)));
    }
    said.map_err(Failure::output)
}
