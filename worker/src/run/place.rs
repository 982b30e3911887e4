//! Which rank of a job this process is: from its flags, from SLURM, or alone, starting the others itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use qlaunch_shared::protocol::{AttemptFolder, DeviceChoice};
use qlaunch_shared::{Error, Result};

use crate::comm::tcp::{Limits, Rendezvous, Seat, read_token};

/// What the command line says of this process among others.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Which rank this is.
    pub rank: Option<usize>,
    /// How many there are.
    pub ranks: Option<usize>,
    /// Where they meet.
    pub rendezvous: Option<Rendezvous>,
    /// File of what only they know.
    pub token_file: Option<PathBuf>,
    /// Where the work is done, whatever the spec says.
    pub device: Option<DeviceChoice>,
}

/// Where a process stands.
#[derive(Debug)]
pub(super) enum Place {
    /// It does the job by itself.
    Alone,
    /// It is rank 0, and starts so many processes of this host, itself included.
    Parent(usize),
    /// It is one of several that somebody else started.
    Member(Seat),
}

/// The environment variables of SLURM.
pub(super) type Variables = BTreeMap<String, String>;

/// Those of this process.
pub(super) fn slurm_variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SLURM_"))
        .collect()
}

/// A step of SLURM that this process is a task of.
struct Step {
    rank: usize,
    ranks: usize,
    place: String,
}

/// Finds the place: flags go before SLURM, which goes before what the job's spec wants.
///
/// # Errors
/// Flags, SLURM and the spec do not go together, or the token cannot be read.
pub(super) fn place(
    flags: &Flags,
    slurm: &Variables,
    wanted: Option<usize>,
    attempt: &AttemptFolder,
) -> Result<Place> {
    let step = if flags.rank.is_none() { step(slurm)? } else { None };
    let ranks = flags.ranks.or(step.as_ref().map(|step| step.ranks)).or(wanted).unwrap_or(1);
    if ranks == 0 {
        return Err(Error::usage("there is no job of 0 ranks").hint("use `--ranks 1` or more"));
    }
    let (rank, place) = match (flags.rank, step) {
        (Some(rank), _) => (rank, None),
        (None, Some(step)) if step.ranks != ranks => {
            return Err(Error::usage(format!(
                "SLURM started {} tasks, and {ranks} ranks are wanted",
                step.ranks
            ))
            .hint(format!("give `srun` the option `--ntasks={ranks}`")));
        }
        (None, Some(step)) => (step.rank, Some(Rendezvous::Address(step.place))),
        (None, None) if ranks == 1 => return Ok(Place::Alone),
        (None, None) => return Ok(Place::Parent(ranks)),
    };
    if rank >= ranks {
        return Err(Error::usage(format!("there is no rank {rank} among {ranks}"))
            .hint("ranks count from 0; say how many there are with `--ranks`"));
    }
    let rendezvous = flags.rendezvous.clone().or(place).ok_or_else(|| {
        Error::usage("a rank must know where the others meet")
            .hint("add `--rendezvous HOST:PORT` of rank 0, or `--rendezvous file:PATH` on a shared disk")
    })?;
    let token = read_token(flags.token_file.as_ref().unwrap_or(&attempt.token()))?;
    Ok(Place::Member(Seat { rank, size: ranks, rendezvous, token, limits: Limits::default() }))
}

/// The step that this process belongs to. A batch script has variables of its own, but is no task of a step with hosts.
fn step(slurm: &Variables) -> Result<Option<Step>> {
    let text = |name: &str| slurm.get(name).map(String::as_str);
    let number = |name: &str| text(name).and_then(|text| text.parse::<usize>().ok());
    let tasks = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS"));
    let (Some(hosts), Some(rank), Some(ranks @ 2..)) =
        (text("SLURM_STEP_NODELIST"), number("SLURM_PROCID"), tasks)
    else {
        return Ok(None);
    };
    let host = first_host(hosts).ok_or_else(|| {
        Error::input(format!("the hosts of the step cannot be understood: `{hosts}`"))
            .key("SLURM_STEP_NODELIST")
            .hint("say where ranks meet with `--rendezvous HOST:PORT`")
    })?;
    // Steps of one host at the same time must not meet at one door.
    let (job, step) = (number("SLURM_JOB_ID").unwrap_or(0), number("SLURM_STEP_ID").unwrap_or(0));
    let port = 20_000 + (job.wrapping_mul(31).wrapping_add(step)) % 12_000;
    Ok(Some(Step { rank, ranks, place: format!("{host}:{port}") }))
}

