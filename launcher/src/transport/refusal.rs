//! Why a host cannot be reached, in words with a remedy.

use std::io::ErrorKind as Io;

use openssh::Error as SshError;
use qlaunch_shared::{Error, ErrorKind};

use super::ssh::Way;

/// An error of OpenSSH as a person can act on it.
pub fn explain(error: &SshError, way: &Way) -> Error {
    let (kind, text) = match error {
        SshError::Connect(inner) | SshError::Master(inner) => (inner.kind(), inner.to_string()),
        other => (Io::Other, other.to_string()),
    };
    let text = text.replace('\r', "");
    refusal(kind, &text, way)
}

fn refusal(kind: Io, text: &str, way: &Way) -> Error {
    let (host, cluster) = (&way.profile.host, &way.cluster);
    let fail = |kind, message: String, hint: String| Error::new(kind, message).hint(hint);
    let unreachable = |what: &str, hint: String| {
        fail(ErrorKind::Unreachable, format!("`{host}` {what}: {}", last_line(text)), hint)
    };
    let config =
        way.profile.config.as_ref().map(|path| format!("-F {} ", path.display())).unwrap_or_default();
    let by_hand = format!("ssh {config}{host}");
    if kind == Io::PermissionDenied || text.contains("Permission denied") {
        let hint = format!(
            "log in once by `qlaunch cluster login {cluster}` (passwords and second factors are asked for by ssh itself), or give ssh a key: `ssh-copy-id {host}`"
        );
        return fail(
            ErrorKind::Login,
            format!("`{host}` wants somebody to log in: {}", last_line(text)),
            hint,
        );
    }
    if text.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let hint = format!(
            "ask the cluster's operators whether its key changed; if so: `ssh-keygen -R {host}`, then `{by_hand}`"
        );
        return fail(ErrorKind::Login, format!("`{host}` shows another host key than before"), hint);
    }
    if text.contains("Host key verification failed") || text.contains("host key is known") {
        let hint = format!("connect once by hand, compare the fingerprint and accept it: `{by_hand}`");
        return fail(ErrorKind::Login, format!("the host key of `{host}` is not known yet"), hint);
    }
    if text.contains("Could not resolve hostname") {
        let hint = format!("check `[ssh] host` by `qlaunch cluster show {cluster}`, or your network");
        return unreachable("cannot be found", hint);
    }
    unreachable("does not answer", format!("try by hand: `{by_hand}`"))
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SshProfile;

    fn told(kind: Io, text: &str) -> (u8, String, String) {
        let profile = SshProfile {
            host: "login".into(),
            user: None,
            port: None,
            others: vec![],
            identity: None,
            jump: vec![],
            config: None,
        };
        let way = Way { cluster: "hpc".into(), profile, login: "x".into() };
        let error = refusal(kind, text, &way);
        (error.exit_code(), error.message, error.hint.unwrap())
    }

    #[test]
    fn every_refusal_of_openssh_has_a_remedy() {
        let (code, message, hint) = told(Io::PermissionDenied, "q@login: Permission denied (publickey).");
        assert_eq!(code, 21);
        assert!(message.contains("q@login: Permission denied") && hint.contains("qlaunch cluster login hpc"));
        let text = "No ED25519 host key is known for [login]:22 and you have requested strict checking.\r\nHost key verification failed.";
        assert_eq!(told(Io::ConnectionAborted, text).1, "the host key of `login` is not known yet");
        let text = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.";
        assert_eq!(told(Io::ConnectionAborted, text).1, "`login` shows another host key than before");
        let (code, message, hint) =
            told(Io::ConnectionRefused, "connect to host login port 22: Connection refused");
        assert_eq!((code, hint.as_str()), (20, "try by hand: `ssh login`"));
        assert!(message.ends_with("Connection refused"));
        let text = "Could not resolve hostname login: Name or service not known";
        assert!(told(Io::Other, text).2.contains("qlaunch cluster show hpc"));
    }
}
