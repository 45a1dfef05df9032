//! Compiled components on disk, so that a host that starts again does not compile what it compiled before.
//!
//! Native code cannot be checked when it is loaded, so only what this user's hosts wrote is: the directory and its key are
//! private to the user, each file carries a MAC over its name and content, and what is wrong in any way is compiled anew.
//! A file's name is the component's digest with everything that native code depends on. Nothing outside of the directory
//! is ever loaded.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

/// The key's file.
const KEY: &str = "key";
/// What files of compiled components end with.
const ENDING: &str = "code";
/// A block of the hash: the longest that adds anything.
const KEY_BYTES: usize = 64;
const MAC: usize = 32;
/// Bytes that are kept; the files that were not used for the longest time go first.
const KEPT: u64 = 1 << 30;

/// Why there is no cache. The host goes on without one.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Cannot be made, read or written.
    #[error("the cache of compiled plugins at {path} cannot be used: {source}")]
    Io {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could have put something there.
    #[error(
        "the cache of compiled plugins at {path} is not private ({what}), so nothing in it can be trusted: remove the \
         directory, the host makes it again"
    )]
    NotPrivate {
        /// Which directory.
        path: PathBuf,
        /// What is open to whom.
        what: &'static str,
    },
}

/// See the module's text.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    kept: u64,
}

/// The name of a compiled component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Of a component, by its digest, compiled for an engine: engine, settings, target and features of the CPU.
    pub(super) fn new(digest: &[u8], engine: &Engine) -> Self {
        let mut hasher = ShaHasher(Sha256::new());
        hasher.write(digest);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(super::version::hex(&hasher.0.finalize()))
    }
}

