//! Tests with real processes: how they end, how they are found again, how they are stopped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::super::process_answers::with_functions;
use super::*;
use crate::transport::Local;

/// This machine, whose jobs do not wait for each other.
fn here() -> Processes {
    shared(Slots::Unlimited, ProcessProfile::default())
}

fn shared(slots: Slots, profile: ProcessProfile) -> Processes {
    Processes::over(Host::Here(Local), slots, profile)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ticket(folder: &Path, script: &str) -> Ticket {
    fs::write(folder.join("job.sh"), script).unwrap();
    let token = folder.display().to_string();
    Ticket { folder: folder.to_owned(), attempt: 1, restart: 0, token, array: None }
}

async fn submit(ticket: &Ticket) -> Handle {
    match here().submit(ticket, &[]).await.unwrap() {
        Handed::Taken(handle) => handle,
        Handed::Later(why) => panic!("a process does not wait: {why}"),
    }
}

async fn poll(ticket: &Ticket, handle: &Handle) -> Poll {
    here().poll(&[(ticket.clone(), handle.clone())]).await.unwrap().remove(0)
}

const RUNNING: Poll = Poll::Running { restart: 0, waiting: None };

async fn ended(ticket: &Ticket, handle: &Handle) -> Ending {
    for _ in 0..3000 {
        if let Poll::Ended { ending, .. } = poll(ticket, handle).await {
            return ending;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the job does not end")
}

fn run(script: &str) -> Ending {
    let folder = tempfile::tempdir().unwrap();
    let ticket = ticket(folder.path(), script);
    block_on(async {
        let handle = submit(&ticket).await;
        ended(&ticket, &handle).await
    })
}

fn message(ending: &Ending) -> &str {
    match ending {
        Ending::Failed { error } | Ending::Lost { error, .. } => &error.message,
        _ => "",
    }
}

#[test]
fn a_worker_that_dies_without_a_word_is_lost() {
    let ending = run("exit 0");
    assert!(matches!(&ending, Ending::Lost { .. }), "{ending:?}");
    assert_eq!(message(&ending), "the worker is gone without a word");
}

#[test]
fn exit_codes_without_an_outcome_are_told_apart() {
    let with =
        |code: u32| run(&format!("echo 'thread panicked'; echo; echo {code} > \"attempts/$1/exit_code\""));
    assert_eq!(with(85), Ending::Interrupted);
    let failed = with(101);
    assert!(matches!(failed, Ending::Failed { .. }));
    assert_eq!(
        message(&failed),
        "the worker ended with code 101 and no outcome; its last words: thread panicked"
    );
    assert!(matches!(with(137), Ending::Lost { .. }));
}

#[test]
fn an_outcome_that_cannot_be_read_is_a_failure_with_its_path() {
    let ending = run("echo '{' > \"attempts/$1/outcome.json\"");
    assert!(message(&ending).starts_with("the outcome cannot be read"), "{ending:?}");
}

#[test]
fn a_running_job_is_found_by_its_token_and_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap : TERM\nsleep 60\necho 85 > \"attempts/$1/exit_code\"\n";
    let ticket = ticket(folder.path(), script);
    block_on(async {
        assert_eq!(here().find(&ticket).await.unwrap(), None);
        let handle = submit(&ticket).await;
        // Between fork and exec the environment is still the shell's: ask until it is the job's.
        let mut found = None;
        for _ in 0..300 {
            found = here().find(&ticket).await.unwrap();
            if found.is_some() {
                break;
            }
        }
        assert_eq!(found.as_ref(), Some(&handle));
        assert_eq!(poll(&ticket, &handle).await, RUNNING);
        // The script may not have set its trap yet; asking again is harmless.
        while poll(&ticket, &handle).await == RUNNING {
            here().cancel(&ticket, &handle).await.unwrap();
        }
        assert!(matches!(ended(&ticket, &handle).await, Ending::Interrupted | Ending::Lost { .. }));
        assert_eq!(here().find(&ticket).await.unwrap(), None);
    });
}

#[test]
fn a_process_id_that_was_used_again_is_not_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let ticket = ticket(folder.path(), "exit 0");
    let own = std::process::id();
    block_on(async {
        let facts = format!("started {own}");
        let output = Local.shell(&with_functions(&facts), &[]).await.unwrap();
        let own = processes(&output.stdout, None).remove(0);
        assert_eq!(poll(&ticket, &Handle::Process(own.clone())).await, RUNNING);
        let other = Handle::Process(Process { started: own.started + 1, ..own });
        assert!(matches!(poll(&ticket, &other).await, Poll::Ended { .. }));
        // Signals go to nobody: this test would end otherwise.
        here().kill(&ticket, &other).await.unwrap();
    });
}

#[test]
fn a_command_with_parentheses_does_not_shift_the_fields() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a) S 1 (b");
    fs::copy("/bin/sleep", &odd).unwrap();
    let script = format!("exec '{}' 60", odd.display());
    let ticket = ticket(folder.path(), &script);
    block_on(async {
        let handle = submit(&ticket).await;
        // Until it has become the odd program.
        let comm = format!("/proc/{}/comm", handle.processes()[0].pid);
        while fs::read_to_string(&comm).unwrap() != "a) S 1 (b\n" {}
        assert_eq!(poll(&ticket, &handle).await, RUNNING);
        here().kill(&ticket, &handle).await.unwrap();
        assert!(matches!(ended(&ticket, &handle).await, Ending::Lost { .. }));
    });
}

