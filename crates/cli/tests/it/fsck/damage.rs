//! The tools of whoever does damage: paths of a copied root, and its databases, which are opened with the library that
//! they were written with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::Value;
use windlass_core::{ChainId, DiffId};

use super::Pristine;
use crate::dist::Dist;

type Texts = TableDefinition<'static, &'static str, &'static [u8]>;
type Pairs = TableDefinition<'static, (&'static str, &'static str), ()>;
type Numbers = TableDefinition<'static, u64, &'static str>;

const SNAPSHOTS: Texts = TableDefinition::new("snapshots");
const CHILDREN: Pairs = TableDefinition::new("children");
const IDS: Numbers = TableDefinition::new("ids");

/// A copied root, and what is in it of the image that is damaged.
pub(crate) struct Scene<'a> {
    pub(crate) dist: &'a Dist,
    pub(crate) image: &'a str,
    pub(crate) index: String,
    pub(crate) manifest: String,
    pub(crate) config: String,
    /// Bottom first.
    pub(crate) layers: Vec<String>,
    pub(crate) chain: Vec<String>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(dist: &'a Dist, pristine: &'a Pristine) -> Self {
        let digest = |document: &Value| document["digest"].as_str().unwrap().to_owned();
        let index = {
            let rows = Records::of(&dist.root()).read("images");
            let (_, image) = rows.iter().find(|(key, _)| *key == format!("default\0{}", pristine.image)).unwrap();
            digest(&image["target"])
        };
        let read = |digest: &str| -> Value { serde_json::from_slice(&fs::read(blob(dist, digest)).unwrap()).unwrap() };
        let manifest = digest(&read(&index)["manifests"][0]);
        let document = read(&manifest);
        let config = digest(&document["config"]);
        let layers = document["layers"].as_array().unwrap().iter().map(digest).collect();
        let diff_ids: Vec<DiffId> = serde_json::from_value(read(&config)["rootfs"]["diff_ids"].clone()).unwrap();
        let chain = ChainId::chain(&diff_ids).iter().map(ToString::to_string).collect();
        Self { dist, image: &pristine.image, index, manifest, config, layers, chain }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dist.root().join(below)
    }

    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        blob(self.dist, digest)
    }

    /// Gives up the blob of a layer, by its position from the bottom, as a pull does that keeps only what it unpacks.
    pub(crate) fn drop_blob(&self, layer: usize) {
        let digest = &self.layers[layer];
        for namespace in ["default", "other"] {
            self.dist.ok(&format!("-n {namespace} content rm {digest}"));
            self.dist
                .ok(&format!("-n {namespace} content label {} windlass.dev/dropped.{layer}={digest}", self.manifest));
        }
    }

    /// The store's records.
    pub(crate) fn records(&self) -> Records {
        Records::of(&self.dist.root())
    }

    /// The records of the overlayfs snapshotter.
    pub(crate) fn behind(&self) -> Behind {
        Behind(redb::Database::open(self.path("snapshots/overlayfs/records.redb")).unwrap())
    }

    /// The directory of one of the image's layers, by its position from the bottom.
    pub(crate) fn directory(&self, layer: usize) -> PathBuf {
        let (id, _) = self.behind().find(&self.chain[layer]);
        self.path("snapshots/overlayfs/snapshots").join(id.to_string())
    }
}

/// Changes one bit of a file, and not its size.
pub(crate) fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Cuts a file off, or makes it longer with zeros.
pub(crate) fn truncate(path: &Path, size: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
}

impl Drop for Scene<'_> {
    /// Undoes what is not below the root.
    fn drop(&mut self) {
        for name in ["mounted", "look"] {
            // Mostly there is nothing to undo.
            let _ = Command::new("umount").arg(self.dist.path(name)).stderr(Stdio::null()).status();
        }
    }
}

fn blob(dist: &Dist, digest: &str) -> PathBuf {
    dist.root().join("content/blobs").join(digest.replace(':', "/"))
}

/// The store's database.
pub(crate) struct Records(redb::Database);

