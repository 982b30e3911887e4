//! Dense row-major tensors in host memory, owned or borrowed.

use std::borrow::Cow;

use half::{bf16, f16};
use qlaunch_shared::{Error, Result};

use super::dtype::{DType, Element, round, widen};
use super::held::{Held, Pages, Unused};

/// Elements of a host tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// 32-bit floats.
    F32(Held<f32>),
    /// The upper halves of 32-bit floats.
    BF16(Held<bf16>),
    /// IEEE half precision.
    F16(Held<f16>),
}

/// Elements that somebody else owns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// The upper halves of 32-bit floats.
    BF16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

/// A dense row-major tensor in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Vec<usize>,
    data: Storage,
}

/// A dense row-major tensor whose elements somebody else owns: a mapped file, or a [`HostTensor`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    shape: &'a [usize],
    elements: Elements<'a>,
}

/// A type whose slices a host tensor can hold; implemented for `f32`, `bf16` and `f16`.
pub trait StoredElement: Element {
    /// Wraps elements.
    fn store(elements: Held<Self>) -> Storage;
    /// Large buffers of this type that no tensor uses.
    fn unused() -> &'static Unused<Self>;
    /// The elements, if they are of this type.
    fn borrow<'a>(elements: Elements<'a>) -> Option<&'a [Self]>;
    /// The elements for writing, if they are of this type.
    fn borrow_mut(storage: &mut Storage) -> Option<&mut [Self]>;
}

macro_rules! stored {
    ($($element:ty => $variant:ident),*) => {$(
        impl StoredElement for $element {
            fn store(elements: Held<Self>) -> Storage {
                Storage::$variant(elements)
            }

            fn unused() -> &'static Unused<Self> {
                static UNUSED: Unused<$element> = Unused::new();
                &UNUSED
            }

            fn borrow<'a>(elements: Elements<'a>) -> Option<&'a [Self]> {
                match elements {
                    Elements::$variant(elements) => Some(elements),
                    _ => None,
                }
            }

            fn borrow_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                match storage {
                    Storage::$variant(elements) => Some(elements),
                    _ => None,
                }
            }
        }
    )*};
}

stored!(f32 => F32, bf16 => BF16, f16 => F16);

/// Runs the same code for whichever element type `$elements` (an [`Elements`] or a [`Storage`]) holds.
macro_rules! for_each_dtype {
    ($kind:ident, $holder:expr, $name:ident => $code:expr) => {
        match $holder {
            $crate::tensor::host::$kind::F32($name) => $code,
            $crate::tensor::host::$kind::BF16($name) => $code,
            $crate::tensor::host::$kind::F16($name) => $code,
        }
    };
}

pub(crate) use for_each_dtype;

impl HostTensor {
    /// Takes ownership of `elements` in row-major order.
    ///
    /// # Errors
    /// The shape has another number of elements.
    pub fn new<E: StoredElement>(shape: impl Into<Vec<usize>>, elements: Vec<E>) -> Result<Self> {
        Self::of(shape, Held::from(elements))
    }

    /// The same of elements that may lie in a mapped file.
    ///
    /// # Errors
    /// The shape has another number of elements.
    pub(crate) fn of<E: StoredElement>(shape: impl Into<Vec<usize>>, elements: Held<E>) -> Result<Self> {
        let shape = shape.into();
        check_length(&shape, elements.len())?;
        Ok(Self { shape, data: E::store(elements) })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// `dtype` is none that models compute in.
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        let length = shape.iter().product();
        let data = match dtype {
            DType::F32 => f32::store(f32::zeros(length).into()),
            DType::BF16 => bf16::store(bf16::zeros(length).into()),
            DType::F16 => f16::store(f16::zeros(length).into()),
            other => return Err(no_model_dtype(other)),
        };
        Ok(Self { shape, data })
    }

