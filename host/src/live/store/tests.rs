//! The store, cut at every step by a real SIGKILL of a process of its own, damaged at every byte, and used by two at once.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, ExitStatus};

use super::*;

/// Every step that a deployment passes here.
const STEPS: [Step; 11] = [
    Step::ComponentMade,
    Step::ComponentWritten,
    Step::ComponentSynced,
    Step::ComponentNamed,
    Step::ComponentKept,
    Step::HistoryMade,
    Step::HistoryWritten,
    Step::HistorySynced,
    Step::HistoryNamed,
    Step::HistoryPublished,
    Step::Pruned,
];
/// Names the step after which the child dies.
const KILL: &str = "SLUICEBOX_TEST_KILL_AT";
/// Names the store that the child uses.
const DIRECTORY: &str = "SLUICEBOX_TEST_STORE";

/// The end, at the step that the environment names.
pub(super) fn reached(step: Step) {
    if std::env::var(KILL).is_ok_and(|at| at == format!("{step:?}")) {
        // SAFETY: ends this very process.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

/// Versions that are kept here.
const KEPT: usize = 5;

fn place() -> Place {
    Place::new("orders", "orders-group", "broker:9092")
}

fn component(number: u64) -> Vec<u8> {
    format!("component {number} {}", "x".repeat(10_000)).into_bytes()
}

fn deploy(store: &Store, place: &Place, number: u64) -> Result<History, StoreError> {
    let digest = store.keep(&component(number))?;
    let expected = store.history(place)?.map_or(0, |history| history.generation);
    publish(store, place, expected, &digest)
}

fn publish(store: &Store, place: &Place, expected: u64, digest: &str) -> Result<History, StoreError> {
    publish_with(store, place, expected, digest, None)
}

fn publish_with(
    store: &Store,
    place: &Place,
    expected: u64,
    digest: &str,
    manifest: Option<&str>,
) -> Result<History, StoreError> {
    let now = UNIX_EPOCH + Duration::from_millis(expected + 1);
    let (file, manifest_file) = (None, None);
    let how = How::Deploy;
    store.publish(place, &Publication { expected, digest, manifest, how, file, manifest_file, keep: KEPT, now })
}

fn opened() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().expect("a directory");
    let store = Store::open(&root.path().join("state/versions")).expect("a new store");
    (root, store)
}

/// One deployment in a process of its own, which ends at this step.
fn killed_at(store: &Store, step: Step) -> ExitStatus {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(["--exact", "live::store::tests::child", "--nocapture"]);
    child.env(KILL, format!("{step:?}")).env(DIRECTORY, &store.directory);
    child.output().expect("it starts").status
}

/// No test of its own: what [`killed_at`] runs.
#[test]
fn child() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        let store = Store::open(Path::new(&directory)).expect("the store of the parent");
        deploy(&store, &place(), 100).expect("killed before it could fail");
    }
}

/// Proves: whenever a deployment is killed, what is there afterwards is the old version or the new one, whole, with all that
/// was kept before; and the next deployment works. Method: a process of its own is killed after each named step. The store is
/// full, so that the oldest version has to go.
#[test]
fn a_kill_at_any_step_leaves_the_old_or_the_new_version() {
    use std::os::unix::process::ExitStatusExt as _;
    for step in STEPS {
        let (_root, store) = opened();
        for number in 0..KEPT as u64 {
            deploy(&store, &place(), number).expect("a version");
        }
        let before = store.history(&place()).expect("whole").expect("published");
        assert_eq!(killed_at(&store, step).signal(), Some(libc::SIGKILL), "{step:?} is passed");

        let store = Store::open(&store.directory).expect("after the kill");
        let after = store.history(&place()).expect("whole").expect("still published");
        let new = hex(&Sha256::digest(component(100)));
        let published = matches!(step, Step::HistoryNamed | Step::HistoryPublished | Step::Pruned);
        if published {
            assert_eq!(
                (after.generation, after.current().map(|kept| &kept.digest)),
                (before.generation + 1, Some(&new))
            );
            assert_eq!(after.versions[1..], before.versions[..KEPT - 1], "{step:?}");
        } else {
            assert_eq!(after, before, "{step:?}");
        }
        for kept in &after.versions {
            assert_eq!(store.read(&kept.digest).expect("kept and whole").len() as u64, kept.bytes, "{step:?}");
        }
        let next = deploy(&store, &place(), 200).expect("the next deployment");
        assert_eq!(next.generation, after.generation + 1, "{step:?}");
    }
}

