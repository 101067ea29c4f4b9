//! An ingest is its bytes, whatever happened on the way: random writes, cuts and restarts against a vector.

use bytes::Bytes;
use proptest::prelude::*;
use windlass_core::content::{Commit, Expected, IngestRef, Writer};
use windlass_core::digest::Algorithm;

use super::{open, scope};

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Truncate(u8),
    /// Drop the writer and open the ref again.
    Reopen,
    /// Close the whole store and open it again.
    Restart,
    /// Lose the state of the hash.
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop_oneof![0..200usize, 500_000..1_200_000usize, 3_000_000..20_000_000usize];
    let step = prop_oneof![
        5 => sizes.prop_map(Step::Write),
        1 => any::<u8>().prop_map(Step::Truncate),
        2 => Just(Step::Reopen),
        1 => Just(Step::Restart),
        1 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_ingest_is_its_bytes_whatever_happened_on_the_way(steps in steps(), sha512 in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(carry_out(&steps, if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 }));
    }
}

async fn carry_out(steps: &[Step], algorithm: Algorithm) {
    let root = tempfile::tempdir().unwrap();
    let key: IngestRef = "r".parse().unwrap();
    let mut model: Vec<u8> = Vec::new();
    let mut store = open(root.path()).await;
    let mut writer: Option<Box<dyn Writer>> = None;
    for (seed, step) in steps.iter().enumerate() {
        let mut open_writer = match writer.take() {
            Some(writer) => writer,
            None => store.content(&scope("default")).writer(&key, Expected::default()).await.unwrap(),
        };
        match step {
            Step::Write(length) => {
                let bytes = vec![u8::try_from(seed).unwrap(); *length];
                model.extend_from_slice(&bytes);
                open_writer.write(Bytes::from(bytes)).await.unwrap();
            }
            Step::Truncate(part) => {
                let size = model.len() * usize::from(*part) / 255;
                model.truncate(size);
                open_writer.truncate(size as u64).await.unwrap();
            }
            Step::Reopen => {
                drop(open_writer);
                continue;
            }
            Step::Restart | Step::Forget => {
                drop(open_writer);
                drop(store);
                store = open(root.path()).await;
                if matches!(step, Step::Forget) {
                    let directory = std::fs::read_dir(root.path().join("content/ingest")).unwrap().next().unwrap();
                    std::fs::remove_file(directory.unwrap().path().join("state")).unwrap();
                }
                continue;
            }
        }
        assert_eq!(open_writer.status().await.unwrap().offset, model.len() as u64);
        writer = Some(open_writer);
    }
    let digest = algorithm.digest(&model);
    let writer = match writer {
        Some(writer) => writer,
        None => store.content(&scope("default")).writer(&key, Expected::default()).await.unwrap(),
    };
    let expected = Expected { digest: Some(digest), size: Some(model.len() as u64) };
    writer.commit(Commit { expected, ..Commit::default() }).await.unwrap();
}
