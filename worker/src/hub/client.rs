//! HTTP to the Hub: who asks is told to the Hub alone, never to the stores that it sends us on to.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};
use ureq::Agent;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::places::HubPlaces;

/// Longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest that one answer is read; what is left is asked for again from there.
const ANSWER: Duration = Duration::from_secs(600);
/// How often one address may send us on to another.
const REDIRECTS: usize = 5;
/// Longest wait that a busy Hub may ask for.
const LONGEST_WAIT: u64 = 300;

/// Why a question was not answered.
#[derive(Debug)]
pub enum Fault {
    /// It may be answered later.
    Again {
        /// Why not now.
        error: Error,
        /// When the Hub wants to be asked again.
        wait: Option<Duration>,
    },
    /// It will not be answered.
    Final(Error),
}

/// A connection to the Hub.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The body of an answer, and where in the file it begins.
pub struct Answer {
    /// First byte.
    pub from: u64,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl Client {
    /// A client of the Hub.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn of(places: &HubPlaces) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &places.certificates {
            tls = tls.root_certs(certificates(path)?);
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_recv_body(Some(ANSWER))
            .user_agent(concat!("qlaunch/", env!("CARGO_PKG_VERSION")));
        let agent = config.build().new_agent();
        Ok(Self { agent, endpoint: places.endpoint.clone(), token: places.token.clone() })
    }

    /// Asks for what lies at a path of the Hub, from a byte on, at most to another one.
    ///
    /// # Errors
    /// No answer, or one that says no.
    pub fn get(&self, path: &str, from: u64, to: Option<u64>) -> Result<Answer, Fault> {
        let mut address = format!("{}{path}", self.endpoint);
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&address).header("Accept-Encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(&address)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if from > 0 || to.is_some() {
                let to = to.map_or(String::new(), |to| to.to_string());
                request = request.header("Range", format!("bytes={from}-{to}"));
            }
            let answer = request.call().map_err(|error| self.silence(&error))?;
            match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => address = self.next(&address, answer.headers())?,
                200 => return Ok(Answer { from: 0, body: body(answer) }),
                206 => {
                    return Ok(Answer { from: start(answer.headers()).unwrap_or(from), body: body(answer) });
                }
                status => return Err(self.refusal(status, answer.headers(), path)),
            }
        }
        Err(Fault::Final(self.error(ErrorKind::Unreachable, "sends us on and on".to_owned())))
    }

    /// Whether an address is the Hub's own.
    fn is_hub(&self, address: &str) -> bool {
        address.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    fn next(&self, address: &str, headers: &HeaderMap) -> Result<String, Fault> {
        let location = text(headers, "location").unwrap_or_default();
        let next = match location {
            to if to.starts_with("https://") || to.starts_with("http://") => to.to_owned(),
            to if to.starts_with('/') => {
                let host = address.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                format!("{host}{to}")
            }
            to => {
                return Err(Fault::Final(
                    self.error(ErrorKind::Unreachable, format!("sends us on to `{to}`")),
                ));
            }
        };
        if address.starts_with("https://") && next.starts_with("http://") {
            let message = "sends us on to an address that is not encrypted".to_owned();
            return Err(Fault::Final(self.error(ErrorKind::Unreachable, message)));
        }
        Ok(next)
    }

    fn error(&self, kind: ErrorKind, what: String) -> Error {
        Error::new(kind, format!("the Hub at {} {what}", self.endpoint))
    }

    /// No answer at all.
    fn silence(&self, error: &ureq::Error) -> Fault {
        let failure = self.error(ErrorKind::Unreachable, format!("does not answer: {error}"));
        match error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Fault::Final(
                failure.hint("where a proxy has certificates of its own, name their file in SSL_CERT_FILE"),
            ),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Fault::Final(failure.hint("check HF_ENDPOINT, HTTPS_PROXY and NO_PROXY"))
            }
            _ => Fault::Again {
                error: failure.hint("check the network, HTTPS_PROXY, or name a mirror in HF_ENDPOINT"),
                wait: None,
            },
        }
    }

    /// An answer that says no.
    fn refusal(&self, status: u16, headers: &HeaderMap, path: &str) -> Fault {
        let code = text(headers, "x-error-code").unwrap_or_default();
        let repository = repository(path);
        let page = format!("{}/{repository}", self.endpoint);
        let gated = format!(
            "ask for access at {page}, then `export HF_TOKEN=hf_…` with a token of {}/settings/tokens",
            self.endpoint
        );
        let refused = |message: String, hint: String| Fault::Final(Error::input(message).hint(hint));
        match (status, code, &self.token) {
            (401 | 403, "GatedRepo", None) => {
                refused(format!("`{repository}` is gated, and there is no token"), gated)
            }
            (401 | 403, "GatedRepo", Some(_)) => {
                refused(format!("`{repository}` is gated, and the token's owner has no access to it"), gated)
            }
            (401, _, None) => refused(
                format!(
                    "the Hub shows no `{repository}` to somebody without a token: it does not exist, or is private or gated"
                ),
                format!("check the name at {page}; where it is right, `export HF_TOKEN=hf_…`"),
            ),
            (401 | 403, _, _) => refused(
                format!("the Hub refuses the token for `{repository}` (status {status})"),
                format!(
                    "make a new one at {}/settings/tokens that may read it, and `export HF_TOKEN=hf_…`",
                    self.endpoint
                ),
            ),
            (404, "RevisionNotFound", _) => refused(
                format!("`{repository}` has no such revision"),
                format!("look at {page}/tree/main: branches, tags and commits can be named behind `@`"),
            ),
            (404, _, _) => refused(
                format!("there is no `{repository}` on the Hub, or not this file of it"),
                format!("check the name at {page}"),
            ),
            (408 | 429 | 500..=599, _, _) => {
                let wait = text(headers, "retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
                let what = if status == 429 { "is asked too often" } else { "is out of order" };
                let error = self.error(ErrorKind::Unreachable, format!("{what} (status {status})"));
                let wait = wait.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT)));
                Fault::Again { error: error.hint("try again later"), wait }
            }
            _ => refused(
                format!("the Hub answers with status {status} for `{repository}`"),
                format!("look at {page}"),
            ),
        }
    }
}

