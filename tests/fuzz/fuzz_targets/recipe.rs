//! Any files as a recipe with imports and overrides: refused with a remedy, or loaded into what resolves to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qlaunch_fuzz::bench::Bench;
use qlaunch_fuzz::spelling::spell;
use qlaunch_shared::recipe::{Recipe, define, load_recipe};
use qlaunch_shared::yaml::MAX_BYTES;
use qlaunch_shared::{Error, ErrorKind};

fuzz_target!(|text: &str| {
    thread_local! {
        static BENCH: Bench = Bench::new();
    }
    BENCH.with(|bench| load_all(bench, text));
});

fn load_all(bench: &Bench, text: &str) {
    let overrides = bench.lay_out(text);
    let library = bench.library();
    if let Err(error) = define(&library, "r") {
        assert_helpful(&error);
    }
    assert_loaded(bench, "r", &[]);
    if !overrides.is_empty() {
        assert_loaded(bench, "r", &overrides);
    }
    if bench.has("d/recipe.yaml") {
        assert_loaded(bench, "d", &[]);
    }
}

fn assert_loaded(bench: &Bench, name: &str, overrides: &[String]) {
    match load_recipe(&bench.library(), name, overrides) {
        Err(error) => assert_helpful(&error),
        Ok(recipe) => assert_settled(bench, &recipe),
    }
}

/// An error blames whoever wrote the files or the overrides, and says what to do.
fn assert_helpful(error: &Error) {
    assert!(matches!(error.kind, ErrorKind::Input | ErrorKind::Usage), "{:?}: {error}", error.kind);
    assert!(error.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "no remedy: {error}");
    assert!(!error.message.is_empty());
}

/// A loaded recipe survives a job spec, and written out in full it is the same recipe.
fn assert_settled(bench: &Bench, recipe: &Recipe) {
    let spec = serde_json::to_string(recipe).expect("a recipe becomes JSON");
    let back: Recipe = serde_json::from_str(&spec).unwrap_or_else(|error| panic!("{error}: {spec}"));
    assert_eq!(&back, recipe);
    let resolved = recipe.resolved_json().expect("a recipe is shown");
    let text = spell(&resolved);
    if text.len() > MAX_BYTES {
        return;
    }
    bench.write("shown.yaml", &text);
    let again = load_recipe(&bench.library(), "shown", &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.resolved_json().expect("a recipe is shown"), resolved, "{text}");
}
