//! A recipe, text or folder that cannot be used is refused with its file and a remedy.

use std::path::{Path, PathBuf};

use qlaunch_tests::broken::good_model;
use qlaunch_tests::checkpoint::looks_whole;
use qlaunch_tests::programs::{Quantize, run};
use qlaunch_tests::requirement;
use qlaunch_tests::tiny_disk::TinyDisk;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";

/// A temporary folder with the good model in `model`.
fn bench() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let (model, out) = (work.path().join("model"), work.path().join("out"));
    good_model(&model);
    (work, model, out)
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A recipe file around these entries of `quant_cfg`.
fn recipe(entries: &str) -> String {
    format!("metadata:\n  recipe_type: ptq\nquantize:\n  algorithm: max\n  quant_cfg:\n{entries}")
}

#[track_caller]
fn assert_recipe_refused(text: &str, words: &[&str]) {
    let (work, model, out) = bench();
    let path = write(work.path(), "mine.yaml", text);
    let mut expected = vec!["mine.yaml"];
    expected.extend(words);
    Quantize::new(&model, path.to_str().unwrap(), &out).run().assert_refused(INPUT, &expected);
    assert!(!looks_whole(&out), "something that looks like a checkpoint was left");
}

#[test]
fn a_recipe_that_matches_nothing_is_refused() {
    let entries = "    - quantizer_name: '*'\n      enable: false\n    \
                   - quantizer_name: '*no_such_module*weight_quantizer'\n      cfg: {num_bits: e4m3, axis: null}\n";
    assert_recipe_refused(&recipe(entries), &["no_such_module"]);
}

#[test]
fn an_unknown_key_of_a_recipe_is_named_with_its_line() {
    let entries = "    - quantizer_name: '*weight_quantizer'\n      cfg: {num_bits: e4m3, axes: null}\n";
    assert_recipe_refused(&recipe(entries), &["axes", ":7:"]);
}

#[test]
fn a_recipe_that_is_not_yaml_is_refused() {
    assert_recipe_refused("metadata: {recipe_type: ptq\nquantize: [", &[]);
}

#[test]
fn an_unknown_recipe_is_refused_with_a_suggestion() {
    let (_work, model, out) = bench();
    let call = Quantize::new(&model, "general/ptq/nvfp4_defualt-kv_fp8", &out).run();
    call.assert_refused(INPUT, &["nvfp4_defualt-kv_fp8", "nvfp4_default-kv_fp8"]);
}

#[test]
fn calibration_text_shorter_than_one_sample_is_refused() {
    let (work, model, out) = bench();
    let line = "{\"text\": \"Too short to calibrate on.\"}\n";
    for (name, text) in
        [("short.txt", "Too short to calibrate on."), ("short.jsonl", line), ("empty.txt", "")]
    {
        let path = write(work.path(), name, text);
        let call = Quantize::new(&model, RECIPE, &out).calibration(&path).flags(&["--seq-len", "512"]).run();
        call.assert_refused(INPUT, &[name]);
        assert!(!looks_whole(&out), "something that looks like a checkpoint was left");
    }
}

#[test]
fn calibration_lines_that_are_not_json_are_named_by_line() {
    let (work, model, out) = bench();
    let path = write(work.path(), "torn.jsonl", "{\"text\": \"a good line\"}\n{\"text\": \"a torn li");
    let call = Quantize::new(&model, RECIPE, &out).calibration(&path).flags(&["--seq-len", "2"]).run();
    call.assert_refused(INPUT, &["torn.jsonl:2"]);
}

#[test]
fn token_ids_beyond_the_vocabulary_are_refused() {
    let (work, model, out) = bench();
    let path = work.path().join("ids.npy");
    let mut ids = vec![5; 64];
    ids[40] = 4096;
    qlaunch_tests::token_ids::write_npy(&path, &ids, 1, 64);
    Quantize::new(&model, RECIPE, &out).calibration(&path).run().assert_refused(INPUT, &["ids.npy", "4096"]);
    assert!(!looks_whole(&out), "something that looks like a checkpoint was left");
}

#[test]
fn an_output_folder_with_something_in_it_is_left_alone() {
    let (_work, model, out) = bench();
    std::fs::create_dir(&out).unwrap();
    write(&out, "thesis.txt", "years of work");
    Quantize::new(&model, RECIPE, &out).run().assert_refused(INPUT, &["out"]);
    assert_eq!(std::fs::read_to_string(out.join("thesis.txt")).unwrap(), "years of work");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "something was written beside the person's file");
}

#[test]
fn the_model_folder_is_no_output_folder() {
    let (_work, model, _out) = bench();
    let before = std::fs::read(model.join("model.safetensors")).unwrap();
    Quantize::new(&model, RECIPE, &model).run().assert_refused(INPUT, &["model"]);
    assert_eq!(std::fs::read(model.join("model.safetensors")).unwrap(), before, "the source was touched");
}

#[test]
fn a_full_disk_is_named_and_leaves_no_checkpoint() {
    let Some(disk) = TinyDisk::mount(1) else {
        requirement::skip("a full disk", "the right to mount a tmpfs (run as root)");
        return;
    };
    let (_work, model, _out) = bench();
    let out = disk.path().join("out");
    let call = Quantize::new(&model, RECIPE, &out).flags(&["--samples", "2", "--seq-len", "64"]).run();
    call.assert_refused(INPUT, &[out.to_str().unwrap(), "space"]);
    assert!(!looks_whole(&out), "something that looks like a checkpoint was left");
}

#[test]
fn a_flag_that_does_not_exist_is_a_usage_error() {
    run(["quantize", "somewhere", "--recipy", "x"]).assert_code(USAGE);
    run(["transmogrify"]).assert_code(USAGE);
}

#[test]
fn a_value_that_makes_no_sense_is_a_usage_error() {
    let (_work, model, out) = bench();
    for flags in [["--batch-size", "0"], ["--threads", "none"], ["--samples", "0"], ["--numeric-path", "mmx"]]
    {
        Quantize::new(&model, RECIPE, &out).flags(&flags).run().assert_code(USAGE);
        assert!(!out.exists(), "{flags:?} made a folder");
    }
}
