//! Errors as people read them: what failed, where, and what to do.

use anstyle::{AnsiColor, Style};
use qlaunch_shared::Error;
use qlaunch_shared::protocol::Level;

/// `error: …`, the place below it, and the hint after a blank line.
pub fn error(error: &Error) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let text = error.to_string().replacen("\n\nhint: ", &format!("\n\n{cyan}hint{cyan:#}: "), 1);
    format!("{red}error{red:#}: {text}")
}

/// A note of a worker or a plan, with its weight.
pub fn note(level: Level, message: &str) -> String {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    match level {
        Level::Info => format!("note: {message}"),
        Level::Warning => format!("{yellow}warning{yellow:#}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_message_place_and_hint_without_colour_too() {
        let failure = Error::input("the sweep has no objective").at("s.yaml").line(3, 1).hint("add one");
        let text = anstream::adapter::strip_str(&error(&failure)).to_string();
        insta::assert_snapshot!(text, @r"
        error: the sweep has no objective
          at s.yaml:3:1

        hint: add one
        ");
    }
}
