//! What disks and clocks do to a store: nothing wrong is used, what was kept stays, and a person learns what is the matter.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use qlaunch_tests::checkpoint::looks_whole;
use qlaunch_tests::places::{read_json, tiny_llama};
use qlaunch_tests::programs::finish;
use qlaunch_tests::requirement;
use qlaunch_tests::stored::{artifacts, phases};
use qlaunch_tests::tiny_disk::TinyDisk;
use qlaunch_tests::worker_job::{WorkerJob, files, outcome};

const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";
const OTHER: &str = "general/ptq/fp8_default-kv_fp8";

fn job(recipe: &str, store: Option<&Path>) -> WorkerJob {
    WorkerJob::with_store(&tiny_llama(), recipe, store).without_evaluation()
}

/// An attempt that must fail, by what its outcome says of the error.
fn refused(job: &mut WorkerJob, words: &[&str]) {
    let attempt = job.attempt();
    let call = finish(job.command(&attempt, &[]));
    assert_ne!(call.code, 0, "{}", call.stderr);
    let error = outcome(&attempt).unwrap()["error"].to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in {error}");
    }
    assert!(!looks_whole(&attempt.join("checkpoint")));
}

#[test]
fn a_full_disk_ends_a_job_and_room_lets_it_go_on() {
    let Some(disk) = TinyDisk::mount(4) else {
        requirement::skip("a full store", "the right to mount a tmpfs (run as root)");
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let calm = work.path().join("calm");
    let expected = files(&job(RECIPE, Some(&calm)).run(&[]).join("checkpoint"));
    let mut full = job(RECIPE, Some(disk.path()));
    refused(&mut full, &[disk.path().to_str().unwrap(), "space"]);
    let kept = artifacts(disk.path()).len();
    assert!(kept > 0, "what fitted is kept");
    disk.remount("size=64m");
    assert!(files(&full.run(&[]).join("checkpoint")) == expected);
    assert_eq!(artifacts(disk.path()).len(), artifacts(&calm).len());
}

#[test]
fn from_a_read_only_store_one_may_take_and_learns_that_one_cannot_add() {
    let Some(disk) = TinyDisk::mount(64) else {
        requirement::skip("a read-only store", "the right to mount a tmpfs (run as root)");
        return;
    };
    let mut there = job(RECIPE, Some(disk.path()));
    let expected = files(&there.run(&[]).join("checkpoint"));
    disk.remount("ro");
    assert!(files(&there.run(&[]).join("checkpoint")) == expected);
    refused(&mut job(OTHER, Some(disk.path())), &[disk.path().to_str().unwrap(), "ead-only"]);
}

/// Everything in the store seems to come from a far future, or from long ago: times decide nothing.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    let day = Duration::from_secs(24 * 3600);
    let moments = [SystemTime::now() + 20_000 * day, SystemTime::UNIX_EPOCH + day];
    for moment in moments {
        let work = tempfile::tempdir().unwrap();
        let store = work.path().join("store");
        let mut job = job(RECIPE, Some(&store));
        let expected = files(&job.run(&[]).join("checkpoint"));
        let all = artifacts(&store);
        // One layer is to be made again, among artifacts of other times.
        let is_layer = |artifact: &&std::path::PathBuf| {
            read_json(&artifact.join("manifest.json"))["about"].as_str().unwrap().starts_with("layer 5 of")
        };
        fs::remove_dir_all(all.iter().find(is_layer).unwrap()).unwrap();
        for artifact in artifacts(&store) {
            let path = artifact.join("manifest.json");
            let mut manifest = read_json(&path);
            let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            manifest["made_at"] = seconds.into();
            fs::remove_file(&path).unwrap();
            fs::write(&path, manifest.to_string()).unwrap();
            for entry in fs::read_dir(&artifact).unwrap() {
                File::open(entry.unwrap().path()).unwrap().set_modified(moment).unwrap();
            }
        }
        let attempt = job.run(&[]);
        assert!(files(&attempt.join("checkpoint")) == expected);
        assert!(!phases(&attempt).contains(&"calibrate".to_owned()), "statistics are what they were");
        assert_eq!(artifacts(&store), all);
    }
}
