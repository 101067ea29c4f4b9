//! What can go wrong with a tree or an image.

/// Why something was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tree cannot have this.
    #[error("{0}")]
    Invalid(String),
    /// A limit is exceeded: that of the format, or one that was set.
    #[error("{0}")]
    TooLarge(String),
    /// An image is damaged, or has what is not read here.
    #[error("the EROFS image is damaged: {0}")]
    Damaged(String),
    /// The bytes could not be written or read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The result of most calls.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn damaged<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Damaged(what.into()))
}

pub(crate) fn too_large(what: &str) -> Error {
    Error::TooLarge(what.to_owned())
}