/// Proves: the same bytes are one version wherever they come from, other bytes are another, and returning to a version moves
/// it to the front without a copy; the oldest go.
#[test]
fn versions_are_told_apart_by_their_bytes() {
    let (_root, store) = opened();
    for number in 0..3 {
        deploy(&store, &place(), number).expect("a version");
    }
    let again = deploy(&store, &place(), 0).expect("a version");
    let digest = |number| hex(&Sha256::digest(component(number)));
    let order: Vec<String> = again.versions.iter().map(|kept| kept.digest.clone()).collect();
    assert_eq!((again.generation, order), (4, vec![digest(0), digest(2), digest(1)]));
    assert_eq!(again.previous().map(|kept| &kept.digest), Some(&digest(2)));
    assert_eq!(again.find(&digest(1)[..8]).map(|kept| &kept.digest), Some(&digest(1)));
    assert_eq!(again.find(&format!("sha256:{}", digest(1))).map(|kept| kept.bytes), Some(component(1).len() as u64));
    assert_eq!((again.find(""), again.find("none")), (None, None));

    let mut last = again;
    for number in 3..8 {
        last = deploy(&store, &place(), number).expect("a version");
    }
    assert_eq!(last.versions.len(), KEPT);
    assert!(matches!(store.read(&digest(0)), Err(StoreError::Unknown { .. })), "the oldest is gone");
    assert_eq!(store.read(&digest(7)).expect("the newest"), component(7));
}

/// Proves: a component with another manifest is another version, and returning to one brings its manifest back; it is found
/// by the manifest's digest as well; as many are kept as is said.
#[test]
fn versions_are_told_apart_by_their_manifests() {
    let (_root, store) = opened();
    let digest = store.keep(&component(0)).expect("kept");
    let manifests = [None, Some("one = 1"), Some("two = 2"), None, Some("one = 1")];
    for (expected, manifest) in (0..).zip(manifests) {
        publish_with(&store, &place(), expected, &digest, manifest).expect("published");
    }
    let history = store.history(&place()).expect("whole").expect("published");
    let order: Vec<_> = history.versions.iter().map(|kept| kept.manifest.as_deref()).collect();
    assert_eq!(order, [Some("one = 1"), None, Some("two = 2")]);
    let two = hex(&Sha256::digest("two = 2"));
    assert_eq!(history.find(&two[..8]).and_then(|kept| kept.manifest.as_deref()), Some("two = 2"));
    assert_eq!(history.find(&digest[..8]).and_then(|kept| kept.manifest.as_deref()), Some("one = 1"), "the newest");
    let (manifest, how, file, manifest_file) = (None, How::Deploy, None, None);
    let two_of_them =
        Publication { expected: 5, digest: &digest, manifest, how, file, manifest_file, keep: 2, now: UNIX_EPOCH };
    let history = store.publish(&place(), &two_of_them).expect("published");
    assert_eq!(history.versions.len(), 2);
    assert_eq!(store.read(&digest).expect("the others have it"), component(0));
}

/// Proves: a component that two pipelines have stays until neither has it.
#[test]
fn components_are_shared() {
    let (_root, store) = opened();
    let other = Place::new("returns", "returns-group", "broker:9092");
    deploy(&store, &other, 0).expect("a version");
    for number in 0..=KEPT as u64 {
        deploy(&store, &place(), number).expect("a version");
    }
    let digest = hex(&Sha256::digest(component(0)));
    assert!(store.history(&place()).expect("whole").expect("published").find(&digest).is_none(), "not there any more");
    assert_eq!(store.read(&digest).expect("the other one has it"), component(0));
    assert_ne!(place(), Place::new("orders", "orders-group", "other:9092"), "another cluster is another place");
    assert_ne!(Place::new("a", "bc", "d"), Place::new("a", "b", "cd"));
}

