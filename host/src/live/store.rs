//! The versions of handlers on disk: what each pipeline runs, what it ran before, and the components themselves, so that a
//! restart serves what was deployed and a roll-back needs nobody. Knows files; knows no pipeline that runs.
//!
//! Under the directory: `components/DIGEST.wasm`, each once for all pipelines, and `pipelines/PLACE`, the history of one.
//! Every file is written beside its place, made durable, then renamed: a kill at any step ([`Step`]) leaves what was there
//! or what was meant to be, never half of it. A component is verified against its name whenever it is read.
//!
//! Several hosts may share the directory: whoever writes a history holds its lock and compares the generation first.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hex;

/// The form of histories that is written and read.
const SCHEMA: u32 = 1;
/// What nobody refers to goes after this time: it may belong to a deployment that is under way.
const STRAY: Duration = Duration::from_secs(24 * 3600);
/// A longer history is none of ours: as many versions as may be kept, each with a manifest.
const LONGEST_HISTORY: u64 = 32 << 20;
/// What a file is called before it is whole.
const UNFINISHED: &str = ".new";

/// Why the store does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be made, read or written.
    #[error("the version store cannot use {path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could change what is served.
    #[error("the version store {path} is not private ({what}): remove it, the host makes it again")]
    NotPrivate {
        /// Which directory.
        path: PathBuf,
        /// What is open to whom.
        what: &'static str,
    },
    /// Not what was written.
    #[error("{path} is damaged ({what}): remove it; the host begins with what its manifest names")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
    /// Asked for by its digest, and not kept.
    #[error("version {digest} is not kept here")]
    Unknown {
        /// Which.
        digest: String,
    },
    /// Somebody else published meanwhile.
    #[error("generation {expected} was expected, and {found} is there: somebody else deployed meanwhile")]
    Conflict {
        /// What the caller knew.
        expected: u64,
        /// What is so.
        found: u64,
    },
}

/// How a version came to be the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The host began with it.
    Start,
    /// Its file changed.
    Watch,
    /// It was deployed.
    Deploy,
    /// It was returned to.
    Rollback,
}

/// One version of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Size of the component.
    pub bytes: u64,
    /// When it became the current one, the last time, in ms since 1970.
    pub since: u64,
    /// And how.
    pub how: How,
    /// The manifest that was deployed with it; `None`: it goes with the pipeline's own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

impl Kept {
    /// Tells manifests apart: SHA-256 of the one that was deployed with it.
    #[must_use]
    pub fn settings(&self) -> Option<String> {
        self.manifest.as_ref().map(|text| hex(&Sha256::digest(text)))
    }

    fn begins(&self, beginning: &str) -> bool {
        let settings = self.settings();
        self.digest.starts_with(beginning) || settings.is_some_and(|settings| settings.starts_with(beginning))
    }
}

/// What a pipeline runs and ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    schema: u32,
    /// The pipeline, for people who look into the file.
    pub pipeline: String,
    /// Grows by one with every change of the current version.
    pub generation: u64,
    /// Digest of what the manifest's path held when the current version was published. When the path holds something else
    /// after a restart, that is newer.
    pub file: Option<String>,
    /// The same of the manifest's file.
    #[serde(default)]
    pub manifest_file: Option<String>,
    /// The current one first, then those before it, the newest first. No two alike.
    pub versions: Vec<Kept>,
}

impl History {
    /// What is served.
    #[must_use]
    pub fn current(&self) -> Option<&Kept> {
        self.versions.first()
    }

    /// What was served before that.
    #[must_use]
    pub fn previous(&self) -> Option<&Kept> {
        self.versions.get(1)
    }

    /// The version whose digest, or that of its manifest, begins so; the newest if only manifests differ.
    #[must_use]
    pub fn find(&self, beginning: &str) -> Option<&Kept> {
        let beginning = beginning.strip_prefix("sha256:").unwrap_or(beginning);
        let mut found = self.versions.iter().filter(|kept| !beginning.is_empty() && kept.begins(beginning));
        let first = found.next()?;
        found.all(|other| other.digest == first.digest).then_some(first)
    }
}

/// Whose history it is: a pipeline of one group on one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    file: String,
}

impl Place {
    /// Of the pipeline of this name and group on this cluster.
    #[must_use]
    pub fn new(name: &str, group: &str, bootstrap: &str) -> Self {
        let mut hasher = Sha256::new();
        for part in [name, group, bootstrap] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self { name: name.to_owned(), file: format!("{name}-{}", &hex(&hasher.finalize())[..12]) }
    }
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The generation that the caller knows; 0: there is none yet.
    pub expected: u64,
    /// The version, which was kept before.
    pub digest: &'a str,
    /// The manifest that was deployed with it.
    pub manifest: Option<&'a str>,
    /// How it came.
    pub how: How,
    /// What the manifest's path holds now.
    pub file: Option<String>,
    /// What the manifest's file holds now.
    pub manifest_file: Option<String>,
    /// Versions that are kept, this one among them.
    pub keep: usize,
    /// Now.
    pub now: SystemTime,
}