/// The first host of a list like `n[1-3,7],m2`.
fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list;
    while let Some(at) = rest.find([',', '[']) {
        host.push_str(&rest[..at]);
        if rest[at..].starts_with(',') {
            return Some(host).filter(|host| !host.is_empty());
        }
        let (inside, after) = rest[at + 1..].split_once(']')?;
        host.push_str(inside.split([',', '-']).next()?);
        rest = after;
    }
    host.push_str(rest);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!host.is_empty() && host.chars().all(is_name)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// An attempt's folder with a token in it.
    fn attempt() -> (tempfile::TempDir, AttemptFolder) {
        use std::os::unix::fs::PermissionsExt;
        let work = tempfile::tempdir().unwrap();
        let folder = AttemptFolder(work.path().to_path_buf());
        std::fs::write(folder.token(), "0123456789abcdef").unwrap();
        std::fs::set_permissions(folder.token(), PermissionsExt::from_mode(0o600)).unwrap();
        (work, folder)
    }

    #[test]
    fn the_first_host_of_slurms_lists_is_found() {
        let cases = [
            ("n1", Some("n1")),
            ("n[1-3]", Some("n1")),
            ("gpu-[003-010,012],x", Some("gpu-003")),
            ("a1,b[2-3]", Some("a1")),
            ("rack[1-2]node[01-04].example", Some("rack1node01.example")),
            ("n[1-3", None),
            ("", None),
            ("a b", None),
        ];
        for (list, host) in cases {
            assert_eq!(first_host(list).as_deref(), host, "{list}");
        }
    }

    #[test]
    fn a_task_of_a_step_is_a_rank_that_meets_at_the_steps_first_host() {
        let (_work, attempt) = attempt();
        let slurm = variables(&[
            ("SLURM_JOB_ID", "17"),
            ("SLURM_STEP_ID", "2"),
            ("SLURM_PROCID", "3"),
            ("SLURM_NTASKS", "6"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_STEP_NODELIST", "n[2-3]"),
        ]);
        let Place::Member(seat) = place(&Flags::default(), &slurm, Some(4), &attempt).unwrap() else {
            panic!("not a member")
        };
        assert_eq!((seat.rank, seat.size), (3, 4));
        assert_eq!(seat.rendezvous, Rendezvous::Address("n2:20529".to_owned()));
        let error = place(&Flags::default(), &slurm, None, &attempt);
        assert!(error.is_ok(), "what SLURM started is what is wanted");
        let flags = Flags { ranks: Some(2), ..Flags::default() };
        let error = place(&flags, &slurm, None, &attempt).unwrap_err();
        assert!(error.hint.is_some_and(|hint| hint.contains("--ntasks=2")));
    }

    #[test]
    fn a_batch_script_is_no_rank() {
        let (_work, attempt) = attempt();
        let slurm = variables(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "1")]);
        let found = place(&Flags::default(), &slurm, None, &attempt).unwrap();
        assert!(matches!(found, Place::Alone));
    }

    #[test]
    fn flags_say_more_than_slurm_and_the_spec() {
        let (_work, attempt) = attempt();
        let slurm = variables(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_STEP_NODELIST", "n1")]);
        let flags = Flags {
            rank: Some(1),
            ranks: Some(2),
            rendezvous: Some("h:5".parse().unwrap()),
            ..Flags::default()
        };
        let Place::Member(seat) = place(&flags, &slurm, Some(7), &attempt).unwrap() else {
            panic!("not a member")
        };
        assert_eq!((seat.rank, seat.size, seat.rendezvous), (1, 2, Rendezvous::Address("h:5".to_owned())));
        for (flags, words) in [
            (Flags { rank: Some(2), ..flags.clone() }, "no rank 2 among 2"),
            (Flags { rendezvous: None, ..flags.clone() }, "where the others meet"),
            (Flags { ranks: Some(0), ..flags.clone() }, "0 ranks"),
            (Flags { token_file: Some("/gone".into()), ..flags }, "token"),
        ] {
            let error = place(&flags, &Variables::new(), None, &attempt).unwrap_err();
            assert!(error.message.contains(words) && error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn a_spec_that_wants_ranks_has_this_process_start_them() {
        let (_work, attempt) = attempt();
        let found = place(&Flags::default(), &Variables::new(), Some(3), &attempt).unwrap();
        assert!(matches!(found, Place::Parent(3)));
        let found = place(&Flags::default(), &Variables::new(), Some(1), &attempt).unwrap();
        assert!(matches!(found, Place::Alone));
    }
}