impl Records {
    pub(crate) fn of(root: &Path) -> Self {
        Self(redb::Database::open(root.join("meta.redb")).unwrap())
    }

    /// Reads a table.
    pub(crate) fn read(&self, table: &'static str) -> Vec<(String, Value)> {
        let view = self.0.begin_read().unwrap();
        let table = view.open_table(Texts::new(table)).unwrap();
        let rows = table.iter().unwrap().map(|row| {
            let (key, value) = row.unwrap();
            (key.value().to_owned(), serde_json::from_slice(&value.value()[1..]).unwrap())
        });
        rows.collect()
    }

    /// Writes bytes as the value of a record; the parts of the key are separated by spaces.
    pub(crate) fn put(&self, table: &'static str, key: &str, value: &[u8]) {
        let change = self.0.begin_write().unwrap();
        change.open_table(Texts::new(table)).unwrap().insert(&*key.replace(' ', "\0"), value).unwrap();
        change.commit().unwrap();
    }

    /// Removes a record, which must be there.
    pub(crate) fn remove(&self, table: &'static str, key: &str) {
        let change = self.0.begin_write().unwrap();
        let removed = change.open_table(Texts::new(table)).unwrap().remove(&*key.replace(' ', "\0")).unwrap().is_some();
        assert!(removed, "{table} {key}");
        change.commit().unwrap();
    }

    /// Changes a record.
    pub(crate) fn change(&self, table: &'static str, key: &str, change: impl Fn(&mut Value)) {
        let key = key.replace(' ', "\0");
        let (_, mut value) = self.read(table).into_iter().find(|(found, _)| *found == key).unwrap();
        change(&mut value);
        self.put(table, &key, format!("\u{1}{value}").as_bytes());
    }
}

/// A snapshotter's database.
pub(crate) struct Behind(redb::Database);

impl Behind {
    /// Finds the record of a chain id: number of the directory, and name.
    pub(crate) fn find(&self, chain: &str) -> (u64, String) {
        let view = self.0.begin_read().unwrap();
        let table = view.open_table(SNAPSHOTS).unwrap();
        let mut rows = table.iter().unwrap().map(|row| {
            let (key, value) = row.unwrap();
            let value: Value = serde_json::from_slice(&value.value()[1..]).unwrap();
            (value["id"].as_u64().unwrap(), key.value().to_owned())
        });
        rows.find(|(_, key)| key.ends_with(chain)).unwrap()
    }

    /// Forgets a snapshot as if it had never been.
    pub(crate) fn forget(&self, chain: &str) {
        let (id, name) = self.find(chain);
        let change = self.0.begin_write().unwrap();
        change.open_table(SNAPSHOTS).unwrap().remove(&*name).unwrap();
        change.open_table(IDS).unwrap().remove(id).unwrap();
        change.open_table(CHILDREN).unwrap().retain(|(_, child), ()| child != name).unwrap();
        change.commit().unwrap();
    }

    /// Records a snapshot as if one had been made, without a directory.
    pub(crate) fn invent(&self, id: u64, name: &str) {
        let record = serde_json::json!({
            "id": id, "usage": null, "info": {
                "state": "active", "key": name, "parent": null, "labels": {},
                "created_at": "2026-11-21T02:00:00Z", "updated_at": "2026-11-21T02:00:00Z",
            },
        });
        self.put(name, format!("\u{1}{record}").as_bytes());
        let change = self.0.begin_write().unwrap();
        change.open_table(IDS).unwrap().insert(id, name).unwrap();
        change.commit().unwrap();
    }

    /// Writes bytes as the record of a snapshot.
    pub(crate) fn put(&self, name: &str, value: &[u8]) {
        let change = self.0.begin_write().unwrap();
        change.open_table(SNAPSHOTS).unwrap().insert(name, value).unwrap();
        change.commit().unwrap();
    }

    /// Forgets which snapshot a directory belongs to.
    pub(crate) fn forget_id(&self, id: u64) {
        let change = self.0.begin_write().unwrap();
        assert!(change.open_table(IDS).unwrap().remove(id).unwrap().is_some());
        change.commit().unwrap();
    }
}
