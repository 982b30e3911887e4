//! Jobs as processes of one host or several, each leading a session of its own, so that they outlive the launcher and its
//! terminal.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::contract::{Backend, Handed, Poll, Ticket};
use super::ending::{ending, witnessed};
use super::process_answers::{Said, alive, find, look, processes, said, signal, start, words};
use crate::config::ProcessProfile;
use crate::journal::{Ending, Handle, Loss, Process};
use crate::transport::{Host, Transport};

/// Longest that a look or a signal may take; a start waits for others in front of it.
const SOON: Duration = Duration::from_secs(60);

/// How hosts are shared among jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// Jobs start at once, whatever runs there: the person at this machine decides.
    Unlimited,
    /// Each job takes CPUs and GPUs, and waits until they are free.
    Counted,
}

/// Processes of one host, or of several that see the same files.
#[derive(Debug)]
pub struct Processes {
    /// What reads and writes files: any of the hosts.
    files: Host,
    hosts: Vec<Host>,
    slots: Slots,
    profile: ProcessProfile,
    /// How many jobs of this launcher each host has, in the order of `hosts`.
    load: RefCell<Vec<usize>>,
    /// Since when hosts are silent while others speak: where none does, the fault may be on our side.
    missing: RefCell<HashMap<usize, Instant>>,
    /// Processes on hosts that went silent, whose jobs have gone elsewhere: ended when the host speaks again.
    strays: RefCell<Vec<Process>>,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Alive,
    Gone,
    /// Its host does not answer.
    Silent,
}

impl Processes {
    /// Runs jobs on a host, or on every host of several.
    pub fn over(files: Host, slots: Slots, profile: ProcessProfile) -> Self {
        let hosts = files.each();
        let load = RefCell::new(vec![0; hosts.len()]);
        let (missing, strays) = (RefCell::default(), RefCell::default());
        Self { files, hosts, slots, profile, load, missing, strays }
    }

    fn number_of(&self, process: &Process) -> Option<usize> {
        self.hosts.iter().position(|host| host.name() == process.host.as_deref())
    }

    /// How long a silent host has been missed while others speak.
    fn missed(&self, number: usize) -> Duration {
        self.missing.borrow_mut().entry(number).or_insert_with(Instant::now).elapsed()
    }

    /// Starts a job's process on one host.
    async fn start(&self, host: &Host, ticket: &Ticket, rank: Option<usize>) -> Result<Said> {
        let folder = ticket.folder.display().to_string();
        let attempt = ticket.attempt.to_string();
        let slots = if self.slots == Slots::Counted { "slots" } else { "" };
        let cpus = self.profile.cpus.map(|cpus| cpus.to_string()).unwrap_or_default();
        let gpus = self.profile.gpus.to_string();
        let rank = rank.map(|rank| rank.to_string()).unwrap_or_default();
        let arguments = [&*folder, &*attempt, &*ticket.token, slots, &*cpus, &*gpus, &*rank];
        Ok(said(&host.shell(&start(), &arguments).await?, host.name()))
    }

    async fn signal(&self, processes: &[Process], word: &str) -> Result<()> {
        for (number, host) in self.hosts.iter().enumerate() {
            let there = processes.iter().filter(|process| self.number_of(process) == Some(number));
            let there = words(there);
            if !there.is_empty() {
                let mut arguments = vec![word];
                arguments.extend(there.iter().map(String::as_str));
                host.shell_within(SOON, &signal(), &arguments).await?;
            }
        }
        Ok(())
    }

