//! `dist images tag` and `label`: other names, and labels, of images that are here.

use windlass_core::field::FieldMask;
use windlass_core::image::{Image, Name, StoreExt as _};
use windlass_core::{Kind, Labels};

use super::find;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::labels;
use crate::{familiar, label};

/// Give an image other names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images tag redis:7 registry.test/redis:7
  dist images tag --force app:2 app:latest     even if that is another image's name")]
pub(crate) struct Args {
    /// Image, by its name.
    #[arg(value_name = "SRC")]
    source: String,
    /// Names.
    #[arg(value_name = "DST", required = true, value_parser = familiar::name)]
    names: Vec<Name>,
    /// Take names that other images have.
    #[arg(long)]
    force: bool,
}

/// Tags.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let source = find(&services, &args.source).await?;
    let mut tagged = context.output().names();
    for name in &args.names {
        let image = Image { labels: source.labels.clone(), ..Image::new(name.clone(), source.target.clone()) };
        if args.force {
            services.images.put(&image).await?;
        } else {
            let created = services.images.create(&image).await;
            created.map_err(|error| match error.kind() {
                Kind::AlreadyExists => error.hint("--force moves the name to this image"),
                _ => error,
            })?;
        }
        tagged.push(name)?;
    }
    tagged.finish()
}

/// Set labels of an image, and print those that it then has; an empty value removes one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images label redis team=mine            set one, leave the others
  dist images label redis team=                remove it
  dist images label -r redis team=mine         this one and no other")]
pub(crate) struct LabelArgs {
    /// Image, by its name.
    #[arg(value_name = "REF")]
    name: String,
    /// Labels.
    #[arg(value_name = "KEY=VALUE", value_parser = label::parse, required_unless_present = "replace_all")]
    labels: Vec<(String, String)>,
    /// Remove all other labels.
    #[arg(short, long)]
    replace_all: bool,
}

/// Labels.
pub(super) async fn label(context: &Context, args: LabelArgs) -> Outcome {
    let services = context.services().await?;
    let mut image = find(&services, &args.name).await?;
    let paths: Vec<String> = args.labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
    let mask = if args.replace_all {
        FieldMask::parse(["labels"])?
    } else {
        FieldMask::parse(paths.iter().map(String::as_str))?
    };
    image.labels = if args.replace_all { label::all(args.labels) } else { label::change(args.labels) };
    let image = services.images.update(&image, &mask).await?;
    let printed: &Labels = &image.labels;
    context.output().record(&image, |_| labels(printed))
}