/// After which a kill would leave something that a restart has to cope with. In the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The component's file is there, empty.
    ComponentMade,
    /// It has its content, which may be in memory only.
    ComponentWritten,
    /// Its content is on disk.
    ComponentSynced,
    /// It has its name.
    ComponentNamed,
    /// Its name is on disk.
    ComponentKept,
    /// The new history's file is there, empty.
    HistoryMade,
    /// It has its content, which may be in memory only.
    HistoryWritten,
    /// Its content is on disk.
    HistorySynced,
    /// It took the place of the old one.
    HistoryNamed,
    /// That is on disk.
    HistoryPublished,
    /// A version that is not kept any more is gone.
    Pruned,
}

/// Nothing, but in tests: there it may be the end.
#[cfg(not(test))]
const fn reached(_: Step) {}
#[cfg(test)]
use tests::reached;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the store in this directory, which is made where it is missing.
    ///
    /// # Errors
    /// When it cannot be, or somebody else could write to it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: directory.to_owned(), source };
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let store = Self { directory: directory.to_owned() };
        for path in [directory.to_owned(), store.components(), store.histories()] {
            make_private(&path)?;
        }
        store.tidy(SystemTime::now())?;
        Ok(store)
    }

    fn components(&self) -> PathBuf {
        self.directory.join("components")
    }

    fn histories(&self) -> PathBuf {
        self.directory.join("pipelines")
    }

    fn component(&self, digest: &str) -> PathBuf {
        self.components().join(format!("{digest}.wasm"))
    }

    fn history_file(&self, place: &Place) -> PathBuf {
        self.histories().join(&place.file)
    }

    /// What is known of a pipeline; `None`: nothing was published yet.
    ///
    /// # Errors
    /// When its file cannot be read, or is not what was written.
    pub fn history(&self, place: &Place) -> Result<Option<History>, StoreError> {
        read_history(&self.history_file(place))
    }

    /// Keeps a component. The same bytes are kept once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let digest = hex(&Sha256::digest(bytes));
        let path = self.component(&digest);
        if self.read(&digest).is_ok() {
            // Only decides what is a stray.
            _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            return Ok(digest);
        }
        let steps = [Step::ComponentMade, Step::ComponentWritten, Step::ComponentSynced, Step::ComponentNamed];
        put(&path, bytes, steps)?;
        reached(Step::ComponentKept);
        Ok(digest)
    }

    /// A component that was kept, after a look at every byte of it.
    ///
    /// # Errors
    /// When it is not there, or not what its name says.
    pub fn read(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.component(digest);
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Unknown { digest: digest.to_owned() },
            _ => StoreError::Io { path: path.clone(), source },
        };
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::Unknown { digest: digest.to_owned() });
        }
        let mut bytes = Vec::new();
        open_own(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io)?;
        if hex(&Sha256::digest(&bytes)) == digest {
            return Ok(bytes);
        }
        Err(StoreError::Damaged { path, what: "its content is another than its name says".to_owned() })
    }

    /// Makes a version the current one of a pipeline, if nobody did so since the caller looked.
    ///
    /// # Errors
    /// When somebody did, or it cannot be written.
    pub fn publish(&self, place: &Place, publication: &Publication<'_>) -> Result<History, StoreError> {
        let path = self.history_file(place);
        let _lock = self.lock()?;
        let before = read_history(&path)?;
        let found = before.as_ref().map_or(0, |history| history.generation);
        if found != publication.expected {
            return Err(StoreError::Conflict { expected: publication.expected, found });
        }
        let component = self.component(publication.digest);
        let bytes = std::fs::metadata(&component)
            .map_err(|_| StoreError::Unknown { digest: publication.digest.to_owned() })?
            .len();
        let since = publication.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let current = Kept {
            digest: publication.digest.to_owned(),
            bytes,
            since: u64::try_from(since).unwrap_or(u64::MAX),
            how: publication.how,
            manifest: publication.manifest.map(str::to_owned),
        };
        let older = before.into_iter().flat_map(|history| history.versions);
        let same = |kept: &Kept| kept.digest == current.digest && kept.manifest == current.manifest;
        let older: Vec<Kept> = older.filter(|kept| !same(kept)).collect();
        let mut versions: Vec<Kept> = std::iter::once(current).chain(older).collect();
        let dropped = versions.split_off(versions.len().min(publication.keep.max(1)));
        let history = History {
            schema: SCHEMA,
            pipeline: place.name.clone(),
            generation: found + 1,
            file: publication.file.clone(),
            manifest_file: publication.manifest_file.clone(),
            versions,
        };
        let steps = [Step::HistoryMade, Step::HistoryWritten, Step::HistorySynced, Step::HistoryNamed];
        put(&path, &written(&history)?, steps)?;
        reached(Step::HistoryPublished);
        for kept in dropped {
            // It is published; what cannot be removed is a stray from now on.
            _ = self.forget(&kept.digest);
        }
        Ok(history)
    }

    /// Removes a component, unless a pipeline still has it among its versions.
    fn forget(&self, digest: &str) -> Result<(), StoreError> {
        if !self.referred()?.iter().any(|referred| referred == digest) {
            remove(&self.component(digest))?;
            reached(Step::Pruned);
        }
        Ok(())
    }

    /// Digests that some history has. A damaged one might have any.
    fn referred(&self) -> Result<Vec<String>, StoreError> {
        let mut digests = Vec::new();
        for (path, _) in list(&self.histories())? {
            if let Some(history) = read_history(&path)? {
                digests.extend(history.versions.into_iter().map(|kept| kept.digest));
            }
        }
        Ok(digests)
    }

    /// Removes what a host that died left behind.
    fn tidy(&self, now: SystemTime) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let is_old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age > STRAY);
        let referred = match self.referred() {
            Ok(referred) => referred,
            // Whoever asks for that history is told; until then nothing is removed.
            Err(StoreError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for (path, _) in list(&self.components())?.into_iter().filter(|(_, modified)| is_old(*modified)) {
            let digest = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if !referred.iter().any(|referred| referred == digest) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Held by who writes. Goes with the process.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.directory.join("lock");
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }
}

/// A digest, then what it is of: a history that is cut or changed anywhere is none.
fn written(history: &History) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_string_pretty(history).map_err(|error| StoreError::Damaged {
        path: PathBuf::from(&history.pipeline),
        what: format!("it cannot be written down: {error}"),
    })?;
    Ok(format!("{}\n{text}\n", hex(&Sha256::digest(&text))).into_bytes())
}

