//! Meshes of threads of this process: what ranks tell each other, and what happens when one of them fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::{Door, Limits, Rendezvous, Seat, TcpMesh};
use crate::comm::{Communicator, Reduction, Tag};

const TOKEN: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Within which a failure must be known everywhere.
const SECONDS: Duration = Duration::from_secs(5);

fn limits() -> Limits {
    Limits {
        meeting: Duration::from_secs(20),
        handshake: Duration::from_secs(5),
        pulse: Duration::from_millis(100),
        silence: Duration::from_secs(2),
        message: 1 << 20,
        buffer: 1 << 16,
    }
}

fn seat(rank: usize, size: usize, address: &str) -> Seat {
    let rendezvous: Rendezvous = address.parse().unwrap();
    Seat { rank, size, rendezvous, token: TOKEN.to_vec(), limits: limits() }
}

/// Runs the same on every rank; what each of them got.
fn ranks<T: Send>(size: usize, work: impl Fn(TcpMesh) -> T + Sync) -> Vec<T> {
    let door = Door::of_this_host().unwrap();
    let address = door.address.to_string();
    let mut door = Some(door);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let (seat, door, work) = (seat(rank, size, &address), door.take(), &work);
                scope.spawn(move || work(TcpMesh::meet(&seat, door, &mut || Ok(())).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn all_ranks_get_the_same_bits_from_collectives() {
    for size in [1, 2, 3, 5] {
        let got = ranks(size, |mesh| {
            let rank = mesh.rank();
            let mut sums = [0.1 * rank as f64, 1e300, -(rank as f64)];
            mesh.all_reduce(&mut sums, Reduction::Sum).unwrap();
            let mut largest = [-(rank as f64) - 1.0, rank as f64];
            mesh.all_reduce(&mut largest, Reduction::Max).unwrap();
            let gathered = mesh.all_gather(vec![rank as u8; rank + 1]).unwrap();
            let told = mesh.broadcast(size - 1, vec![rank as u8, 9]).unwrap();
            mesh.barrier().unwrap();
            mesh.close().unwrap();
            (sums.map(f64::to_bits), largest.map(f64::to_bits), gathered, told)
        });
        // The order of ranks, as one process would add.
        let first = (1..size).fold(0.0, |sum, rank| sum + 0.1 * rank as f64);
        let sums = [first, (1..size).fold(1e300, |sum, _| sum + 1e300), -((0..size).sum::<usize>() as f64)];
        let gathered: Vec<Vec<u8>> = (0..size).map(|rank| vec![rank as u8; rank + 1]).collect();
        for (own, largest, all, told) in got {
            assert_eq!(own, sums.map(f64::to_bits));
            assert_eq!(largest, [-1.0, (size - 1) as f64].map(f64::to_bits));
            assert_eq!(all, gathered);
            assert_eq!(told, [(size - 1) as u8, 9]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn messages_of_any_length_arrive_in_order_with_their_tags(
        lengths in proptest::collection::vec(0usize..200_000, 1..20),
        size in 2usize..4,
    ) {
        let lengths = &lengths;
        ranks(size, |mesh| {
            let (rank, next, before) = (mesh.rank(), (mesh.rank() + 1) % size, (mesh.rank() + size - 1) % size);
            std::thread::scope(|scope| {
                // More than the buffers hold goes round a ring.
                scope.spawn(|| {
                    for (index, &length) in lengths.iter().enumerate() {
                        mesh.send(next, Tag(index as u32), vec![rank as u8; length]).unwrap();
                    }
                });
                for (index, &length) in lengths.iter().enumerate() {
                    assert_eq!(mesh.recv(before, Tag(index as u32)).unwrap(), vec![before as u8; length]);
                }
            });
            mesh.close().unwrap();
        });
    }
}

#[test]
fn a_slow_rank_is_waited_for_and_holds_no_more_than_the_buffers() {
    let held = ranks(2, |mesh| {
        if mesh.rank() == 1 {
            // Longer than the silence that is borne: its threads say that it lives.
            std::thread::sleep(Duration::from_millis(2600));
            for _ in 0..200 {
                mesh.recv(0, Tag::HIDDEN).unwrap();
            }
            mesh.close().unwrap();
            return Duration::ZERO;
        }
        let begun = Instant::now();
        for _ in 0..200 {
            mesh.send(1, Tag::HIDDEN, vec![1; 1 << 20]).unwrap();
        }
        let held = begun.elapsed();
        mesh.close().unwrap();
        held
    });
    // 200 MiB fit into no buffer here, so the sender must have been held up.
    assert!(held[0] > Duration::from_secs(2), "{held:?}");
}

/// What rank 1 does before all others wait for it in vain; each rank's error, and how long that took.
fn fault(deed: impl Fn(TcpMesh) + Sync) -> Vec<(usize, Error, Duration)> {
    let all = ranks(3, |mesh| {
        let begun = Instant::now();
        match mesh.rank() {
            1 => {
                deed(mesh);
                None
            }
            rank => {
                let error = mesh.recv(1, Tag::HIDDEN).unwrap_err();
                Some((rank, error, begun.elapsed()))
            }
        }
    });
    all.into_iter().flatten().collect()
}

#[test]
fn a_rank_that_ends_without_a_word_ends_the_others_with_its_name() {
    for (rank, error, waited) in fault(drop) {
        assert!(error.message.contains("rank 1 (process"), "{rank}: {error}");
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.hint.is_some() && waited < SECONDS, "{rank}: {waited:?} {error}");
    }
}

#[test]
fn the_reason_of_a_rank_that_gives_up_reaches_all_others() {
    let found = fault(|mesh| {
        mesh.abort(&Error::input("the disk is full").at("/data").hint("free some space"));
        // Its own calls fail for the same reason.
        assert!(mesh.check().unwrap_err().message.contains("the disk is full"));
        std::thread::sleep(Duration::from_millis(500));
    });
    for (rank, error, waited) in found {
        assert!(error.message.starts_with("rank 1 (process"), "{rank}: {error}");
        assert!(error.message.ends_with("the disk is full"), "{rank}: {error}");
        assert_eq!((error.kind, error.hint.as_deref()), (ErrorKind::Input, Some("free some space")));
        assert!(waited < SECONDS, "{rank}: {waited:?}");
    }
}

#[test]
fn a_rank_that_ends_at_once_still_passes_on_the_reason_that_it_heard() {
    // Whether the thread that listens or the one that ends is faster is chance: many tries.
    for _ in 0..50 {
        let found = fault(|mesh| {
            // Rank 2 hears of it from rank 0 alone, which ends as soon as it knows.
            let why = Error::input("the disk is full");
            mesh.tell(0, &why);
            std::thread::sleep(Duration::from_millis(50));
        });
        for (rank, error, _) in found {
            assert_eq!(error.message, "the disk is full", "{rank}");
        }
    }
}

#[test]
fn a_message_that_is_longer_than_allowed_ends_all_ranks() {
    let found = fault(|mesh| {
        mesh.send(0, Tag::HIDDEN, vec![0; (1 << 20) + 1]).unwrap();
        let error = mesh.recv(0, Tag::HIDDEN).unwrap_err();
        assert!(error.message.contains("1048577 bytes"), "{error}");
    });
    for (rank, error, waited) in found {
        assert!(error.message.contains("1048577 bytes, and 1048576 are allowed"), "{rank}: {error}");
        assert!(waited < SECONDS, "{rank}: {waited:?}");
    }
}

#[test]
fn another_kind_of_message_than_was_waited_for_is_told_as_a_bug() {
    ranks(2, |mesh| {
        if mesh.rank() == 0 {
            mesh.send(1, Tag::REPORT, vec![1]).unwrap();
        } else {
            let error = mesh.recv(0, Tag::HIDDEN).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Bug);
        }
        mesh.close().unwrap();
    });
}

/// Rank 0's door, which waits for a rank 1; what it says of a caller, and whether the right rank still comes in.
fn at_the_door(caller: impl FnOnce(&str) + Send) -> (Result<()>, Result<()>) {
    let door = Door::of_this_host().unwrap();
    let address = door.address.to_string();
    std::thread::scope(|scope| {
        let zero = seat(0, 2, &address);
        let host = scope
            .spawn(move || TcpMesh::meet(&zero, Some(door), &mut || Ok(())).and_then(|mesh| mesh.close()));
        caller(&address);
        let one = TcpMesh::meet(&seat(1, 2, &address), None, &mut || Ok(())).and_then(|mesh| mesh.close());
        (host.join().unwrap(), one)
    })
}

#[test]
fn a_wrong_token_is_refused_on_both_sides_and_disturbs_nobody() {
    let (zero, one) = at_the_door(|address| {
        let stranger = Seat { token: b"another token, of another run".to_vec(), ..seat(1, 2, address) };
        let error = TcpMesh::meet(&stranger, None, &mut || Ok(())).unwrap_err();
        assert!(error.message.contains("its token is not the one of this run"), "{error}");
        assert!(error.hint.is_some_and(|hint| hint.contains("--token-file")));
    });
    zero.unwrap();
    one.unwrap();
}

#[test]
fn garbage_and_silence_at_the_door_disturb_nobody() {
    let mut silent = Vec::new();
    let (zero, one) = at_the_door(|address| {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"qlranks1"] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            silent.push(stream);
        }
        silent.push(TcpStream::connect(address).unwrap());
    });
    zero.unwrap();
    one.unwrap();
}

#[test]
fn ranks_of_another_count_or_a_second_one_of_a_number_are_refused_by_name() {
    let (zero, one) = at_the_door(|address| {
        for (stranger, words) in [(seat(1, 3, address), "2 ranks, not 3"), (seat(0, 2, address), "")] {
            if stranger.rank == 0 {
                // Rank 0 is the one that is called.
                assert!(Door::open(&stranger.rendezvous).is_err());
                continue;
            }
            let error = TcpMesh::meet(&stranger, None, &mut || Ok(())).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
    });
    zero.unwrap();
    one.unwrap();
}

#[test]
fn a_rank_that_does_not_come_is_named_when_the_time_is_over() {
    let door = Door::of_this_host().unwrap();
    let short = Limits { meeting: Duration::from_millis(500), ..limits() };
    let zero = Seat { limits: short, ..seat(0, 3, &door.address.to_string()) };
    let error = TcpMesh::meet(&zero, Some(door), &mut || Ok(())).unwrap_err();
    assert!(error.message.ends_with("1, 2"), "{error}");
    let nobody = Seat { limits: short, ..seat(1, 2, "127.0.0.1:9") };
    let error = TcpMesh::meet(&nobody, None, &mut || Ok(())).unwrap_err();
    assert!(error.message.contains("nobody answered at `127.0.0.1:9`"), "{error}");
}

#[test]
fn a_rank_that_waits_at_the_door_learns_that_another_one_gave_up() {
    let door = Door::of_this_host().unwrap();
    let address = door.address.to_string();
    std::thread::scope(|scope| {
        let zero = seat(0, 3, &address);
        let mut asked = 0;
        let host = scope.spawn(move || {
            let mut watch = || {
                asked += 1;
                if asked > 20 { Err(Error::input("rank 2 could not be started")) } else { Ok(()) }
            };
            TcpMesh::meet(&zero, Some(door), &mut watch).map(drop)
        });
        let one = TcpMesh::meet(&seat(1, 3, &address), None, &mut || Ok(())).map(drop);
        assert!(host.join().unwrap().unwrap_err().message.contains("could not be started"));
        let error = one.unwrap_err();
        assert!(error.message.contains("could not be started"), "{error}");
    });
}

#[test]
fn a_rank_that_falls_silent_is_taken_for_dead() {
    // A proxy between rank 1 and the door that at some point passes nothing on, as a network that fails.
    let door = Door::of_this_host().unwrap();
    let inner = door.address;
    let outer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outer.local_addr().unwrap().to_string();
    let cut = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_cut = std::sync::Arc::clone(&cut);
    std::thread::spawn(move || {
        for stream in outer.incoming().flatten() {
            let other = TcpStream::connect(inner).unwrap();
            for (mut from, mut to) in
                [(stream.try_clone().unwrap(), other.try_clone().unwrap()), (other, stream)]
            {
                let cut = std::sync::Arc::clone(&is_cut);
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut buffer) {
                        if !cut.load(std::sync::atomic::Ordering::Relaxed) {
                            to.write_all(&buffer[..read]).unwrap();
                        }
                    }
                });
            }
        }
    });
    std::thread::scope(|scope| {
        let zero = seat(0, 2, &inner.to_string());
        let host = scope.spawn(move || {
            let mesh = TcpMesh::meet(&zero, Some(door), &mut || Ok(())).unwrap();
            mesh.recv(1, Tag::HIDDEN).unwrap_err()
        });
        let mesh = TcpMesh::meet(&seat(1, 2, &address), None, &mut || Ok(())).unwrap();
        cut.store(true, std::sync::atomic::Ordering::Relaxed);
        let begun = Instant::now();
        let error = mesh.recv(0, Tag::HIDDEN).unwrap_err();
        assert!(error.message.contains("said nothing for 2 s"), "{error}");
        assert!(host.join().unwrap().message.contains("said nothing for 2 s"));
        assert!(begun.elapsed() < SECONDS, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_rank_that_computes_too_long_after_a_failure_is_ended_by_its_guard() {
    let found = ranks(2, |mesh| {
        if mesh.rank() == 1 {
            return None;
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        mesh.guard(Duration::from_millis(50), move |why| sender.send(why).unwrap()).unwrap();
        // It computes and looks at nothing.
        Some(receiver.recv_timeout(SECONDS).unwrap())
    });
    assert!(found[0].as_ref().unwrap().message.contains("rank 1"), "{found:?}");
}

#[test]
fn ranks_find_each_other_by_a_file() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("meet");
    let place = format!("file:{}", path.display());
    std::thread::scope(|scope| {
        let (one, zero) = (seat(1, 2, &place), seat(0, 2, &place));
        let caller = scope.spawn(move || TcpMesh::meet(&one, None, &mut || Ok(())).unwrap().close());
        let mesh = TcpMesh::meet(&zero, None, &mut || Ok(())).unwrap();
        mesh.close().unwrap();
        caller.join().unwrap().unwrap();
    });
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let error = super::read_token(&path).unwrap_err();
    assert!(error.hint.is_some_and(|hint| hint.starts_with("`chmod 600")));
    mode(0o600);
    assert_eq!(super::read_token(&path).unwrap(), b"0123456789abcdef");
    std::fs::write(&path, "short").unwrap();
    assert!(super::read_token(&path).unwrap_err().message.contains("16 bytes"));
}
