//! The ranks of one job: started where nobody else did, met, watched, and sent home.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qlaunch_shared::protocol::{AttemptFolder, DeviceChoice, RankSummary};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::place::Place;
use crate::comm::nccl::{Nccl, Patience};
use crate::comm::tcp::{Door, Limits, Rendezvous, Seat, TcpMesh};
use crate::comm::{Communicator, Single};
use crate::libraries::{Device, Places, Wanted, require};
use crate::report::{host_name, stop_at_once, stop_requested, stopped};

/// How long a process goes on computing after it was told to stop, or after the other ranks are gone.
const GRACE: Duration = Duration::from_secs(4);
/// How long ranks that this process started may take to end after it.
const FAREWELL: Duration = Duration::from_secs(10);

/// All ranks, seen from this one.
pub(super) struct Team {
    mesh: Option<Arc<TcpMesh>>,
    /// On top of the mesh, where each rank has a GPU of its own.
    nccl: Option<Nccl<Arc<TcpMesh>>>,
    children: Children,
}

/// What this process was started with, to start others alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) spec: &'a Path,
    pub(super) attempt: &'a AttemptFolder,
    pub(super) device: Option<DeviceChoice>,
}

impl Team {
    /// Comes together; `end` ends the process should it still compute a while after the others are gone.
    ///
    /// # Errors
    /// A rank cannot be started or does not come.
    pub(super) fn gather(
        place: Place,
        job: Job<'_>,
        end: impl FnOnce(Error) + Send + 'static,
    ) -> Result<Self> {
        let (seat, door, mut children) = match place {
            Place::Alone => {
                end_at_once(end)?;
                return Ok(Self { mesh: None, nccl: None, children: Children::default() });
            }
            Place::Member(seat) => (seat, None, Children::default()),
            Place::Parent(ranks) => {
                let door = Door::of_this_host()?;
                let address = door.address.to_string();
                let token = write_token(&job.attempt.token())?;
                let children = Children::start(job, ranks, &address)?;
                let rendezvous = Rendezvous::Address(address);
                let seat = Seat { rank: 0, size: ranks, rendezvous, token, limits: Limits::default() };
                (seat, Some(door), children)
            }
        };
        let mut watch = || if stop_requested() { Err(stopped()) } else { children.look() };
        let mesh = Arc::new(TcpMesh::meet(&seat, door, &mut watch)?);
        mesh.guard(GRACE, end)?;
        pass_on_stops(&mesh)?;
        Ok(Self { mesh: Some(mesh), nccl: None, children })
    }

    pub(super) fn comm(&self) -> &dyn Communicator {
        match (&self.nccl, &self.mesh) {
            (Some(nccl), _) => nccl,
            (None, Some(mesh)) => mesh.as_ref(),
            (None, None) => &Single,
        }
    }

    /// Lets hidden states go from GPU to GPU from now on, each rank having one of its own.
    ///
    /// # Errors
    /// Not all ranks join in time, or one is gone.
    pub(super) fn join_gpus(&mut self, gpu: &Device, places: &Places) -> Result<()> {
        let Some(mesh) = &self.mesh else { return Ok(()) };
        let libraries = (require(&Wanted::NCCL, places)?, require(&Wanted::CUDA, places)?);
        let libraries = (&libraries.0, &libraries.1);
        self.nccl = Some(Nccl::join(Arc::clone(mesh), libraries, gpu.index, Patience::default())?);
        Ok(())
    }

    /// Threads of this rank where nobody said: the cores of its host, shared.
    pub(super) fn threads(&self, wanted: Option<usize>) -> Result<usize> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let host = host_name().into_bytes();
        let all = self.comm().all_gather(host.clone())?;
        // SLURM gives each task of a step cores of its own, where it was asked for them.
        let says = |name: &str| std::env::var_os(name).is_some();
        let alone = says("SLURM_CPUS_PER_TASK") && says("SLURM_STEP_NUM_TASKS");
        let sharers = if alone { 1 } else { all.iter().filter(|other| **other == host).count() };
        Ok(wanted.unwrap_or(cores / sharers).max(1))
    }

    /// What each rank took.
    ///
    /// # Errors
    /// A rank is gone.
    pub(super) fn summaries(&self, own: &RankSummary) -> Result<Vec<RankSummary>> {
        let bug = |e: serde_json::Error| Error::bug(format!("cannot tell what a rank took: {e}"));
        let all = self.comm().all_gather(serde_json::to_vec(own).map_err(bug)?)?;
        all.iter().map(|text| serde_json::from_slice(text).map_err(bug)).collect()
    }

    /// Ends: well, where all is well; else with the reason, which the others learn.
    pub(super) fn part(mut self, result: Result<()>) -> Result<()> {
        let result = result.and_then(|()| self.comm().close());
        if let Err(error) = &result {
            self.comm().abort(error);
        }
        (self.nccl, self.mesh) = (None, None);
        self.children.wait();
        result
    }
}

