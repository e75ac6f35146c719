//! Files for the embedded engine's containers: a map.

use crate::EngineError;
use crate::files::{FileMount, FilePlace, HostFile, HostFiles, mounts};
use async_trait::async_trait;
use model::Data;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The memory of the embedded engine's machine.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    places: Mutex<BTreeMap<FilePlace, Placed>>,
}

#[derive(Debug, Default)]
struct Placed {
    files: BTreeMap<String, Data>,
    note: Option<String>,
}

/// A file that is there, for whoever checks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileThere {
    /// Whose it is.
    pub place: FilePlace,
    /// Its path in the container.
    pub path: String,
    /// Its content.
    pub data: Data,
}

// === impl MemoryFiles ===

impl MemoryFiles {
    pub(crate) fn all(&self) -> Vec<FileThere> {
        let places = self.places.lock();
        let of = |(place, placed): (&FilePlace, &Placed)| {
            let there = |(path, data): (&String, &Data)| FileThere {
                place: place.clone(),
                path: path.clone(),
                data: data.clone(),
            };
            placed.files.iter().map(there).collect::<Vec<_>>()
        };
        places.iter().flat_map(of).collect()
    }

    pub(crate) fn lose_all(&self) {
        self.places.lock().clear();
    }

    /// The first of these that is not there.
    pub(crate) fn missing<'a>(&self, mounts: &'a [FileMount]) -> Option<&'a FileMount> {
        let places = self.places.lock();
        mounts.iter().find(|m| {
            let there =
                |(place, placed): (&FilePlace, &Placed)| m.source == source(place, None) && !placed.files.is_empty();
            let single = |(place, placed): (&FilePlace, &Placed)| {
                m.source.starts_with(&source(place, None)) && placed.files.contains_key(&m.target)
            };
            !places.iter().any(|p| there(p) || single(p))
        })
    }
}

fn source(place: &FilePlace, number: Option<usize>) -> String {
    let number = number.map(|n| n.to_string()).unwrap_or_default();
    format!("memory:{}/{}/{number}", place.space(), place.owner())
}

#[async_trait]
impl HostFiles for MemoryFiles {
    async fn put(&self, place: &FilePlace, files: &[HostFile]) -> Result<Vec<FileMount>, EngineError> {
        let mut places = self.places.lock();
        let is_there = |path: &String| places.get(place).is_some_and(|p| p.files.contains_key(path));
        if let Some(gone) = files.iter().find(|f| f.data.is_none() && !is_there(&f.path)) {
            return Err(EngineError::Failed(format!("{} is gone, and so is what it was made from", gone.path)));
        }
        let placed = places.entry(place.clone()).or_default();
        placed.files.extend(files.iter().filter_map(|f| Some((f.path.clone(), f.data.clone()?))));
        Ok(mounts(files, |n| source(place, n)))
    }

    async fn mark(&self, place: &FilePlace, note: &str) -> Result<(), EngineError> {
        self.places.lock().entry(place.clone()).or_default().note = Some(note.to_owned());
        Ok(())
    }

    async fn mark_of(&self, place: &FilePlace) -> Result<Option<String>, EngineError> {
        Ok(self.places.lock().get(place).and_then(|p| p.note.clone()))
    }

    async fn remove(&self, place: &FilePlace) -> Result<(), EngineError> {
        self.places.lock().remove(place);
        Ok(())
    }

    async fn list(&self, space: &str) -> Result<Vec<String>, EngineError> {
        Ok(self.places.lock().keys().filter(|p| p.space() == space).map(|p| p.owner().to_owned()).collect())
    }

    async fn clear(&self, space: &str) -> Result<(), EngineError> {
        self.places.lock().retain(|p, _| p.space() != space);
        Ok(())
    }
}
