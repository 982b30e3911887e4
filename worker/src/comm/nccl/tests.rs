//! NCCL's side of the bargain played by a small library in C: what is called, with what, and what becomes of its faults.
//! Whether the real one does the same is for a host with GPUs to show.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind};

use super::{Nccl, Patience, version};
use crate::comm::tcp::{Door, Limits, Rendezvous, Seat, TcpMesh};
use crate::comm::{Communicator, Reduction, Tag};
use crate::libraries::{Loaded, Places, Search, Wanted, search};

/// Compiles the library with a fault, for two names.
fn compile(folder: &Path, fault: &str) -> Places {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/comm/nccl/fake.c");
    let out = folder.join("libnccl.so.2");
    let mut command = Command::new("cc");
    command.args([
        "-shared",
        "-fPIC",
        "-O1",
        "-pthread",
        "-Wall",
        "-Werror",
        &format!("-DFAULT={fault}"),
        "-o",
    ]);
    let output = command.arg(&out).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cuda = folder.join("libcuda.so.1");
    std::fs::hard_link(&out, &cuda).unwrap();
    named(&[("QLAUNCH_LIBNCCL", &out), ("QLAUNCH_LIBCUDA", &cuda)])
}

fn named(files: &[(&str, &PathBuf)]) -> Places {
    let named = files.iter().map(|(variable, path)| ((*variable).to_owned(), (*path).clone()));
    Places { named: named.collect(), ..Places::default() }
}

fn load(wanted: &Wanted, places: &Places) -> Loaded {
    match search(wanted, places) {
        Search::Found(loaded) => loaded,
        other => panic!("{other:?}"),
    }
}