    /// Copies little-endian bytes of any alignment, as they lie in a safetensors file.
    ///
    /// # Errors
    /// `dtype` is none that models compute in, or the bytes do not fill the shape.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Result<Self> {
        let shape = shape.into();
        let data = match dtype {
            DType::F32 => f32::store(read(bytes, f32::from_le_bytes)),
            DType::BF16 => bf16::store(read(bytes, bf16::from_le_bytes)),
            DType::F16 => f16::store(read(bytes, f16::from_le_bytes)),
            other => return Err(no_model_dtype(other)),
        };
        check_length(&shape, for_each_dtype!(Storage, &data, elements => elements.len()))?;
        if !bytes.len().is_multiple_of(dtype.size()) {
            return Err(Error::input(format!(
                "{} bytes are no whole number of {dtype} elements",
                bytes.len()
            )));
        }
        Ok(Self { shape, data })
    }

    /// A tensor where it lies in a mapped file; a copy where it is not aligned for its type there.
    ///
    /// # Errors
    /// `dtype` is none that models compute in, or the pages do not fill the shape.
    pub(super) fn mapped(dtype: DType, shape: Vec<usize>, pages: Pages) -> Result<Self> {
        if TensorView::from_bytes(dtype, &shape, pages.bytes()).is_err() {
            return Self::from_bytes(dtype, shape, pages.bytes());
        }
        let data = match dtype {
            DType::F32 => f32::store(Held::mapped(pages)),
            DType::BF16 => bf16::store(Held::mapped(pages)),
            _ => f16::store(Held::mapped(pages)),
        };
        Ok(Self { shape, data })
    }

    /// Sides, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.view().dtype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        for_each_dtype!(Storage, &self.data, elements => elements.len())
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements with their type.
    pub fn storage(&self) -> &Storage {
        &self.data
    }

    /// The elements with their type, for writing in place.
    pub fn storage_mut(&mut self) -> &mut Storage {
        &mut self.data
    }

    /// Borrows the whole tensor.
    pub fn view(&self) -> TensorView<'_> {
        let elements = match &self.data {
            Storage::F32(elements) => Elements::F32(elements),
            Storage::BF16(elements) => Elements::BF16(elements),
            Storage::F16(elements) => Elements::F16(elements),
        };
        TensorView { shape: &self.shape, elements }
    }

    /// Gives the same elements another shape.
    ///
    /// # Errors
    /// The shape has another number of elements.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        check_length(&shape, self.len())?;
        Ok(Self { shape, data: self.data })
    }

    /// The elements as `f32`; exact.
    pub fn to_f32(&self) -> Vec<f32> {
        self.view().to_f32()
    }
}

impl<'a> TensorView<'a> {
    /// Borrows `elements` in row-major order.
    ///
    /// # Errors
    /// The shape has another number of elements.
    pub fn new(shape: &'a [usize], elements: Elements<'a>) -> Result<Self> {
        check_length(shape, for_each_dtype!(Elements, elements, slice => slice.len()))?;
        Ok(Self { shape, elements })
    }

    /// Borrows little-endian bytes of a mapped file without copying them.
    ///
    /// # Errors
    /// `dtype` is none that models compute in, the bytes do not fill the shape, or they do not begin at a multiple of
    /// the element size (then [`HostTensor::from_bytes`] reads them).
    pub fn from_bytes(dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self> {
        let elements = match dtype {
            DType::F32 => Elements::F32(cast(bytes, dtype)?),
            DType::BF16 => Elements::BF16(cast(bytes, dtype)?),
            DType::F16 => Elements::F16(cast(bytes, dtype)?),
            other => return Err(no_model_dtype(other)),
        };
        Self::new(shape, elements)
    }

    /// Sides, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements with their type.
    pub fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.elements {
            Elements::F32(_) => DType::F32,
            Elements::BF16(_) => DType::BF16,
            Elements::F16(_) => DType::F16,
        }
    }

    /// The elements as little-endian bytes, where they lie if that is how they lie there.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        for_each_dtype!(Elements, self.elements, elements => match cfg!(target_endian = "little") {
            // SAFETY: `f32`, `bf16` and `f16` are all bytes, without any between them, and bytes may lie anywhere.
            true => Cow::Borrowed(unsafe { elements.align_to::<u8>() }.1),
            false => elements.iter().flat_map(|element| element.to_le_bytes()).collect(),
        })
    }

    /// A copy of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes().into_owned()
    }

    /// Copies the elements.
    pub fn to_owned(&self) -> HostTensor {
        let data = match self.elements {
            Elements::F32(elements) => f32::store(Held::copy(elements)),
            Elements::BF16(elements) => bf16::store(Held::copy(elements)),
            Elements::F16(elements) => f16::store(Held::copy(elements)),
        };
        HostTensor { shape: self.shape.to_vec(), data }
    }

    /// The elements as `f32`; exact.
    pub fn to_f32(&self) -> Vec<f32> {
        for_each_dtype!(Elements, self.elements, elements => {
            let mut wide = f32::zeros(elements.len());
            widen(elements, &mut wide);
            wide
        })
    }

    /// Rounds the elements to another type: nearest, ties to even.
    ///
    /// # Errors
    /// `dtype` is none that models compute in.
    pub fn cast(&self, dtype: DType) -> Result<HostTensor> {
        let wide = self.to_f32();
        match dtype {
            DType::F32 => HostTensor::new(self.shape, wide),
            DType::BF16 => HostTensor::new(self.shape, rounded::<bf16>(&wide)),
            DType::F16 => HostTensor::new(self.shape, rounded::<f16>(&wide)),
            other => Err(no_model_dtype(other)),
        }
    }
}

