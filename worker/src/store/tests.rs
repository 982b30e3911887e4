//! Tests of the store on a real file system: whole or absent, verified or set aside, one maker at a time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use qlaunch_shared::store::{MANIFEST, Origin, Step, StoreFolder};

use super::*;

fn origin(name: &str) -> Origin {
    Origin::new(Step::Layer, [("name", name)])
}

fn store(folder: &Path) -> Store {
    Store::open(folder).unwrap()
}

fn put(store: &Store, name: &str, content: &[u8]) {
    let mut draft = store.draft(origin(name), "a test").unwrap();
    draft.add("a.bin", content).unwrap();
    draft.add("b.bin", b"").unwrap();
    draft.commit(1.5).unwrap();
}

/// The artifact, and what was said about it.
fn get(store: &Store, name: &str) -> (Option<Artifact>, Vec<String>) {
    let mut said = Vec::new();
    let found = store.get(&origin(name), &mut |text| said.push(text)).unwrap();
    (found, said)
}

#[test]
fn what_was_put_is_found_with_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    assert!(get(&store, "x").0.is_none());
    put(&store, "x", b"some bytes");
    let (found, said) = get(&store, "x");
    let found = found.unwrap();
    assert_eq!((found.read("a.bin").unwrap().as_slice(), found.manifest.bytes()), (&b"some bytes"[..], 10));
    assert_eq!((found.manifest.about.as_str(), found.manifest.cpu_seconds), ("a test", 1.5));
    assert!(said.is_empty());
    assert_eq!(StoreFolder(folder.path().to_owned()).keys().unwrap(), [origin("x").key()]);
}

/// On some file systems a rename is seen elsewhere only after a while.
#[test]
fn an_artifact_that_is_seen_late_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    put(&store, "x", b"late");
    let (object, hidden) = (store.folder().object(&origin("x").key()), folder.path().join("hidden"));
    fs::rename(&object, &hidden).unwrap();
    let appears = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::rename(hidden, object).unwrap();
    });
    let began = Instant::now();
    assert_eq!(store.wait_for(&origin("x")).unwrap().about, "a test");
    assert!(began.elapsed() >= Duration::from_millis(250));
    appears.join().unwrap();
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut draft = store.draft(origin("x"), "a test").unwrap();
    draft.add("a.bin", b"half").unwrap();
    drop(draft);
    assert!(get(&store, "x").0.is_none());
    assert_eq!(fs::read_dir(folder.path().join("drafts")).unwrap().count(), 0);
}

#[test]
fn of_two_writers_of_one_key_either_may_win() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut late = store.draft(origin("x"), "late").unwrap();
    late.add("a.bin", b"same").unwrap();
    let mut early = store.draft(origin("x"), "early").unwrap();
    early.add("a.bin", b"same").unwrap();
    early.commit(0.0).unwrap();
    late.commit(0.0).unwrap();
    assert_eq!(get(&store, "x").0.unwrap().manifest.about, "early");
    assert_eq!(fs::read_dir(folder.path().join("drafts")).unwrap().count(), 0);
}

/// What the report must say, and what is done to the artifact's folder.
type Damage = (&'static str, fn(&Path));

#[test]
fn what_is_broken_is_set_aside_and_told() {
    let key = origin("x").key();
    let broken: [Damage; 6] = [
        ("other bytes", |object| fs::write(object.join("a.bin"), b"some bytez").unwrap()),
        ("9 bytes, not 10", |object| fs::write(object.join("a.bin"), b"some byte").unwrap()),
        ("cannot be read", |object| fs::remove_file(object.join("a.bin")).unwrap()),
        ("cannot be read", |object| fs::remove_file(object.join(MANIFEST)).unwrap()),
        ("is no manifest", |object| fs::write(object.join(MANIFEST), b"{\"version\": 1").unwrap()),
        ("describes another artifact", |object| {
            let path = object.join(MANIFEST);
            let text = fs::read_to_string(&path).unwrap().replace("\"name\": \"x\"", "\"name\": \"y\"");
            fs::write(&path, text).unwrap();
        }),
    ];
    for (expected, damage) in broken {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        put(&store, "x", b"some bytes");
        damage(&StoreFolder(folder.path().to_owned()).object(&key));
        let (found, said) = get(&store, "x");
        assert!(found.is_none() && said.len() == 1 && said[0].contains(expected), "{expected}: {said:?}");
        put(&store, "x", b"some bytes");
        assert!(get(&store, "x").0.is_some(), "it is made again");
        assert_eq!(fs::read_dir(folder.path().join("broken")).unwrap().count(), 1);
    }
}

#[test]
fn a_foreign_file_among_the_objects_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    put(&store, "x", b"some bytes");
    fs::write(folder.path().join("objects/notes.txt"), "mine").unwrap();
    fs::create_dir_all(folder.path().join("objects/zz/not-a-key")).unwrap();
    assert_eq!(StoreFolder(folder.path().to_owned()).keys().unwrap().len(), 1);
    assert!(get(&store, "x").0.is_some());
}

