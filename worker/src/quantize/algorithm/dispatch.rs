//! From a recipe's algorithm to what it does to the linears of a layer.

use qlaunch_shared::assign::algorithm::{Algorithm, Step};
use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};

use super::act_headroom::act_headroom;
use super::awq_clip::awq_clip;
use super::awq_lite::awq_lite;
use super::gptq::gptq;
use super::local_hessian::local_hessian;
use super::mse::mse;
use super::smoothquant::smoothquant;
use super::svdquant::svdquant;
use crate::calibrate::Statistics;
use crate::quantize::LinearWork;

/// Runs one algorithm on the linears of one layer, or on those that stand outside of layers; their magnitudes are those of
/// max calibration, shared where blocks are relative to a shared one.
///
/// # Errors
/// A statistic that the algorithm reads is missing, or a weight is no longer finite.
pub fn calibrate(
    step: &Step,
    linears: &mut [LinearWork],
    statistics: &Statistics,
    model: &Model,
) -> Result<()> {
    run(&step.algorithm, linears, statistics, model)
}

fn run(
    algorithm: &Algorithm,
    linears: &mut [LinearWork],
    statistics: &Statistics,
    model: &Model,
) -> Result<()> {
    match algorithm {
        Algorithm::Max(_) => Ok(()),
        Algorithm::Mse(search) => mse(linears, search, model),
        Algorithm::LocalHessian(search) => local_hessian(linears, search, statistics, model),
        Algorithm::Gptq(options) => gptq(linears, options, statistics),
        Algorithm::SmoothQuant(options) => smoothquant(linears, options, statistics),
        Algorithm::AwqLite(options) => awq_lite(linears, options, statistics),
        Algorithm::ActHeadroom(options) => {
            act_headroom(linears, options, statistics, model)?;
            run(&options.weights, linears, statistics, model)
        }
        Algorithm::SvdQuant(_) => svdquant(linears, statistics),
        Algorithm::AwqClip(options) => awq_clip(linears, options, statistics),
        Algorithm::AwqFull(options) => {
            awq_lite(linears, &options.lite, statistics)?;
            awq_clip(linears, &options.clip, statistics)
        }
    }
}

/// The error of a linear whose input nobody looked at.
pub(super) fn missing(linear: &LinearWork) -> Error {
    Error::bug("an algorithm lacks what it must know of an activation").key(linear.numerics.name.as_str())
}