/// Runs the same on two ranks with GPUs; what each of them got.
fn ranks<T: Send>(
    fault: &str,
    work: impl Fn(Result<Nccl<TcpMesh>, Error>) -> T + Sync,
) -> (tempfile::TempDir, Vec<T>) {
    let folder = tempfile::tempdir().unwrap();
    let places = compile(folder.path(), fault);
    let door = Door::of_this_host().unwrap();
    let address = door.address.to_string();
    let mut door = Some(door);
    let got = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|rank| {
                let rendezvous = Rendezvous::Address(address.clone());
                let token = b"0123456789abcdef".to_vec();
                let seat = Seat { rank, size: 2, rendezvous, token, limits: Limits::default() };
                let (door, work, places) = (door.take(), &work, &places);
                scope.spawn(move || {
                    let mesh = TcpMesh::meet(&seat, door, &mut || Ok(())).unwrap();
                    let libraries = (load(&Wanted::NCCL, places), load(&Wanted::CUDA, places));
                    let patience =
                        Patience { init: Duration::from_millis(500), finalize: Duration::from_secs(2) };
                    work(Nccl::join(mesh, (&libraries.0, &libraries.1), 0, patience))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (folder, got)
}

#[test]
fn hidden_states_go_from_gpu_to_gpu_and_everything_else_over_the_lower_communicator() {
    let (_folder, sums) = ranks("NONE", |nccl| {
        let nccl = nccl.unwrap();
        let message = |index: usize| -> Vec<u8> { (0..index * 1000).map(|byte| byte as u8).collect() };
        for index in 0..12 {
            match nccl.rank() {
                0 => nccl.send(1, Tag::HIDDEN, message(index)).unwrap(),
                _ => assert_eq!(nccl.recv(0, Tag::HIDDEN).unwrap(), message(index)),
            }
        }
        let mut sums = [nccl.rank() as f64 + 0.5];
        nccl.all_reduce(&mut sums, Reduction::Sum).unwrap();
        nccl.close().unwrap();
        sums[0]
    });
    assert_eq!(sums, [2.0, 2.0]);
}

#[test]
fn ranks_that_never_join_are_given_up_in_time() {
    let begun = Instant::now();
    let (_folder, errors) = ranks("NEVER_JOINS", |nccl| {
        // The mesh of whoever gives up first is dropped, and the other one may learn of that before its own time is over.
        nccl.map(drop).unwrap_err()
    });
    assert!(errors.iter().all(|error| error.kind == ErrorKind::Unreachable), "{errors:?}");
    assert!(
        errors.iter().any(|error| error.message.starts_with("joining NCCL took more than 0.5")),
        "{errors:?}"
    );
    assert!(
        errors
            .iter()
            .any(|error| error.hint.as_deref().is_some_and(|hint| hint.contains("NCCL_SOCKET_IFNAME")))
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_nccl_refuses_is_told_in_its_words() {
    let (_folder, errors) = ranks("REFUSES", |nccl| nccl.map(drop).unwrap_err());
    let told =
        errors.iter().any(|error| error.message == "joining NCCL failed: invalid usage (NCCL error 5)");
    assert!(told, "{errors:?}");
}

#[test]
fn an_error_behind_a_running_transfer_is_found() {
    let (_folder, errors) = ranks("BREAKS_LATER", |nccl| {
        let nccl = nccl.unwrap();
        let result = match nccl.rank() {
            0 => (0..9).try_for_each(|_| nccl.send(1, Tag::HIDDEN, vec![1; 10])),
            _ => nccl.recv(0, Tag::HIDDEN).map(drop),
        };
        let error = result.unwrap_err();
        nccl.abort(&error);
        error
    });
    assert!(
        errors.iter().any(|error| error.message.contains("remote process exited (NCCL error 6)")),
        "{errors:?}"
    );
}

#[test]
fn a_library_that_is_missing_broken_or_too_old_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let found = |places: &Places| search(&Wanted::NCCL, places);
    let Search::Broken(error) = found(&named(&[("QLAUNCH_LIBNCCL", &at("gone.so"))])) else {
        panic!("found")
    };
    assert!(error.message.contains("not where `QLAUNCH_LIBNCCL` says") && error.hint.is_some(), "{error}");
    std::fs::write(at("libnccl.so.2"), "this is no library, whatever its name says").unwrap();
    let broken = Places { folders: vec![folder.path().to_path_buf()], ..Places::default() };
    let Search::Broken(error) = found(&broken) else { panic!("not broken") };
    assert_eq!(error.place.file, Some(at("libnccl.so.2")));
    assert!(error.message.contains("cannot be loaded") && error.hint.is_some(), "{error}");
    // One that lacks what a newer one has.
    std::fs::write(at("old.c"), "int ncclGetVersion(int *v) { *v = 2408; return 0; }\n").unwrap();
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(at("libold.so")).arg(at("old.c")).status();
    assert!(status.unwrap().success());
    let Search::Broken(error) = found(&named(&[("QLAUNCH_LIBNCCL", &at("libold.so"))])) else {
        panic!("found")
    };
    assert!(error.message.contains("lacks `nccl"), "{error}");
    // One that works is taken although another one, which is looked at first, does not.
    let whole = tempfile::tempdir().unwrap();
    compile(whole.path(), "NONE");
    let folders = vec![folder.path().to_path_buf(), whole.path().to_path_buf()];
    let Search::Found(loaded) = found(&Places { folders, ..Places::default() }) else { panic!("not found") };
    assert_eq!(loaded.path, Some(whole.path().join("libnccl.so.2")));
    assert_eq!(version(&loaded).as_deref(), Some("2.27.3"));
}

#[test]
#[ignore = "needs NCCL and a GPU: tests/gpu/run.sh"]
fn one_rank_joins_the_nccl_of_this_host() {
    let places = Places::gather();
    let libraries = (load(&Wanted::NCCL, &places), load(&Wanted::CUDA, &places));
    let nccl = Nccl::join(crate::comm::Single, (&libraries.0, &libraries.1), 0, Patience::default()).unwrap();
    let mut sum = [1.5];
    nccl.all_reduce(&mut sum, Reduction::Sum).unwrap();
    assert_eq!((nccl.rank(), nccl.size(), sum), (0, 1, [1.5]));
    nccl.close().unwrap();
}
