//! Components and manifests that change on disk. A thread looks at their stamps again and again (a file system that
//! tells of changes does not do so over a network, or through the links that a cluster's volumes are made of), and reads a
//! file once its stamp has stood still for one look. What counts are the bytes: a file that was only touched changes
//! nothing, and what was refused once is not tried again.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::admission::Trial;
use super::{Live, Rollout, hex};
use crate::config::{Pipeline, Report};
use crate::telemetry;
use crate::threads;

/// How often stamps are looked at, of few files.
const LOOK: Duration = Duration::from_millis(150);
/// Of many it is less often: a look at each takes a system call, or a request to another machine. A hundred files are looked
/// at three times a second.
const LOOK_EACH: Duration = Duration::from_millis(3);
/// And so often at least.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);

/// Reads the pipelines of this process again, as they were read at its start.
pub type Reload = Box<dyn FnMut() -> Result<Vec<Pipeline>, Report> + Send>;

/// A thread that watches. Dropping it ends the watch, without waiting: it may be compiling.
pub struct FileWatch {
    _stop: SyncSender<()>,
}

impl FileWatch {
    /// Watches the components of these pipelines, and `manifests`, after a change of which everything is read again.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(pipelines: Vec<Live>, manifests: Vec<PathBuf>, reload: Reload) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let mut watcher = Watcher {
            components: pipelines.into_iter().map(|live| Component::new(&live)).collect(),
            manifests: manifests.into_iter().map(File::new).collect(),
            reload,
        };
        let pause = pause(watcher.components.len() + watcher.manifests.len());
        threads::spawn("sb-watch", move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                watcher.look();
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// Between two looks at so many files.
fn pause(files: usize) -> Duration {
    LOOK_EACH.saturating_mul(u32::try_from(files).unwrap_or(u32::MAX)).clamp(LOOK, LOOK_AT_LEAST)
}

struct Watcher {
    components: Vec<Component>,
    manifests: Vec<File>,
    reload: Reload,
}

/// A pipeline with the file of its component.
struct Component {
    live: Live,
    file: File,
    /// Digest of what was refused last, with the configuration that it was tried under.
    refused: Option<(String, Arc<Pipeline>)>,
}

/// A file whose changes count once they are over.
struct File {
    path: PathBuf,
    /// As it was when it was read last, and at the last look.
    read: Option<Stamp>,
    seen: Option<Stamp>,
}

/// Changes when the file does: another time, length or inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let of = |file: Metadata| Self {
            modified: (file.mtime(), file.mtime_nsec()),
            length: file.len(),
            inode: (file.dev(), file.ino()),
        };
        std::fs::metadata(path).ok().map(of)
    }
}

impl File {
    fn new(path: PathBuf) -> Self {
        let stamp = Stamp::of(&path);
        Self { path, read: stamp, seen: stamp }
    }

    /// It was changed, and nobody is at it any more.
    fn has_changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let still = std::mem::replace(&mut self.seen, now) == now;
        // A file that is gone for a moment is being replaced.
        let changed = still && now.is_some() && now != self.read;
        if changed {
            self.read = now;
        }
        changed
    }
}

impl Component {
    fn new(live: &Live) -> Self {
        let file = File::new(live.control.serving().config.component.clone());
        Self { live: live.clone(), file, refused: None }
    }

    /// Offers what the file holds, under a configuration.
    fn offer(&mut self, config: &Arc<Pipeline>) {
        let name = self.live.name();
        // One byte more than allowed: admission says how large is too large.
        let mut bytes = Vec::new();
        let limit = config.limits.component_size.saturating_add(1);
        let read = std::fs::File::open(&config.component).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        if let Err(error) = read {
            return telemetry::swap_unreadable(name, &config.component, &error);
        }
        let digest = hex(&Sha256::digest(&bytes));
        let latest = self.live.control.latest();
        if *digest == **latest.digest() && Arc::ptr_eq(config, &latest.config) {
            return;
        }
        let refused = self.refused.as_ref();
        if refused.is_some_and(|(before, under)| *before == digest && Arc::ptr_eq(under, config)) {
            return;
        }
        telemetry::swap_found(name, &config.component, &digest);
        match self.live.admit(config, &bytes, Trial::Sample) {
            Ok(admitted) => {
                self.refused = None;
                // Somebody else's order in the same moment is newer than this one's look at the last: that one stands.
                if let Err(conflict) = self.live.order(admitted, Rollout::default()) {
                    telemetry::swap_conflict(name, &conflict);
                }
            }
            Err(refused) => {
                self.live.status.refuses_version();
                let serving = self.live.control.serving();
                telemetry::swap_refused(name, &config.component, &digest, serving.digest(), &refused);
                self.refused = Some((digest, Arc::clone(config)));
            }
        }
    }
}

impl Watcher {
    fn look(&mut self) {
        // All of them: each looks at its own stamp.
        let changed = self.manifests.iter_mut().fold(false, |changed, file| file.has_changed() | changed);
        if changed {
            self.reload();
        }
        for component in &mut self.components {
            let latest = component.live.control.latest();
            if component.file.has_changed() && latest.config.swap.watch {
                component.offer(&latest.config);
            }
        }
    }

    /// A manifest changed: what differs is offered to its pipeline.
    fn reload(&mut self) {
        let pipelines = match (self.reload)() {
            Ok(pipelines) => pipelines,
            Err(report) => return telemetry::reload_refused(&report),
        };
        let mut pipelines: BTreeMap<String, Pipeline> =
            pipelines.into_iter().map(|pipeline| (pipeline.name.clone(), pipeline)).collect();
        for component in &mut self.components {
            let latest = component.live.control.latest();
            let Some(pipeline) = pipelines.remove(component.live.name()) else { continue };
            if !latest.config.swap.watch {
                continue;
            }
            let pipeline = Arc::new(pipeline);
            let said = component.live.manifests.file_says(Arc::clone(&pipeline));
            // What was deployed since stands until the file itself says something else.
            let is_so = latest.config.deployed.is_none() && pipeline.says_the_same(&latest.config);
            if is_so || pipeline.says_the_same(&said) {
                continue;
            }
            if pipeline.component != component.file.path {
                component.file = File::new(pipeline.component.clone());
            }
            component.offer(&pipeline);
        }
        for name in pipelines.keys() {
            telemetry::reload_other(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the files of a few pipelines are looked at often, those of many less often, and all within a second.
    #[test]
    fn many_files_are_looked_at_less_often() {
        assert_eq!((pause(0), pause(2), pause(50)), (LOOK, LOOK, LOOK));
        assert_eq!(pause(100), Duration::from_millis(300));
        assert_eq!(pause(usize::MAX), LOOK_AT_LEAST);
    }
}