/// Attempts of one job that sleeps, each under a token of its own.
fn sleepers(folder: &Path, count: u32) -> Vec<Ticket> {
    let first = ticket(folder, "sleep 60");
    (1..=count)
        .map(|attempt| Ticket { attempt, token: format!("{}-{attempt}", first.token), ..first.clone() })
        .collect()
}

/// Other tests run jobs on this machine at the same time, and these count, too.
async fn once_there_is_room(processes: &Processes, ticket: &Ticket) -> Handle {
    for _ in 0..600 {
        match processes.submit(ticket, &[]).await.unwrap() {
            Handed::Taken(handle) => return handle,
            Handed::Later(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    panic!("no room")
}

#[test]
fn jobs_share_a_host_and_those_without_room_wait() {
    let folder = tempfile::tempdir().unwrap();
    let sleepers = sleepers(folder.path(), 3);
    let one = || shared(Slots::Counted, ProcessProfile { cpus: Some(1), ..ProcessProfile::default() });
    let cores = std::thread::available_parallelism().unwrap().get();
    block_on(async {
        let mut handles = Vec::new();
        // Each launcher knows of the others' jobs by their environments.
        for ticket in sleepers.iter().take(cores.min(2)) {
            handles.push((ticket, once_there_is_room(&one(), ticket).await));
        }
        let given = |handle: &Handle| {
            let environment = fs::read(format!("/proc/{}/environ", handle.processes()[0].pid)).unwrap();
            let text = String::from_utf8_lossy(&environment).into_owned();
            text.split('\0').find_map(|line| line.strip_prefix("QLAUNCH_CPUS=")).unwrap().to_owned()
        };
        if let [(_, first), (_, second)] = &*handles {
            assert_ne!(given(first), given(second), "two jobs have one CPU");
        }
        // Asked again after a lost reply, it is the same process.
        let (ticket, handle) = &handles[0];
        assert_eq!(once_there_is_room(&one(), ticket).await, *handle);
        let all = shared(Slots::Counted, ProcessProfile::default());
        let Handed::Later(why) = all.submit(&sleepers[2], &[]).await.unwrap() else {
            panic!("oversubscribed")
        };
        assert!(why.contains("wants all CPUs"), "{why}");
        assert!(!sleepers[2].first().0.exists(), "a job that waits leaves folders behind");
        for (ticket, handle) in &handles {
            one().kill(ticket, handle).await.unwrap();
            ended(ticket, handle).await;
        }
        let handle = once_there_is_room(&all, &sleepers[2]).await;
        assert_eq!(given(&handle), "all");
        all.kill(&sleepers[2], &handle).await.unwrap();
    });
}

#[test]
fn a_job_that_no_host_can_ever_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ticket = ticket(folder.path(), "sleep 60");
    let profile = ProcessProfile { cpus: Some(100_000), ..ProcessProfile::default() };
    let error = block_on(shared(Slots::Counted, profile).submit(&ticket, &[])).unwrap_err();
    assert_eq!(error.exit_code(), 22);
    assert!(error.message.contains("a job wants 100000") && error.hint.is_some(), "{error}");
}
