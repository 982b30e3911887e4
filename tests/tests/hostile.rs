//! YAML that wants to hurt is refused quickly, within 256 MiB, by a message that a person can use.

use std::fs::{File, create_dir, create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use qlaunch_tests::places;
use qlaunch_tests::programs::{Call, finish, program};

/// Address space of the program, in KiB.
const MEMORY: usize = 256 << 10;
/// Seconds of CPU that the program may use; the kernel kills it then.
const CPU_SECONDS: usize = if cfg!(debug_assertions) { 3 } else { 1 };

/// First lines of a recipe; entries follow.
const RECIPE: &str = "metadata: {recipe_type: ptq}\nquantize:\n  quant_cfg:\n";
/// First line of a snippet with entries.
const ENTRIES: &str = "# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig\n";
const ENTRY: &str = "- {quantizer_name: '*', enable: false}\n";

/// `qlaunch recipe` in a folder, with limits that the kernel keeps.
fn recipe(folder: &Path, arguments: &[&str]) -> Call {
    let limits = format!("ulimit -v {MEMORY} && ulimit -t {CPU_SECONDS} && exec \"$@\"");
    let mut command = Command::new("timeout");
    // Who waits for a pipe or a terminal uses no CPU, and is ended by the clock.
    command.args(["60", "sh", "-c", &limits, "sh"]).arg(program("qlaunch")).arg("recipe").args(arguments);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("HOME", folder.join("home")).env("NO_COLOR", "1").env("PATH", path);
    command.current_dir(folder);
    finish(command)
}

/// What must hold whatever the file says: neither killed nor crashed, and a message that a terminal can be shown.
#[track_caller]
fn assert_survived(call: &Call) {
    assert!(matches!(call.code, 0 | 3), "{}: code {}\n{}", call.line, call.code, shortened(&call.stderr));
    assert!(
        call.stderr.len() < 16 << 10,
        "{} bytes are no message: {}",
        call.stderr.len(),
        shortened(&call.stderr)
    );
    let acting = call.stderr.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
    assert_eq!(acting, None, "{}", call.stderr.escape_debug());
}

/// Expects a refusal that names the file itself and these words.
#[track_caller]
fn assert_refused(folder: &Path, name: &str, words: &[&str]) {
    let words: Vec<&str> = words.iter().copied().chain([name]).collect();
    assert_refused_for(folder, name, &words);
}

/// Expects a refusal that names these words: of a chain of files the one at fault, which need not be the first.
#[track_caller]
fn assert_refused_for(folder: &Path, name: &str, words: &[&str]) {
    let call = recipe(folder, &["show", name]);
    assert_survived(&call);
    call.assert_refused(3, words);
    // What is wrong is data to `check`, so that it stands on stdout.
    let mut call = recipe(folder, &["check", name]);
    call.stderr.insert_str(0, &call.stdout);
    assert_survived(&call);
    call.assert_refused(3, words);
}

fn shortened(text: &str) -> String {
    text.chars().take(2000).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes each text as a file and expects a refusal that names the file and these words.
#[track_caller]
fn assert_all_refused(cases: &[(&str, String, &str)]) {
    let folder = folder();
    for (name, text, reason) in cases {
        write(folder.path().join(name), text).expect("the folder can be written to");
        assert_refused(folder.path(), name, &[reason]);
    }
}

#[test]
fn every_file_of_the_corpus_is_refused_by_name() {
    let corpus = places::existing("tests/hostile");
    let mut seen = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is a folder") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|suffix| suffix == "yaml") {
            let folder = folder();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            std::fs::copy(&path, folder.path().join(name)).expect("the corpus can be read");
            assert_refused(folder.path(), name, &[]);
            seen += 1;
        }
    }
    assert!(seen >= 9, "only {seen} files were found");
}

#[test]
fn nesting_is_refused_where_it_gets_too_deep() {
    let too_deep = "nested deeper than 64 levels";
    let indented: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_all_refused(&[
        ("flow.yaml", "[".repeat(500_000), too_deep),
        ("maps.yaml", "{a: ".repeat(200_000), too_deep),
        ("block.yaml", "- ".repeat(500_000), too_deep),
        ("keys.yaml", "? ".repeat(500_000), too_deep),
        ("indented.yaml", indented, too_deep),
    ]);
}

#[test]
fn what_aliases_expand_to_is_bounded() {
    let too_much = "aliases expand to more than a file may hold";
    let many = |alias: &str, times: usize| alias.repeat(times);
    let keys: String = (0..10_000).map(|key| format!("k{key}: 1,")).collect();
    assert_all_refused(&[
        ("wide.yaml", format!("a: &a [{}]\nb: [{}]\n", many("x,", 5000), many("*a,", 5000)), too_much),
        ("scalar.yaml", format!("a: &a {}\nb: [{}]\n", many("x", 500_000), many("*a,", 5000)), too_much),
        ("merged.yaml", format!("a: &a {{{keys}}}\nb: {{<<: [{}]}}\n", many("*a,", 45)), too_much),
    ]);
}

