//! What the operating system says of this process, and what it is told to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use qlaunch_shared::{Error, ErrorKind, Result};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGTERM, SIGUSR2};

/// Set by SIGTERM and SIGUSR2: stop, exit 85.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Set by SIGTERM: at the next safe point, whatever is lost.
static AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Begins to listen for SIGTERM and SIGUSR2.
///
/// # Errors
/// The handlers cannot be installed.
pub fn watch_signals() -> Result<()> {
    let flag = STOP.get_or_init(Arc::default);
    for signal in [SIGTERM, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .map_err(|e| Error::bug(format!("cannot listen for signal {signal}: {e}")))?;
    }
    signal_hook::flag::register(SIGTERM, Arc::clone(AT_ONCE.get_or_init(Arc::default)))
        .map_err(|e| Error::bug(format!("cannot listen for signal {SIGTERM}: {e}")))?;
    Ok(())
}

/// Has this process told to stop when the one that started it is gone.
///
/// # Errors
/// It is gone already, or the system knows nothing of that.
pub fn stop_with_parent(parent: i32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|e| Error::bug(format!("cannot follow the parent's end: {e}")))?;
    match rustix::process::getppid() {
        Some(pid) if pid.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(Error::new(ErrorKind::Unreachable, format!("the process {parent} that began this is gone"))
            .hint("look into the job's log")),
    }
}

/// Whether somebody asked to stop at once (SIGTERM), and not only when the layer at work is done (SIGUSR2).
pub fn stop_at_once() -> bool {
    AT_ONCE.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Whether somebody asked to stop.
pub fn stop_requested() -> bool {
    STOP.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// User and system CPU time of this process in seconds.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Highest resident memory of this process so far in bytes, file pages included.
pub fn peak_memory() -> u64 {
    let kilobytes = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("VmHWM:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kilobytes.unwrap_or(0) * 1024
}

/// Name of this host.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
