//! A small Hub on this machine: lists of files, redirects to a store on another host name, ranges, tokens, and faults on demand.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A commit of 40 digits, as git has them.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that a gated repository wants.
pub const TOKEN: &str = "hf_SECRETsecretSECRETsecret0123";

/// What befalls one answer about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The bytes are others.
    Wrong,
    /// Another status, and the seconds after which to ask again.
    Busy(u16, u64),
    /// The range is not heeded.
    Whole,
    /// A wait in milliseconds before every 64 KiB.
    Slow(u64),
}

/// A question that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Path and query.
    pub path: String,
    /// Value of `Host`.
    pub host: String,
    /// First byte that was wanted.
    pub from: Option<u64>,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

struct File {
    name: String,
    bytes: Vec<u8>,
    digest: String,
    large: bool,
}

#[derive(Default)]
struct State {
    /// `models/ORG/NAME` or `datasets/ORG/NAME`.
    repositories: HashMap<String, Vec<File>>,
    gated: Vec<String>,
    faults: HashMap<String, VecDeque<Fault>>,
    questions: Vec<Question>,
}

/// The Hub; it stops answering with the test.
#[derive(Clone)]
pub struct Hub {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A Hub without repositories.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let hub = Self { port, state: Arc::default() };
        let answering = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = answering.clone();
                // Whoever is killed in the middle closes his end.
                std::thread::spawn(move || drop(hub.answer(&stream)));
            }
        });
        hub
    }

    /// Its address, for `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds every file of a folder as a repository: `models/ORG/NAME` or `datasets/ORG/NAME`. Files of 100,000 bytes and more
    /// lie in the store for large ones.
    pub fn add(&self, repository: &str, folder: &Path) {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_file())
        {
            let bytes = fs::read(entry.path()).expect("a file");
            let large = bytes.len() >= 100_000;
            let digest = if large { sha256(&bytes) } else { git(&bytes) };
            files.push(File { name: entry.file_name().to_string_lossy().into_owned(), bytes, digest, large });
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        self.state.lock().expect("a state").repositories.insert(repository.to_owned(), files);
    }

    /// Wants a token for a repository.
    pub fn gate(&self, repository: &str) {
        self.state.lock().expect("a state").gated.push(repository.to_owned());
    }

    /// Lets the next answers about a file go wrong, one fault each.
    pub fn befall(&self, file: &str, faults: &[Fault]) {
        self.state.lock().expect("a state").faults.entry(file.to_owned()).or_default().extend(faults);
    }

    /// Everything that was asked so far.
    pub fn questions(&self) -> Vec<Question> {
        self.state.lock().expect("a state").questions.clone()
    }

    /// Bytes of all answers so far.
    pub fn sent(&self) -> usize {
        self.questions().iter().map(|question| question.sent).sum()
    }

    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = HashMap::new();
        for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ") {
                headers.insert(name.to_lowercase(), value.to_owned());
            }
        }
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let from = range.and_then(|(from, _)| from.parse::<u64>().ok());
        let to = range.and_then(|(_, to)| to.parse::<u64>().ok());
        let question = Question {
            path,
            host: headers.get("host").cloned().unwrap_or_default(),
            from,
            authorization: headers.get("authorization").cloned(),
            sent: 0,
        };
        let mut reply = self.reply(&question, to);
        let index = {
            let mut state = self.state.lock().expect("a state");
            state.questions.push(question);
            state.questions.len() - 1
        };
        let mut stream = stream.try_clone()?;
        write!(stream, "HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status)?;
        for (name, value) in &reply.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "Content-Length: {}\r\n\r\n", reply.body.len())?;
        reply.body.truncate(reply.cut.unwrap_or(usize::MAX));
        for piece in reply.body.chunks(65_536) {
            std::thread::sleep(Duration::from_millis(reply.slow));
            stream.write_all(piece)?;
            self.state.lock().expect("a state").questions[index].sent += piece.len();
        }
        stream.flush()
    }

    fn reply(&self, question: &Question, to: Option<u64>) -> Reply {
        let mut state = self.state.lock().expect("a state");
        let path = question.path.split('?').next().unwrap_or_default();
        if let Some(digest) = path.strip_prefix("/store/") {
            let found = state.repositories.values().flatten().find(|file| file.digest == digest);
            let Some(found) = found.map(|file| (file.name.clone(), file.bytes.clone())) else {
                return Reply::refusal(404, "EntryNotFound");
            };
            return piece(&mut state, found, (question.from, to));
        }
        let inner = path.trim_start_matches('/');
        let (inner, listed) = match inner.strip_prefix("api/") {
            Some(inner) => (inner.to_owned(), true),
            None if inner.starts_with("datasets/") => (inner.to_owned(), false),
            None => (format!("models/{inner}"), false),
        };
        let parts: Vec<&str> = inner.splitn(6, '/').collect();
        let repository = parts.iter().take(3).copied().collect::<Vec<_>>().join("/");
        let allowed = question.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
        if state.gated.contains(&repository) && !allowed {
            return Reply::refusal(401, "GatedRepo");
        }
        let Some(files) = state.repositories.get(&repository) else {
            // The Hub does not tell strangers which private repositories exist.
            return Reply::refusal(if question.authorization.is_some() { 404 } else { 401 }, "RepoNotFound");
        };
        let revision = parts.get(4).copied().unwrap_or_default();
        if !["main", COMMIT].contains(&revision) {
            return Reply::refusal(404, "RevisionNotFound");
        }
        if listed {
            let text = listing(files);
            return Reply { body: text.into_bytes(), ..Reply::default() };
        }
        let name = parts.get(5).copied().unwrap_or_default();
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return Reply::refusal(404, "EntryNotFound");
        };
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_owned())];
        if file.large {
            headers.push(("X-Linked-Etag", format!("\"{}\"", file.digest)));
            headers.push(("X-Linked-Size", file.bytes.len().to_string()));
            headers.push(("Location", format!("http://localhost:{}/store/{}", self.port, file.digest)));
            return Reply { status: 302, headers, ..Reply::default() };
        }
        headers.push(("ETag", format!("\"{}\"", file.digest)));
        let found = (file.name.clone(), file.bytes.clone());
        let reply = piece(&mut state, found, (question.from, to));
        Reply { headers: headers.into_iter().chain(reply.headers).collect(), ..reply }
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
    slow: u64,
}