#[test]
fn a_megabyte_in_one_value_is_not_repeated_in_the_message() {
    let huge = "9".repeat(1_000_000);
    assert_all_refused(&[
        ("number.yaml", format!("metadata: {{recipe_type: {huge}}}\n"), "does not fit in 64 bits"),
        ("text.yaml", format!("metadata: {{recipe_type: 'x{huge}'}}\n"), "characters left out"),
        ("tag.yaml", format!("a: !<{huge}> b\n"), "is not supported"),
        ("schema.yaml", format!("# modelopt-schema: modelopt.{huge}\na: 1\n"), "there is no schema"),
        (
            "bits.yaml",
            format!("{RECIPE}    - {{quantizer_name: '*', cfg: {{num_bits: e{huge}m1}}}}\n"),
            "num_bits",
        ),
        (
            "key.yaml",
            format!("metadata: {{recipe_type: ptq}}\nquantize:\n  ? x{huge}\n  : 1\n"),
            "unknown key",
        ),
        ("import.yaml", format!("imports: {{a: 'x{huge}'}}\n{RECIPE}    - $import: a\n"), "there is no file"),
        (
            "name.yaml",
            format!("imports: {{a: configs/numerics/fp8}}\n{RECIPE}    - $import: x{huge}\n"),
            "unknown import",
        ),
    ]);
}

#[test]
fn a_hundred_thousand_of_anything_is_no_trouble() {
    let folder = folder();
    let each = |write: &dyn Fn(usize) -> String, times: usize| (0..times).map(write).collect::<String>();
    let list = |items: String| {
        format!("metadata: {{recipe_type: ptq}}\nquantize:\n  quant_cfg: []\n  algorithm: [{items}]\n")
    };
    let cases = [
        ("keys", each(&|i| format!("k{i}: 1\n"), 90_000)),
        ("entries", RECIPE.to_owned() + &format!("    {ENTRY}").repeat(22_000)),
        ("older", RECIPE.to_owned() + &each(&|i| format!("    k{i}: {{num_bits: 8}}\n"), 35_000)),
        (
            "aliases",
            format!("{RECIPE}    - &e {{quantizer_name: '*', cfg: {{num_bits: 8}}}}\n")
                + &"    - *e\n".repeat(60_000),
        ),
        ("nulls", list("~,".repeat(500_000))),
        ("expanded", list(format!("&x [{}], {}", "~,".repeat(1000), "*x,".repeat(480)))),
        ("anchors", format!("a: [{}]\n", each(&|i| format!("&a{i} ~,"), 90_000))),
        ("documents", "--- a\n".repeat(170_000)),
        ("directives", each(&|i| format!("%TAG !{i}! x\n"), 60_000) + "---\na: 1\n"),
        ("stars", format!("{RECIPE}    - {{quantizer_name: '{}', enable: false}}\n", "*a".repeat(400_000))),
        (
            "imports",
            format!(
                "imports:\n{}{RECIPE}    - $import: nothing\n",
                each(&|i| format!("  n{i}: configs/numerics/fp8\n"), 25_000)
            ),
        ),
        ("sixties", format!("a: 1{}\n", ":1".repeat(500_000))),
        ("marks", "\u{feff}".repeat(300_000)),
        ("colons", "a:".repeat(500_000)),
        ("quotes", "'".repeat(999_999)),
        ("folded", "a: >\n".to_owned() + &" \n".repeat(500_000)),
    ];
    for (name, text) in cases {
        let file = format!("{name}.yaml");
        assert!(text.len() <= 1 << 20, "{name} is refused for its size alone");
        write(folder.path().join(&file), text).expect("the folder can be written to");
        let call = recipe(folder.path(), &["show", &file]);
        assert_survived(&call);
        assert!(call.code == 0 || call.stderr.contains(&file), "`{file}` is not named in:\n{}", call.stderr);
    }
}

#[test]
fn imports_that_grow_or_never_end_are_refused() {
    let folder = folder();
    let snippet = |name: &str, text: &str| {
        let path = folder.path().join(name);
        create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        write(path, format!("{ENTRIES}{text}")).expect("the folder can be written to");
    };
    let importing = |name: &str, import: &str| {
        let text = format!("imports: {{n: {import}}}\n{RECIPE}    - $import: n\n");
        write(folder.path().join(name), text).expect("the folder can be written to");
    };
    // Each file holds its successor twice.
    for level in 0..30 {
        snippet(
            &format!("d{level}.yaml"),
            &format!("imports: {{n: d{}}}\n---\n- $import: n\n- $import: n\n", level + 1),
        );
    }
    snippet("d30.yaml", ENTRY);
    importing("doubling.yaml", "d0");
    assert_refused_for(folder.path(), "doubling.yaml", &["hold more than a recipe may hold", "/d"]);

    for level in 0..500 {
        snippet(&format!("c{level}.yaml"), &format!("imports: {{n: c{}}}\n---\n- $import: n\n", level + 1));
    }
    importing("chain.yaml", "c0");
    let reason = "more than 32 files import one another in a chain";
    assert_refused_for(folder.path(), "chain.yaml", &[reason, "/c"]);

    // Files that are large each and imported for nothing are kept until all are read.
    let large = "- &e {quantizer_name: '*', enable: false}\n".to_owned() + &"- *e\n".repeat(80_000);
    let names: String = (0..60).map(|name| format!("  n{name}: l{name}\n")).collect();
    (0..60).for_each(|name| snippet(&format!("l{name}.yaml"), &large));
    write(folder.path().join("large.yaml"), format!("imports:\n{names}{RECIPE}    {ENTRY}"))
        .expect("likewise");
    assert_refused(
        folder.path(),
        "large.yaml",
        &["the imports of this recipe hold more than a recipe may hold"],
    );
}