const QUICK: LeaseTimes = LeaseTimes { beat: Duration::from_millis(20), silence: Duration::from_millis(400) };

#[test]
fn a_lease_is_one_holders_until_it_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).with_times(QUICK);
    let key = origin("x").key();
    let Claim::Held(lease) = store.claim(&key).unwrap() else { panic!("nobody has it") };
    let Claim::Taken(mut watch) = store.claim(&key).unwrap() else { panic!("it is taken") };
    // It beats, so that it is not over however long one looks.
    let begun = Instant::now();
    while begun.elapsed() < 3 * QUICK.silence {
        assert!(!watch.is_over().unwrap());
        std::thread::sleep(QUICK.beat);
    }
    drop(lease);
    assert!(watch.is_over().unwrap());
    assert!(matches!(store.claim(&key).unwrap(), Claim::Held(_)));
}

#[test]
fn the_lease_of_a_holder_that_vanished_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).with_times(QUICK);
    let key = origin("x").key();
    fs::write(folder.path().join("leases").join(key.as_str()), "gone 7\n").unwrap();
    let Claim::Taken(mut watch) = store.claim(&key).unwrap() else { panic!("it is taken") };
    let begun = Instant::now();
    while !watch.is_over().unwrap() {
        assert!(begun.elapsed() < 20 * QUICK.silence, "never over");
        std::thread::sleep(QUICK.beat);
    }
    assert!(begun.elapsed() >= QUICK.silence, "not before its time");
    assert!(matches!(store.claim(&key).unwrap(), Claim::Held(_)));
    assert_eq!(fs::read_dir(folder.path().join("leases")).unwrap().count(), 0, "and given back");
}

#[test]
fn the_lease_of_a_process_that_was_killed_here_is_taken_over_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let key = origin("x").key();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let lease = folder.path().join("leases").join(key.as_str());
    let host = super::open::host();
    fs::write(&lease, format!("{host}-{}-0-0 7\n", child.id())).unwrap();
    let Claim::Taken(mut watch) = store.claim(&key).unwrap() else { panic!("it is taken") };
    assert!(watch.is_over().unwrap(), "a minute is not waited for a dead process");
    // This process lives, and so does one of another host for all that is known.
    for owner in [format!("{host}-{}-0-0", std::process::id()), "elsewhere-1-0-0".to_owned()] {
        fs::write(&lease, format!("{owner} 7\n")).unwrap();
        let Claim::Taken(mut watch) = store.claim(&key).unwrap() else { panic!("it is taken") };
        assert!(!watch.is_over().unwrap(), "{owner}");
    }
}

#[test]
fn a_holder_whose_lease_was_taken_over_leaves_the_new_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).with_times(QUICK);
    let key = origin("x").key();
    let path = folder.path().join("leases").join(key.as_str());
    let Claim::Held(lease) = store.claim(&key).unwrap() else { panic!("nobody has it") };
    fs::write(&path, "other 0\n").unwrap();
    std::thread::sleep(3 * QUICK.beat);
    drop(lease);
    assert_eq!(fs::read_to_string(&path).unwrap(), "other 0\n");
}
