//! Room that is what a test says it is.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use windlass_core::Result;
use windlass_core::room::{Free, Keeps};

/// What is free: unknown until a test says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Room(Arc<Mutex<Limits>>);

#[derive(Debug, Default)]
struct Limits {
    content: Option<Free>,
    snapshots: Option<Free>,
}

impl Room {
    /// Says what is free for content and for snapshots from now on.
    pub fn limit(&self, content: Option<Free>, snapshots: Option<Free>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Limits { content, snapshots };
    }
}

#[async_trait]
impl windlass_core::room::Room for Room {
    async fn free(&self, of: Keeps<'_>) -> Result<Option<Free>> {
        let limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match of {
            Keeps::Content => limits.content.clone(),
            Keeps::Snapshots(_) => limits.snapshots.clone(),
        })
    }
}