    /// What is known of each process; every host is asked once. Strays on hosts that speak again are ended.
    async fn look(&self, asked: &[&Process]) -> Result<Vec<Known>> {
        let mut known = vec![Known::Gone; asked.len()];
        for (number, host) in self.hosts.iter().enumerate() {
            let here = |process: &Process| self.number_of(process) == Some(number);
            let strays: Vec<Process> = self.strays.borrow().iter().filter(|it| here(it)).cloned().collect();
            let (at, there): (Vec<usize>, Vec<&Process>) = asked
                .iter()
                .enumerate()
                .filter(|(_, process)| here(process))
                .map(|(at, it)| (at, *it))
                .unzip();
            if there.is_empty() && strays.is_empty() {
                continue;
            }
            let arguments = words(there);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match host.shell_within(self.profile.patience(), &look(), &arguments).await {
                Ok(output) => {
                    let alive = alive(&output.stdout);
                    if alive.len() != at.len() {
                        let message = format!("a look at processes failed: {}", output.stderr.trim());
                        return Err(Error::new(ErrorKind::Unreachable, message));
                    }
                    for (at, alive) in at.into_iter().zip(alive) {
                        known[at] = if alive { Known::Alive } else { Known::Gone };
                    }
                    self.missing.borrow_mut().remove(&number);
                    self.signal(&strays, "KILL").await?;
                    self.strays.borrow_mut().retain(|it| !here(it));
                }
                // A host that is alone is the whole link.
                Err(error) if error.kind == ErrorKind::Unreachable && host.name().is_some() => {
                    at.into_iter().for_each(|at| known[at] = Known::Silent);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    /// What became of an attempt with such processes.
    async fn judge(&self, ticket: &Ticket, processes: &[Process], known: &[Known]) -> Result<Poll> {
        let running = |waiting| Poll::Running { restart: 0, waiting };
        let silent = processes.iter().zip(known).find(|(_, known)| **known == Known::Silent);
        let Some((silent, _)) = silent else {
            // Ranks that lose one of theirs end by themselves; all of them have spoken then.
            return Ok(match known.contains(&Known::Alive) {
                true => running(None),
                false => Poll::Ended { restart: 0, ending: ending(&self.files, ticket).await? },
            });
        };
        // What it says goes through the files that all hosts see. Where none of them answers, nothing is known of any.
        let told = witnessed(&self.files, ticket).await.inspect_err(|_| self.missing.borrow_mut().clear())?;
        if let Some(ending @ (Ending::Done | Ending::Failed { .. })) = told {
            return Ok(Poll::Ended { restart: 0, ending });
        }
        let host = silent.host.as_deref().unwrap_or("the host");
        let missed = self.number_of(silent).map_or(Duration::MAX, |number| self.missed(number));
        if missed < self.profile.lost() {
            return Ok(running(Some(format!("`{host}` does not answer"))));
        }
        let with = |wanted| {
            let of_kind = processes.iter().zip(known).filter(move |(_, known)| **known == wanted);
            of_kind.map(|(process, _)| process.clone()).collect::<Vec<_>>()
        };
        self.signal(&with(Known::Alive), "KILL").await?;
        // They may live on. They write to this attempt's folder alone, and are ended when their host is back.
        self.strays.borrow_mut().extend(with(Known::Silent));
        let message = format!("the host `{host}` does not answer, and its job goes elsewhere");
        let error = Error::new(ErrorKind::Unreachable, message).hint(format!("look at it: `ssh {host}`"));
        Ok(Poll::Ended { restart: 0, ending: Ending::Lost { error, class: Loss::Infrastructure } })
    }
}

/// What the hosts said that did not take a job.
#[derive(Default)]
struct Refusals {
    busy: Vec<String>,
    unfit: Vec<String>,
}

impl Refusals {
    /// The answer to a job that did not find as many hosts as it needs.
    fn answer(self, profile: &ProcessProfile, silent: usize) -> Result<Handed> {
        let mut words = self.busy;
        if words.is_empty() && silent == 0 {
            let message = format!("no host takes the job: {}", self.unfit.join("; "));
            let hint = "ask for less: `process.cpus`, `process.gpus` in the cluster's profile; GPUs need NVIDIA's driver, which brings nvidia-smi";
            return Err(Error::new(ErrorKind::Refused, message).hint(hint));
        }
        if silent > 0 {
            words.push(format!("{silent} host(s) do not answer"));
        }
        words.extend(self.unfit);
        let wanted =
            if profile.hosts > 1 { format!("it needs {} hosts: ", profile.hosts) } else { String::new() };
        Ok(Handed::Later(format!("{wanted}{}", words.join("; "))))
    }
}

impl Backend for Processes {
    // A process cannot be told to wait for another one: the engine hands candidates over when their baselines are done.
    async fn submit(&self, ticket: &Ticket, _after: &[Handle]) -> Result<Handed> {
        let (wanted, ranks) = (self.profile.hosts as usize, self.profile.ranks_per_host as usize);
        let mut order: Vec<usize> =
            (0..self.hosts.len()).filter(|number| self.hosts[*number].silent_for().is_none()).collect();
        order.sort_by_key(|number| self.load.borrow()[*number]);
        let silent = self.hosts.len() - order.len();
        let (mut started, mut refusals) = (Vec::new(), Refusals::default());
        for number in order {
            let host = &self.hosts[number];
            let rank = (wanted > 1).then_some(started.len() * ranks);
            let named = |why: String| host.name().map_or(why.clone(), |name| format!("`{name}`: {why}"));
            match self.start(host, ticket, rank).await? {
                Said::Started(process) => {
                    self.load.borrow_mut()[number] += 1;
                    started.push(process);
                }
                Said::Busy(why) => refusals.busy.push(named(why)),
                Said::Unfit(why) => refusals.unfit.push(named(why)),
                Said::Refused(why) => {
                    let message = format!("the job did not start: {}", named(why));
                    self.signal(&started, "KILL").await?;
                    return Err(Error::new(ErrorKind::Refused, message).at(&ticket.folder));
                }
            }
            if started.len() == wanted {
                return Ok(Handed::Taken(handle(started)));
            }
        }
        self.signal(&started, "KILL").await?;
        refusals.answer(&self.profile, silent)
    }

    async fn find(&self, ticket: &Ticket) -> Result<Option<Handle>> {
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for (number, host) in self.hosts.iter().enumerate() {
            match host.shell(&find(), &[&ticket.token]).await {
                Ok(output) => found.extend(processes(&output.stdout, host.name())),
                Err(error) if error.kind == ErrorKind::Unreachable => silent.push((number, error)),
                Err(error) => return Err(error),
            }
        }
        if found.len() >= self.profile.hosts as usize {
            return Ok(Some(handle(found)));
        }
        let all = silent.len() == self.hosts.len();
        // What is not known of a lost host does no harm: the next attempt has another folder.
        if let Some((_, error)) =
            silent.into_iter().find(|(it, _)| all || self.missed(*it) < self.profile.lost())
        {
            return Err(error);
        }
        // A launcher that died had started it on some of its hosts only.
        self.signal(&found, "KILL").await?;
        Ok(None)
    }

    async fn poll(&self, asked: &[(Ticket, Handle)]) -> Result<Vec<Poll>> {
        let all: Vec<&Process> = asked.iter().flat_map(|(_, handle)| handle.processes()).collect();
        let known = self.look(&all).await?;
        let mut rest = &*known;
        let mut load = vec![0; self.hosts.len()];
        let mut polls = Vec::with_capacity(asked.len());
        for (ticket, handle) in asked {
            let (own, others) = rest.split_at(handle.processes().len());
            rest = others;
            let poll = self.judge(ticket, handle.processes(), own).await?;
            if matches!(poll, Poll::Running { .. }) {
                let numbers = handle.processes().iter().filter_map(|process| self.number_of(process));
                numbers.for_each(|number| load[number] += 1);
            }
            polls.push(poll);
        }
        *self.load.borrow_mut() = load;
        Ok(polls)
    }

    async fn cancel(&self, _ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.signal(handle.processes(), "TERM").await
    }

    async fn kill(&self, _ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.signal(handle.processes(), "KILL").await
    }
}

/// What started processes are called: one for each host.
fn handle(mut processes: Vec<Process>) -> Handle {
    match processes.len() {
        1 => Handle::Process(processes.remove(0)),
        _ => Handle::Processes(processes),
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
