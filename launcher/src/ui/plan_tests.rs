//! Tests of a plan's looks.

use qlaunch_shared::assign::{Coverage, ModuleFamily, ModuleKind, Note, PatternReach, Topic, Totals};
use qlaunch_shared::audit::engines::{Answer, Engine, EngineVerdict};

use super::*;

fn module(name: &str, weight: &str) -> ModulePlan {
    ModulePlan {
        name: name.to_owned(),
        kind: ModuleKind::Linear,
        weight: weight.to_owned(),
        input: weight.to_owned(),
        output: "bf16".to_owned(),
        bytes: 1000,
        source_bytes: 2000,
    }
}

fn plan() -> Plan {
    let layers =
        [0, 1, 2, 4].map(|layer| module(&format!("model.layers.{layer}.mlp.experts.7.up_proj"), "FP8"));
    let mut modules = layers.to_vec();
    modules.push(module("model.layers.3.mlp.experts.7.up_proj", "bf16"));
    modules.push(module("lm_head", "bf16"));
    let reach =
        |pattern: &str, enables, matched| PatternReach { pattern: pattern.to_owned(), enables, matched };
    Plan {
        recipe: "general/ptq/fp8".to_owned(),
        assignment: "00ff".to_owned(),
        modules,
        coverage: Coverage {
            linears: 6,
            formats: vec![("FP8".to_owned(), 4)],
            families: vec![
                FamilyCoverage {
                    family: ModuleFamily::Experts,
                    modules: 5,
                    numerics: vec![("FP8".to_owned(), 4), ("bf16".to_owned(), 1)],
                },
                FamilyCoverage {
                    family: ModuleFamily::Head,
                    modules: 1,
                    numerics: vec![("bf16".to_owned(), 1)],
                },
            ],
            patterns: vec![
                reach("*", false, 0),
                reach("*block_sparse_moe*", true, 0),
                reach("*weight*", true, 6),
            ],
            unquantized: vec!["model.layers.3.mlp.experts.7.up_proj".to_owned(), "lm_head".to_owned()],
            kv_cache: Some(("FP8".to_owned(), 5)),
        },
        totals: Totals {
            bytes: 10_251_264,
            source_bytes: 16_270_000,
            ratio: 0.63,
            effective_bits: 9.23,
            active_bytes_per_token: 8_100_000,
            compute: 0.25,
            parameters: 8_134_000,
        },
        notes: vec![
            Note::new(Level::Warning, Topic::Router, "routers are quantized"),
            Note::new(Level::Info, Topic::Patterns, "look"),
        ],
        engines: Vec::new(),
    }
}

#[test]
fn a_plan_groups_layers_and_counts_what_matched_nothing() {
    insta::assert_snapshot!(anstream::adapter::strip_str(&show(&plan(), None)).to_string(), @r"
    modules                                     weight  input  output  bytes  source
    model.layers.{0-2,4}.mlp.experts.7.up_proj  FP8     FP8    bf16    4,000   8,000
    model.layers.3.mlp.experts.7.up_proj        bf16    bf16   bf16    1,000   2,000
    lm_head                                     bf16    bf16   bf16    1,000   2,000

    general/ptq/fp8 · 4 of 6 linears FP8, 2 as they are, KV cache FP8 in 5 layers · 10.25 MB (0.63×) · 9.2 bits · 1 pattern matched nothing
    8.1 M parameters · 10,251,264 bytes exactly · 8.1 MB a token · compute 0.250 of bf16 · assignment 00ff

    part     modules  numerics
    experts        5  4 FP8, 1 bf16
    head           1  bf16

    pattern             sets  quantizers
    *                   off            0
    *block_sparse_moe*  on          none
    *weight*            on             6

    warning: routers are quantized
    note: look
    ");
}

#[test]
fn a_single_unquantized_linear_is_named() {
    let mut plan = plan();
    plan.coverage.unquantized.remove(0);
    plan.coverage.patterns.clear();
    plan.coverage.kv_cache = None;
    assert_eq!(coverage(&plan), "4 of 6 linears FP8, lm_head bf16 · 10.25 MB (0.63×) · 9.2 bits");
}

#[test]
fn engines_are_told_with_the_rule_that_refuses() {
    let mut plan = plan();
    let verdict = |engine: Engine, answer| EngineVerdict { engine, version: "1.0".to_owned(), answer };
    let refuses = Answer::Refuses {
        rule: "`quant_algo` must be FP8".to_owned(),
        evidence: vec!["it is `INT8`".to_owned()],
    };
    plan.engines = vec![verdict(Engine::Vllm, Answer::Loads), verdict(Engine::Transformers, refuses)];
    assert!(coverage(&plan).ends_with("1 pattern matched nothing · vLLM"), "{}", coverage(&plan));
    let text = show(&plan, None);
    assert!(text.contains("vLLM 1.0          yes"), "{text}");
    assert!(text.contains("transformers 1.0  no     `quant_algo` must be FP8: it is `INT8`"), "{text}");
    plan.engines.remove(0);
    assert!(coverage(&plan).ends_with("no serving engine loads it"));
}
