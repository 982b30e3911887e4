//! Tests of the decisions over whole lives of a run, and over every prefix of its journal.

use super::*;
use crate::engine::fold;
use crate::journal::{ArrayTask, Ending, Entry, Handle, JobName, Line, Loss, Process, parse};

const POLICY: Policy = Policy { jobs: 1, array: 0, attempts: 2, grace: 10_000, ahead: false, begin: None };

fn opened(fresh: bool) -> Entry {
    let job = |name: &str, baseline| JobName { name: name.to_owned(), baseline };
    let jobs = vec![job("bf16", true), job("a", false), job("b", false)];
    Entry::Opened { version: 1, launcher: "0".to_owned(), identity: "0".to_owned(), fresh, jobs }
}

fn submitting(job: &str, attempt: u32) -> Entry {
    Entry::Submitting { job: job.to_owned(), attempt, array: None }
}

fn submitted(job: &str, attempt: u32) -> Entry {
    let handle = Handle::Process(Process { pid: 7, started: 7, boot: "x".to_owned(), host: None });
    Entry::Submitted { job: job.to_owned(), attempt, handle }
}

fn ended(job: &str, attempt: u32, ending: Ending) -> Entry {
    Entry::Ended { job: job.to_owned(), attempt, restart: 0, ending }
}

fn accepted(job: &str, attempt: u32) -> Entry {
    Entry::Accepted { job: job.to_owned(), attempt }
}

fn lost() -> Ending {
    Ending::Lost { error: Error::bug("gone"), class: Loss::Infrastructure }
}

fn state(entries: &[Entry]) -> State {
    let lines: Vec<Line> = entries.iter().map(|entry| Line { at: 1000, entry: entry.clone() }).collect();
    fold(&lines)
}

fn actions(entries: &[Entry]) -> Vec<Action> {
    decide(&state(entries), 1000, &POLICY)
}

fn submit(job: &str, attempt: u32) -> Action {
    Action::Submit { job: job.to_owned(), attempt }
}

#[test]
fn the_baseline_runs_first_and_alone_and_the_candidates_follow_in_order() {
    let mut life = vec![opened(false)];
    assert_eq!(actions(&life), [submit("bf16", 1)]);
    life.extend([submitting("bf16", 1), submitted("bf16", 1)]);
    assert_eq!(actions(&life), []);
    life.push(ended("bf16", 1, Ending::Done));
    assert_eq!(actions(&life), [Action::Accept { job: "bf16".to_owned(), attempt: 1 }]);
    life.push(accepted("bf16", 1));
    assert_eq!(actions(&life), [submit("a", 1)]);
    let two = Policy { jobs: 2, ..POLICY };
    assert_eq!(decide(&state(&life), 0, &two), [submit("a", 1), submit("b", 1)]);
}

#[test]
fn a_failed_candidate_does_not_stop_the_others() {
    let failed = Ending::Failed { error: Error::input("no") };
    let life = [opened(false), accepted("bf16", 1), submitting("a", 1), ended("a", 1, failed)];
    assert_eq!(actions(&life), [submit("b", 1)]);
    assert!(!is_over(&state(&life)));
}

#[test]
fn without_its_baseline_no_candidate_runs_and_each_says_why() {
    let failed = Ending::Failed { error: Error::input("no") };
    let given_up = actions(&[opened(false), submitting("bf16", 1), ended("bf16", 1, failed)]);
    assert_eq!(given_up.len(), 2);
    assert!(given_up.iter().all(|action| matches!(action, Action::GiveUp { error, .. }
        if error.message == "not run, because its baseline `bf16` failed")));
}