/// `ORG/NAME` in a path of the Hub.
fn repository(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix("api/").unwrap_or(path);
    let kept = path.strip_prefix("models/").unwrap_or(path);
    let parts = if kept.starts_with("datasets/") { 3 } else { 2 };
    kept.split('/').take(parts).collect::<Vec<_>>().join("/")
}

fn body(answer: Response<ureq::Body>) -> Box<dyn Read + Send> {
    Box::new(answer.into_body().into_reader())
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn start(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn certificates(path: &Path) -> Result<RootCerts> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("read the certificates", path, &error))?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(Error::input("there is no certificate in this file")
            .at(path)
            .hint("name a file of PEM certificates in SSL_CERT_FILE, or unset it")),
        false => Ok(RootCerts::Specific(Arc::new(found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_as_people_name_them() {
        assert_eq!(repository("/api/models/org/name/revision/main?blobs=true"), "org/name");
        assert_eq!(repository("/org/name/resolve/abc/config.json"), "org/name");
        assert_eq!(repository("/api/datasets/org/name/revision/main"), "datasets/org/name");
    }

    #[test]
    fn the_token_is_for_the_hub_and_for_nobody_whose_name_begins_alike() {
        let places = HubPlaces {
            endpoint: "https://hub.example".to_owned(),
            offline: false,
            token: None,
            caches: Vec::new(),
            certificates: None,
        };
        let client = Client::of(&places).unwrap();
        assert!(client.is_hub("https://hub.example/a/b"));
        for other in [
            "https://hub.example.evil/a",
            "http://hub.example/a",
            "https://cdn.example/a",
            "https://hub.example:8/a",
        ] {
            assert!(!client.is_hub(other), "{other}");
        }
    }
}
