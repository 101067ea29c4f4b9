//! A full disk: a small file system of its own, so root is needed to mount it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_core::content::{Commit, Expected, IngestRef};
use windlass_core::{Descriptor, Kind};

use super::{open, scope};

/// A mounted tmpfs of 12 MiB.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=12m")).unwrap();
        Some(Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_an_ingest_that_is_continued_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(directory.path()) else { return };
    let store = open(&small.0).await;
    let filler = small.0.join("filler");
    std::fs::write(&filler, vec![0; 5 << 20]).unwrap();

    let whole = vec![7; 7 << 20];
    let descriptor = Descriptor::of("a/b", &whole);
    let (key, expected): (IngestRef, _) = ("r".parse().unwrap(), Expected::from(&descriptor));
    let content = store.content(&scope("default"));
    let attempt = async {
        let mut writer = content.writer(&key, expected.clone()).await?;
        writer.write(Bytes::from(whole.clone())).await?;
        // The last chunk is only written by the commit.
        writer.commit(Commit::default()).await
    };
    let error = attempt.await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.hint_text().is_some());

    std::fs::remove_file(filler).unwrap();
    let mut writer = content.writer(&key, expected).await.unwrap();
    let offset = usize::try_from(writer.status().await.unwrap().offset).unwrap();
    assert!(offset > 0 && offset < whole.len(), "{offset}");
    writer.write(Bytes::from(whole[offset..].to_vec())).await.unwrap();
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(info.digest, descriptor.digest);
}
