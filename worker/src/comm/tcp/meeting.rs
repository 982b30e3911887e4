//! How ranks come together: rank 0 opens a door, hears who comes, and tells everybody where the others are.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind, Result};

use super::frame::{Place, Word, read_word, write_word};
use super::handshake::{Answer, Caller, Channel, Failure, Hello, call, hear_out};
use super::seat::{Peer, Rendezvous, Seat};
use super::threads::Link;

/// Between two looks at the door, or two calls.
const PAUSE: Duration = Duration::from_millis(20);

/// Asked now and then whether waiting still makes sense.
pub type Watch<'a> = dyn FnMut() -> Result<()> + 'a;

/// Where rank 0 listens.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    /// Where others find it.
    pub address: SocketAddr,
}

impl Door {
    /// Opens the door of a rendezvous; a file is given its address.
    ///
    /// # Errors
    /// The address is taken or not of this host, or the file cannot be written.
    pub fn open(rendezvous: &Rendezvous) -> Result<Self> {
        let refused = |place: &str, error: std::io::Error| {
            Error::input(format!("rank 0 cannot listen at `{place}`: {error}"))
                .hint("choose another place with `--rendezvous HOST:PORT`; rank 0 must run on HOST")
        };
        match rendezvous {
            Rendezvous::Address(text) => {
                let address = resolve(text).map_err(|e| refused(text, e))?;
                // Other hosts come over whichever network they like. A host's own name often is a loopback address to
                // itself, so only a place that says so is for this host alone.
                let host = text.rsplit_once(':').map_or("", |(host, _)| host);
                let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
                let address = match local {
                    true => address,
                    false => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()),
                };
                Self::listen(address).map_err(|e| refused(text, e))
            }
            Rendezvous::File(path) => {
                let door =
                    Self::listen((Ipv4Addr::UNSPECIFIED, 0).into()).map_err(|e| refused("any port", e))?;
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let failed = |e: std::io::Error| Error::io("write where ranks meet", path, &e);
                let part = path.with_extension("partial");
                std::fs::write(&part, format!("{host}:{}\n", door.address.port())).map_err(failed)?;
                std::fs::rename(&part, path).map_err(failed)?;
                Ok(door)
            }
        }
    }

    /// A door for ranks of this host, at a port that is free.
    ///
    /// # Errors
    /// There is none.
    pub fn of_this_host() -> Result<Self> {
        let opened = Self::listen((Ipv4Addr::LOCALHOST, 0).into());
        opened.map_err(|e| Error::input(format!("no port of this host is free for its ranks: {e}")))
    }

    fn listen(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

fn resolve(text: &str) -> std::io::Result<SocketAddr> {
    let unknown = || std::io::Error::new(Io::NotFound, "the host has no address");
    text.to_socket_addrs()?.next().ok_or_else(unknown)
}

/// Connections by rank and channel.
type Collected = BTreeMap<(usize, Channel), (Hello, TcpStream)>;

/// Rank 0's side: hears everybody out and tells them of each other.
pub(super) fn host(seat: &Seat, door: Door, watch: &mut Watch<'_>) -> Result<Vec<Option<Link>>> {
    let deadline = Instant::now() + seat.limits.meeting;
    let mut callers = collect(seat, &door.listener, (1, BTreeMap::new()), (deadline, watch))?;
    let mut places = Vec::new();
    for rank in 1..seat.size {
        let (hello, stream) =
            callers.get(&(rank, Channel::Control)).ok_or_else(|| Error::bug("a caller was lost"))?;
        let ip = stream.peer_addr().map_err(|e| broken(&hello.peer, &e))?.ip();
        places.push(Place { peer: hello.peer.clone(), address: SocketAddr::new(ip, hello.port) });
    }
    let roster = Word::Roster(places);
    for ((_, channel), (hello, stream)) in &mut callers {
        if *channel == Channel::Control {
            write_word(stream, &roster).map_err(|e| broken(&hello.peer, &e))?;
        }
    }
    links(seat, callers)
}

/// The side of all other ranks.
pub(super) fn join(seat: &Seat, watch: &mut Watch<'_>) -> Result<Vec<Option<Link>>> {
    let deadline = Instant::now() + seat.limits.meeting;
    let mut first = dial(seat, None, (deadline, watch))?;
    // Others find this rank where rank 0 finds it.
    let own = first.local_addr().map_err(|e| Error::bug(format!("a connection without an address: {e}")))?;
    let door = Door::listen(SocketAddr::new(own.ip(), 0))
        .map_err(|e| Error::input(format!("cannot listen for other ranks: {e}")))?;
    let hello = |channel| hello(seat, channel, door.address.port());
    let patience = seat.limits.handshake;
    let zero = answered(call(&mut first, &seat.token, &hello(Channel::Control), patience))?;
    let address = first.peer_addr().map_err(|e| broken(&zero, &e))?;
    let mut known: Collected = BTreeMap::new();
    let of = |peer: &Peer, channel| Hello { peer: peer.clone(), ..hello(channel) };
    let data = connect(seat, address, &hello(Channel::Data), (deadline, watch))?;
    known.insert((0, Channel::Data), (of(&zero, Channel::Data), data));
    let places = roster(&mut first, &zero, (deadline, watch))?;
    known.insert((0, Channel::Control), (of(&zero, Channel::Control), first));
    for place in places.iter().filter(|place| place.peer.rank < seat.rank) {
        for channel in Channel::BOTH {
            let stream = connect(seat, place.address, &hello(channel), (deadline, watch))?;
            known.insert((place.peer.rank, channel), (of(&place.peer, channel), stream));
        }
    }
    let known = collect(seat, &door.listener, (seat.rank + 1, known), (deadline, watch))?;
    links(seat, known)
}

fn hello(seat: &Seat, channel: Channel, port: u16) -> Hello {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Hello { peer: seat.own(), size: seat.size, channel, version, port }
}

fn links(seat: &Seat, mut known: Collected) -> Result<Vec<Option<Link>>> {
    let mut link = |rank: usize| {
        if rank == seat.rank {
            return Ok(None);
        }
        let both = known.remove(&(rank, Channel::Data)).zip(known.remove(&(rank, Channel::Control)));
        let ((hello, data), (_, control)) = both.ok_or_else(|| Error::bug("a connection was lost"))?;
        Ok(Some(Link { peer: hello.peer, data, control: Mutex::new(control) }))
    };
    (0..seat.size).map(&mut link).collect()
}

/// Waits for both connections of every rank from `first` on, as long as those that are known stay.
fn collect(
    seat: &Seat,
    listener: &TcpListener,
    (first, mut known): (usize, Collected),
    (deadline, watch): (Instant, &mut Watch<'_>),
) -> Result<Collected> {
    let wanted = known.len() + (seat.size - first.min(seat.size)) * Channel::BOTH.len();
    let (sender, receiver): (Sender<Caller>, Receiver<Caller>) = channel();
    let token: Arc<[u8]> = seat.token.clone().into();
    while known.len() < wanted {
        let fine = watch().and_then(|()| look_around(&mut known));
        if let Err(why) = fine.and_then(|()| in_time(seat, first, &known, deadline)) {
            return Err(tell(known, why));
        }
        match listener.accept() {
            Ok((stream, from)) => admit(stream, from, (&token, seat.limits.handshake), &sender),
            Err(error) if error.kind() == Io::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => tracing::warn!("a caller was lost: {error}"),
        }
        for caller in receiver.try_iter() {
            let key = (caller.hello.peer.rank, caller.hello.channel);
            let hello = caller.hello.clone();
            let answer = judge(seat, first, &known, &hello);
            match (caller.answer(&seat.token, &answer), answer) {
                (Ok(stream), Answer::Welcome(_)) => drop(known.insert(key, (hello, stream))),
                (Ok(_), Answer::Refused(why)) => {
                    tracing::warn!("{} was refused: {why}", hello.peer);
                }
                (Err(failure), _) => tracing::warn!("{} was lost: {failure:?}", hello.peer),
            }
        }
    }
    Ok(known)
}

fn in_time(seat: &Seat, first: usize, known: &Collected, deadline: Instant) -> Result<()> {
    if Instant::now() <= deadline {
        return Ok(());
    }
    let is_there = |rank| Channel::BOTH.iter().all(|&channel| known.contains_key(&(rank, channel)));
    let missing: Vec<String> =
        (first..seat.size).filter(|&rank| !is_there(rank)).map(|rank| rank.to_string()).collect();
    let seconds = seat.limits.meeting.as_secs();
    let late = format!("ranks that did not come within {seconds} s: {}", missing.join(", "));
    Err(Error::new(ErrorKind::Unreachable, late)
        .hint("look into their logs; all need the same `--rendezvous` and a way to this host"))
}

/// Whether all who came are still there.
fn look_around(known: &mut Collected) -> Result<()> {
    for ((_, channel), (hello, stream)) in known.iter_mut() {
        if *channel == Channel::Control {
            match glance(stream, &hello.peer)? {
                None | Some(Word::Alive) => {}
                Some(Word::Abort(why)) => return Err(why),
                Some(_) => return Err(Error::bug(format!("{} spoke out of turn", hello.peer))),
            }
        }
    }
    Ok(())
}

/// What a rank said, if it said something.
fn glance(stream: &mut TcpStream, peer: &Peer) -> Result<Option<Word>> {
    let failed = |e: &std::io::Error| broken(peer, e);
    stream.set_nonblocking(true).map_err(|e| failed(&e))?;
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).map_err(|e| failed(&e))?;
    match seen {
        Err(error) if error.kind() == Io::WouldBlock => Ok(None),
        Err(error) => Err(failed(&error)),
        // The rest of it is on its way.
        Ok(_) => match read_word(stream) {
            Ok(Some(word)) => Ok(Some(word)),
            Ok(None) => Err(failed(&Io::UnexpectedEof.into())),
            Err(error) => Err(failed(&error)),
        },
    }
}

/// Hears a caller out beside the others, so that a slow one holds up nobody.
fn admit(
    stream: TcpStream,
    from: SocketAddr,
    (token, patience): (&Arc<[u8]>, Duration),
    sender: &Sender<Caller>,
) {
    let (token, sender) = (Arc::clone(token), sender.clone());
    let hear = move || {
        let heard = stream.set_nonblocking(false).map_err(Failure::from);
        match heard.and_then(|()| hear_out(stream, &token, patience)) {
            // Nobody waits any more: then it need not be answered.
            Ok(caller) => drop(sender.send(caller)),
            Err(failure) => tracing::warn!("{from} is not of this run: {failure:?}"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("comm-hear".to_owned()).spawn(hear) {
        tracing::warn!("{from} cannot be heard: {error}");
    }
}

fn judge(seat: &Seat, first: usize, known: &Collected, hello: &Hello) -> Answer {
    let rank = hello.peer.rank;
    if hello.version != env!("CARGO_PKG_VERSION") {
        return Answer::Refused(format!("rank 0 is of version {}", env!("CARGO_PKG_VERSION")));
    }
    if hello.size != seat.size {
        return Answer::Refused(format!("this run has {} ranks, not {}", seat.size, hello.size));
    }
    if !(first..seat.size).contains(&rank) {
        return Answer::Refused(format!("a rank {rank} is not waited for"));
    }
    if let Some((there, _)) = known.get(&(rank, hello.channel)) {
        return Answer::Refused(format!("there already is a {}", there.peer));
    }
    Answer::Welcome(seat.own())
}

/// Tells those who came why nothing will come of it.
fn tell(known: Collected, why: Error) -> Error {
    for ((_, channel), (_, mut stream)) in known {
        if channel == Channel::Control {
            // Those who are gone know.
            let _ = write_word(&mut stream, &Word::Abort(why.clone()));
        }
    }
    why
}

/// Calls until somebody answers.
fn dial(
    seat: &Seat,
    place: Option<SocketAddr>,
    (deadline, watch): (Instant, &mut Watch<'_>),
) -> Result<TcpStream> {
    loop {
        watch()?;
        let address = match (place, &seat.rendezvous) {
            (Some(address), _) => Ok(address),
            (None, Rendezvous::Address(text)) => resolve(text),
            (None, Rendezvous::File(path)) => {
                std::fs::read_to_string(path).and_then(|text| resolve_near(text.trim()))
            }
        };
        let error =
            match address.and_then(|address| TcpStream::connect_timeout(&address, seat.limits.handshake)) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
        if Instant::now() > deadline {
            let place = match (place, &seat.rendezvous) {
                (Some(address), _) => address.to_string(),
                (None, Rendezvous::Address(text)) => text.clone(),
                (None, Rendezvous::File(path)) => path.display().to_string(),
            };
            let seconds = seat.limits.meeting.as_secs();
            let late = format!("nobody answered at `{place}` within {seconds} s: {error}");
            return Err(Error::new(ErrorKind::Unreachable, late).hint(
                "look into the log of rank 0; all need the same `--rendezvous` and a way to its host",
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The address of a host; this one need not know its own name.
fn resolve_near(text: &str) -> std::io::Result<SocketAddr> {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((host, port)) if host == own => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        _ => resolve(text),
    }
}

/// Calls and proves to be of this run.
fn connect(
    seat: &Seat,
    address: SocketAddr,
    hello: &Hello,
    (deadline, watch): (Instant, &mut Watch<'_>),
) -> Result<TcpStream> {
    loop {
        let mut stream = dial(seat, Some(address), (deadline, watch))?;
        match call(&mut stream, &seat.token, hello, seat.limits.handshake) {
            Ok(_) => return Ok(stream),
            Err(Failure::Broken(_)) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(failure) => return answered(Err(failure)).map(|_| stream),
        }
    }
}

fn answered(answer: Result<Peer, Failure>) -> Result<Peer> {
    answer.map_err(|failure| match failure {
        Failure::Broken(why) => Error::new(ErrorKind::Unreachable, format!("a rank did not answer: {why}"))
            .hint("look into the log of rank 0"),
        Failure::Refused(why) => Error::input(format!("this rank was not let in: {why}"))
            .hint("start all ranks of a run with the same `--ranks`, `--rendezvous` and `--token-file`"),
    })
}

/// Waits for rank 0 to say where everybody is.
fn roster(
    stream: &mut TcpStream,
    zero: &Peer,
    (deadline, watch): (Instant, &mut Watch<'_>),
) -> Result<Vec<Place>> {
    // Rank 0 waits for the last one, and gives up by itself.
    let deadline = deadline + Duration::from_secs(10);
    loop {
        watch()?;
        match glance(stream, zero)? {
            Some(Word::Roster(places)) => return Ok(places),
            Some(Word::Abort(why)) => return Err(why),
            Some(_) => return Err(Error::bug(format!("{zero} spoke out of turn"))),
            None if Instant::now() > deadline => return Err(broken(zero, &Io::TimedOut.into())),
            None => std::thread::sleep(PAUSE),
        }
    }
}

fn broken(peer: &Peer, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{peer} is lost: {error}")).hint("look into its log")
}
