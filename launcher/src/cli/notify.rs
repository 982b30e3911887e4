//! Tells a command or a webhook what happens to a run, without letting the run wait for it.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qlaunch_shared::Error;
use serde_json::json;

use crate::config::{Notify, Occasion};
use crate::journal::Ending;
use crate::session::{Listener, Notice};

/// Longest that a run that is over waits for whoever is still being told.
const PATIENCE: Duration = Duration::from_secs(20);

/// Passes everything on to another listener, and some of it to whoever is to be told.
pub struct Notifier<'a> {
    inner: &'a mut dyn Listener,
    messenger: &'a mut Messenger,
}

impl<'a> Notifier<'a> {
    /// A listener before another one.
    pub fn before(inner: &'a mut dyn Listener, messenger: &'a mut Messenger) -> Self {
        Self { inner, messenger }
    }
}

impl Listener for Notifier<'_> {
    fn notice(&mut self, notice: &Notice<'_>) {
        self.inner.notice(notice);
        match notice {
            Notice::Started { job, attempt } => {
                self.messenger.tell(Occasion::Started, job, &format!("started, try {attempt}"));
            }
            Notice::Accepted { job } => self.messenger.tell(Occasion::Done, job, "done"),
            Notice::Ended { job, ending: Ending::Lost { error, .. } } => {
                self.messenger.tell(Occasion::Lost, job, &format!("lost: {}", error.message));
            }
            Notice::Ended { job, ending: Ending::Failed { error } } => self.messenger.failed(job, error),
            Notice::GivenUp { job, error } => self.messenger.failed(job, error),
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.inner.tick();
        self.messenger.reap();
    }
}

/// Starts a process for each message.
pub struct Messenger {
    notify: Notify,
    run: String,
    cluster: String,
    children: Vec<Child>,
    complaints: Vec<String>,
}

impl Messenger {
    /// Tells of one run.
    pub fn of(notify: Notify, run: &str, cluster: &str) -> Self {
        let (run, cluster) = (run.to_owned(), cluster.to_owned());
        Self { notify, run, cluster, children: Vec::new(), complaints: Vec::new() }
    }

    fn tell(&mut self, occasion: Occasion, job: &str, what: &str) {
        let text = format!("{} on {}: {job} {what}", self.run, self.cluster);
        self.send(occasion, &text, &json!({"candidate": job}));
    }

    fn failed(&mut self, job: &str, error: &Error) {
        self.tell(Occasion::Failed, job, &format!("failed: {}", error.message));
    }

    /// Tells that the run is over, with its exit code.
    pub fn over(&mut self, recommended: Option<&str>, reason: &str, code: u8) {
        let text = format!("{} on {} is over (code {code}): {reason}", self.run, self.cluster);
        self.send(Occasion::Over, &text, &json!({"recommended": recommended, "code": code}));
    }

    fn send(&mut self, occasion: Occasion, text: &str, facts: &serde_json::Value) {
        if !self.notify.on.contains(&occasion) {
            return;
        }
        let mut document = json!({
            "version": 1, "event": occasion.name(), "run": self.run, "cluster": self.cluster, "text": text,
        });
        if let (Some(document), Some(facts)) = (document.as_object_mut(), facts.as_object()) {
            document.extend(facts.clone());
        }
        let document = document.to_string();
        if let Some(line) = self.notify.command.clone() {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &line]).env("QLAUNCH_EVENT", occasion.name()).env("QLAUNCH_NOTICE", text);
            self.start("the command", command, &document);
        }
        if let Some(address) = self.notify.webhook.clone() {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            // The address is a secret as often as not: on stdin no other process can read it.
            let settings = format!(
                "url = \"{}\"\nheader = \"Content-Type: application/json\"\ndata = \"{}\"\nfail\nsilent\nshow-error\nmax-time = 20\noutput = \"/dev/null\"\n",
                quoted(&address),
                quoted(&document)
            );
            let mut command = Command::new("curl");
            command.args(["--config", "-"]);
            self.start("the webhook", command, &settings);
        }
    }

    fn start(&mut self, who: &str, mut command: Command, input: &str) {
        // Data of ours on stdout is not mixed with theirs.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                // Small enough for a pipe, whether anybody reads it or not.
                if let Some(mut stdin) = child.stdin.take() {
                    drop(stdin.write_all(input.as_bytes()));
                }
                self.children.push(child);
            }
            Err(error) => self.complaints.push(format!("{who} of `[notify]` cannot be started: {error}")),
        }
    }

    fn reap(&mut self) {
        let complaints = &mut self.complaints;
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if status.success() => false,
            Ok(Some(status)) => {
                complaints.push(format!("a message of `[notify]` was not delivered ({status})"));
                false
            }
            Err(_) => false,
        });
    }

    /// Waits a while for messages under way; what went wrong, each once.
    pub fn finish(mut self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        while !self.children.is_empty() && Instant::now() < end {
            self.reap();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.reap();
        if !self.children.is_empty() {
            self.complaints.push("a message of `[notify]` is still under way".to_owned());
        }
        self.complaints.sort();
        self.complaints.dedup();
        self.complaints
    }
}
