//! What the daemon of a test says about itself.

use async_trait::async_trait;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::plugin::{CONTENT, Deprecation, Introspection, Outcome, Plugin, SNAPSHOTTER, ServerInfo};
use windlass_core::{Error, Platform, Result};
use windlass_grpc::introspection::REBASE;
use windlass_testkit::memory;

/// Plugins that work, one that was skipped and one that failed.
pub(crate) struct Daemon;

pub(crate) fn plugins() -> Vec<Plugin> {
    let mut snapshotter = Plugin::new(SNAPSHOTTER, memory::SNAPSHOTTER);
    snapshotter.platforms = vec![Platform::new("linux", "arm", Some("v7"))];
    snapshotter.exports = [("root".to_owned(), "/state/snapshots".to_owned())].into();
    snapshotter.capabilities = vec![REBASE.to_owned()];
    let mut content = Plugin::new(CONTENT, "content");
    content.requires = vec!["io.containerd.metadata.v1".to_owned()];
    let mut skipped = Plugin::new(SNAPSHOTTER, "zfs");
    skipped.outcome = Outcome::Skipped { reason: "/var is not on zfs".to_owned() };
    let mut failed = Plugin::new(SNAPSHOTTER, "broken");
    failed.outcome = Outcome::failed(&Error::permission_denied("open /x").hint("be root"));
    vec![content, snapshotter, skipped, failed]
}

#[async_trait]
impl Introspection for Daemon {
    async fn plugins(&self, filters: &[Filter]) -> Result<Vec<Plugin>> {
        Ok(plugins().into_iter().filter(|plugin| any_matches(filters, plugin)).collect())
    }

    async fn server(&self) -> Result<ServerInfo> {
        Ok(ServerInfo {
            uuid: "8d9f8e7c-0000-4000-8000-000000000000".to_owned(),
            pid: 42,
            pidns: 4_026_531_836,
            deprecations: vec![Deprecation {
                id: "io.containerd.deprecation/x".to_owned(),
                message: "say y".to_owned(),
                last_occurrence: std::time::SystemTime::UNIX_EPOCH,
            }],
            version: "1.2.3".to_owned(),
            revision: "abc".to_owned(),
        })
    }
}
