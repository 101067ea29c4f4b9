//! Activations with real mounts: what is chained, what is kept over a restart, and what is refused.

use std::path::Path;

use tempfile::TempDir;
use windlass_core::activation::{Activation, Manager, Name, Options};
use windlass_core::snapshot::Mount;
use windlass_core::{Kind, Namespace, Result};
use windlass_snapshot::activations::Activations;
use windlass_snapshot::mount;

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(ToString::to_string).collect();
    Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
}

async fn activate(activations: &Activations, name: &str, mounts: Vec<Mount>) -> Result<Activation> {
    activations.activate(&Namespace::default(), &name.parse().unwrap(), mounts, Options::default()).await
}

async fn deactivate(activations: &Activations, name: &str) -> Result<()> {
    activations.deactivate(&Namespace::default(), &name.parse().unwrap()).await
}

/// A writable disk, and an overlay whose upper directory is made on it, as containerd's documentation shows it.
fn chained(lower: &Path) -> Vec<Mount> {
    vec![
        mount("tmpfs", "tmpfs", &["size=1m"]),
        mount(
            "format/mkdir/overlay",
            "overlay",
            &[
                "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
                &format!("lowerdir={}", lower.display()),
                "upperdir={{ mount 0 }}/upper",
                "workdir={{ mount 0 }}/work",
            ],
        ),
    ]
}

fn mounted_below(directory: &Path) -> usize {
    let directory = directory.canonicalize().unwrap();
    mount::mounts().unwrap().iter().filter(|mount| mount.target.starts_with(&directory)).count()
}

#[tokio::test]
async fn mounts_that_stand_on_each_other_are_made_and_the_last_is_left_to_the_caller() {
    let root = TempDir::new().unwrap();
    let (state, lower, target) = (root.path().join("state"), root.path().join("lower"), root.path().join("target"));
    for directory in [&lower, &target] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(lower.join("below"), "x").unwrap();
    let activations = Activations::open(&state).await.unwrap();
    let made = activate(&activations, "chain", chained(&lower)).await.unwrap();
    assert_eq!((made.active.len(), made.system.len()), (1, 1));
    assert_eq!(made.system[0].kind, "overlay");
    assert_eq!(made.system[0].options[1], format!("upperdir={}/upper", made.active[0].mount_point));
    mount::mount_all(&made.system, &target).unwrap();
    std::fs::write(target.join("above"), "y").unwrap();
    assert_eq!(std::fs::read_to_string(target.join("below")).unwrap(), "x");
    assert!(Path::new(&made.active[0].mount_point).join("upper/above").exists());

    let busy = deactivate(&activations, "chain").await;
    mount::unmount(&target).unwrap();
    // An overlay holds its upper layer, or it does not: either way nothing is lost.
    match busy {
        Ok(()) => {}
        Err(error) => {
            assert_eq!(error.kind(), Kind::FailedPrecondition);
            deactivate(&activations, "chain").await.unwrap();
        }
    }
    assert_eq!((mounted_below(&state), std::fs::read_dir(&state).unwrap().count()), (0, 0));
}

#[tokio::test]
async fn a_mount_in_use_keeps_its_activation() {
    let root = TempDir::new().unwrap();
    let activations = Activations::open(&root.path().join("state")).await.unwrap();
    let options = Options { temporary: true, ..Options::default() };
    let (namespace, name): (_, Name) = (Namespace::default(), "used".parse().unwrap());
    let tmpfs = vec![mount("tmpfs", "tmpfs", &[])];
    let made = activations.activate(&namespace, &name, tmpfs, options).await.unwrap();
    let open = std::fs::File::create(Path::new(&made.active[0].mount_point).join("open")).unwrap();
    let refused = activations.deactivate(&namespace, &name).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition, "{refused}");
    assert_eq!(activations.info(&namespace, &name).await.unwrap(), made);
    drop(open);
    activations.deactivate(&namespace, &name).await.unwrap();
    assert_eq!(activations.deactivate(&namespace, &name).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_restart_keeps_what_is_mounted_and_clears_the_rest() {
    let root = TempDir::new().unwrap();
    let (state, lower) = (root.path().join("state"), root.path().join("lower"));
    std::fs::create_dir(&lower).unwrap();
    let activations = Activations::open(&state).await.unwrap();
    let kept = activate(&activations, "kept", chained(&lower)).await.unwrap();
    let half = activate(&activations, "half", chained(&lower)).await.unwrap();
    let gone = activate(&activations, "gone", chained(&lower)).await.unwrap();
    drop(activations);
    // As a crash leaves it before the record is complete, and as somebody else's umount does.
    std::fs::remove_file(Path::new(&half.active[0].mount_point).parent().unwrap().join("record.json")).unwrap();
    mount::unmount(Path::new(&gone.active[0].mount_point)).unwrap();
    let activations = Activations::open(&state).await.unwrap();
    assert_eq!(activations.list(&Namespace::default(), &[]).await.unwrap(), [kept]);
    assert_eq!(mounted_below(&state), 1);
    activate(&activations, "half", chained(&lower)).await.unwrap();
    for name in ["kept", "half"] {
        deactivate(&activations, name).await.unwrap();
    }
    assert_eq!(mounted_below(&state), 0);
}

#[tokio::test]
async fn what_fails_leaves_nothing_and_what_is_unknown_is_named() {
    let root = TempDir::new().unwrap();
    let state = root.path().join("state");
    let activations = Activations::open(&state).await.unwrap();
    let broken = vec![
        mount("tmpfs", "tmpfs", &[]),
        mount("format/bind", "{{ mount 0 }}/absent", &["rbind"]),
        mount("format/overlay", "overlay", &["lowerdir={{ mount 1 }}"]),
    ];
    let error = activate(&activations, "a", broken).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let error = activate(&activations, "a", vec![mount("mkfs/loop", "/x.img", &[])]).await.unwrap_err();
    assert!(error.is(Kind::Unimplemented) && error.to_string().contains("mkfs"), "{error}");
    assert!(activate(&activations, "a", Vec::new()).await.unwrap_err().is(Kind::Unimplemented));
    assert_eq!((mounted_below(&state), std::fs::read_dir(&state).unwrap().count()), (0, 0));
    assert!(activations.list(&Namespace::default(), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_many_that_want_a_name_exactly_one_gets_it_and_namespaces_do_not_meet() {
    let root = TempDir::new().unwrap();
    let lower = root.path().join("lower");
    std::fs::create_dir(&lower).unwrap();
    let activations = Activations::open(&root.path().join("state")).await.unwrap();
    let all = futures::future::join_all((0..8).map(|_| activate(&activations, "same", chained(&lower)))).await;
    assert_eq!(all.iter().filter(|made| made.is_ok()).count(), 1);
    for error in all.into_iter().filter_map(Result::err) {
        assert!([Kind::AlreadyExists, Kind::Unavailable].contains(&error.kind()), "{error}");
    }
    let (other, name): (Namespace, Name) = ("other".parse().unwrap(), "same".parse().unwrap());
    assert!(activations.info(&other, &name).await.unwrap_err().is(Kind::NotFound));
    activations.activate(&other, &name, chained(&lower), Options::default()).await.unwrap();
    activations.deactivate(&other, &name).await.unwrap();
    deactivate(&activations, "same").await.unwrap();
}
