//! What the quality report says of linears whose statistics or weights are not what they should be.

use qlaunch_shared::model::{Model, Projection};
use qlaunch_shared::numerics::Format;

use crate::calibrate::{StandIn, Statistics};
use crate::quantize::LinearWork;

/// Says of the linears of experts without tokens what stands in for their statistics.
pub(super) fn remark_on_silent(linears: &mut [LinearWork], statistics: &Statistics, model: &Model) {
    for linear in linears {
        let part = &model.modules[linear.numerics.module];
        let Some(expert) = part.layer.zip(part.expert()) else { continue };
        let is_down = part.projection == Some(Projection::Down);
        let words = match (statistics.silent.get(&expert), is_down) {
            (Some(StandIn::Peers), false) => "the other experts of the layer stand in",
            (Some(StandIn::Peers), true) => "its own weights and the layer's input scale stand in",
            (Some(StandIn::Weights), _) => "its weights stand in for what it would have seen",
            (None | Some(StandIn::Shown(_) | StandIn::NotNeeded), _) => continue,
        };
        linear.remark("calibration", "no_tokens", words);
    }
}

/// Says of a weight of nothing but zeros what becomes of its scale.
pub(super) fn remark_on_zeros(linear: &mut LinearWork) {
    let (format, found) = (linear.numerics.weight, &linear.magnitudes);
    // Formats that are scaled by the values at hand keep no magnitudes, and zeros are nothing special to them.
    let is_kept = !found.fine.is_empty() || format.has_tensor_scale();
    if !is_kept || found.tensor != 0.0 || found.fine.iter().any(|amax| *amax != 0.0) {
        return;
    }
    match format {
        Format::Fp8 | Format::Nvfp4 { .. } => {
            linear.remark(
                "max",
                "nan_avoided",
                "the weight is all zeros: its scale would be 0, and its codes NaN",
            );
        }
        _ => linear.remark(
            "max",
            "zero_amax",
            "the weight is all zeros: its scale is that of the largest code",
        ),
    }
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::assign::{LinearNumerics, Smoothing};

    use super::*;
    use crate::tensor::DType;
    use crate::tensor::host::HostTensor;

    fn remarks(format: Format, weight: HostTensor) -> Vec<String> {
        let numerics = LinearNumerics {
            module: 0,
            name: "linear".to_owned(),
            weight: format,
            input: None,
            smoothing: Smoothing::None,
            low_rank: None,
            shared: None,
        };
        let mut linear = LinearWork::new(numerics, weight, None).unwrap();
        remark_on_zeros(&mut linear);
        linear.remarks.into_iter().map(|remark| remark.what).collect()
    }

    #[test]
    fn a_weight_of_zeros_is_told_and_one_element_is_enough_to_be_none() {
        let zeros = || HostTensor::zeros(DType::BF16, [32, 128]).unwrap();
        for (format, what) in [
            (Format::Fp8, "nan_avoided"),
            (Format::NVFP4, "nan_avoided"),
            (Format::Int8Channel, "zero_amax"),
            (Format::Int4 { block: 128 }, "zero_amax"),
        ] {
            assert_eq!(remarks(format, zeros()), [what], "{format}");
        }
        assert!(remarks(Format::Mxfp8, zeros()).is_empty());
        let mut values = vec![0f32; 32 * 128];
        values[77] = -0.5;
        let weight = HostTensor::new::<f32>([32, 128], values).unwrap().view().cast(DType::BF16).unwrap();
        assert!(remarks(Format::Fp8, weight).is_empty());
    }
}