#[test]
fn a_lost_job_is_tried_again_and_then_given_up() {
    let mut life = vec![opened(false), submitting("bf16", 1), submitted("bf16", 1), ended("bf16", 1, lost())];
    assert_eq!(actions(&life), [submit("bf16", 2)]);
    life.extend([submitting("bf16", 2), submitted("bf16", 2), ended("bf16", 2, Ending::Interrupted)]);
    let given_up = actions(&life);
    assert!(matches!(&given_up[..], [Action::GiveUp { job, error }]
        if job == "bf16" && error.message.starts_with("given up after 2 tries")));
    life.push(opened(false));
    assert_eq!(actions(&life), [submit("bf16", 3)], "a new session tries again");
}

#[test]
fn an_intent_without_effect_is_looked_for_before_anything_is_submitted_again() {
    let life = [opened(false), submitting("bf16", 1), opened(false)];
    assert_eq!(actions(&life), [Action::Find { job: "bf16".to_owned(), attempt: 1 }]);
    let not = Entry::NotSubmitted { job: "bf16".to_owned(), attempt: 1 };
    let life = [opened(false), submitting("bf16", 1), opened(false), not];
    assert_eq!(actions(&life), [submit("bf16", 2)], "an attempt's folder is never used twice");
}

#[test]
fn what_is_done_stays_done_until_a_fresh_start() {
    let life = [opened(false), accepted("bf16", 1), accepted("a", 1), accepted("b", 1)];
    assert!(is_over(&state(&life)));
    let again = [&life[..], &[opened(false)]].concat();
    assert!(is_over(&state(&again)) && actions(&again).is_empty());
    let fresh = [&life[..], &[opened(true)]].concat();
    assert!(!is_over(&state(&fresh)));
}

#[test]
fn stopping_tells_running_jobs_once_kills_after_the_grace_and_starts_nothing() {
    let cancel = |kill| Action::Cancel { job: "a".to_owned(), kill };
    let mut life = vec![opened(false), accepted("bf16", 1), submitted("a", 1), Entry::Stopping];
    assert_eq!(actions(&life), [cancel(false)]);
    life.push(Entry::Cancelling { job: "a".to_owned(), kill: false });
    assert_eq!(actions(&life), []);
    assert_eq!(decide(&state(&life), 11_000, &POLICY), [cancel(true)]);
    assert!(!is_over(&state(&life)));
    life.push(ended("a", 1, Ending::Interrupted));
    assert_eq!(actions(&life), []);
    assert!(is_over(&state(&life)));
}

#[test]
fn nothing_is_handed_over_before_its_time() {
    let policy = Policy { begin: Some(500), ..POLICY };
    let life = [opened(false)];
    assert_eq!(decide(&state(&life), 499, &policy), []);
    assert_eq!(decide(&state(&life), 500, &policy), [submit("bf16", 1)]);
    assert!(!is_over(&state(&life)));
}

const AHEAD: Policy = Policy { jobs: 9, ahead: true, ..POLICY };

#[test]
fn a_scheduler_that_can_wait_gets_candidates_once_their_baseline_is_in_its_queue() {
    let mut life = vec![opened(false)];
    assert_eq!(decide(&state(&life), 0, &AHEAD), [submit("bf16", 1)]);
    life.push(submitting("bf16", 1));
    let find = Action::Find { job: "bf16".to_owned(), attempt: 1 };
    assert_eq!(decide(&state(&life), 0, &AHEAD), [find], "an id is needed to wait for");
    life.push(submitted("bf16", 1));
    assert_eq!(decide(&state(&life), 0, &AHEAD), [submit("a", 1), submit("b", 1)]);
}

#[test]
fn candidates_are_handed_over_as_arrays_of_at_most_the_size_and_whoever_is_left_alone_goes_alone() {
    let arrays = |array| decide(&state(&[opened(false), accepted("bf16", 1)]), 0, &Policy { array, ..AHEAD });
    let both = vec![("a".to_owned(), 1), ("b".to_owned(), 1)];
    assert_eq!(arrays(9), [Action::SubmitArray { tasks: both }]);
    assert_eq!(arrays(1), [submit("a", 1), submit("b", 1)]);
    let few = Policy { array: 9, jobs: 1, ..AHEAD };
    assert_eq!(decide(&state(&[opened(false), accepted("bf16", 1)]), 0, &few), [submit("a", 1)]);
    let lost =
        [opened(false), accepted("bf16", 1), accepted("b", 1), submitting("a", 1), ended("a", 1, lost())];
    assert_eq!(decide(&state(&lost), 0, &Policy { array: 9, ..AHEAD }), [submit("a", 2)]);
}

