//! What of some mounts is made here, and what is left to the caller: decided first, then carried out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use windlass_core::activation::{Activation, Active};
use windlass_core::error::{Error, Result};
use windlass_core::snapshot::{EROFS_LOWER, Mount};

use super::transform::{self, Step};
use crate::{mount, tree};

/// How many mounts an activation has at most, as containerd has it.
const MAX_MOUNTS: usize = 255;

/// What is to be mounted here, and what is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Each with its steps; the layers of an overlay go with it.
    here: Vec<Group>,
    system: Vec<(Mount, Vec<Step>)>,
    /// Whether a bind mount of the last one is to be left when nothing else is.
    bind: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Group {
    lowers: Vec<Mount>,
    mount: Mount,
    steps: Vec<Step>,
}

impl Plan {
    /// Decides how far the mounts are made here: up to the last one that the caller cannot make, and what a later one's text
    /// refers to.
    pub(super) fn of(mounts: Vec<Mount>, all: bool) -> Result<Self> {
        if mounts.len() > MAX_MOUNTS {
            return Err(Error::invalid_argument(format!("there are {} mounts, more than {MAX_MOUNTS}", mounts.len())));
        }
        let mut here = if all { mounts.len() } else { 0 };
        let mut handled = all && !mounts.is_empty();
        let mut taken = Vec::new();
        for (index, mount) in mounts.into_iter().enumerate() {
            let after_layer = taken.last().is_some_and(|(before, _): &(Mount, _)| before.kind == EROFS_LOWER);
            let (mount, steps) = transform::steps(mount)?;
            if mount.kind == EROFS_LOWER || after_layer {
                (here, handled) = (here.max(index + 1), true);
            }
            if !steps.is_empty() {
                (here, handled) = (here.max(index), true);
            }
            taken.push((mount, steps));
        }
        if !handled {
            return Err(Error::unimplemented("the kernel can make every one of these mounts")
                .hint("mount them, or ask for a temporary activation"));
        }
        let system = taken.split_off(here);
        let mut groups: Vec<Group> = Vec::new();
        let mut lowers = Vec::new();
        for (mount, steps) in taken {
            if mount.kind == EROFS_LOWER {
                lowers.push(mount);
            } else {
                groups.push(Group { lowers: std::mem::take(&mut lowers), mount, steps });
            }
        }
        if !lowers.is_empty() {
            return Err(Error::invalid_argument("there are layers without an overlay"));
        }
        Ok(Self { here: groups, bind: system.is_empty(), system })
    }

    /// Mounts what is to be mounted, below a directory, and writes down what came of it.
    pub(super) fn carry_out(self, directory: &Path, activation: &mut Activation) -> Result<()> {
        for (number, group) in self.here.into_iter().enumerate() {
            let mount = transform::apply(group.mount, &group.steps, &activation.active)?;
            let place = directory.join(number.to_string());
            tree::make(&place, 0o700)?;
            let mut mounts = group.lowers;
            mounts.push(mount.clone());
            mount::mount_all(&mounts, &place)?;
            activation.active.push(Active {
                mount,
                mounted_at: SystemTime::now(),
                mount_point: place.display().to_string(),
                data: BTreeMap::new(),
            });
        }
        for (mount, steps) in self.system {
            activation.system.push(transform::apply(mount, &steps, &activation.active)?);
        }
        if self.bind
            && let Some(last) = activation.active.last()
        {
            activation.system.push(Mount {
                kind: "bind".to_owned(),
                source: last.mount_point.clone(),
                target: String::new(),
                options: vec!["rbind".to_owned()],
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn mounts(kinds: &[&str]) -> Vec<Mount> {
        let mount = |kind: &&str| Mount {
            kind: (*kind).to_owned(),
            source: String::new(),
            target: String::new(),
            options: Vec::new(),
        };
        kinds.iter().map(mount).collect()
    }

    #[test]
    fn mounts_are_made_up_to_the_last_that_the_caller_cannot_make() {
        for (kinds, all, here, system) in [
            (&["bind"][..], true, 1, 0),
            (&["tmpfs", "format/overlay"], false, 1, 1),
            (&["tmpfs", "format/overlay"], true, 2, 0),
            (&["tmpfs", "format/bind", "bind"], false, 1, 2),
            (&[EROFS_LOWER, EROFS_LOWER, "overlay"], false, 1, 0),
            (&["tmpfs", EROFS_LOWER, "overlay", "bind"], false, 2, 1),
        ] {
            let plan = Plan::of(mounts(kinds), all).unwrap();
            assert_eq!((plan.here.len(), plan.system.len(), plan.bind), (here, system, system == 0), "{kinds:?}");
        }
        for kinds in [&[][..], &["bind"], &["overlay", "tmpfs"]] {
            assert_eq!(Plan::of(mounts(kinds), false).unwrap_err().kind(), Kind::Unimplemented, "{kinds:?}");
        }
        assert_eq!(Plan::of(mounts(&[EROFS_LOWER]), false).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(Plan::of(mounts(&["bind"; 256]), true).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