/// A digest as long as the world, where `Hasher`'s own has 64 bits.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn finish(&self) -> u64 {
        unreachable!("the whole digest is used")
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Cache {
    /// Opens the cache at this directory, which is made with its key where it is missing.
    ///
    /// # Errors
    /// When it cannot be, or somebody else could write to it.
    pub fn open(directory: &Path) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Io { path: directory.to_owned(), source };
        let open_to = |what| CacheError::NotPrivate { path: directory.to_owned(), what };
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Not followed: a link would lead to where somebody else decides.
        let found = std::fs::symlink_metadata(directory).map_err(failed)?;
        if !found.is_dir() {
            return Err(open_to("it is no directory"));
        }
        if found.uid() != own_user() {
            return Err(open_to("it belongs to another user"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(open_to("other users may enter it"));
        }
        let path = directory.join(KEY);
        if std::fs::symlink_metadata(&path).is_err() {
            make_key(directory, &path).map_err(failed)?;
        }
        let mut file = open_own(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() || found.uid() != own_user() || found.mode() & 0o077 != 0 {
            return Err(open_to("other users may read its key"));
        }
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), key, kept: KEPT })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(&key.0).with_extension(ENDING)
    }

    fn mac(&self, key: &Key, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        // The name has one length, so nothing of it can pass for code.
        mac.update(key.0.as_bytes());
        mac.update(code);
        mac
    }

    /// The code of that name, if it is there and what was written. What is not is removed.
    pub(super) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = open_own(&path).ok()?;
        let mut content = Vec::new();
        let whole = file.metadata().is_ok_and(|found| found.is_file() && found.uid() == own_user())
            && file.read_to_end(&mut content).is_ok()
            && content.len() > MAC
            && self.mac(key, &content[MAC..]).verify_slice(&content[..MAC]).is_ok();
        if !whole {
            self.forget(key);
            return None;
        }
        // Only decides what goes first.
        _ = file.set_modified(SystemTime::now());
        content.drain(..MAC);
        Some(content)
    }

    /// Removes what turned out to be of no use.
    pub(super) fn forget(&self, key: &Key) {
        // It is written over anyway.
        _ = std::fs::remove_file(self.path(key));
    }

    /// Keeps code. Readers see all of it or nothing.
    pub(super) fn put(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        let temporary = self.directory.join(unfinished(&key.0));
        let written = write_own(&temporary, &[&self.mac(key, code).finalize().into_bytes(), code])
            .and_then(|()| std::fs::rename(&temporary, self.path(key)));
        if written.is_err() {
            // The reason is the error of the writing.
            _ = std::fs::remove_file(&temporary);
        }
        written.and_then(|()| self.tidy())
    }

    /// Removes the oldest files while there is too much, and what a host that died left half-written.
    fn tidy(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            // One that another host removed meanwhile is none.
            let Ok(found) = entry.metadata() else { continue };
            let (name, used) = (entry.file_name(), found.modified()?);
            let age = SystemTime::now().duration_since(used).unwrap_or_default();
            let name = name.to_string_lossy();
            if name.ends_with(".new") && age.as_secs() > 3600 {
                std::fs::remove_file(entry.path())?;
            } else if name.ends_with(ENDING) {
                files.push((used, found.len(), entry.path()));
            }
        }
        files.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut kept = 0;
        for (_, bytes, path) in files {
            kept += bytes;
            // The newest stays, however large.
            if kept > self.kept && kept > bytes {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// What a file is called before it is whole: by one writer only, whatever else writes at the same time.
fn unfinished(name: &str) -> String {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    format!("{name}.{}-{}.new", std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed))
}

fn own_user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// Opens a file to read it, and no link.
fn open_own(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Writes a new file that nobody else may read.
fn write_own(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

/// Of two hosts that start at the same time, one makes the key: it appears whole, and never changes.
fn make_key(directory: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let temporary = directory.join(unfinished(KEY));
    write_own(&temporary, &[&key])?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn key(text: &str) -> Key {
        Key(super::super::version::hex(&Sha256::digest(text)))
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn what_was_put_is_got_by_the_same_name_and_key_only() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("data/compiled");
        let cache = Cache::open(&directory).expect("a new cache");
        assert_eq!(cache.get(&key("a")), None);
        cache.put(&key("a"), b"code of a").expect("written");
        cache.put(&key("b"), b"code of b").expect("written");
        let again = Cache::open(&directory).expect("the same cache");
        assert_eq!(again.get(&key("a")).as_deref(), Some(&b"code of a"[..]));
        // A file under another's name is not loaded, and goes.
        std::fs::rename(again.path(&key("a")), again.path(&key("b"))).expect("renamed");
        assert_eq!(again.get(&key("b")), None);
        assert!(!again.path(&key("b")).exists());
        // Nor one that another key signed.
        again.put(&key("a"), b"code of a").expect("written");
        std::fs::remove_file(directory.join(KEY)).expect("removed");
        assert_eq!(Cache::open(&directory).expect("another key").get(&key("a")), None);
    }

    /// Goal: no damaged file is taken. Method: every byte of one is changed in turn, and it is cut at every length.
    #[test]
    fn a_file_that_is_wrong_anywhere_is_not_loaded() {
        let root = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(&root.path().join("compiled")).expect("a new cache");
        cache.put(&key("a"), b"some code").expect("written");
        let path = cache.path(&key("a"));
        let good = std::fs::read(&path).expect("read");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            for bad in [&bad[..], &good[..at]] {
                std::fs::write(&path, bad).expect("written");
                assert_eq!(cache.get(&key("a")), None, "{at}");
            }
        }
        std::fs::write(&path, &good).expect("written");
        assert!(cache.get(&key("a")).is_some());
        let elsewhere = root.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).expect("renamed");
        symlink(&elsewhere, &path).expect("a link");
        assert_eq!(cache.get(&key("a")), None, "a link is not followed");
    }

    #[test]
    fn files_and_directory_are_private_or_not_used() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("compiled");
        let cache = Cache::open(&directory).expect("a new cache");
        cache.put(&key("a"), b"code").expect("written");
        let of = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!((of(&directory), of(&directory.join(KEY)), of(&cache.path(&key("a")))), (0o700, 0o600, 0o600));
        mode(&directory.join(KEY), 0o640);
        assert!(Cache::open(&directory).expect_err("the key is open").to_string().contains("may read its key"));
        mode(&directory.join(KEY), 0o600);
        mode(&directory, 0o750);
        assert!(Cache::open(&directory).expect_err("it is open").to_string().contains("may enter it"));
        mode(&directory, 0o700);
        let link = root.path().join("link");
        symlink(&directory, &link).expect("a link");
        assert!(Cache::open(&link).expect_err("a link").to_string().contains("no directory"));
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let root = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(&root.path().join("compiled")).expect("a new cache");
        let cache = Cache { kept: 300, ..cache };
        let age = |name: &str, seconds: u64| {
            let file = File::open(cache.path(&key(name))).expect("there");
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(seconds)).expect("aged");
        };
        for (name, seconds) in [("a", 30), ("b", 20)] {
            cache.put(&key(name), &[1; 100]).expect("written");
            age(name, seconds);
        }
        // Used: now b is the oldest.
        assert!(cache.get(&key("a")).is_some());
        cache.put(&key("c"), &[1; 100]).expect("written");
        let there = ["a", "b", "c"].map(|name| cache.path(&key(name)).exists());
        assert_eq!(there, [true, false, true]);
        cache.put(&key("d"), &[1; 1000]).expect("larger than all");
        assert!(cache.get(&key("d")).is_some());
    }
}