#[test]
fn links_that_lead_in_circles_lead_nowhere() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    symlink("itself.yaml", at("itself.yaml")).expect("links can be made");
    assert_refused(folder.path(), "itself.yaml", &[]);

    // One file under two names imports itself by the other.
    write(at("a.yaml"), format!("{ENTRIES}imports: {{n: b}}\n---\n- $import: n\n"))
        .expect("files can be written");
    symlink("a.yaml", at("b.yaml")).expect("links can be made");
    write(at("file.yaml"), format!("imports: {{n: a}}\n{RECIPE}    - $import: n\n"))
        .expect("files can be written");
    assert_refused(folder.path(), "file.yaml", &["circular import", "a.yaml"]);

    // A folder holds itself, so that there are endless names for one recipe.
    symlink(".", at("loop")).expect("links can be made");
    write(at("folder.yaml"), format!("imports: {{n: loop/loop/folder}}\n{RECIPE}    - $import: n\n"))
        .expect("likewise");
    assert_refused(folder.path(), "folder.yaml", &["circular import"]);
}

#[test]
fn a_library_of_links_is_listed_once_and_soon() {
    let folder = folder();
    let library = folder.path().join("recipes");
    create_dir(&library).expect("it can be made");
    let text = format!("{RECIPE}    {ENTRY}");
    for name in 0..8 {
        // Eight links to the library itself, and eight folders that each hold links to all eight.
        symlink(".", library.join(format!("self{name}"))).expect("links can be made");
        let inner = library.join(format!("folder{name}"));
        create_dir(&inner).expect("it can be made");
        write(inner.join("recipe-of-links.yaml"), &text).expect("files can be written");
        for other in 0..8 {
            symlink(format!("../folder{other}"), inner.join(format!("to{other}")))
                .expect("links can be made");
        }
    }
    let list = recipe(folder.path(), &["list", "recipe-of-links"]);
    list.assert_code(0);
    assert_eq!(list.stdout.matches("/recipe-of-links").count(), 8, "{}", shortened(&list.stdout));
    assert_refused(folder.path(), "nothing-like-it", &["there is no recipe"]);
}

#[test]
fn what_is_no_file_of_text_is_not_waited_for() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    create_dir(at("folder.yaml")).expect("folders can be made");
    let made = Command::new("mkfifo").arg(at("pipe.yaml")).status().expect("mkfifo is there");
    assert!(made.success());
    for (name, target) in [
        ("zero.yaml", "/dev/zero"),
        ("terminal.yaml", "/dev/tty"),
        // Files by their kind, without a size, and with terabytes in them.
        ("pages.yaml", "/proc/self/pagemap"),
        ("memory.yaml", "/proc/self/mem"),
    ] {
        symlink(target, at(name)).expect("links can be made");
    }
    for name in ["folder.yaml", "pipe.yaml", "zero.yaml", "terminal.yaml", "pages.yaml", "memory.yaml"] {
        assert_refused(folder.path(), name, &[]);
        let importing = format!("from-{name}");
        let import = name.trim_end_matches(".yaml");
        write(at(&importing), format!("imports: {{n: {import}}}\n{RECIPE}    - $import: n\n"))
            .expect("likewise");
        assert_refused_for(folder.path(), &importing, &[import]);
    }
    File::create(at("sparse.yaml")).and_then(|file| file.set_len(1 << 40)).expect("sparse files can be made");
    assert_refused(folder.path(), "sparse.yaml", &["more than the 1048576 bytes"]);
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let folder = folder();
    for (name, bytes, reason) in [
        ("latin.yaml", b"a: \xe9\n".to_vec(), "not UTF-8"),
        ("wide.yaml", b"\xff\xfea\0:\0 \x001\0".to_vec(), "not UTF-8"),
        ("surrogate.yaml", b"a: \xed\xa0\x80\n".to_vec(), "not UTF-8"),
        ("zeros.yaml", vec![0; 1_000_000], "not YAML"),
        ("zero.yaml", b"a: b\0c\n".to_vec(), "not YAML"),
    ] {
        write(folder.path().join(name), bytes).expect("the folder can be written to");
        assert_refused(folder.path(), name, &[reason]);
    }
    // A byte order mark and carriage returns are odd, and harmless.
    let odd = format!("\u{feff}{RECIPE}    {ENTRY}").replace('\n', "\r\n");
    write(folder.path().join("odd.yaml"), odd).expect("the folder can be written to");
    recipe(folder.path(), &["show", "odd.yaml"]).assert_code(0);
}
