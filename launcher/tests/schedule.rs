//! `qlaunch schedule` through the real program, with a worker that only pretends, and with a real cron where there is one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test file uses a part of the world")]
mod fake;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake::{Ran, World};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not one JSON document ({error}): {text}"))
}

/// Runs a command in the world while its clock shows a time: `date` is asked for it.
fn at(world: &World, time: &str, arguments: &[&str]) -> Ran {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("date"), format!("#!/bin/sh\necho {time}\n")).unwrap();
    fs::set_permissions(bin.join("date"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    world.read(world.command(arguments).env("PATH", path).output().unwrap())
}

fn due(world: &World, time: &str) -> Value {
    let ran = at(world, time, &["schedule", "run-now", "tiny", "--due", "--format", "json"]);
    let told = json(&ran.stdout);
    assert_eq!(told["code"], ran.code, "{told:#}");
    told
}

fn add(world: &World, every: &str) -> Ran {
    at(world, "2026-11-20T12:00", &["schedule", "add", "sweep.yaml", "--every", every])
}

#[test]
fn a_schedule_runs_once_for_each_moment_and_what_is_unchanged_is_not_made_again() {
    let world = World::new();
    let added = add(&world, "Mon..Fri 02:00");
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert!(added.stdout.contains("OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00"), "{}", added.stdout);
    assert!(added.stderr.contains("next due 2026-11-23T02:00"), "{}", added.stderr);
    assert_eq!(due(&world, "2026-11-20T13:00")["is"], "idle", "nothing has been due yet");
    let first = due(&world, "2026-11-23T02:00");
    assert_eq!((&first["is"], &first["moment"]), (&"ok".into(), &"2026-11-23T02:00".into()), "{first:#}");
    assert_eq!(world.ran().len(), 3);
    assert_eq!(due(&world, "2026-11-23T02:01")["is"], "idle", "the moment is taken");
    let second = due(&world, "2026-11-24T02:00");
    assert_eq!((&second["run"], world.ran().len()), (&first["run"], 3), "nothing has changed");
    // Three days late, once.
    assert_eq!(due(&world, "2026-11-27T09:00")["moment"], "2026-11-27T02:00");
    assert_eq!(due(&world, "2026-11-27T09:05")["is"], "idle");
    assert_eq!(at(&world, "2026-11-27T10:00", &["schedule", "pause", "tiny"]).code, 0);
    assert_eq!(due(&world, "2026-11-30T02:00")["notes"][0], "it is paused");
    assert_eq!(at(&world, "2026-11-27T10:00", &["schedule", "resume", "tiny"]).code, 0);
    assert_eq!(due(&world, "2026-11-30T02:00")["is"], "ok");
    let list = json(&at(&world, "2026-11-30T03:00", &["schedule", "list", "--format", "json"]).stdout);
    assert_eq!(list[0]["next"], "2026-12-01T02:00");
    assert_eq!(at(&world, "2026-11-30T03:00", &["schedule", "remove", "tiny"]).code, 0);
    let gone = at(&world, "2026-11-30T03:00", &["schedule", "run-now", "tiny"]);
    assert_eq!(gone.code, 3, "{}", gone.stderr);
}

#[test]
fn another_worker_makes_everything_anew_and_what_got_worse_is_told_by_code_10() {
    let world = World::new();
    add(&world, "daily 00:00");
    assert_eq!(due(&world, "2026-11-21T00:00")["is"], "ok");
    world.tell("first.perplexity", "104.0");
    assert_eq!(due(&world, "2026-11-22T00:00")["is"], "ok", "nothing was made again");
    let worker = world.path("worker.sh");
    let text = fs::read_to_string(&worker).unwrap();
    fs::write(&worker, format!("{text}\n# newer\n")).unwrap();
    let worse = due(&world, "2026-11-23T00:00");
    assert_eq!((&worse["is"], &worse["code"]), (&"worse".into(), &10.into()), "{worse:#}");
    assert_eq!(world.ran().len(), 6);
    let notes = worse["notes"].to_string();
    assert!(notes.contains("first: it is rejected now") && notes.contains("100.00 to 104.00"), "{notes}");
    assert_eq!(due(&world, "2026-11-24T00:00")["is"], "ok", "it is as bad as before");
}

#[test]
fn a_schedule_waits_for_its_own_last_run() {
    let world = World::new();
    add(&world, "daily 00:00");
    world.tell("bf16", "wait");
    let mut command = world.command(&["schedule", "run-now", "tiny"]);
    let mut first = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
    fake::wait_for(|| world.ran().len() == 1);
    let skipped = due(&world, "2026-11-21T00:00");
    assert_eq!(skipped["notes"][0], "skipped: the last run still goes on");
    // As systemd stops a service: everybody is told.
    let group = format!("-{}", first.id());
    assert!(Command::new("kill").args(["-s", "TERM", "--", &group]).status().unwrap().success());
    assert!(!first.wait().unwrap().success());
    assert_eq!(
        due(&world, "2026-11-21T00:10")["is"],
        "idle",
        "the moment that was skipped is not made up for"
    );
}

#[test]
fn what_is_no_schedule_is_refused_with_the_remedy() {
    let world = World::new();
    for every in ["Mon..Fry 02:00", "daily 25:00"] {
        let refused = add(&world, every);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("Mon..Fri 02:00"), "{}", refused.stderr);
    }
    assert_eq!(add(&world, "daily 02:00").code, 0);
    let twice = add(&world, "daily 03:00");
    assert!(twice.stderr.contains("qlaunch schedule remove tiny"), "{}", twice.stderr);
}

