//! Block sizes and affine bias of a quantizer: mappings of axes to numbers, with a few named keys among them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attributes::{NumBits, Scaling};
use super::field::Field;

/// How a tensor is cut into blocks that share a scale (ModelOpt 0.47's `block_sizes`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSizes {
    /// Elements per block along each axis, negative axes counting from the last; `None` is the whole axis.
    pub axes: BTreeMap<i64, Option<i64>>,
    /// Whether the scales of blocks are stored or computed from the values at hand; static when not given.
    pub scaling: Option<Scaling>,
    /// Numerics of the scales themselves; floats as they are when not given.
    pub scale_bits: Option<NumBits>,
    /// Blocks of scales that share a scale, by axis.
    pub scale_block_sizes: Option<BTreeMap<i64, i64>>,
    /// Whether blocks may choose to end at 4 instead of 6, as 0 or 1.
    pub four_over_six: Option<i64>,
}

impl BlockSizes {
    const NAMED: [&str; 4] = ["type", "scale_bits", "scale_block_sizes", "four_over_six"];

    /// Block length along the last axis, if that is the only blocked axis and the block is not the whole axis.
    pub fn along_last(&self) -> Option<i64> {
        match self.axes.iter().next() {
            Some((-1, Some(size))) if self.axes.len() == 1 => Some(*size),
            _ => None,
        }
    }

    /// Whether the scales are computed from the values at hand.
    pub fn is_dynamic(&self) -> bool {
        self.scaling == Some(Scaling::Dynamic)
    }

    /// Whether blocks may choose to end at 4 instead of 6.
    pub fn is_four_over_six(&self) -> bool {
        self.four_over_six.is_some_and(|flag| flag != 0)
    }
}

impl Serialize for BlockSizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (axis, size) in &self.axes {
            map.serialize_entry(&axis.to_string(), size)?;
        }
        if let Some(flag) = &self.four_over_six {
            map.serialize_entry("four_over_six", flag)?;
        }
        if let Some(bits) = &self.scale_bits {
            map.serialize_entry("scale_bits", bits)?;
        }
        if let Some(sizes) = &self.scale_block_sizes {
            map.serialize_entry("scale_block_sizes", sizes)?;
        }
        if let Some(scaling) = &self.scaling {
            map.serialize_entry("type", scaling)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for BlockSizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Blocks;
        impl<'de> Visitor<'de> for Blocks {
            type Value = BlockSizes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of axes to block sizes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BlockSizes, A::Error> {
                let mut blocks = BlockSizes::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => blocks.scaling = Some(map.next_value()?),
                        "scale_bits" => blocks.scale_bits = Some(map.next_value()?),
                        "scale_block_sizes" => {
                            // Behind an untagged enum, keys that are numbers arrive as text.
                            let sizes: BTreeMap<String, i64> = map.next_value()?;
                            let sizes =
                                sizes.into_iter().map(|(key, size)| Ok((axis::<A::Error>(&key, &[])?, size)));
                            blocks.scale_block_sizes = Some(sizes.collect::<Result<_, _>>()?);
                        }
                        "four_over_six" => blocks.four_over_six = Some(map.next_value::<Flag>()?.0),
                        _ => {
                            let axis = axis::<A::Error>(&key, &BlockSizes::NAMED)?;
                            blocks.axes.insert(axis, map.next_value()?);
                        }
                    }
                }
                Ok(blocks)
            }
        }
        deserializer.deserialize_map(Blocks)
    }
}

/// A boolean that is kept as 0 or 1, as ModelOpt prints it.
struct Flag(i64);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true or false")]
        enum Written {
            Switch(bool),
            Number(i64),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Switch(flag) => Self(i64::from(flag)),
            Written::Number(number) => Self(number),
        })
    }
}

/// The offset of an affine quantizer, reduced over the listed axes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bias {
    /// Axes that are reduced; the numbers say nothing.
    pub axes: BTreeMap<i64, Option<i64>>,
    /// Whether it is stored or computed from the values at hand.
    pub scaling: Option<Scaling>,
    /// How it is found.
    pub method: Option<BiasMethod>,
}

/// How the offset of an affine quantizer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasMethod {
    /// The mean of the values.
    Mean,
    /// The middle between the largest and the smallest value.
    MaxMin,
}

impl Serialize for Bias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (axis, number) in &self.axes {
            map.serialize_entry(&axis.to_string(), number)?;
        }
        if let Some(method) = &self.method {
            map.serialize_entry("method", method)?;
        }
        if let Some(scaling) = &self.scaling {
            map.serialize_entry("type", scaling)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Offset;
        impl<'de> Visitor<'de> for Offset {
            type Value = Bias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of the axes to reduce")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bias, A::Error> {
                let mut bias = Bias::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => bias.scaling = Some(map.next_value()?),
                        "method" => bias.method = Some(map.next_value()?),
                        _ => {
                            let axis = axis::<A::Error>(&key, &["type", "method"])?;
                            bias.axes.insert(axis, map.next_value()?);
                        }
                    }
                }
                Ok(bias)
            }
        }
        deserializer.deserialize_map(Offset)
    }
}

fn axis<E: serde::de::Error>(key: &str, named: &'static [&'static str]) -> Result<i64, E> {
    key.parse().map_err(|_| E::unknown_field(key, named))
}

/// The attribute that is wrong, and why.
pub(super) fn check_blocks(axis: &Field<super::attributes::Axis>, blocks: &BlockSizes) -> Result<(), String> {
    if axis.value().is_some() {
        return Err("`axis` and `block_sizes` exclude each other".to_owned());
    }
    if blocks.is_dynamic() && blocks.axes.len() != 1 {
        return Err("blocks of `type: dynamic` run along exactly one axis".to_owned());
    }
    match blocks.axes.values().flatten().find(|size| **size < 1) {
        Some(size) => Err(format!("a block of {size} elements is not possible")),
        None => Ok(()),
    }
}
