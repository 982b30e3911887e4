//! Tests with real processes: how they end, how they are found again, how they are stopped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::journal::Ending;
use crate::transport::Local;

const PROCESSES: Processes<Local> = Processes::over(Local);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ticket(folder: &Path, script: &str) -> Ticket {
    fs::write(folder.join("job.sh"), script).unwrap();
    let token = folder.display().to_string();
    Ticket { folder: folder.to_owned(), attempt: 1, restart: 0, token }
}

async fn submit(ticket: &Ticket) -> Handle {
    match PROCESSES.submit(ticket, &[]).await.unwrap() {
        Handed::Taken(handle) => handle,
        Handed::Later(why) => panic!("a process does not wait: {why}"),
    }
}

async fn poll(ticket: &Ticket, handle: &Handle) -> Poll {
    PROCESSES.poll(&[(ticket.clone(), handle.clone())]).await.unwrap().remove(0)
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
        assert_eq!(PROCESSES.find(&ticket).await.unwrap(), None);
        let handle = submit(&ticket).await;
        // Between fork and exec the environment is still the shell's: ask until it is the job's.
        let mut found = None;
        for _ in 0..300 {
            found = PROCESSES.find(&ticket).await.unwrap();
            if found.is_some() {
                break;
            }
        }
        assert_eq!(found.as_ref(), Some(&handle));
        assert_eq!(poll(&ticket, &handle).await, RUNNING);
        // The script may not have set its trap yet; asking again is harmless.
        while poll(&ticket, &handle).await == RUNNING {
            PROCESSES.cancel(&ticket, &handle).await.unwrap();
        }
        assert!(matches!(ended(&ticket, &handle).await, Ending::Interrupted | Ending::Lost { .. }));
        assert_eq!(PROCESSES.find(&ticket).await.unwrap(), None);
    });
}

#[test]
fn a_process_id_that_was_used_again_is_not_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let ticket = ticket(folder.path(), "exit 0");
    let own = std::process::id();
    block_on(async {
        let own = PROCESSES.handle(own).await.unwrap().unwrap();
        assert_eq!(poll(&ticket, &own).await, RUNNING);
        let Handle::Process { pid, started, boot } = own else { panic!("a process has a process handle") };
        let other = Handle::Process { pid, started: started + 1, boot };
        assert!(matches!(poll(&ticket, &other).await, Poll::Ended { .. }));
        // Signals go to nobody: this test would end otherwise.
        PROCESSES.kill(&ticket, &other).await.unwrap();
    });
}

#[test]
fn a_command_with_parentheses_does_not_shift_the_fields() {
    let line = "7 (a) b (c)) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
    let stat = stat(line).unwrap();
    assert_eq!((stat.state, stat.group, stat.started), ('S', 42, 12345));
}
