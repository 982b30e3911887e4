//! A pseudo terminal for programs that ask a person something, by util-linux's `script`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::cluster::wait;

/// A program on a terminal, with somebody in front of it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command on a terminal of its own, in its folder and with its variables.
    pub fn start(command: &Command) -> Self {
        let word = |word: &OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
        let line: Vec<String> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(word).collect();
        let mut script = Command::new("script");
        script.args(["-qefc", &line.join(" "), "/dev/null"]).env_clear();
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("TERM", "dumb").env("SHELL", "/bin/sh");
        if let Some(folder) = command.get_current_dir() {
            script.current_dir(folder);
        }
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`script` of util-linux");
        let keyboard = child.stdin.take().expect("a keyboard");
        let mut output = child.stdout.take().expect("a screen");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("a screen").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, keyboard, screen }
    }

    /// Everything that was shown so far.
    pub fn shown(&self) -> String {
        self.screen.lock().expect("a screen").clone()
    }

    /// Waits until a text is shown.
    pub fn wait_for(&self, text: &str) {
        wait(&format!("`{text}` on the terminal"), || self.shown().contains(text).then_some(()));
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").and_then(|()| self.keyboard.flush()).expect("a keyboard");
    }

    /// Waits for the end; the exit code.
    pub fn finish(mut self) -> i32 {
        let code = wait("end of the program on the terminal", || self.child.try_wait().expect("a child"));
        code.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
