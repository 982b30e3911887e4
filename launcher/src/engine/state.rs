//! What is known of a run: nothing that the journal does not say.

use std::collections::HashMap;

use qlaunch_shared::Error;

use crate::journal::{ArrayTask, Handle};

/// What is known of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Its jobs: baselines first, then candidates in the sweep's order.
    pub jobs: Vec<Job>,
    /// Whether somebody asked to stop.
    pub stopping: bool,
    /// Where each job stands in the list, by name: a journal of ten thousand jobs asks for one in every line.
    places: HashMap<String, usize>,
}

impl State {
    /// A run with these jobs.
    pub fn of(jobs: Vec<Job>) -> Self {
        let places = jobs.iter().enumerate().map(|(place, job)| (job.name.clone(), place)).collect();
        Self { jobs, stopping: false, places }
    }

    /// A job by its name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.get(*self.places.get(name)?)
    }

    /// A job by its name, to be changed.
    pub fn job_mut(&mut self, name: &str) -> Option<&mut Job> {
        self.jobs.get_mut(*self.places.get(name)?)
    }

    /// How many jobs hold a place on the cluster.
    pub fn running(&self) -> usize {
        self.jobs.iter().filter(|job| matches!(job.stage, Stage::Submitting | Stage::Running { .. })).count()
    }
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name, unique in the run.
    pub name: String,
    /// Whether candidates wait for it.
    pub baseline: bool,
    /// The newest attempt; 0 before the first.
    pub attempt: u32,
    /// The array that the newest attempt was handed over with.
    pub array: Option<ArrayTask>,
    /// How often the scheduler started the newest attempt again by itself.
    pub restart: u32,
    /// Attempts in this session that were interrupted or lost with their process or node.
    pub losses: u32,
    /// Attempts in this session that a more important job ended.
    pub preemptions: u32,
    /// Attempts in this session whose time was over.
    pub timeouts: u32,
    /// Whether somebody does not want it any more.
    pub unwanted: bool,
    /// How far it is.
    pub stage: Stage,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// It has not been handed over.
    Waiting,
    /// It may or may not have been handed over: the launcher died in between.
    Submitting,
    /// The backend has it.
    Running {
        /// What the backend calls it.
        handle: Handle,
        /// When it was last told to stop, in milliseconds since the Unix epoch.
        told: Option<u64>,
    },
    /// The newest attempt was interrupted or lost.
    Stopped {
        /// Why, if that is known.
        error: Option<Error>,
    },
    /// The newest attempt is done; its results lie in the attempt's folder.
    Done,
    /// Its results are in place.
    Accepted,
    /// It will not be tried again in this session.
    Failed {
        /// Why.
        error: Error,
    },
}
