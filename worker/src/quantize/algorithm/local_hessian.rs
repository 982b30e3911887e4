//! The search of `mse` by what errors do to outputs: each block of columns weighs its differences with the products of its
//! channels (modelopt.md §4.3).

use qlaunch_shared::Result;
use qlaunch_shared::assign::algorithm::Search;
use qlaunch_shared::model::Model;

use super::metric::BlockHessians;
use super::mse::search_all;
use crate::calibrate::Statistics;
use crate::quantize::LinearWork;

/// Searches the magnitudes of all weights by the error of outputs, block by block; by squared error where the input was
/// never seen or blocks do not fill the columns, which a remark says.
///
/// # Errors
/// None today.
pub(super) fn local_hessian(
    linears: &mut [LinearWork],
    search: &Search,
    statistics: &Statistics,
    model: &Model,
) -> Result<()> {
    let grams = |linear: &LinearWork| {
        let grams = statistics.inputs.get(&linear.numerics.module)?.block_grams.as_deref()?;
        (grams.columns == linear.shape()[1] && grams.width == search.block_size).then_some(grams)
    };
    search_all(linears, search, model, &|linear| BlockHessians::of(grams(linear)?))?;
    for linear in linears {
        if !linear.shape()[1].is_multiple_of(search.block_size.max(1)) {
            linear.remark(
                "local_hessian",
                "fallback",
                "blocks do not fill the columns: squared errors instead",
            );
        } else if grams(linear).is_none_or(|grams| grams.tokens == 0) {
            linear.remark("local_hessian", "no_tokens", "squared errors instead");
        }
    }
    Ok(())
}
