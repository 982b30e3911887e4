//! The threads of a mesh: for each other rank one that reads, one that writes and one that listens for signs of life, and
//! one that gives them.

use std::io::ErrorKind as Io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind};

use super::frame::{Word, read_message, read_word, write_message, write_word};
use super::seat::{Limits, Peer};
use super::state::State;

/// Another rank and its connections.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) data: TcpStream,
    /// Several threads say something here.
    pub(super) control: Mutex<TcpStream>,
}

/// What all threads hold.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) state: State,
    pub(super) limits: Limits,
    /// By rank; none for this one.
    pub(super) links: Vec<Option<Link>>,
}

impl Link {
    /// Says something on the control connection; a rank that cannot be told is found out by its silence.
    pub(super) fn say(&self, word: &Word) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_word(&mut *control, word) {
            tracing::debug!("{} was not told: {error}", self.peer);
        }
    }
}

impl Common {
    pub(super) fn others(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    /// Fails all calls of this rank with the reason, and passes it on.
    pub(super) fn fail(&self, why: &Error) {
        if !self.state.fail(why) {
            return;
        }
        for link in self.others() {
            link.say(&Word::Abort(why.clone()));
            // Threads that read or write there end.
            let _ = link.data.shutdown(Shutdown::Both);
        }
    }

    fn lost(&self, peer: &Peer, why: impl std::fmt::Display) {
        let error = Error::new(ErrorKind::Unreachable, format!("{peer} is lost: {why}"));
        self.fail(&error.hint("look into its log for why it ended, then start the job again"));
    }
}

/// Starts all threads.
pub(super) fn start(common: &Arc<Common>) -> std::io::Result<()> {
    for rank in 0..common.links.len() {
        let Some(link) = &common.links[rank] else { continue };
        let mut control = link.control.lock().unwrap_or_else(PoisonError::into_inner).try_clone()?;
        let mut data = link.data.try_clone()?;
        let mut out = link.data.try_clone()?;
        // Messages wait for a busy rank as long as it lives; who lives is heard on the other connection.
        data.set_read_timeout(None)?;
        out.set_write_timeout(None)?;
        control.set_read_timeout(Some(common.limits.silence))?;
        control.set_write_timeout(Some(common.limits.silence))?;
        spawn("comm-read", common, move |common| read(common, rank, &mut data))?;
        spawn("comm-write", common, move |common| write(common, rank, &mut out))?;
        spawn("comm-listen", common, move |common| listen(common, rank, &mut control))?;
    }
    spawn("comm-pulse", common, |common| {
        while !common.state.is_over() {
            common.others().for_each(|link| link.say(&Word::Alive));
            common.state.rest(common.limits.pulse);
        }
    })
}

fn spawn(
    name: &str,
    common: &Arc<Common>,
    work: impl FnOnce(&Common) + Send + 'static,
) -> std::io::Result<()> {
    let common = Arc::clone(common);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&common)).map(drop)
}

fn peer(common: &Common, rank: usize) -> Option<&Peer> {
    common.links[rank].as_ref().map(|link| &link.peer)
}

fn read(common: &Common, rank: usize, data: &mut TcpStream) {
    let Some(peer) = peer(common, rank) else { return };
    loop {
        match read_message(data, common.limits.message) {
            Ok(Some((tag, message))) => {
                if !common.state.incoming(rank, tag, message) {
                    return;
                }
            }
            // Why, the other connection says.
            Ok(None) => return common.state.end(rank),
            Err(error) if error.kind() == Io::InvalidData => {
                let error = Error::bug(format!("{peer} is not understood: {error}"));
                return common
                    .fail(&error.hint("something else writes to its connection; start the job again"));
            }
            Err(error) => {
                tracing::debug!("{peer}: {error}");
                return common.state.end(rank);
            }
        }
    }
}

fn write(common: &Common, rank: usize, data: &mut TcpStream) {
    while let Some((tag, message)) = common.state.outgoing(rank) {
        if let Err(error) = write_message(data, tag, &message) {
            // Why it does not take messages, the other connection says; if it does not, silence is reason enough.
            std::thread::sleep(Duration::from_secs(1));
            if let Some(peer) = peer(common, rank).filter(|_| !common.state.is_over()) {
                common.lost(peer, error);
            }
            return;
        }
    }
}

fn listen(common: &Common, rank: usize, control: &mut TcpStream) {
    let Some(peer) = peer(common, rank) else { return };
    loop {
        match read_word(control) {
            Ok(Some(Word::Alive | Word::Roster(_))) => {}
            Ok(Some(Word::Abort(why))) => return common.fail(&why),
            Ok(Some(Word::Bye)) => return common.state.leave(rank),
            Ok(None) => return common.lost(peer, "its connection ended without a word"),
            Err(error) if matches!(error.kind(), Io::WouldBlock | Io::TimedOut) => {
                let seconds = common.limits.silence.as_secs_f64();
                return common.lost(peer, format!("it has said nothing for {seconds:.0} s"));
            }
            Err(error) => return common.lost(peer, error),
        }
    }
}
