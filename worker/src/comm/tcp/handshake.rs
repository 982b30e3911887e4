//! Who is at the other end: both sides prove that they know the run's token before either believes a word.
//!
//! ```text
//! caller  magic, nonce            ──►
//!                                 ◄──  magic, nonce  host
//! caller  code(hello), hello      ──►
//!                                 ◄──  code(answer), answer  host
//! ```
//! A code is HMAC-SHA256 over the side's name, both nonces and its text, so that none can be used again or sent back.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{read_text, write_text};
use super::seat::Peer;
use crate::comm::hmac::{hmac, is_equal};

const MAGIC: &[u8; 8] = b"qlranks1";
/// Most that one side says.
const LONGEST: u32 = 4096;

/// Which of the two connections of a pair it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Channel {
    /// Messages.
    Data,
    /// Signs of life.
    Control,
}

impl Channel {
    pub(super) const BOTH: [Self; 2] = [Self::Data, Self::Control];
}

/// What a caller says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) peer: Peer,
    pub(super) size: usize,
    pub(super) channel: Channel,
    /// Version of the worker.
    pub(super) version: String,
    /// Port that it listens at.
    pub(super) port: u16,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It may stay, and talks to this rank.
    Welcome(Peer),
    /// It may not, and why.
    Refused(String),
}

/// Why two sides did not come together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection broke: another try may do better.
    Broken(String),
    /// The other side will not change its mind.
    Refused(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidData => Self::Refused(format!("something else is there: {error}")),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// A caller that proved to be of this run.
pub(super) struct Caller {
    pub(super) stream: TcpStream,
    pub(super) hello: Hello,
    nonces: [u8; 64],
}

/// Calls: the answer of a side that proved to be of this run.
pub(super) fn call(
    stream: &mut TcpStream,
    token: &[u8],
    hello: &Hello,
    patience: Duration,
) -> Result<Peer, Failure> {
    prepare(stream, patience)?;
    let own = nonce()?;
    stream.write_all(MAGIC)?;
    stream.write_all(&own)?;
    let nonces = join(own, greeting(stream)?);
    say(stream, token, (b"caller", &nonces), hello)?;
    match hear(stream, token, (b"host", &nonces))? {
        Answer::Welcome(peer) => Ok(peer),
        Answer::Refused(why) => Err(Failure::Refused(why)),
    }
}

/// Lets a caller prove itself; it still waits for [`Caller::answer`].
pub(super) fn hear_out(mut stream: TcpStream, token: &[u8], patience: Duration) -> Result<Caller, Failure> {
    prepare(&stream, patience)?;
    let theirs = greeting(&mut stream)?;
    let own = nonce()?;
    stream.write_all(MAGIC)?;
    stream.write_all(&own)?;
    let nonces = join(theirs, own);
    match hear(&mut stream, token, (b"caller", &nonces)) {
        Ok(hello) => Ok(Caller { stream, hello, nonces }),
        Err(failure) => {
            // It learns that, and nothing of the token.
            let why = Answer::Refused("its token is not the one of this run".to_owned());
            let _ = say(&mut stream, token, (b"host", &nonces), &why);
            Err(failure)
        }
    }
}

impl Caller {
    /// Answers; the connection, where that was a welcome.
    pub(super) fn answer(mut self, token: &[u8], answer: &Answer) -> Result<TcpStream, Failure> {
        say(&mut self.stream, token, (b"host", &self.nonces), answer)?;
        Ok(self.stream)
    }
}

fn prepare(stream: &TcpStream, patience: Duration) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(())
}

fn greeting(stream: &mut TcpStream) -> Result<[u8; 32], Failure> {
    let (mut magic, mut nonce) = ([0; 8], [0; 32]);
    stream.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(Failure::Refused("something else than a rank is there".to_owned()));
    }
    stream.read_exact(&mut nonce)?;
    Ok(nonce)
}

fn say<T: Serialize>(
    stream: &mut TcpStream,
    token: &[u8],
    (side, nonces): (&[u8], &[u8; 64]),
    what: &T,
) -> Result<(), Failure> {
    let text = serde_json::to_vec(what).map_err(std::io::Error::from)?;
    stream.write_all(&hmac(token, &[side, nonces, &text]))?;
    Ok(write_text(stream, &text)?)
}

fn hear<T: DeserializeOwned>(
    stream: &mut TcpStream,
    token: &[u8],
    (side, nonces): (&[u8], &[u8; 64]),
) -> Result<T, Failure> {
    let mut code = [0; 32];
    stream.read_exact(&mut code)?;
    let text = read_text(stream, LONGEST)?.ok_or_else(|| Failure::Broken("it hung up".to_owned()))?;
    if !is_equal(&code, &hmac(token, &[side, nonces, &text])) {
        return Err(Failure::Refused("its token is not the one of this run".to_owned()));
    }
    serde_json::from_slice(&text).map_err(|_| Failure::Refused("it is of another version".to_owned()))
}

fn join(caller: [u8; 32], host: [u8; 32]) -> [u8; 64] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&caller);
    both[32..].copy_from_slice(&host);
    both
}

/// 32 bytes that nobody can guess.
pub(super) fn nonce() -> Result<[u8; 32], std::io::Error> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