fn rounded<E: Element>(wide: &[f32]) -> Vec<E> {
    let mut narrow = E::zeros(wide.len());
    round(wide, &mut narrow);
    narrow
}

fn no_model_dtype(dtype: DType) -> Error {
    Error::input(format!("a model cannot compute in {dtype}")).hint("models in F32, BF16 and F16 can be read")
}

fn check_length(shape: &[usize], length: usize) -> Result<()> {
    let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    if expected == Some(length) {
        return Ok(());
    }
    Err(Error::input(format!("{length} elements do not fill the shape {shape:?}")))
}

/// Converts little-endian elements of `N` bytes. Those that are aligned on a machine that reads them so are copied whole.
fn read<const N: usize, E: StoredElement>(bytes: &[u8], convert: impl Fn([u8; N]) -> E) -> Held<E> {
    match cast::<E>(bytes, E::DTYPE) {
        Ok(elements) => Held::copy(elements),
        Err(_) => bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect::<Vec<E>>().into(),
    }
}

/// Reads bytes as elements where they lie.
pub(super) fn cast<E: StoredElement>(bytes: &[u8], dtype: DType) -> Result<&[E]> {
    if cfg!(target_endian = "big") {
        return Err(Error::bug("mapped tensors can be borrowed on little-endian machines only"));
    }
    // SAFETY: `StoredElement` is `f32`, `bf16` or `f16`, for which every pattern of bits is a value, and `align_to`
    // returns only the aligned part.
    let (before, elements, after) = unsafe { bytes.align_to::<E>() };
    if before.is_empty() && after.is_empty() {
        return Ok(elements);
    }
    Err(Error::input(format!("the bytes are not aligned for {dtype}, or no whole number of its elements")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_file_become_a_view_and_a_copy_of_the_same_values() {
        let tensor = HostTensor::new([2, 2], vec![1.0f32, -2.5, 3.0, f32::MIN_POSITIVE]).unwrap();
        let bytes: Vec<u8> = tensor.to_f32().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(tensor.view().to_bytes(), bytes);
        let copied = HostTensor::from_bytes(DType::F32, [2, 2], &bytes).unwrap();
        assert_eq!(copied, tensor);
        let mut shifted = vec![0u8; 1];
        shifted.extend_from_slice(&bytes);
        assert_eq!(HostTensor::from_bytes(DType::F32, [2, 2], &shifted[1..]).unwrap(), tensor);
        let narrow = tensor.view().cast(DType::BF16).unwrap();
        let raw = narrow.view().to_bytes();
        let view = TensorView::from_bytes(DType::BF16, &[2, 2], &raw).unwrap();
        assert_eq!(view, narrow.view());
        assert_eq!(view.to_f32(), tensor.to_f32());
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        assert!(HostTensor::new([2, 3], vec![0.0f32; 5]).is_err());
        assert!(HostTensor::from_bytes(DType::F32, [1], &[0; 5]).is_err());
        assert!(HostTensor::from_bytes(DType::F32, [usize::MAX, 2], &[0; 4]).is_err());
        let tensor = HostTensor::new([2, 3], vec![0.0f32; 6]).unwrap();
        assert_eq!(tensor.clone().reshape([6]).unwrap().shape(), [6]);
        assert!(tensor.reshape([4]).is_err());
    }

    #[test]
    fn types_that_no_model_computes_in_are_refused_by_name() {
        let error = HostTensor::from_bytes(DType::F8E4M3, [1], &[0]).unwrap_err();
        assert!(error.message.contains("F8_E4M3"), "{error}");
    }
}