/// The library that gives one process tree a clock of its own.
fn faketime() -> Option<PathBuf> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    places.iter().map(PathBuf::from).find(|path| path.exists())
}

#[test]
#[ignore = "needs root, cron and libfaketime: tests/docker/run.sh"]
fn a_real_cron_knocks_at_the_moment_of_the_schedule() {
    let library = faketime().unwrap_or_else(|| panic!("libfaketime is not installed"));
    let world = World::new();
    let path = std::env::var("PATH").unwrap();
    // Half a minute before midnight of a Friday, when clocks in Berlin have long been put back.
    let mut add =
        world.command(&["schedule", "add", "sweep.yaml", "--every", "Sat 00:00", "--timer", "cron"]);
    let clock = |command: &mut Command, moment: &str| {
        command.env("LD_PRELOAD", &library).env("FAKETIME", moment).env("TZ", "Europe/Berlin");
    };
    clock(&mut add, "@2026-11-20 12:00:00");
    let added = world.read(add.output().unwrap());
    assert_eq!(added.code, 0, "{}", added.stderr);
    let folder = world.path(".config/qlaunch/schedules/tiny");
    let crontab = fs::read_to_string(folder.join("crontab")).unwrap();
    // The job must see cron's clock, and the world of this test.
    let variables = format!(
        "LD_PRELOAD={}\nFAKETIME=@2026-11-21 00:00:05\nTZ=Europe/Berlin\nHOME={}\nFAKE={}\nPATH={path}\n",
        library.display(),
        world.path("").display(),
        world.path("fake").display()
    );
    let spool = world.path("spool");
    fs::create_dir_all(&spool).unwrap();
    fs::write(spool.join("root"), format!("{variables}{crontab}")).unwrap();
    fs::set_permissions(spool.join("root"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A mount namespace of its own: the machine's crontabs and pid file are out of reach.
    let script = "mount --bind \"$1\" /var/spool/cron/crontabs && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/cron.d && \
                  exec cron -f";
    let mut cron = Command::new("unshare");
    cron.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&spool);
    clock(&mut cron, "@2026-11-20 23:59:50");
    let mut cron = cron.spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(90);
    let fired = || {
        let text = fs::read_to_string(Path::new(&folder).join("schedule.json")).ok()?;
        json(&text)["firings"].get(0).cloned()
    };
    while fired().is_none() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    cron.kill().unwrap();
    cron.wait().unwrap();
    let firing = fired().unwrap_or_else(|| panic!("cron did not knock"));
    assert_eq!((&firing["moment"], &firing["code"]), (&"2026-11-21T00:00".into(), &0.into()), "{firing:#}");
    assert_eq!(world.ran().len(), 3);
}
