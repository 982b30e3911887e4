//! Tests of job scripts: values are quoted, names that are not there have a line, and the script of an array is shown whole.

use super::*;
use crate::config::{Surroundings, template};

fn render(template: &str, script: &Script<'_>) -> Result<String> {
    Template::read(template, Path::new("local.sh.j2"))?.render(script)
}

fn script<'a>(folder: &'a Path, extras: &'a Extras) -> Script<'a> {
    Script {
        run: "tiny-7f3a",
        candidate: "fp8",
        cluster: "local",
        folder,
        worker: Path::new("/opt/it's here/qlaunch-worker"),
        extras,
        needs: None,
        leaves: None,
        reads: Vec::new(),
        writes: Vec::new(),
        lead: 120,
        array: None,
    }
}

#[test]
fn the_built_in_template_renders_with_its_values_quoted() {
    let (text, _) = template("local.sh.j2", &Surroundings::default()).unwrap();
    let rendered = render(&text, &script(Path::new("/runs/tiny-7f3a/fp8"), &Extras::default())).unwrap();
    assert!(rendered.contains("job=/runs/tiny-7f3a/fp8\n"), "{rendered}");
    assert!(rendered.contains("'/opt/it'\\''s here/qlaunch-worker' run --spec"), "{rendered}");
    assert!(!rendered.contains("{{"));
}

/// The script of an array, whole: whoever changes the template sees here what SLURM will get.
#[test]
fn the_script_of_an_array_is_this() {
    let (text, _) = template("slurm.sh.j2", &Surroundings::default()).unwrap();
    let slurm = SlurmExtras {
        nodes: 1,
        ranks_per_node: 1,
        signal_seconds: 120,
        restarts: 10,
        options: vec!["--time=04:00:00".to_owned()],
        array_width: 8,
        ..SlurmExtras::default()
    };
    let extras = Extras { slurm, ..Extras::default() };
    let task = |name: &str, attempt| Task { folder: Path::new("/runs/tiny-7f3a").join(name), attempt };
    let tasks = vec![task("fp8", 1), task("it's int4", 3)];
    let array = Script {
        array: Some(tasks),
        candidate: "an array",
        needs: Some(Path::new("/runs/tiny-7f3a/reference.safetensors")),
        ..script(Path::new("/runs/tiny-7f3a/arrays/fp8-1"), &extras)
    };
    insta::assert_snapshot!(render(&text, &array).unwrap(), @r#"
    #!/bin/bash
    # tiny-7f3a · an array: rendered by qlaunch 0.1.0 for the cluster `local`.
    # Usage: sbatch … job.sh; each task is an attempt of a job of its own. Name, logs and dependencies are given on sbatch's command line.
    #SBATCH --array=0-1%8
    #SBATCH --nodes=1
    #SBATCH --ntasks-per-node=1
    #SBATCH --open-mode=append
    #SBATCH --requeue
    #SBATCH --signal=B:USR2@120
    #SBATCH --time=04:00:00
    set -u
    case $SLURM_ARRAY_TASK_ID in
    0) job=/runs/tiny-7f3a/fp8; set -- 1 ;;
    1) job='/runs/tiny-7f3a/it'\''s int4'; set -- 3 ;;
    *) exit 1 ;;
    esac
    id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    # A job that SLURM starts again gets a folder of its own: the former try may still be writing on a lost node.
    restart=${SLURM_RESTART_COUNT:-0}
    attempt="$job/attempts/$1"
    [ "$restart" = 0 ] || attempt="$attempt.$restart"
    mkdir -p "$attempt"

    end() { # CODE: written whole or not at all; the launcher reads it when there is no outcome.json.
        echo "$1" > "$attempt/exit_code.partial" && mv "$attempt/exit_code.partial" "$attempt/exit_code"
        exit "$1"
    }

    # What the baseline leaves; without it nothing could be measured.
    [ -e /runs/tiny-7f3a/reference.safetensors ] || { echo "not run: /runs/tiny-7f3a/reference.safetensors is missing"; end 75; }
    # bash handles signals only between commands, so the worker runs behind it and the script waits.
    '/opt/it'\''s here/qlaunch-worker' run --spec "$job/spec.json" --attempt "$attempt" &
    worker=$!
    told= again=
    trap 'told=limit again=1; kill -USR2 $worker 2>/dev/null' USR2
    trap 'told=end again=1; kill -TERM $worker 2>/dev/null' TERM
    while :; do
        again=
        wait $worker
        code=$?
        # A signal ends the waiting, not the worker.
        [ -n "$again" ] || break
    done
    # Stopped before the time limit: into the queue again under the same id, so that what depends on this job keeps waiting.
    # A job that is cancelled or preempted is told to end instead; SLURM itself knows what becomes of it.
    if [ "$code" = 85 ] && [ "$told" = limit ] && [ "$restart" -lt 10 ] && [ ! -e "$job/attempts/$1/cancelled" ]; then
        scontrol requeue "$id" && sleep 60
    fi
    end "$code"
    "#);
    let all = SlurmExtras { array_width: 0, ..extras.slurm.clone() };
    let extras = Extras { slurm: all, ..Extras::default() };
    let rendered = render(&text, &Script { extras: &extras, ..array }).unwrap();
    assert!(rendered.contains("#SBATCH --array=0-1\n"), "{rendered}");
}

#[test]
fn a_name_that_is_not_there_is_an_error_with_its_line() {
    let error = render("#!/bin/sh\n{{ gpus }}\n", &script(Path::new("/x"), &Extras::default())).unwrap_err();
    assert_eq!((error.place.line, error.exit_code()), (Some(2), 3));
    assert!(error.message.contains("undefined"), "{error}");
}

#[test]
fn quoted_words_stay_one_word() {
    assert_eq!(quote("/a/b-c_1.2"), "/a/b-c_1.2");
    assert_eq!(quote("a b"), "'a b'");
    assert_eq!(quote("$(rm)"), "'$(rm)'");
    assert_eq!(quote(""), "''");
}
