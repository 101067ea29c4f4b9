//! `dist fsck`: whether everything that is kept is what it was.

use std::fmt::Write;
use std::path::Path;

use windlass::fsck::{Depth, Fsck, remains};
use windlass::registry::Remote;
use windlass::transfer::scrub;
use windlass_core::Error;
use windlass_core::fsck::{Finding, Outcome as Repair, Severity};
use windlass_core::progress::Tracker;

use crate::context::{Context, daemon_of};
use crate::failure::{Failure, Outcome};
use crate::interrupt::interruptible;
use crate::remote::Hosts;
use crate::render::{Format, count, line, printable, size};

/// What is said of the check of a daemon.
const OF_A_DAEMON: &str = "a daemon at work tells of bytes, images and snapshots; when it is stopped, \
                           `dist --root DIR fsck` looks at the rest, too";

/// Check blobs, records and snapshots.
///
/// Reads everything that is kept and compares it: bytes with their digests, records with bytes, snapshots with
/// directories, and what is derived with what it is derived from. Nothing is changed without --repair, which fetches what
/// is damaged from where it came, unpacks what can be unpacked again, and removes what nobody needs. The exit code is 0 when
/// nothing is wrong at the end, and 1 otherwise.
///
/// A daemon goes on working meanwhile: of what it keeps the bytes are read, and what images need is looked for. The rest, and a
/// repair, need the root without it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist fsck                 look at every byte
  dist fsck --repair        and repair what can be repaired
  dist fsck --quick         believe that blobs of the right size are right
  dist --format json fsck   for programs")]
pub(crate) struct Args {
    /// Look at sizes only, not at the bytes of blobs and the files of snapshots.
    #[arg(long)]
    quick: bool,
    /// Repair what can be repaired, and touch nothing else.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    hosts: Hosts,
}

impl Args {
    fn depth(&self) -> Depth {
        if self.quick { Depth::Sizes } else { Depth::Bytes }
    }
}

/// Checks.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    if let Some(address) = context.address()? {
        return of_daemon(context, &args, &address).await;
    }
    let root = context.root()?;
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let fsck = Fsck::new(&root).lock_wait(context.lock_wait()).depth(args.depth());
        let fsck = match windlass_daemon::content_of(&root)? {
            Some(elsewhere) => fsck.content(elsewhere),
            None => fsck,
        };
        if args.repair {
            let resolver = Remote::new(args.hosts.options()?)?;
            return Ok(fsck.repair(&resolver, &tracker).await?);
        }
        Ok(fsck.check(&tracker).await?)
    });
    match context.display().during(&tracker, interruptible(work)).await {
        Ok(findings) => finish(context, &findings),
        Err(Failure::Error(error)) if let Some(address) = daemon_of(&root, &error) => {
            of_daemon(context, &args, &address).await
        }
        Err(failure) => Err(failure),
    }
}

/// Checks what a daemon keeps, while it works.
async fn of_daemon(context: &Context, args: &Args, address: &Path) -> Outcome {
    if args.repair {
        return Err(Error::failed_precondition(format!("the root of the daemon at {} is its own", address.display()))
            .hint("stop the daemon, and run `dist --root DIR fsck --repair`, which needs the root for itself; --wait waits until it has stopped")
            .into());
    }
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let daemon = context.daemon(address).await?;
        Ok(scrub(&daemon, args.depth(), &tracker).await?)
    });
    let findings = context.display().during(&tracker, interruptible(work)).await?;
    if context.output().format == Format::Table {
        anstream::eprintln!("note: {OF_A_DAEMON}");
    }
    finish(context, &findings)
}

fn finish(context: &Context, findings: &[Finding]) -> Outcome {
    print(context, findings)?;
    if findings.iter().any(remains) { Err(Failure::Findings) } else { Ok(()) }
}

fn print(context: &Context, findings: &[Finding]) -> Outcome {
    let output = context.output();
    if output.format == Format::Json {
        let mut list = output.list([""]);
        for finding in findings {
            list.push(finding, |_| Default::default())?;
        }
        return list.finish();
    }
    line(text(findings).trim_end())
}

/// Writes the findings for people, the worst first.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for severity in [Severity::Damage, Severity::Inconsistency, Severity::Leftover] {
        let of: Vec<&Finding> = findings.iter().filter(|finding| finding.severity() == severity).collect();
        if of.is_empty() {
            continue;
        }
        // Writing to text cannot fail.
        let _ = writeln!(text, "{}:", title(severity));
        for finding in of {
            let _ = writeln!(text, "  {}", printable(&finding.problem.to_string()));
            let _ = writeln!(text, "    {}", printable(&finding.consequence()));
            let _ = writeln!(text, "    {}", printable(&what_is_done(finding)));
        }
        text.push('\n');
    }
    text + &summary(findings)
}

fn title(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "Damaged or lost",
        Severity::Inconsistency => "Inconsistent",
        Severity::Leftover => "Left over",
    }
}

fn what_is_done(finding: &Finding) -> String {
    match &finding.outcome {
        Repair::Found => format!("`dist fsck --repair` {}", finding.remedy),
        Repair::Repaired => "repaired".to_owned(),
        Repair::Remains { reason } => format!("not repaired: {reason}"),
    }
}

/// Says how many findings there are, and how many bytes they are about.
fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong".to_owned();
    }
    let of = |severity: Severity| {
        let of = findings.iter().filter(move |finding| finding.severity() == severity);
        of.fold((0, 0), |(number, bytes), finding| (number + 1, bytes + finding.bytes))
    };
    let (damage, inconsistent, left) = (of(Severity::Damage), of(Severity::Inconsistency), of(Severity::Leftover));
    let repaired = findings.iter().filter(|finding| finding.outcome == Repair::Repaired).count();
    let repaired = if repaired > 0 { format!("; {repaired} repaired") } else { String::new() };
    format!(
        "{}: {} damaged or lost ({}), {} inconsistent, {} left over ({}){repaired}",
        count(findings.len() as u64, "finding"),
        damage.0,
        size(damage.1),
        inconsistent.0,
        left.0,
        size(left.1)
    )
}
