//! One module for each noun.

pub(crate) mod completion;
pub(crate) mod events;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod tasks;
pub(crate) mod version;
