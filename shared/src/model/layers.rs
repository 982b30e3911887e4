//! The modules of a decoder in the order that PyTorch walks them.

use std::sync::Arc;

use super::{Experts, Family, FusedGroup, ModelConfig, Module, ModuleRole, Part, Projection};

/// All modules of a model, attentions included, in PyTorch's order. Experts stand one by one, whether the source keeps them so
/// or fused.
pub fn modules_of(config: &ModelConfig) -> Vec<Module> {
    let embedding = ModuleRole::Embedding { rows: config.vocabulary, columns: config.hidden_size };
    let head = ModuleRole::linear(config.vocabulary, config.hidden_size);
    let norm = ModuleRole::Norm { width: config.hidden_size };
    let mut modules = vec![Module::new("model.embed_tokens", embedding, Part::Embedding)];
    for layer in 0..config.layers {
        Layer { config, layer, modules: &mut modules }.add();
    }
    modules.push(Module::new("model.norm", norm, Part::Norm));
    modules.push(Module::new("lm_head", head, Part::Head));
    modules
}

/// One decoder layer, whose modules are added to the list.
struct Layer<'a> {
    config: &'a ModelConfig,
    layer: usize,
    modules: &'a mut Vec<Module>,
}

impl Layer<'_> {
    fn add(mut self) {
        let hidden = ModuleRole::Norm { width: self.config.hidden_size };
        self.add_attention();
        match self.config.experts_of(self.layer) {
            Some(experts) => self.add_experts(experts),
            None => self.add_mlp(),
        }
        self.push("input_layernorm", hidden, Part::Norm);
        self.push("post_attention_layernorm", hidden, Part::Norm);
    }

    fn push(&mut self, name: &str, role: ModuleRole, part: Part) -> &mut Module {
        let layer = self.layer;
        let module = Module::new(format!("model.layers.{layer}.{name}"), role, part);
        self.modules.push(Module { layer: Some(layer), ..module });
        let last = self.modules.len() - 1;
        &mut self.modules[last]
    }

    fn add_attention(&mut self) {
        let config = self.config;
        let (hidden, head) = (config.hidden_size, ModuleRole::Norm { width: config.head_dim });
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        self.push("self_attn", ModuleRole::Attention, Part::Attention);
        for (name, projection, rows) in [
            ("self_attn.q_proj", Projection::Query, query),
            ("self_attn.k_proj", Projection::Key, key),
            ("self_attn.v_proj", Projection::Value, key),
        ] {
            let role = ModuleRole::Linear { rows, columns: hidden, group: Some(FusedGroup::Qkv) };
            self.push(name, role, Part::Attention).projection = Some(projection);
        }
        let output = self.push("self_attn.o_proj", ModuleRole::linear(hidden, query), Part::Attention);
        output.projection = Some(Projection::Output);
        if config.family.has_head_norms() {
            self.push("self_attn.q_norm", head, Part::Attention);
            self.push("self_attn.k_norm", head, Part::Attention);
        }
    }

    fn add_mlp(&mut self) {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let wide = ModuleRole::Linear { rows: inner, columns: hidden, group: Some(FusedGroup::GateUp) };
        for (name, projection, role) in [
            ("mlp.gate_proj", Projection::Gate, wide),
            ("mlp.up_proj", Projection::Up, wide),
            ("mlp.down_proj", Projection::Down, ModuleRole::linear(hidden, inner)),
        ] {
            self.push(name, role, Part::Mlp).projection = Some(projection);
        }
    }

    fn add_experts(&mut self, experts: &Experts) {
        let family = self.config.family;
        let router = ModuleRole::linear(experts.count, self.config.hidden_size);
        let block = family.expert_block();
        // PyTorch walks attributes in the order in which a class's constructor sets them.
        let router_first = family == Family::Mixtral;
        if router_first {
            self.push(&format!("{block}.gate"), router, Part::Router);
        }
        let (hidden, inner) = (self.config.hidden_size, experts.intermediate_size);
        let container: Arc<str> = format!("model.layers.{}.mlp.experts", self.layer).into();
        let [gate, up, down] = family.expert_projections();
        for expert in 0..experts.count as u32 {
            let wide =
                ModuleRole::Linear { rows: inner, columns: hidden, group: Some(FusedGroup::Expert(expert)) };
            for (name, projection, role) in [
                (gate, Projection::Gate, wide),
                (up, Projection::Up, wide),
                (down, Projection::Down, ModuleRole::linear(hidden, inner)),
            ] {
                let name = format!("{block}.experts.{expert}.{name}");
                let module = self.push(&name, role, Part::Expert(expert));
                module.projection = Some(projection);
                module.container = Some(Arc::clone(&container));
            }
        }
        if !router_first {
            self.push(&format!("{block}.gate"), router, Part::Router);
        }
    }
}
