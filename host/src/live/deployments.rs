//! Which version a pipeline is to run, across deployments and restarts: each has a book that says what was served when, and
//! every change of it goes into the book once lanes run it. Knows the store and what runs; how a version comes to be ordered
//! is `admission` and `pipeline::control`, whoever asks.
//!
//! Invariant: a pipeline has one deployment at a time, and each begins from a generation that nobody changed since.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::manifests::{ManifestError, Manifests};
use super::store::{History, How, Kept, Place, Publication, Store, StoreError};
use super::{Live, hex};
use crate::config::{Cluster, Pipeline};
use crate::pipeline::revision::Revision;
use crate::plugin::{LoadError, LoadRules, Runtime, Version};
use crate::{telemetry, threads};

/// Why a deployment does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// Another one is under way.
    #[error("another deployment of `{pipeline}` is under way: {what}; wait for its end, then look at what it did")]
    UnderWay {
        /// Whose.
        pipeline: String,
        /// What it is.
        what: String,
    },
    /// Somebody deployed since the caller looked.
    #[error(
        "`{pipeline}` is at generation {found} by now, not {expected}: somebody else deployed meanwhile; look at what is \
         served (sluicebox versions {pipeline}), then deploy again"
    )]
    Stale {
        /// Whose.
        pipeline: String,
        /// What the caller knew.
        expected: u64,
        /// What is so.
        found: u64,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the history of a pipeline lies.
#[must_use]
pub fn place_of(pipeline: &Pipeline, cluster: &Cluster) -> Place {
    Place::new(&pipeline.name, &pipeline.source.group, &cluster.bootstrap)
}

/// What a pipeline has to begin with: what its files say, unless another version was deployed since they were put there.
/// `loaded` is what the manifest names.
///
/// # Errors
/// When what was deployed does not load any more. What the files say would be older than what was served.
pub fn begin_with(
    store: &Store,
    place: &Place,
    runtime: &Arc<Runtime>,
    manifests: &Manifests,
    loaded: Arc<Version>,
) -> Result<(Arc<Pipeline>, Arc<Version>), BeginError> {
    let of_file = manifests.of_file();
    let history = store.history(place)?;
    let current = history.as_ref().and_then(|history| Some((history, history.current()?)));
    let Some((history, current)) = current else { return Ok((of_file, loaded)) };
    if current.manifest.is_some() && history.manifest_file != manifests.digest_of_file() {
        // The file changed since: it is newer than the manifest that was deployed in its place, and names its component.
        return Ok((of_file, loaded));
    }
    let same_file = history.file.as_deref() == Some(loaded.digest());
    if current.manifest.is_none() && (current.digest == loaded.digest() || !same_file) {
        return Ok((of_file, loaded));
    }
    let config = manifests.configuration(current.manifest.as_deref())?;
    let version = if same_file && current.digest != loaded.digest() {
        let bytes = store.read(&current.digest)?;
        Version::load(runtime, &bytes, &LoadRules::of(&config))?
    } else {
        // The limits that a deployed manifest sets are those that it is loaded by.
        Version::load_file(runtime, &config.component, &LoadRules::of(&config))?
    };
    telemetry::begins_with_deployed(&config.name, version.digest(), loaded.digest());
    Ok((config, version))
}

/// Why the version that was deployed is not the one to begin with.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// It cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is none for this host any more.
    #[error("the version that was deployed last cannot be loaded: {0}")]
    Load(#[from] LoadError),
    /// Nor is its manifest.
    #[error("of what was deployed last {0}; a change of the manifest's file takes its place")]
    Manifest(#[from] ManifestError),
}

/// The book of one pipeline. Cloned freely.
#[derive(Clone)]
pub struct Book(Arc<Inner>);

struct Inner {
    live: Live,
    store: Store,
    place: Place,
    page: Mutex<Page>,
}

struct Page {
    /// What was served when the book was written last.
    served: Served,
    /// The deployment that is under way.
    under_way: Option<String>,
}

/// A component with the manifest that was deployed with it.
#[derive(Clone, PartialEq, Eq)]
struct Served {
    digest: String,
    manifest: Option<Arc<str>>,
}

impl Served {
    fn of(serving: &Revision<Arc<Version>>) -> Self {
        Self { digest: serving.digest().to_string(), manifest: serving.config.deployed.clone() }
    }
}

/// A deployment that is under way; its end lets the next one begin.
pub struct UnderWay(Book);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.page().under_way = None;
    }
}

