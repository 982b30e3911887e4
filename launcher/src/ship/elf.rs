//! What a program needs of the machine that runs it, read from its ELF headers: processor and newest glibc.

use qlaunch_shared::{Error, Result};

/// What a program needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Processor, as `uname -m` calls it.
    pub machine: &'static str,
    /// Newest version of glibc that a symbol is bound to; none for a static program.
    pub glibc: Option<(u32, u32)>,
}

/// Type of the section that names the versions of needed symbols (`SHT_GNU_verneed`).
const VERSIONS_NEEDED: u32 = 0x6fff_fffe;

/// Reads what a 64-bit little-endian program needs. A script needs its interpreter, which its first line names.
///
/// # Errors
/// Bytes that are no such program.
pub fn needs(bytes: &[u8]) -> Result<Needs> {
    if bytes.starts_with(b"#!/") {
        return Ok(Needs { machine: "any machine", glibc: None });
    }
    read(bytes).ok_or_else(|| Error::input("this is no 64-bit Linux program"))
}

fn read(bytes: &[u8]) -> Option<Needs> {
    // \x7fELF, 64 bits, little endian.
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let machine = match number(bytes, 18, 2)? {
        62 => "x86_64",
        183 => "aarch64",
        _ => "unknown",
    };
    let (start, size, count) = (number(bytes, 40, 8)?, number(bytes, 58, 2)?, number(bytes, 60, 2)?);
    let mut glibc = None;
    for index in 0..count {
        let header = start.checked_add(index.checked_mul(size)?)?;
        if number(bytes, header + 4, 4)? == u64::from(VERSIONS_NEEDED) {
            let names = start.checked_add(number(bytes, header + 40, 4)?.checked_mul(size)?)?;
            let (names, table) = (number(bytes, names + 24, 8)?, number(bytes, header + 24, 8)?);
            glibc = newest(bytes, table, names)?;
        }
    }
    Some(Needs { machine, glibc })
}

/// The newest `GLIBC_x.y` of a table of needed versions: files, each with a chain of names.
fn newest(bytes: &[u8], table: u64, names: u64) -> Option<Option<(u32, u32)>> {
    let mut newest = None;
    let mut file = table;
    loop {
        let (chain, next_file) = (number(bytes, file + 8, 4)?, number(bytes, file + 12, 4)?);
        let mut entry = file.checked_add(chain)?;
        loop {
            let name = text(bytes, names.checked_add(number(bytes, entry + 8, 4)?)?)?;
            newest = newest.max(version(name));
            match number(bytes, entry + 12, 4)? {
                0 => break,
                next => entry = entry.checked_add(next)?,
            }
        }
        match next_file {
            0 => return Some(newest),
            next => file = file.checked_add(next)?,
        }
    }
}

fn version(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn number(bytes: &[u8], at: u64, size: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn text(bytes: &[u8], at: u64) -> Option<&str> {
    let tail = bytes.get(usize::try_from(at).ok()?..)?;
    std::str::from_utf8(tail.get(..tail.iter().position(|byte| *byte == 0)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_read_as_readelf_reads_it() {
        let path = std::env::current_exe().unwrap();
        let found = needs(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(found.machine, std::env::consts::ARCH);
        let Ok(output) = std::process::Command::new("readelf").arg("-V").arg(&path).output() else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs = text.split_whitespace().filter_map(version).max();
        assert_eq!(found.glibc, theirs);
    }

    #[test]
    fn bytes_that_are_no_program_are_refused_wherever_they_end() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 3, 5, 18, 40, 63, 64, 200, 4096] {
            assert!(needs(&bytes[..length]).is_err(), "{length}");
        }
        assert_eq!(needs(b"#!/bin/sh\n").unwrap().glibc, None);
    }
}
