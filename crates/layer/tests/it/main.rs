//! Layers applied to real directories, as root.

mod apply;
mod archive;
mod formats;
mod hostile;
mod metadata;
mod overlay;
mod parser;
mod streams;
mod tree;
mod whiteouts;