#[test]
fn an_attempt_of_an_array_is_looked_for_there_until_it_is_handed_over_alone() {
    let task = ArrayTask { array: "a-1".to_owned(), index: 1 };
    let together = Entry::Submitting { job: "b".to_owned(), attempt: 1, array: Some(task.clone()) };
    let life = [opened(false), accepted("bf16", 1), together, opened(false)];
    assert_eq!(state(&life).job("b").unwrap().array, Some(task));
    assert!(actions(&life).contains(&Action::Find { job: "b".to_owned(), attempt: 1 }));
    let alone = [&life[..], &[ended("b", 1, lost()), submitting("b", 2)]].concat();
    assert_eq!(state(&alone).job("b").unwrap().array, None);
}

#[test]
fn what_a_gate_ended_stays_ended_until_a_fresh_start() {
    let gate = Ending::Failed { error: Error::new(ErrorKind::Gate, "ended early: not a number") };
    let life =
        [opened(false), accepted("bf16", 1), accepted("b", 1), submitting("a", 1), ended("a", 1, gate)];
    assert!(is_over(&state(&[&life[..], &[opened(false)]].concat())));
    assert!(actions(&[&life[..], &[opened(true)]].concat()).contains(&submit("bf16", 1)));
}

#[test]
fn a_candidate_that_the_scheduler_dropped_with_its_baseline_follows_the_new_one_and_loses_no_try() {
    let unstarted = || Ending::Unstarted { error: Error::bug("DependencyNeverSatisfied") };
    let mut life = vec![opened(false), submitting("bf16", 1), submitted("bf16", 1)];
    life.extend([
        submitting("a", 1),
        submitted("a", 1),
        ended("bf16", 1, lost()),
        ended("a", 1, unstarted()),
    ]);
    assert_eq!(decide(&state(&life), 0, &AHEAD), [submit("bf16", 2)], "the baseline goes first");
    life.extend([submitting("bf16", 2), submitted("bf16", 2)]);
    assert_eq!(decide(&state(&life), 0, &AHEAD), [submit("a", 2), submit("b", 1)]);
    let failed = Ending::Failed { error: Error::input("no") };
    life.extend([ended("bf16", 2, failed), ended("a", 2, unstarted())]);
    let given_up = decide(&state(&life), 0, &AHEAD);
    assert!(given_up.iter().all(|action| matches!(action, Action::GiveUp { .. })), "{given_up:?}");
}

#[test]
fn each_sort_of_loss_has_its_own_number_of_tries() {
    let loss = |class| Ending::Lost { error: Error::bug("gone"), class };
    let tries = |class| {
        let mut life = vec![opened(false)];
        for attempt in 1.. {
            life.extend([submitting("bf16", attempt), ended("bf16", attempt, loss(class))]);
            if matches!(&actions(&life)[0], Action::GiveUp { .. }) {
                return attempt;
            }
        }
        unreachable!("the attempts never end")
    };
    assert_eq!((tries(Loss::Infrastructure), tries(Loss::Timeout)), (2, 2));
    assert_eq!(tries(Loss::Preempted), 21, "a job that others push aside has done nothing wrong");
}