impl Book {
    /// Opens the book of a pipeline that begins, and writes into it what it begins with.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn open(live: Live, store: Store, place: Place) -> Result<Self, StoreError> {
        let served = Served::of(&live.control.serving());
        let page = Page { served: served.clone(), under_way: None };
        let book = Self(Arc::new(Inner { live, store, place, page: Mutex::new(page) }));
        book.write(&served, How::Start)?;
        Ok(book)
    }

    /// The pipeline.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.0.live
    }

    /// Where components are kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // Each field is whole at any time.
        self.0.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was served when.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn history(&self) -> Result<Option<History>, StoreError> {
        self.0.store.history(&self.0.place)
    }

    /// The generation that a deployment has to know.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn generation(&self) -> Result<u64, StoreError> {
        Ok(self.history()?.map_or(0, |history| history.generation))
    }

    /// Begins a deployment: `what` it is, and the generation that the caller knows of, if it wants to be sure of that.
    ///
    /// # Errors
    /// When one is under way, or that generation is not the last.
    pub fn begin(&self, what: &str, expected: Option<u64>) -> Result<UnderWay, NotBegun> {
        let pipeline = || self.0.live.name().to_owned();
        let mut page = self.page();
        if let Some(what) = &page.under_way {
            return Err(NotBegun::UnderWay { pipeline: pipeline(), what: what.clone() });
        }
        let found = self.generation()?;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(NotBegun::Stale { pipeline: pipeline(), expected, found });
        }
        page.under_way = Some(what.to_owned());
        Ok(UnderWay(self.clone()))
    }

    /// Writes down what is served, if that is another version than before.
    ///
    /// # Errors
    /// When the store cannot be written: then a restart begins with the version before.
    pub fn note(&self, how: How) -> Result<(), StoreError> {
        let served = Served::of(&self.0.live.control.serving());
        let page = self.page();
        // A deployment writes down itself what it brought.
        if page.served == served || (how == How::Watch && page.under_way.is_some()) {
            return Ok(());
        }
        drop(page);
        self.write(&served, how)?;
        self.page().served = served;
        Ok(())
    }

    fn write(&self, served: &Served, how: How) -> Result<(), StoreError> {
        let Inner { live, store, place, .. } = &*self.0;
        let Served { digest, manifest } = served;
        let manifest = manifest.as_deref();
        let config = &live.control.serving().config;
        let keep = config.swap.keep_versions as usize;
        // A file that is gone is no version; what is served may have come without it.
        let read = std::fs::read(&config.component).unwrap_or_default();
        let file = Some(hex(&Sha256::digest(&read))).filter(|_| !read.is_empty());
        if file.as_ref() == Some(digest) {
            store.keep(&read)?;
        }
        loop {
            let history = store.history(place)?;
            let is_it = |current: &Kept| current.digest == *digest && current.manifest.as_deref() == manifest;
            if history.as_ref().and_then(History::current).is_some_and(is_it) {
                return Ok(());
            }
            let expected = history.map_or(0, |history| history.generation);
            let (file, manifest_file) = (file.clone(), live.manifests.digest_of_file());
            let now = SystemTime::now();
            let publication = Publication { expected, digest, manifest, how, file, manifest_file, keep, now };
            match store.publish(place, &publication) {
                Ok(_) => return Ok(()),
                // Another host of this group has the same book; what lanes run here is so all the same.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The version to return to: the one named, or the one before.
    ///
    /// # Errors
    /// When there is none such.
    pub fn target(&self, to: Option<&str>) -> Result<Kept, StoreError> {
        let history = self.history()?;
        let found = history.as_ref().and_then(|history| match to {
            Some(beginning) => history.find(beginning),
            None => history.previous(),
        });
        found.cloned().ok_or_else(|| StoreError::Unknown { digest: to.unwrap_or("before this one").to_owned() })
    }
}

/// How often it is looked whether another version is served.
const LOOK: Duration = Duration::from_millis(250);

/// A thread that writes down what came without a deployment: from a file that changed. Dropping it ends it.
pub struct Scribe {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scribe {
    /// Looks after these books.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(books: Vec<Book>) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = threads::spawn("sb-books", move || {
            let mut failed = vec![false; books.len()];
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                for (book, failed) in books.iter().zip(&mut failed) {
                    // Tried again at the next look, and said once.
                    let result = book.note(How::Watch);
                    if let (Err(error), false) = (&result, *failed) {
                        telemetry::version_not_noted(book.live().name(), error);
                    }
                    *failed = result.is_err();
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes down versions ended by a panic");
        }
    }
}
