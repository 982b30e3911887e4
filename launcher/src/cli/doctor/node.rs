//! What the worker says of this node, in lines for people.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::check::Check;
use crate::ui::bytes;

/// Asks the worker, and tells what it said; its document, too, where it gave one.
pub fn node(worker: &Path) -> (Vec<Check>, Option<Value>) {
    let output = Command::new(worker).arg("probe").stdin(Stdio::null()).output();
    let rebuild = "build it again with `cargo build --release`, or name another one in QLAUNCH_WORKER";
    let broken =
        |why: String| (vec![Check::fail("worker", format!("{} {why}", worker.display()), rebuild)], None);
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            return broken(format!("does not work ({}): {said}", output.status));
        }
        Err(error) => return broken(format!("cannot be started: {error}")),
    };
    let Ok(probe) = serde_json::from_slice::<Value>(&output.stdout) else {
        return broken("says nothing that this program understands".to_owned());
    };
    let checks = lines(&probe, worker);
    (checks, Some(probe))
}

fn lines(probe: &Value, worker: &Path) -> Vec<Check> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
    let words = |value: &Value| list(value).iter().map(text).collect::<Vec<_>>().join(", ");
    let (own, version) = (env!("CARGO_PKG_VERSION"), text(&probe["worker"]));
    let mut checks = vec![match version == own {
        true => Check::ok("worker", format!("{version} · {}", worker.display())),
        false => Check::fail(
            "worker",
            format!("{} is of version {version}, this program of {own}", worker.display()),
            "install both from one build",
        ),
    }];
    let cpu = &probe["cpu"];
    let found = format!("{} · {} cores · {}", text(&cpu["name"]), cpu["cores"], words(&cpu["numeric_paths"]));
    checks.push(match list(&cpu["numeric_paths"]).len() {
        0 | 1 => Check::note("processor", found, "it has neither AVX2 nor AVX-512: everything will be slow"),
        _ => Check::ok("processor", found),
    });
    let memory = &probe["memory"];
    let size = |key: &str| bytes(memory[key].as_u64().unwrap_or(0));
    let limit =
        memory["limit"].as_u64().map_or_else(String::new, |limit| format!(" · limited to {}", bytes(limit)));
    checks.push(Check::ok("memory", format!("{} free of {}{limit}", size("available"), size("total"))));
    checks.extend(list(&probe["libraries"]).iter().map(library));
    checks.extend(list(&probe["devices"]).iter().map(|device| {
        let free =
            device["free"].as_u64().map_or_else(String::new, |free| format!(" · {} free", bytes(free)));
        let memory = bytes(device["memory"].as_u64().unwrap_or(0));
        let capability = device["capability"].as_i64().unwrap_or(0);
        let kind = format!("compute {}.{}", capability / 10, capability % 10);
        Check::ok(
            &format!("gpu {}", device["index"]),
            format!("{} · {kind} · {memory}{free}", text(&device["name"])),
        )
    }));
    let chosen = &probe["device"];
    let found = format!("`--device auto` takes {}: {}", text(&chosen["auto"]), text(&chosen["why"]));
    checks.push(Check::ok("device", found));
    checks
}

fn library(library: &Value) -> Check {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&library["name"]);
    let path = text(&library["path"]);
    match library["state"].as_str() {
        Some("found") => {
            let version =
                library["version"].as_str().map_or_else(String::new, |version| format!("{version} · "));
            Check::ok(&name, format!("{version}{path}"))
        }
        Some("absent") => Check::note(&name, "not there", "only GPUs need it"),
        _ => Check::note(&name, text(&library["error"]["message"]), text(&library["error"]["hint"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_broken_library_is_told_with_its_remedy_and_a_worker_of_another_version_fails() {
        let probe = json!({
            "worker": "9.9", "cpu": {"name": "CPU", "cores": 4, "numeric_paths": ["avx2", "portable"]},
            "memory": {"total": 8_000_000_000_u64, "available": 4_000_000_000_u64, "limit": null},
            "libraries": [
                {"name": "libcuda", "state": "broken", "error": {"message": "file too short", "hint": "install it"}},
                {"name": "libnccl", "state": "found", "path": "/x/libnccl.so.2", "version": "2.27.3"},
            ],
            "devices": [{"index": 0, "name": "GPU", "capability": 90, "memory": 80_000_000_000_u64, "free": null}],
            "device": {"auto": "cpu", "why": "file too short"},
        });
        let checks = lines(&probe, Path::new("/w"));
        let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(of("worker").verdict, Verdict::Fail);
        assert_eq!(
            (of("libcuda").verdict, of("libcuda").hint.as_deref()),
            (Verdict::Note, Some("install it"))
        );
        assert_eq!(of("libnccl").found, "2.27.3 · /x/libnccl.so.2");
        assert!(of("gpu 0").found.contains("compute 9.0"), "{checks:?}");
        assert!(of("device").found.contains("takes cpu: file too short"));
    }
}