#[test]
fn whoever_is_not_wanted_any_more_is_stopped_or_never_begun() {
    let unwanted = |job: &str| Entry::Unwanted { job: job.to_owned() };
    let mut life = vec![opened(false), accepted("bf16", 1), submitting("a", 1), submitted("a", 1)];
    life.extend([unwanted("a"), unwanted("b")]);
    let now = decide(&state(&life), 1000, &AHEAD);
    assert!(
        matches!(&now[..], [Action::Cancel { job, kill: false }, Action::GiveUp { job: other, .. }]
        if job == "a" && other == "b"),
        "{now:?}"
    );
    life.push(ended("a", 1, Ending::Interrupted));
    assert!(matches!(&decide(&state(&life), 1000, &AHEAD)[0], Action::GiveUp { job, .. } if job == "a"));
    life.push(opened(false));
    assert_eq!(
        decide(&state(&life), 1000, &AHEAD),
        [submit("a", 2), submit("b", 1)],
        "asked for again, it runs"
    );
}

#[test]
fn whoever_only_watches_tries_nothing_again() {
    let failed = Ending::Failed { error: Error::input("no") };
    let life =
        [opened(false), accepted("bf16", 1), accepted("a", 1), submitting("b", 1), ended("b", 1, failed)];
    assert!(is_over(&state(&[&life[..], &[Entry::Attached]].concat())));
    assert!(!is_over(&state(&[&life[..], &[opened(false)]].concat())));
}

/// A run with everything in it: a loss, a crash between intent and effect, a failure, a stop.
fn eventful() -> Vec<Line> {
    let failed = Ending::Failed { error: Error::input("no") };
    let entries = [
        opened(false),
        submitting("bf16", 1),
        submitted("bf16", 1),
        ended("bf16", 1, lost()),
        submitting("bf16", 2),
        opened(false),
        submitted("bf16", 2),
        ended("bf16", 2, Ending::Done),
        Entry::Accepting { job: "bf16".to_owned(), attempt: 2 },
        opened(false),
        accepted("bf16", 2),
        submitting("a", 1),
        submitted("a", 1),
        Entry::Stopping,
        Entry::Cancelling { job: "a".to_owned(), kill: false },
        ended("a", 1, Ending::Interrupted),
        opened(false),
        submitting("a", 2),
        submitted("a", 2),
        ended("a", 2, failed),
        submitting("b", 1),
        submitted("b", 1),
        ended("b", 1, Ending::Done),
        accepted("b", 1),
        Entry::Judged { recommended: None },
    ];
    (0..).zip(entries).map(|(at, entry)| Line { at, entry }).collect()
}

#[test]
fn every_byte_prefix_of_a_journal_goes_on_without_submitting_twice_or_losing_what_is_done() {
    let mut text = Vec::new();
    for line in eventful() {
        text.extend(serde_json::to_vec(&line).unwrap());
        text.push(b'\n');
    }
    for length in 0..=text.len() {
        let (mut lines, _) = parse(&text[..length]).unwrap();
        let before = fold(&lines);
        lines.push(Line { at: 99, entry: opened(false) });
        let after = fold(&lines);
        for action in decide(&after, 99, &POLICY) {
            let Action::Submit { job, attempt } = &action else {
                continue;
            };
            let old = before.job(job);
            assert!(old.is_none_or(|old| *attempt > old.attempt), "cut at {length}: {action:?}");
            let busy = old.is_some_and(|old| {
                matches!(old.stage, Stage::Running { .. } | Stage::Submitting | Stage::Done | Stage::Accepted)
            });
            assert!(!busy, "cut at {length}: {action:?} over {old:?}");
        }
        for job in &before.jobs {
            let kept = after.job(&job.name).is_some_and(|kept| kept.stage == Stage::Accepted);
            assert!(job.stage != Stage::Accepted || kept, "cut at {length}: {job:?}");
        }
    }
}

#[test]
fn deciding_twice_in_one_moment_is_the_same_as_once() {
    let state = fold(&eventful()[..3]);
    assert_eq!(decide(&state, 5, &POLICY), decide(&state, 5, &POLICY));
}
