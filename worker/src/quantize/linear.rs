//! One linear on its way from the source's weight to the tensors that store it.

use qlaunch_shared::assign::{Amax, LinearNumerics};
use qlaunch_shared::{Error, Result};

use super::{
    Magnitudes, StoredBytes, activation_scale, magnitudes, quantize_weight, quantize_weight_on,
    simulate_weight,
};
use crate::ops::Coder;
use crate::tensor::dtype::widen;
use crate::tensor::host::{HostTensor, for_each_dtype};

/// What is known of a linear while algorithms choose its scales and change its weight.
#[derive(Debug, Clone)]
pub struct LinearWork {
    /// What the recipe asks for.
    pub numerics: LinearNumerics,
    /// `[rows, columns]` in the model's type; smoothing, GPTQ and low-rank branches change it.
    pub weight: HostTensor,
    /// `[rows]`; changes only where a following linear's smoothing is folded into this one.
    pub bias: Option<HostTensor>,
    /// What the weight's scales are made of.
    pub magnitudes: Magnitudes,
    /// What the input's scale is made of: the largest magnitude of the smoothed input; `None` where nothing is stored or
    /// nothing was seen.
    pub input_amax: Option<f32>,
    /// Factors on the input, `[columns]`, f32; the weight holds their inverse already.
    pub pre_quant_scale: Option<Vec<f32>>,
    /// What rows were multiplied with to take over the factors of a following linear, `[rows]`.
    pub row_factors: Option<Vec<f32>>,
    /// The unquantized branch beside the weight.
    pub low_rank: Option<LowRank>,
    /// What algorithms chose or had to give up, for the report.
    pub remarks: Vec<Remark>,
}

/// `y += (x · aᵀ) · bᵀ` with `a` `[rank, columns]` and `b` `[rows, rank]`, in the model's type.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, columns]`.
    pub a: HostTensor,
    /// `[rows, rank]`.
    pub b: HostTensor,
}

/// Something that an algorithm chose for one linear, or could not do.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Remark {
    /// The algorithm.
    pub algorithm: String,
    /// What is told: `alpha`, `clip_ratio`, `fallback`, ….
    pub what: String,
    /// Its value, or the reason of a fallback.
    pub value: String,
}

impl LinearWork {
    /// A linear with scales from its largest magnitudes.
    ///
    /// # Errors
    /// The weight is not finite, or the format does not fit it.
    pub fn new(numerics: LinearNumerics, weight: HostTensor, bias: Option<HostTensor>) -> Result<Self> {
        let found = magnitudes(weight.view(), numerics.weight)
            .map_err(|e| e.key(format!("{}.weight", numerics.name)))?;
        Ok(Self {
            numerics,
            weight,
            bias,
            magnitudes: found,
            input_amax: None,
            pre_quant_scale: None,
            row_factors: None,
            low_rank: None,
            remarks: Vec::new(),
        })
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        match *self.weight.shape() {
            [rows, columns] => [rows, columns],
            _ => [0, 0],
        }
    }

    /// Rows `begin..end` of the weight, in f32; exact.
    pub fn rows_f32(&self, begin: usize, end: usize) -> Vec<f32> {
        let [_, columns] = self.shape();
        for_each_dtype!(Storage, self.weight.storage(), elements => {
            let elements = &elements[begin * columns..end * columns];
            let mut wide = vec![0f32; elements.len()];
            widen(elements, &mut wide);
            wide
        })
    }

    /// Finds the magnitudes of the weight anew, after it was changed.
    ///
    /// # Errors
    /// It is no longer finite.
    pub fn measure_again(&mut self) -> Result<()> {
        self.magnitudes = magnitudes(self.weight.view(), self.numerics.weight)
            .map_err(|e| e.key(format!("{}.weight", self.numerics.name)))?;
        Ok(())
    }

    /// Notes a choice or a fallback.
    pub fn remark(&mut self, algorithm: &str, what: &str, value: impl ToString) {
        self.remarks.push(Remark {
            algorithm: algorithm.to_owned(),
            what: what.to_owned(),
            value: value.to_string(),
        });
    }

    /// The weight as an engine multiplies with it, `[rows, columns]` in the model's type.
    ///
    /// # Errors
    /// The magnitudes do not go with the weight, which is a bug.
    pub fn served(&self) -> Result<HostTensor> {
        let mut values = self.weight.to_f32();
        simulate_weight(&mut values, self.shape(), self.numerics.weight, &self.magnitudes)?;
        HostTensor::new::<f32>(self.shape(), values)?.view().cast(self.weight.dtype())
    }

    /// The tensors that store it: suffix and little-endian bytes. The codes are made by `coder` where there is one.
    ///
    /// # Errors
    /// A scale cannot be made, or an input that needs one was never seen.
    pub fn store(&self, coder: Option<&dyn Coder>) -> Result<Vec<StoredBytes>> {
        let name = self.numerics.name.as_str();
        let (weight, format) = (self.weight.view(), self.numerics.weight);
        let parts = match coder {
            Some(coder) => quantize_weight_on(coder, weight, format, &self.magnitudes),
            None => quantize_weight(weight, format, &self.magnitudes),
        };
        let mut parts = parts.map_err(|e| e.key(name))?;
        if let Some(input) = self.numerics.input.filter(|input| input.amax != Amax::Dynamic) {
            let amax =
                self.input_amax.ok_or_else(|| Error::bug("an activation was never calibrated").key(name))?;
            parts.push(("input_scale", activation_scale(input.format, amax).to_le_bytes().to_vec()));
        }
        if let (Some(factors), qlaunch_shared::assign::Smoothing::Stored) =
            (&self.pre_quant_scale, self.numerics.smoothing)
        {
            let factors = HostTensor::new::<f32>([factors.len()], factors.clone())?;
            let factors = factors.view().cast(self.weight.dtype())?;
            parts.push(("pre_quant_scale", factors.view().to_bytes()));
        }
        if let Some(branch) = &self.low_rank {
            parts.push(("weight_quantizer._svdquant_lora_a", branch.a.view().to_bytes()));
            parts.push(("weight_quantizer._svdquant_lora_b", branch.b.view().to_bytes()));
        }
        if let Some(bias) = &self.bias {
            parts.push(("bias", bias.view().to_bytes()));
        }
        Ok(parts)
    }
}
