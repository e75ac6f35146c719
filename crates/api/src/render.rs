//! Objects as JSON, each written once for each version: a list of a hundred services is put together from bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use model::{ClusterId, Service, ServiceId, Task, TaskId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// Rendered bytes that are kept. Enough for some thousands of objects; beyond it the cache starts over.
const CACHED_BYTES_MAX: usize = 8 << 20;

/// What was rendered before.
#[derive(Default)]
pub(crate) struct Rendered {
    services: Mutex<Cache<ServiceId>>,
    tasks: Mutex<Cache<TaskId>>,
    all_services: Mutex<Option<(ClusterId, u64, Bytes)>>,
}

struct Cache<K> {
    objects: BTreeMap<K, (u64, Bytes)>,
    bytes: usize,
}

// === impl Rendered ===

impl Rendered {
    /// A service.
    pub(crate) fn service(&self, s: &Service) -> Bytes {
        self.services.lock().get(&s.id, s.meta.version, || encode(&crate::convert::service(s)))
    }

    /// A task.
    pub(crate) fn task(&self, t: &Task) -> Bytes {
        self.tasks.lock().get(&t.id, t.meta.version, || encode(&crate::convert::task(t)))
    }

    /// All services of a snapshot as a list: those that Docker shows to who asks for no runtime.
    pub(crate) fn all_services(&self, snapshot: &Snapshot) -> Bytes {
        let Some(cluster) = snapshot.cluster().map(|c| c.id.clone()) else {
            return list(containers(snapshot).map(|s| self.service(s)));
        };
        let index = snapshot.index();
        if let Some((_, _, bytes)) = self.all_services.lock().as_ref().filter(|(c, i, _)| *c == cluster && *i == index)
        {
            return bytes.clone();
        }
        let bytes = list(containers(snapshot).map(|s| self.service(s)));
        if bytes.len() <= CACHED_BYTES_MAX {
            *self.all_services.lock() = Some((cluster, index, bytes.clone()));
        }
        bytes
    }
}

// === impl Cache ===

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Cache { objects: BTreeMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone> Cache<K> {
    fn get(&mut self, key: &K, version: u64, render: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((_, bytes)) = self.objects.get(key).filter(|(v, _)| *v == version) {
            return bytes.clone();
        }
        let bytes = render();
        if self.bytes + bytes.len() > CACHED_BYTES_MAX {
            self.objects.clear();
            self.bytes = 0;
        }
        self.bytes += bytes.len();
        if let Some((_, old)) = self.objects.insert(key.clone(), (version, bytes.clone())) {
            self.bytes -= old.len();
        }
        bytes
    }
}

fn containers(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Service>> {
    snapshot.services().filter(|s| s.spec.task.container().is_some())
}

fn encode(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("bodies are maps with string keys, which always encode").into()
}

/// A JSON list of rendered objects, with the line end that Docker's encoder writes.
pub(crate) fn list(objects: impl Iterator<Item = Bytes>) -> Bytes {
    let mut out = BytesMut::from(&b"["[..]);
    for (n, object) in objects.enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        out.extend_from_slice(&object);
    }
    out.extend_from_slice(b"]\n");
    out.freeze()
}

/// A rendered object with one more field.
pub(crate) fn with_field(object: &Bytes, name: &str, value: &impl serde::Serialize) -> Bytes {
    let mut out = BytesMut::from(object.strip_suffix(b"}").unwrap_or(object));
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(&encode(value));
    out.put_u8(b'}');
    out.freeze()
}
