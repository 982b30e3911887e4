//! What an engine does with a checkpoint, and by which rule.

use serde::{Deserialize, Serialize};

use super::{Offered, llama_cpp, sglang, tensorrt_llm, transformers, vllm};

/// A program that serves or converts checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Engine {
    /// vLLM.
    #[serde(rename = "vllm")]
    Vllm,
    /// SGLang.
    #[serde(rename = "sglang")]
    Sglang,
    /// TensorRT-LLM, its PyTorch backend.
    #[serde(rename = "tensorrt_llm")]
    TensorRtLlm,
    /// Hugging Face transformers.
    #[serde(rename = "transformers")]
    Transformers,
    /// llama.cpp, by way of its converter to GGUF.
    #[serde(rename = "llama_cpp")]
    LlamaCpp,
}

impl Engine {
    /// Every engine, servers first.
    pub const ALL: [Self; 5] =
        [Self::Vllm, Self::Sglang, Self::TensorRtLlm, Self::Transformers, Self::LlamaCpp];

    /// The name that people know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::TensorRtLlm => "TensorRT-LLM",
            Self::Transformers => "transformers",
            Self::LlamaCpp => "llama.cpp",
        }
    }

    /// The version that the rules were read from.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Vllm => vllm::VERSION,
            Self::Sglang => sglang::VERSION,
            Self::TensorRtLlm => tensorrt_llm::VERSION,
            Self::Transformers => transformers::VERSION,
            Self::LlamaCpp => llama_cpp::VERSION,
        }
    }

    /// Whether quantized checkpoints are served with it in production: the gate asks for one of these.
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang | Self::TensorRtLlm)
    }

    fn answer(self, offered: &Offered<'_>) -> Answer {
        match self {
            Self::Vllm => vllm::answer(offered),
            Self::Sglang => sglang::answer(offered),
            Self::TensorRtLlm => tensorrt_llm::answer(offered),
            Self::Transformers => transformers::answer(offered),
            Self::LlamaCpp => llama_cpp::answer(offered),
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one engine does with one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineVerdict {
    /// The engine.
    pub engine: Engine,
    /// The version whose loader the rules were read from.
    pub version: String,
    /// What it does.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What an engine does with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It loads it and reads every tensor as it is meant.
    Loads,
    /// It refuses it, or loads it and computes something else.
    Refuses {
        /// The engine's rule that is broken.
        rule: String,
        /// What breaks it.
        evidence: Vec<String>,
    },
    /// It cannot be told from what is known of the engine.
    Unknown {
        /// What is not known.
        why: String,
    },
}

impl Answer {
    pub(super) fn refuses(rule: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self::Refuses { rule: rule.into(), evidence: vec![evidence.into()] }
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }
}

impl EngineVerdict {
    /// Whether the engine loads the checkpoint.
    pub const fn loads(&self) -> bool {
        matches!(self.answer, Answer::Loads)
    }

    /// `vLLM 0.32.0`.
    pub fn named(&self) -> String {
        format!("{} {}", self.engine, self.version)
    }
}

impl std::fmt::Display for EngineVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.answer {
            Answer::Loads => write!(f, "{} loads it", self.named()),
            Answer::Refuses { rule, evidence } => {
                write!(f, "{} does not: {rule}", self.named())?;
                if evidence.is_empty() { Ok(()) } else { write!(f, " ({})", evidence.join("; ")) }
            }
            Answer::Unknown { why } => write!(f, "{}: not known, {why}", self.named()),
        }
    }
}

/// Asks every engine about a checkpoint, in the order of [`Engine::ALL`].
pub fn engines(offered: &Offered<'_>) -> Vec<EngineVerdict> {
    let ask = |engine: Engine| EngineVerdict {
        engine,
        version: engine.version().to_owned(),
        answer: engine.answer(offered),
    };
    Engine::ALL.map(ask).to_vec()
}

/// Faults found on the way, each under the rule that it breaks.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(&'static str, String)>);

impl Faults {
    pub(super) fn add(&mut self, rule: &'static str, evidence: impl Into<String>) {
        self.0.push((rule, evidence.into()));
    }

    /// The first broken rule with its evidence; `otherwise` if none is.
    pub(super) fn answer(self, otherwise: Answer) -> Answer {
        const SHOWN: usize = 3;
        let Some(&(rule, _)) = self.0.first() else { return otherwise };
        let mut evidence: Vec<String> =
            self.0.into_iter().filter(|(broken, _)| *broken == rule).map(|(_, evidence)| evidence).collect();
        let hidden = evidence.len().saturating_sub(SHOWN);
        evidence.truncate(SHOWN);
        if hidden > 0 {
            evidence.push(format!("and {hidden} more"));
        }
        Answer::Refuses { rule: rule.to_owned(), evidence }
    }
}
