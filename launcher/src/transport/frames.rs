//! What comes back over a link: an answer between two marks, so that banners are no part of it and a torn one is known.

use super::contract::Chunk;
use crate::plan::quote;

/// Runs a script between two marks: `$1` is the nonce, `$2` the script, the rest its arguments.
pub const BETWEEN_MARKS: &str = r#"nonce=$1; script=$2; shift 2; printf '\n@begin %s\n' "$nonce"; sh -c "$script" qlaunch "$@"; printf '\n@end %s %d\n' "$nonce" $?"#;

/// Runs the program that [`for_any_shell`] wrote. The login shell of the user there reads this line and its argument first, and
/// that shell may be no POSIX shell: csh ends a quoted word at a newline, fish takes two backslashes for one.
pub const EVALUATE: &str = r#"eval "$(printf %b "$1")""#;

/// A question as one word that every shell leaves as it is: [`BETWEEN_MARKS`] with its nonce, script and arguments.
pub fn for_any_shell(nonce: &str, script: &str, arguments: &[&str]) -> String {
    let words = [nonce, script].into_iter().chain(arguments.iter().copied());
    let words: Vec<String> = words.map(quote).collect();
    let program = format!("set -- {}\n{BETWEEN_MARKS}", words.join(" "));
    let mut word = String::with_capacity(program.len() * 2);
    for byte in program.bytes() {
        match byte {
            b'\\' | b'\'' | b'!' | 0..=31 | 127.. => word.push_str(&format!("\\0{byte:03o}")),
            plain => word.push(char::from(plain)),
        }
    }
    word
}

/// Prints pieces of files: for each `PATH FROM LIMIT` a line `SIZE INODE TAKEN` and so many bytes, or a line `-`.
pub const READ: &str = r#"
while [ $# -ge 3 ]; do
  if facts=$(stat -L -c '%s %i' -- "$1" 2>/dev/null) && [ -f "$1" ] && [ -r "$1" ]; then
    size=${facts% *} taken=0
    # Files of /proc say that they are empty.
    case "$1" in /proc/*) size=$(wc -c < "$1" 2>/dev/null || echo 0);; esac
    [ "$size" -gt "$2" ] && taken=$((size - $2))
    [ "$taken" -le "$3" ] || taken=$3
    printf '%s %s %s\n' "$size" "${facts#* }" "$taken"
    [ "$taken" = 0 ] || tail -c +$(($2 + 1)) -- "$1" | head -c "$taken"
  else
    printf -- '-\n'
  fi
  shift 3
done
"#;

/// An answer taken out of everything that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the script printed.
    pub body: Vec<u8>,
    /// Its exit code.
    pub code: i32,
}

/// The answer between the marks; none if it is not whole.
pub fn answer(bytes: &[u8], nonce: &str) -> Option<Answer> {
    let begin = format!("\n@begin {nonce}\n");
    let end = format!("\n@end {nonce} ");
    // Without noise the first mark's newline is the very first byte.
    let start = find(bytes, begin.as_bytes())? + begin.len();
    let stop = rfind(bytes, end.as_bytes()).filter(|stop| stop + 1 >= start)?;
    let code = std::str::from_utf8(&bytes[stop + end.len()..]).ok()?.strip_suffix('\n')?.parse().ok()?;
    Some(Answer { body: bytes[start.min(stop)..stop].to_vec(), code })
}

/// The pieces that [`READ`] printed; none if a file shrank while it was read, so that they do not fit together.
pub fn chunks(mut body: &[u8], count: usize) -> Option<Vec<Option<Chunk>>> {
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let line_end = body.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&body[..line_end]).ok()?;
        body = &body[line_end + 1..];
        if line == "-" {
            chunks.push(None);
            continue;
        }
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (size, inode, taken) = (next()?, next()?, usize::try_from(next()?).ok()?);
        let bytes = body.get(..taken)?.to_vec();
        body = &body[taken..];
        chunks.push(Some(Chunk { bytes, size, inode }));
    }
    body.is_empty().then_some(chunks)
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn rfind(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).rposition(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"Welcome!\n\x1b[1mquota 80%\n@begin n1\nout\n@end n1 7\n";

    #[test]
    fn banners_are_no_part_of_an_answer() {
        let expected = Answer { body: b"out".to_vec(), code: 7 };
        assert_eq!(answer(WHOLE, "n1").unwrap(), expected);
        assert_eq!(answer(b"\n@begin n1\n\n@end n1 0\n", "n1").unwrap().body, b"");
        assert_eq!(answer(b"\n@begin n1\na\n\n@end n1 0\n", "n1").unwrap().body, b"a\n");
    }

    #[test]
    fn an_answer_that_is_torn_anywhere_is_none() {
        for length in 0..WHOLE.len() {
            assert_eq!(answer(&WHOLE[..length], "n1"), None, "cut at {length}");
        }
        assert_eq!(answer(WHOLE, "n2"), None, "an answer to another question");
    }

    #[test]
    fn pieces_of_files_are_taken_apart_whatever_is_in_them() {
        let body = b"5 77 5\na\n-\nb-\n9 3 0\n";
        let chunk = |bytes: &[u8], size, inode| Some(Chunk { bytes: bytes.to_vec(), size, inode });
        assert_eq!(chunks(body, 3).unwrap(), [chunk(b"a\n-\nb", 5, 77), None, chunk(b"", 9, 3)]);
        assert_eq!(chunks(body, 2), None, "more than was asked for");
        assert_eq!(chunks(b"5 77 5\nabc", 1), None, "less than was announced");
    }

    #[test]
    fn a_question_reaches_the_shell_whole_and_has_nothing_that_another_shell_would_change() {
        let arguments = ["it's", "a\\b\\\\c", "two\nlines\n", "wow!", "é $HOME `x` %s", ""];
        let word = for_any_shell("n1", "printf '%s|' \"$@\"; exit 3", &arguments);
        assert!(!word.contains(['\n', '\'', '!']) && !word.contains("\\\\"), "{word}");
        let output =
            std::process::Command::new("/bin/sh").args(["-c", EVALUATE, "qlaunch", &word]).output().unwrap();
        let answer = answer(&output.stdout, "n1").unwrap();
        let expected: String = arguments.iter().map(|argument| format!("{argument}|")).collect();
        assert_eq!((String::from_utf8(answer.body).unwrap(), answer.code), (expected, 3));
    }

    #[test]
    fn the_scripts_say_what_the_readers_expect() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's a file");
        std::fs::write(&file, b"0123\n56789").unwrap();
        let none = folder.path().join("none");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", BETWEEN_MARKS, "qlaunch", "n1", READ])
            .args([file.as_os_str(), "4".as_ref(), "3".as_ref()])
            .args([none.as_os_str(), "0".as_ref(), "9".as_ref()])
            .args([file.as_os_str(), "20".as_ref(), "9".as_ref()])
            .output()
            .unwrap();
        let answer = answer(&output.stdout, "n1").unwrap();
        assert_eq!(answer.code, 0);
        let chunks = chunks(&answer.body, 3).unwrap();
        assert_eq!(chunks[0].as_ref().unwrap().bytes, b"\n56");
        assert_eq!(chunks[1], None);
        assert_eq!((chunks[2].as_ref().unwrap().bytes.len(), chunks[2].as_ref().unwrap().size), (0, 10));
    }
}
