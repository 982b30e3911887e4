//! Who is told what happens to a run: a real command, and a real curl that posts to a server of ours.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test file uses a part of the world")]
mod fake;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use fake::World;
use serde_json::Value;

#[test]
fn a_command_is_told_what_it_asked_for_and_nothing_waits_for_it() {
    let world = World::new();
    // Messages of several jobs may come at once: each is one write.
    let line = "printf \"%s\\n\" \"$(cat)\" >> told; echo \"$QLAUNCH_EVENT $QLAUNCH_NOTICE\" >> words";
    fs::write(
        world.path("qlaunch.toml"),
        format!("[notify]\ncommand = '{line}'\non = [\"done\", \"over\"]\n"),
    )
    .unwrap();
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = fs::read_to_string(world.path("told")).unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut done: Vec<&str> = told
        .iter()
        .filter(|one| one["event"] == "done")
        .map(|one| one["candidate"].as_str().unwrap())
        .collect();
    done.sort_unstable();
    assert_eq!(done, ["bf16", "first", "second"]);
    let over = told.iter().find(|one| one["event"] == "over").unwrap();
    assert_eq!((over["code"].as_u64(), told.len()), (Some(0), 4), "{text}");
    assert!(over["run"].as_str().unwrap().starts_with("tiny-"), "{text}");
    assert!(fs::read_to_string(world.path("words")).unwrap().contains("done tiny-"));
}

#[test]
fn a_message_that_is_not_delivered_is_a_warning_and_no_failure() {
    let world = World::new();
    fs::write(world.path("qlaunch.toml"), "[notify]\ncommand = 'exit 7'\n").unwrap();
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("was not delivered (exit status: 7)"), "{}", ran.stderr);
}

#[test]
fn a_webhook_gets_the_document_and_its_address_stays_out_of_sight() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hook?token=s3cr3t", server.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut caller, _) = server.accept().unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.ends_with('}') {
            let count = caller.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        caller.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        text
    });
    let mut command = world.command(&["submit", "sweep.yaml"]);
    let ran = world.read(command.env("QLAUNCH_WEBHOOK", &address).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = heard.join().unwrap();
    assert!(text.starts_with("POST /hook?token=s3cr3t HTTP/1.1"), "{text}");
    assert!(text.contains("Content-Type: application/json"), "{text}");
    let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["event"], "over");
    let mut command = world.command(&["cluster", "show", "local"]);
    let shown = world.read(command.env("QLAUNCH_WEBHOOK", &address).output().unwrap());
    assert!(shown.stdout.contains("notify.webhook") && !shown.stdout.contains("s3cr3t"), "{}", shown.stdout);
}
