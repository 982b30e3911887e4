//! Writes every random model to a folder: `cargo run -p qlaunch-tests --example random_models -- OUT`.

use std::path::PathBuf;

use qlaunch_tests::random_model;

fn main() {
    let out = PathBuf::from(std::env::args_os().nth(1).expect("usage: random_models OUT"));
    for specimen in random_model::specimens() {
        random_model::write(&specimen, &out.join(specimen.name));
    }
}