/// Has `end` called a while after SIGTERM if the process is still at work: a search over a large layer looks at nothing for
/// minutes, and nobody waits so long.
fn end_at_once(end: impl FnOnce(Error) + Send + 'static) -> Result<()> {
    let watch = move || {
        while !stop_at_once() {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(GRACE);
        end(stopped());
    };
    let started = std::thread::Builder::new().name("stops".to_owned()).spawn(watch);
    started.map(drop).map_err(|e| Error::input(format!("cannot start the threads of a job: {e}")))
}

/// Lets the others stop where this one is told to, even if it is waiting for them.
fn pass_on_stops(mesh: &Arc<TcpMesh>) -> Result<()> {
    let mesh = Arc::downgrade(mesh);
    let watch = move || {
        while !stop_requested() {
            std::thread::sleep(Duration::from_millis(100));
            if mesh.strong_count() == 0 {
                return;
            }
        }
        // A rank at work stops by itself at the next safe point, which is soon.
        std::thread::sleep(Duration::from_millis(500));
        if let Some(mesh) = mesh.upgrade() {
            mesh.abort(&stopped());
        }
    };
    let started = std::thread::Builder::new().name("stops".to_owned()).spawn(watch);
    started.map(drop).map_err(|e| Error::input(format!("cannot start the threads of a rank: {e}")))
}

/// Writes 32 random bytes as hex, for nobody else to read.
fn write_token(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::io("write the token of the ranks", path, &e);
    let mut random = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").map_err(failed)?;
    std::io::Read::read_exact(&mut source, &mut random).map_err(failed)?;
    let token: String = qlaunch_shared::digest::hex(random);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(token.as_bytes()).map_err(failed)?;
    Ok(token.into_bytes())
}

/// Processes of other ranks that this one started.
#[derive(Default)]
struct Children {
    running: Vec<(usize, Child)>,
    token: Option<PathBuf>,
}

impl Children {
    fn start(job: Job<'_>, ranks: usize, address: &str) -> Result<Self> {
        let token = job.attempt.token();
        let program = std::env::current_exe()
            .map_err(|e| Error::bug(format!("a running program without a path: {e}")))?;
        let mut children = Self { running: Vec::new(), token: Some(token.clone()) };
        for rank in 1..ranks {
            let mut command = Command::new(&program);
            command.arg("run").arg("--spec").arg(job.spec).arg("--attempt").arg(&job.attempt.0);
            command.args(["--rank", &rank.to_string(), "--ranks", &ranks.to_string()]);
            command.args(["--rendezvous", address]).arg("--token-file").arg(&token);
            command.args(job.device.iter().flat_map(|device| ["--device".to_owned(), device.to_string()]));
            command.args(["--parent", &std::process::id().to_string()]);
            let child = command.stdin(Stdio::null()).spawn();
            let child = child.map_err(|e| Error::io(&format!("start rank {rank}"), &program, &e))?;
            children.running.push((rank, child));
        }
        Ok(children)
    }

    /// Whether all still run: one that ends before all have met will not come.
    fn look(&mut self) -> Result<()> {
        for (rank, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(ended(*rank, status));
            }
        }
        Ok(())
    }

    /// Waits for their end, and brings it about where it does not come.
    fn wait(&mut self) {
        let begun = Instant::now();
        for (rank, child) in &mut self.running {
            while matches!(child.try_wait(), Ok(None)) {
                if begun.elapsed() > FAREWELL {
                    tracing::warn!("rank {rank} does not end and is killed");
                    // It may just have ended by itself.
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.running.clear();
        if let Some(token) = self.token.take() {
            // It is of no use any more.
            let _ = std::fs::remove_file(token);
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // Whoever waits for this rank will learn of its end, and some may not have come so far.
            let _ = child.kill();
        }
        self.wait();
    }
}

fn ended(rank: usize, status: ExitStatus) -> Error {
    let error = format!("rank {rank} ended before it had met the others ({status})");
    Error::new(ErrorKind::Unreachable, error).hint("its last words are in the job's log")
}