fn read_history(path: &Path) -> Result<Option<History>, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let file = match open_own(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = String::new();
    match file.take(LONGEST_HISTORY).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("it is no text".to_owned())),
        read => read.map_err(io)?,
    };
    let parts = text.split_once('\n').and_then(|(digest, text)| Some((digest, text.strip_suffix('\n')?)));
    let whole = parts.filter(|(digest, text)| hex(&Sha256::digest(text)) == *digest);
    let (_, text) = whole.ok_or_else(|| damaged("it is not what was written".to_owned()))?;
    let history: History = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    match history.schema {
        SCHEMA => Ok(Some(history)),
        other => Err(damaged(format!("it has schema {other}, this host knows {SCHEMA}"))),
    }
}

/// Writes a file whole, or leaves what was there. Passes one step after the other: made, written, synced, named.
fn put(path: &Path, content: &[u8], steps: [Step; 4]) -> Result<(), StoreError> {
    let [made, content_written, synced, named] = steps;
    let temporary = unfinished(path);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        reached(made);
        file.write_all(content)?;
        reached(content_written);
        file.sync_all()?;
        reached(synced);
        std::fs::rename(&temporary, path)?;
        reached(named);
        // The name is in the directory, which has to be durable by itself.
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|source| {
        // The reason is the error of the writing; what is left over is tidied up later.
        _ = std::fs::remove_file(&temporary);
        StoreError::Io { path: path.to_owned(), source }
    })
}

/// By one writer only, whatever else writes at the same time.
fn unfinished(path: &Path) -> PathBuf {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}{UNFINISHED}", std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// Files of a directory that are whole, with when they were written; of the others, those that nobody finishes go.
fn list(directory: &Path) -> Result<Vec<(PathBuf, SystemTime)>, StoreError> {
    let failed = |source| StoreError::Io { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // One that another host removed meanwhile is none.
        let Ok(modified) = entry.metadata().and_then(|found| found.modified()) else { continue };
        if !entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            files.push((entry.path(), modified));
        } else if modified.elapsed().is_ok_and(|age| age > STRAY) {
            remove(&entry.path())?;
        }
    }
    Ok(files)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A directory that nobody else writes to.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let not_private = |what| StoreError::NotPrivate { path: path.to_owned(), what };
    // Not followed: a link would lead to where somebody else decides.
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    // SAFETY: takes nothing, cannot fail.
    let own = unsafe { libc::geteuid() };
    match found {
        _ if !found.is_dir() => Err(not_private("it is no directory")),
        _ if found.uid() != own => Err(not_private("it belongs to another user")),
        _ if found.mode() & 0o022 != 0 => Err(not_private("other users may write to it")),
        _ => Ok(()),
    }
}

/// Opens a file to read it, and no link.
fn open_own(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
