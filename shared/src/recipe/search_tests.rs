//! The rules of AutoQuantize and training recipes.

use super::workbench::Workbench;
use super::*;

const FORMATS: &str = "{candidate_formats: [{algorithm: max}], module_name_patterns: [a]}";

#[track_caller]
fn refused(baseline: &str, search: &str, expected: &str) {
    let text = format!("metadata: {{recipe_type: auto_quantize}}\n{baseline}auto_quantize: {search}\n");
    let refusal = Workbench::new().with("r.yaml", &text).refusal("r");
    assert!(refusal.starts_with(expected), "{refusal}");
}

#[test]
fn a_search_without_baseline_needs_formats() {
    let expected = "without a `quantize` baseline, `candidate_formats` needs at least one entry";
    refused("", "{constraints: {}}", expected);
    refused("", &format!("{{constraints: {{}}, module_search_spaces: [{FORMATS}]}}"), expected);
}

#[test]
fn a_search_with_baseline_needs_search_spaces_only() {
    let baseline = "quantize: {algorithm: max}\n";
    refused(
        baseline,
        "{constraints: {}}",
        "with a `quantize` baseline, `module_search_spaces` needs at least one entry",
    );
    refused(
        baseline,
        &format!(
            "{{constraints: {{}}, candidate_formats: [{{algorithm: max}}], module_search_spaces: [{FORMATS}]}}"
        ),
        "with a `quantize` baseline, searched modules stand in `module_search_spaces`, not in `candidate_formats`\n  \
         at r.yaml:3:53 (`auto_quantize.candidate_formats`)",
    );
}

#[test]
fn a_search_space_needs_patterns_and_formats() {
    let with = |space: &str| {
        format!(
            "{{constraints: {{}}, candidate_formats: [{{algorithm: max}}], module_search_spaces: [{space}]}}"
        )
    };
    refused(
        "",
        &with("{candidate_formats: [{algorithm: max}]}"),
        "a search space needs at least one entry in `module_name_patterns`",
    );
    refused(
        "",
        &with("{module_name_patterns: [a]}"),
        "a search space needs at least one entry in `candidate_formats`",
    );
}

#[test]
fn budgets_have_bounds() {
    let with = |constraints: &str| {
        format!("{{constraints: {constraints}, candidate_formats: [{{algorithm: max}}]}}")
    };
    refused("", &with("{effective_bits: 0}"), "`effective_bits` is 0, and must be above 0 and at most 16");
    refused("", &with("{effective_bits: 16.5}"), "`effective_bits` is 16.5");
    refused("", &with("{cost: {active_moe_expert_ratio: 1.5}}"), "`active_moe_expert_ratio` is 1.5");
    refused("", &with("{cost_model: wieght}"), "unknown value `wieght`");
    refused("", "{candidate_formats: [{algorithm: max}]}", "`constraints` is missing");
    refused("", "{constraints: {}, candidate_format: []}", "unknown key `candidate_format`");
}

#[test]
fn defaults_stand_in_the_accessors() {
    let text = "metadata: {recipe_type: auto_quantize}\nauto_quantize: {constraints: {}, candidate_formats: [{algorithm: max}]}\n";
    let recipe = Workbench::new().with("r.yaml", text).load("r").unwrap();
    let Body::AutoQuantize { baseline: None, search } = recipe.body else { panic!("{:?}", recipe.body) };
    assert_eq!(
        (search.effective_bits(), search.method(), search.score_size()),
        (4.8, ScoringMethod::Gradient, 128)
    );
}

#[test]
fn training_is_offline_when_its_data_is() {
    let resolved = |data: &str| {
        let text = format!(
            "metadata: {{recipe_type: speculative_dflash}}\ndata: {data}\ndflash: {{dflash_offline: true}}\n"
        );
        Workbench::new().with("r.yaml", &text).load("r").map(|recipe| recipe.resolved_json().unwrap())
    };
    assert_eq!(resolved("{mode: streaming}").unwrap()["dflash"]["dflash_offline"], false);
    let offline = resolved("{offline_data_path: x}").unwrap();
    assert_eq!(
        (&offline["data"]["mode"], &offline["dflash"]["dflash_offline"]),
        (&"offline".into(), &true.into())
    );
    let error = resolved("{offline_data_path: x, streaming_server_url: y}").unwrap_err();
    assert_eq!(error.place.key.as_deref(), Some("data.streaming_server_url"));
    assert!(resolved("{streaming_server_url: y}").is_err());
    assert!(resolved("{data_pth: y}").unwrap_err().to_string().ends_with("did you mean `data_path`?"));
}

#[test]
fn rope_scaling_that_does_not_fit_is_noted() {
    let text = "metadata: {recipe_type: speculative_eagle}\ntraining: {training_seq_len: 4096}\n\
                eagle: {eagle_export_rope_scaling: {original_max_position_embeddings: 2048}}\n";
    let recipe = Workbench::new().with("r.yaml", text).load("r").unwrap();
    assert!(recipe.notes[0].starts_with("the rope scaling starts from 2048 positions"));
}
