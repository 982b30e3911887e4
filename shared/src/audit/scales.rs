//! Scales: every planned scale is there, finite and positive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::gates::{Findings, Subject};
use crate::checkpoint::{DType, Header, TensorEntry};
use crate::{Error, Result};

/// Scales are read in pieces of this many bytes, whatever the size of the model.
const PIECE: usize = 1 << 20;

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let planned = subject.resolved.tensors.iter().flat_map(|module| &module.tensors);
    let mut checked = 0usize;
    for scale in planned.filter(|tensor| is_scale(&tensor.name)) {
        let Some((header, tensor)) = subject.files.find(&scale.name) else {
            findings.fault(format!("`{}` is missing", scale.name));
            continue;
        };
        checked += 1;
        if (tensor.dtype, &tensor.shape) != (scale.dtype, &scale.shape) {
            findings.fault(format!(
                "`{}` is {} {:?}, planned {} {:?}",
                scale.name, tensor.dtype, tensor.shape, scale.dtype, scale.shape
            ));
            continue;
        }
        match worst(header, tensor) {
            Ok(None) => {}
            Ok(Some(value)) => findings.fault(format!("`{}` holds {value}", scale.name)),
            Err(error) => findings.fault(error.to_string()),
        }
    }
    findings
        .note(format!("{checked} scale tensors, all of them present, finite and positive where not named"));
    findings
}

fn is_scale(name: &str) -> bool {
    let suffix = name.rsplit('.').next().unwrap_or_default();
    matches!(
        suffix,
        "weight_scale" | "weight_scale_2" | "input_scale" | "pre_quant_scale" | "k_scale" | "v_scale"
    )
}

/// The first scale that is not finite and positive, as a person writes it.
fn worst(header: &Header, tensor: &TensorEntry) -> Result<Option<String>> {
    let failed = |error: std::io::Error| Error::io("read the scale", &header.path, &error);
    let mut file = File::open(&header.path).map_err(failed)?;
    file.seek(SeekFrom::Start(tensor.offset)).map_err(failed)?;
    let mut left = tensor.length as usize;
    let mut piece = vec![0u8; PIECE.min(left)];
    while left > 0 {
        let now = PIECE.min(left);
        file.read_exact(&mut piece[..now]).map_err(failed)?;
        left -= now;
        let bad = match tensor.dtype {
            DType::F32 => piece[..now]
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .find(|scale| !(scale.is_finite() && *scale > 0.0))
                .map(|scale| scale.to_string()),
            // The 16-bit formats of factors on inputs; smoothing never turns a sign.
            DType::BF16 | DType::F16 => piece[..now]
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| (u16::from_le_bytes(*bytes), tensor.dtype))
                .find(|(bits, dtype)| {
                    *bits == 0 || *bits >= if *dtype == DType::BF16 { 0x7f80 } else { 0x7c00 }
                })
                .map(|(bits, dtype)| format!("the {dtype} bits {bits:#06x}")),
            // Powers of two: 0xff is NaN.
            DType::U8 => {
                piece[..now].iter().find(|&&code| code == 0xff).map(|_| "a scale that is NaN".to_owned())
            }
            // E4M3: 0x7f is NaN, zero and the sign bit have no business in a scale.
            _ => piece[..now]
                .iter()
                .find(|&&code| code == 0 || code >= 0x7f)
                .map(|code| format!("the E4M3 code {code:#04x}")),
        };
        if bad.is_some() {
            return Ok(bad);
        }
    }
    Ok(None)
}