impl Default for Reply {
    fn default() -> Self {
        Self { status: 200, headers: Vec::new(), body: Vec::new(), cut: None, slow: 0 }
    }
}

impl Reply {
    fn refusal(status: u16, code: &str) -> Self {
        Self { status, headers: vec![("X-Error-Code", code.to_owned())], ..Self::default() }
    }
}

/// The bytes of a file that were asked for, with whatever befalls them.
fn piece(
    state: &mut State,
    (name, bytes): (String, Vec<u8>),
    (from, to): (Option<u64>, Option<u64>),
) -> Reply {
    let fault = state.faults.get_mut(&name).and_then(VecDeque::pop_front);
    let mut reply = Reply { body: bytes, ..Reply::default() };
    let size = reply.body.len();
    if let Some(from) = from.filter(|_| fault != Some(Fault::Whole)) {
        let from = usize::try_from(from).expect("a small number").min(size);
        let to = to.map_or(size, |to| usize::try_from(to).expect("a small number") + 1).min(size);
        reply.body = reply.body[from..to].to_vec();
        reply.status = 206;
        reply.headers.push(("Content-Range", format!("bytes {from}-{}/{size}", to.saturating_sub(1))));
    }
    match fault {
        Some(Fault::Cut(after)) => reply.cut = Some(after),
        Some(Fault::Wrong) => reply.body.iter_mut().for_each(|byte| *byte = !*byte),
        Some(Fault::Busy(status, seconds)) => {
            return Reply { status, headers: vec![("Retry-After", seconds.to_string())], ..Reply::default() };
        }
        Some(Fault::Slow(wait)) => reply.slow = wait,
        Some(Fault::Whole) | None => {}
    }
    reply
}

fn listing(files: &[File]) -> String {
    let one = |file: &File| {
        let size = file.bytes.len();
        match file.large {
            true => serde_json::json!({
                "rfilename": file.name, "size": size, "blobId": git(b"a pointer"),
                "lfs": {"sha256": file.digest, "size": size, "pointerSize": 134},
            }),
            false => serde_json::json!({"rfilename": file.name, "size": size, "blobId": file.digest}),
        }
    };
    let siblings: Vec<serde_json::Value> = files.iter().map(one).collect();
    serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What git calls a content, by the system's own SHA-1.
fn git(bytes: &[u8]) -> String {
    let mut child = Command::new("sha1sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha1sum is part of every system");
    let mut input = child.stdin.take().expect("an input");
    input
        .write_all(format!("blob {}\0", bytes.len()).as_bytes())
        .and_then(|()| input.write_all(bytes))
        .expect("a pipe");
    drop(input);
    let output = child.wait_with_output().expect("an end");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a digest").to_owned()
}
