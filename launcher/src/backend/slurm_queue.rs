//! What `squeue` and `sacct` say of jobs: every state is known or stays unknown, none is guessed.

use std::collections::HashMap;

/// A row of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Job id, with the array index where there is one.
    pub id: String,
    /// State as SLURM spells it.
    pub state: String,
    /// Nodes.
    pub nodes: String,
    /// Why it waits or ended, in SLURM's words.
    pub reason: String,
}

/// Where a state stands in the life of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits for its turn.
    Waiting,
    /// It holds nodes, or is about to, or has not let them go yet.
    Active,
    /// It is over.
    Over,
    /// A state that this program does not know: nothing follows from it.
    Unknown,
}

/// Where a state stands. Flags that newer versions show instead of a state are among them.
pub fn standing(state: &str) -> Standing {
    // `CANCELLED by 1001` and, in narrow columns, `CANCELLED+`.
    let word = state.split([' ', '+']).next().unwrap_or_default();
    match word {
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD"
        | "EXPEDITING" => Standing::Waiting,
        "RUNNING" | "SUSPENDED" | "COMPLETING" | "CONFIGURING" | "RESIZING" | "SIGNALING" | "STAGE_OUT"
        | "STOPPED" | "POWER_UP_NODE" | "UPDATE_DB" => Standing::Active,
        "BOOT_FAIL" | "CANCELLED" | "COMPLETED" | "DEADLINE" | "FAILED" | "NODE_FAIL" | "OUT_OF_MEMORY"
        | "PREEMPTED" | "TIMEOUT" | "REVOKED" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => Standing::Over,
        _ => Standing::Unknown,
    }
}

/// Columns of [`rows`], for `squeue -o`. The reason may hold anything but a line's end and stands last.
pub const COLUMNS: &str = "%i|%j|%T|%N|%r";

/// What a row is found by: a job's name, and behind it the index of a task of an array.
pub fn key(name: &str, id: &str) -> String {
    match id.split_once('_') {
        Some((_, index)) => format!("{name}_{index}"),
        None => name.to_owned(),
    }
}

/// Rows of the queue by their [`key`]. Where a key has several, as after a lost reply, the one that is not over wins, then
/// the newest. Lines that are no rows, banners for instance, are passed over.
pub fn rows(text: &str) -> HashMap<String, Row> {
    let mut rows: HashMap<String, Row> = HashMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(5, '|').map(str::trim);
        let mut next = || fields.next().map(str::to_owned);
        let (Some(id), Some(name), Some(state), Some(nodes), Some(reason)) =
            (next(), next(), next(), next(), next())
        else {
            continue;
        };
        if !id.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let name = key(&name, &id);
        let over = |row: &Row| standing(&row.state) == Standing::Over;
        let row = Row { id, state, nodes, reason };
        let kept = rows.get(&name).is_some_and(|other| over(&row) && !over(other));
        if !kept {
            rows.insert(name, row);
        }
    }
    rows
}

/// States by [`key`] from `sacct -n -P -X -o JobID,JobName,State,NodeList,Reason`, where later rows are newer.
pub fn accounts(text: &str) -> HashMap<String, Row> {
    rows(text)
}

/// What a waiting job waits for, in words; nothing more than SLURM's own where it says enough.
pub fn waiting(reason: &str) -> String {
    let meaning = match reason {
        "None" | "" => return "the scheduler has not looked at it yet".to_owned(),
        "Dependency" => return "its baseline is not done yet".to_owned(),
        "Resources" => "nodes are busy",
        "Priority" => "other jobs go first",
        "BeginTime" => "its time has not come",
        "JobHeldUser" | "JobHeldAdmin" | "job requeued in held state" | "JobHoldMaxRequeue" => {
            "it is held: `scontrol release`"
        }
        "launch_failed_requeued_held" => "it could not be started and is held: `scontrol release`",
        "Licenses" => "licences are taken",
        "Reservation" => "its reservation is not open, or full",
        "ReservationDeleted" => "its reservation is gone",
        "InvalidAccount" => "its account is not valid; 23.11 without accounts says so of every job",
        "QOSNotAllowed" | "AccountNotAllowed" => "the partition does not take its QOS or account",
        "MaxMemPerLimit" => "it asks for more memory than the partition gives",
        "PartitionDown" | "PartitionInactive" => "the partition is down",
        "PartitionTimeLimit" => "it asks for more time than the partition gives",
        "PartitionNodeLimit" => "it asks for more nodes than the partition gives",
        "BadConstraints" => "no node can ever satisfy it",
        "JobArrayTaskLimit" => "its array is full",
        "DependencyNeverSatisfied" => "what it waits for has failed",
        other if other.starts_with("QOS") => "a limit of the QOS is reached",
        other if other.starts_with("Assoc") || other.starts_with("Max") => {
            "a limit of the account is reached"
        }
        other if other.starts_with("ReqNodeNotAvail") => "nodes are down or reserved",
        other => return other.to_owned(),
    };
    format!("{reason}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_among_banners_and_reasons_may_hold_anything() {
        let text = "Welcome to the cluster!\n\
            12|ql-a|RUNNING|n1|None\n\
            13|ql-b|PENDING||(ReqNodeNotAvail, UnavailableNodes:n[3-4])|odd\n\
            slurm_load_jobs error: | | | |\n\
            14_3|ql-c|CANCELLED by 1001||None\n";
        let rows = rows(text);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows["ql-a"].id, "12");
        assert_eq!(rows["ql-b"].reason, "(ReqNodeNotAvail, UnavailableNodes:n[3-4])|odd");
        assert_eq!(standing(&rows["ql-c_3"].state), Standing::Over);
    }

    #[test]
    fn tasks_of_an_array_are_told_apart_by_their_index() {
        let rows =
            rows("20_0|ql-a|RUNNING|n1|None\n20_1|ql-a|FAILED|n1|None\n20_[2-4]|ql-a|PENDING||Priority\n");
        assert_eq!((rows["ql-a_0"].state.as_str(), rows["ql-a_1"].state.as_str()), ("RUNNING", "FAILED"));
        assert_eq!(key("ql-a", "20_0"), "ql-a_0");
        assert!(!rows.contains_key("ql-a"));
    }

    #[test]
    fn of_two_jobs_with_one_name_the_living_one_counts() {
        let alive = "7|ql-a|RUNNING|n1|None";
        let dead = "9|ql-a|FAILED|n1|NonZeroExitCode";
        for text in [format!("{alive}\n{dead}"), format!("{dead}\n{alive}")] {
            assert_eq!(rows(&text)["ql-a"].id, "7");
        }
    }

    #[test]
    fn states_of_the_future_are_unknown_and_not_over() {
        assert_eq!(standing("HIBERNATING"), Standing::Unknown);
        assert_eq!(standing(""), Standing::Unknown);
        for state in ["COMPLETING", "SUSPENDED", "STAGE_OUT"] {
            assert_eq!(standing(state), Standing::Active, "{state}");
        }
        for state in ["REQUEUE_HOLD", "EXPEDITING"] {
            assert_eq!(standing(state), Standing::Waiting, "{state}");
        }
        assert_eq!(standing("CANCELLED+"), Standing::Over);
    }

    #[test]
    fn reasons_are_explained_and_unknown_ones_are_quoted() {
        assert_eq!(waiting("Priority"), "Priority: other jobs go first");
        assert_eq!(waiting("QOSMaxGRESPerUser"), "QOSMaxGRESPerUser: a limit of the QOS is reached");
        assert_eq!(waiting("Something new"), "Something new");
    }
}