/// Proves: of two who saw the same generation one publishes, and the other is told what is there. Method: threads that all
/// try at once, each with what it read before.
#[test]
fn of_two_deployers_one_wins() {
    let (_root, store) = opened();
    deploy(&store, &place(), 0).expect("the first");
    let digests: Vec<String> = (1..=8).map(|number| store.keep(&component(number)).expect("kept")).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let publishing = |digest: &'_ String| {
            let (store, digest) = (store.clone(), digest.clone());
            scope.spawn(move || publish(&store, &place(), 1, &digest))
        };
        let threads: Vec<_> = digests.iter().map(publishing).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    let lost = results.iter().filter(|result| matches!(result, Err(StoreError::Conflict { expected: 1, found: 2 })));
    assert_eq!(lost.count(), 7);
    assert_eq!(store.history(&place()).expect("whole").as_ref(), Some(won[0]));
}

/// Proves: what is damaged is never served. Method: every byte of a history and of a component is changed in turn, and each
/// is cut at every length.
#[test]
fn damage_is_seen() {
    let (_root, store) = opened();
    let history = deploy(&store, &place(), 0).expect("a version");
    let digest = &history.versions[0].digest;
    let damage = |path: &Path, seen: &dyn Fn() -> bool| {
        let good = std::fs::read(path).expect("there");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            for bad in [&bad[..], &good[..at]] {
                std::fs::write(path, bad).expect("written");
                assert!(seen(), "{}: {at}", path.display());
            }
        }
        std::fs::write(path, &good).expect("written");
    };
    damage(&store.history_file(&place()), &|| matches!(store.history(&place()), Err(StoreError::Damaged { .. })));
    assert_eq!(store.history(&place()).expect("whole again"), Some(history.clone()));
    let path = store.component(digest);
    let small = store.keep(b"small").expect("kept");
    damage(&store.component(&small), &|| matches!(store.read(&small), Err(StoreError::Damaged { .. })));
    // What is damaged is kept anew when it comes again.
    std::fs::write(&path, b"other").expect("written");
    assert_eq!(store.keep(&component(0)).as_ref().ok(), Some(digest));
    assert_eq!(store.read(digest).expect("whole again"), component(0));
    for strange in ["", "..", "../../etc/passwd", &digest[..63]] {
        assert!(matches!(store.read(strange), Err(StoreError::Unknown { .. })), "{strange}");
    }
    // A damaged history keeps the host from removing what it may refer to.
    std::fs::write(store.history_file(&place()), b"x").expect("written");
    Store::open(&store.directory).expect("opens all the same");
    assert!(path.exists());
}

/// Proves: what nobody refers to goes after a day, and not before; nor does what somebody refers to.
#[test]
fn strays_go() {
    let (_root, store) = opened();
    let history = deploy(&store, &place(), 0).expect("a version");
    let stray = store.keep(b"of a deployment that failed").expect("kept");
    let half = store.components().join(format!("x{UNFINISHED}"));
    std::fs::write(&half, b"half").expect("written");
    Store::open(&store.directory).expect("opens");
    assert!(half.exists() && store.component(&stray).exists(), "they may belong to somebody");
    let old = SystemTime::now() - STRAY - Duration::from_secs(60);
    for path in [&half, &store.component(&stray), &store.component(&history.versions[0].digest)] {
        File::options().write(true).open(path).and_then(|file| file.set_modified(old)).expect("aged");
    }
    Store::open(&store.directory).expect("opens");
    assert!(!half.exists() && !store.component(&stray).exists());
    assert_eq!(store.read(&history.versions[0].digest).expect("kept"), component(0));
}

#[test]
fn a_store_that_others_write_to_is_not_used() {
    let (_root, store) = opened();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(&store.components(), 0o770);
    let refused = Store::open(&store.directory).expect_err("open to a group").to_string();
    assert!(refused.contains("other users may write to it"), "{refused}");
    mode(&store.components(), 0o700);
    Store::open(&store.directory).expect("private again");
    let link = store.directory.with_file_name("link");
    std::os::unix::fs::symlink(&store.directory, &link).expect("a link");
    assert!(Store::open(&link).expect_err("a link").to_string().contains("no directory"));
}
